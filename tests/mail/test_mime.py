"""A mail's bytes: read back by the standard library, they are what went in, and nothing more."""

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail import Envelope, InvalidHeader, Mailbox, parse_mailbox
from service.mail.mime import LINE_BYTES_MAX, encode

ENVELOPE = Envelope(
    message_id="<0189.7@service.example>",
    date=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    sender=Mailbox("Countersign", "no-reply@service.example"),
    recipient="ada@example.org",
)
FORBIDDEN = ["a\r\nBcc: eve@example.org", "a\nb", "a\rb", "a\x00b", "a\x1fb", "a\x85b", "a\u2028b"]


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    return message


def bodies(message: EmailMessage) -> list[tuple[str, str]]:
    return [(part.get_content_type(), part.get_content()) for part in message.iter_parts()]


def test_mail_of_ascii_is_this_to_the_byte() -> None:
    assert encode(ENVELOPE, "Hello", "Hello Ada.\n", "<p>Hello Ada.</p>\n") == (
        b"From: Countersign <no-reply@service.example>\r\n"
        b"To: ada@example.org\r\n"
        b"Subject: Hello\r\n"
        b"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n"
        b"Message-ID: <0189.7@service.example>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"X-Auto-Response-Suppress: All\r\n"
        b'Content-Type: multipart/alternative; boundary="=_BOUNDARY"\r\n'
        b"\r\n"
        b"--=_BOUNDARY\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello Ada.\r\n"
        b"\r\n"
        b"--=_BOUNDARY\r\n"
        b'Content-Type: text/html; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"<p>Hello Ada.</p>\r\n"
        b"\r\n"
        b"--=_BOUNDARY--\r\n"
    ).replace(b"BOUNDARY", b"e96fb12edda71c129069d691cd830c99")


def test_everything_is_read_back_as_it_went_in() -> None:
    sender = Mailbox("Gegenzeichnung für Ämter", "no-reply@service.example")
    message = read(
        encode(
            replace(ENVELOPE, sender=sender),
            "Bestätigen Sie Ihre Adresse, bitte",
            "Grüße,\n.\nFrom here on…\n",
            "<p>Grüße €</p>\n",
        )
    )
    assert message.items() == [
        ("From", "Gegenzeichnung für Ämter <no-reply@service.example>"),
        ("To", "ada@example.org"),
        ("Subject", "Bestätigen Sie Ihre Adresse, bitte"),
        ("Date", "Fri, 02 Jan 2026 03:04:05 +0000"),
        ("Message-ID", "<0189.7@service.example>"),
        ("MIME-Version", "1.0"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Auto-Response-Suppress", "All"),
        ("Content-Type", message["Content-Type"]),
    ]
    assert bodies(message) == [
        ("text/plain", "Grüße,\r\n.\r\nFrom here on…\r\n"),
        ("text/html", "<p>Gr&#252;&#223;e &#8364;</p>\r\n"),
    ]


def test_address_that_needs_smtputf8_stands_in_to_as_it_is() -> None:
    content = encode(replace(ENVELOPE, recipient="åsa@example.org"), "Hello", "a\n", "b\n")
    assert "\r\nTo: åsa@example.org\r\n".encode() in content
    assert read(content)["To"] == "åsa@example.org"


@pytest.mark.parametrize("line", ["x" * 998, "x" * 999, "x" * 100_000, "ü" * 50_000])
def test_no_line_is_longer_than_smtp_takes(line: str) -> None:
    content = encode(ENVELOPE, "Hello", f"{line}\n", f"<p>{line}</p>\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    text, html = bodies(read(content))
    assert text == ("text/plain", f"{line}\r\n")
    assert html == ("text/html", f"<p>{line.replace('ü', '&#252;')}</p>\r\n")


@given(st.lists(st.sampled_from([0, 1, 400, 996, 997, 998, 999, 1_000, 1_001, 2_500]), min_size=1))
def test_part_is_sent_as_it_is_if_each_of_its_lines_fits(lengths: list[int]) -> None:
    text = "\n".join("x" * length for length in lengths)
    plain, _ = read(encode(ENVELOPE, "Hello", text, "h")).iter_parts()
    encoding = "7bit" if max(lengths) <= LINE_BYTES_MAX else "quoted-printable"
    assert plain["Content-Transfer-Encoding"] == encoding


def test_all_line_ends_are_crlf() -> None:
    content = encode(ENVELOPE, "Hello", "a\nb\rc\r\nd", "a\nb\rc\r\nd")
    assert bodies(read(content)) == [
        ("text/plain", "a\r\nb\r\nc\r\nd"),
        ("text/html", "a\r\nb\r\nc\r\nd"),
    ]
    assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")


def test_body_cannot_end_its_own_part() -> None:
    boundary = b"--" + encode(ENVELOPE, "Hello", "", "").split(b'boundary="')[1].split(b'"')[0]
    text = f"before\n{boundary.decode()}--\nafter\n"
    content = encode(ENVELOPE, "Hello", text, text)
    assert bodies(read(content)) == [
        ("text/plain", text.replace("\n", "\r\n")),
        ("text/html", text.replace("\n", "\r\n")),
    ]


def test_repeated_mail_differs_in_its_date_alone() -> None:
    later = replace(ENVELOPE, date=ENVELOPE.date + timedelta(days=1))
    first, second = (encode(one, "Hello", "Grüße\n", "<p>") for one in (ENVELOPE, later))
    assert encode(ENVELOPE, "Hello", "Grüße\n", "<p>") == first
    assert second == first.replace(b"Fri, 02 Jan", b"Sat, 03 Jan")


def test_date_is_told_in_utc() -> None:
    there = ENVELOPE.date.astimezone(timezone(timedelta(hours=14)))
    assert encode(replace(ENVELOPE, date=there), "s", "t", "h") == encode(ENVELOPE, "s", "t", "h")


def test_date_without_time_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="date: 2026-01-02 03:04:05 has no time zone"):
        encode(replace(ENVELOPE, date=ENVELOPE.date.replace(tzinfo=None)), "s", "t", "h")


@pytest.mark.parametrize("value", FORBIDDEN)
def test_header_s_value_cannot_end_the_header(value: str) -> None:
    for envelope, subject in (
        (ENVELOPE, value),
        (replace(ENVELOPE, sender=Mailbox(value, "a@example.org")), "s"),
        (replace(ENVELOPE, sender=Mailbox("A", f"{value}@example.org")), "s"),
        (replace(ENVELOPE, recipient=f"{value}@example.org"), "s"),
        (replace(ENVELOPE, message_id=f"<{value}@example.org>"), "s"),
    ):
        with pytest.raises(InvalidHeader):
            encode(envelope, subject, "t", "h")


@pytest.mark.parametrize(
    "recipient",
    ["", "ada", "ada@", "ada@example.org,eve@example.org", "Ada <ada@example.org>", "a b@c.org"],
)
def test_to_names_one_plain_address(recipient: str) -> None:
    with pytest.raises(InvalidHeader, match="To: the value is not of the form"):
        encode(replace(ENVELOPE, recipient=recipient), "s", "t", "h")


@pytest.mark.parametrize(
    "message_id", ["", "a@b.org", "<a@b", "<a b@c.org>", f"<{'a' * 121}@b.org>"]
)
def test_message_id_has_brackets_and_a_bounded_length(message_id: str) -> None:
    with pytest.raises(InvalidHeader, match="Message-ID: the value is not of the form"):
        encode(replace(ENVELOPE, message_id=message_id), "s", "t", "h")


def test_header_s_length_is_bounded() -> None:
    with pytest.raises(InvalidHeader, match="Subject: 201 characters, at most 200 allowed"):
        encode(ENVELOPE, "s" * 201, "t", "h")
    with pytest.raises(InvalidHeader, match="From: 101 characters, at most 100 allowed"):
        encode(replace(ENVELOPE, sender=Mailbox("n" * 101, "a@example.org")), "s", "t", "h")


def head_line(head: bytes, header: str) -> str:
    """Return a header's value, unfolded."""
    unfolded = head.replace(b"\r\n ", b" ").decode()
    return dict(line.split(": ", 1) for line in unfolded.split("\r\n"))[header]


VISIBLE = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=100
).map(lambda text: " ".join(text.split()))


