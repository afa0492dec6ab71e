"""The mail catcher: what it keeps, what it shows, and that a mail cannot take over its page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser

import aiosmtplib
import pytest

from service.demo.inbox import MESSAGE_BYTES_MAX, PAGE_MESSAGES_MAX, Inbox, MailCatcher

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = '"><script>alert(1)</script>'


def mail(subject: str = "Welcome", text: str = "Hello", html: str | None = None) -> bytes:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message.as_bytes()


@pytest.fixture
async def catcher() -> AsyncIterator[MailCatcher]:
    async with MailCatcher(Inbox(now=lambda: NOON)) as catcher:
        yield catcher


def client(catcher: MailCatcher) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=catcher.port,
        use_tls=False,
        start_tls=False,
        local_hostname="localhost",
    )


async def test_a_mail_sent_is_a_mail_kept(catcher: MailCatcher) -> None:
    async with client(catcher) as smtp:
        await smtp.sendmail(
            "no-reply@example.org",
            ["ada@example.org", "bob@example.org"],
            mail("Grüße", "Hällo\n", "<b>Hällo</b>\n"),
        )
    assert catcher.inbox.messages() == [
        {
            "id": "1",
            "to": "ada@example.org, bob@example.org",
            "subject": "Grüße",
            "text": "Hällo\n",
            "html": "<b>Hällo</b>\n",
            "received_at": "2026-03-01T12:00:00.000+00:00",
        }
    ]


async def test_addresses_and_bytes_beyond_ascii_are_taken(catcher: MailCatcher) -> None:
    content = "Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHällo\r\n".encode()
    async with client(catcher) as smtp:
        await smtp.ehlo()
        assert smtp.supports_extension("smtputf8")
        assert smtp.supports_extension("8bitmime")
        await smtp.sendmail(
            "a@example.org",
            ["ädä@exämple.org"],
            content,
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
    (message,) = catcher.inbox.messages()
    assert (message["to"], message["subject"], message["text"]) == (
        "ädä@exämple.org",
        "Grüße",
        "Hällo\n",
    )


async def test_a_mail_beyond_the_bound_is_refused(catcher: MailCatcher) -> None:
    async with client(catcher) as smtp:
        with pytest.raises(aiosmtplib.SMTPResponseException) as caught:
            await smtp.sendmail("a@b.org", ["c@d.org"], mail(text="x" * MESSAGE_BYTES_MAX))
    assert caught.value.code == 552
    assert catcher.inbox.messages() == []


async def test_stopping_ends_open_connections() -> None:
    catcher = MailCatcher(Inbox())
    await catcher.start()
    smtp = client(catcher)
    await smtp.connect()
    await catcher.stop()
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.noop()
    smtp.close()
    await catcher.stop()


def test_the_newest_comes_first_and_the_oldest_makes_room() -> None:
    inbox = Inbox(max_messages=2)
    for subject in ("first", "second", "third"):
        inbox.add(["ada@example.org"], mail(subject))
    assert [(message["id"], message["subject"]) for message in inbox.messages()] == [
        ("3", "third"),
        ("2", "second"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("", "", "")),
        (b"no header, no body", ("", "no header, no body", "")),
        (
            b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nQapla'\xff",
            ("x", "Qapla'\ufffd", ""),
        ),
        (b"Subject: x\nContent-Type: text/html\n\n<p>", ("x", "", "<p>")),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--y\n", ("", "", "")),
        (b"Subject: =?utf-8?q?=ff?=\n\nbody", ("\ufffd", "body", "")),
    ],
)
def test_a_malformed_mail_is_kept_as_far_as_it_can_be_read(
    content: bytes, expected: tuple[str, str, str]
) -> None:
    inbox = Inbox()
    inbox.add(["ada@example.org"], content)
    (message,) = inbox.messages()
    assert (message["subject"], message["text"], message["html"]) == expected


class Page(HTMLParser):
    """What a browser would make of the page: its elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_mail_is_shown_in_a_frame_that_runs_no_script() -> None:
    inbox = Inbox(now=lambda: NOON)
    inbox.add([HOSTILE], mail("Hi " + HOSTILE, "see https://example.org/x\n" + HOSTILE, HOSTILE))
    page = Page(inbox.render_page())
    assert page.all("iframe") == [
        {
            "title": "Hi " + HOSTILE,
            "sandbox": "allow-popups allow-popups-to-escape-sandbox",
            "srcdoc": '<base target="_blank">' + HOSTILE + "\n",
        }
    ]
    assert page.all("a") == [
        {"href": "https://example.org/x", "target": "_blank", "rel": "noopener"}
    ]
    assert page.all("script") == [{}]
    assert "alert" not in "".join(name for name, _ in page.elements)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    inbox = Inbox()
    inbox.add(["ada@example.org"], mail())
    page = Page(inbox.render_page())
    assert {"link", "img"}.isdisjoint(name for name, _ in page.elements)
    assert not any("src" in attributes for _, attributes in page.elements)


def test_a_full_inbox_makes_no_endless_page() -> None:
    inbox = Inbox()
    for _ in range(PAGE_MESSAGES_MAX + 3):
        inbox.add(["ada@example.org"], mail())
    text = inbox.render_page()
    assert len(Page(text).all("details")) == PAGE_MESSAGES_MAX
    assert "3 older in" in text


def test_an_empty_inbox_says_so() -> None:
    assert "Nothing yet." in Inbox().render_page()