@given(subject=VISIBLE, name=VISIBLE.filter(bool))
def test_any_visible_subject_and_name_come_back(subject: str, name: str) -> None:
    envelope = replace(ENVELOPE, sender=Mailbox(name, "a@example.org"))
    content = encode(envelope, subject, "t\n", "h\n")
    head = content.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    message = read(content)
    assert message["Subject"] == subject
    # Read by the older interface: the newer one of Python 3.11 puts a blank between two adjacent
    # encoded words of a display name, against RFC 2047 6.2.
    shown, _, address = str(make_header(decode_header(head_line(head, "From")))).rpartition("<")
    assert (unquote(shown.strip()), address) == (name, "a@example.org>")


@given(text=st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_text_comes_back(text: str) -> None:
    plain, _ = bodies(read(encode(ENVELOPE, "s", text, "h")))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert plain == ("text/plain", "\r\n".join(lines))


@pytest.mark.parametrize("text", ["é" * 100, "x" * 1_200, "é" * 100 + "\n", "short"])
def test_all_lines_end_in_crlf_also_of_a_text_that_is_one_line(text: str) -> None:
    content = encode(ENVELOPE, "Hello", text, text)
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("Countersign <no-reply@localhost>", Mailbox("Countersign", "no-reply@localhost")),
        ("no-reply@example.org", Mailbox("", "no-reply@example.org")),
        ('"Smith, Jane" <jane@example.org>', Mailbox("Smith, Jane", "jane@example.org")),
        ("Bücher GmbH <info@example.org>", Mailbox("Bücher GmbH", "info@example.org")),
    ],
)
def test_mailbox_is_read_and_written_back(text: str, mailbox: Mailbox) -> None:
    assert parse_mailbox(text) == mailbox
    (address,) = read(encode(replace(ENVELOPE, sender=mailbox), "s", "t", "h"))["From"].addresses
    assert Mailbox(address.display_name, address.addr_spec) == mailbox


@pytest.mark.parametrize(
    "text", ["", "Countersign", "A <a@b>, B <b@b>", "A <a@b\r\nBcc: c@d>", "<a b@c>"]
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(InvalidHeader, match="is not of the form Name <address>"):
        parse_mailbox(text)
