"""Tests of service.tasks.email."""

from __future__ import annotations

import asyncio
import email
import email.policy
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from service import metrics
from service.accounts.tokens import LinkToken, Tokens
from service.asl import Json
from service.engine.ids import new_id
from service.engine.ports import Answer, Key
from service.mail import Mailbox, MailRefused, MailUnavailable, Templates
from service.tasks import EmailTasks, MailSettings
from service.tasks.handlers import BUILT_IN
from service.tasks.inputs import InvalidTaskInput
from tests.accounts.fakes import KEYS, FakeClock
from tests.tasks.calls import ID, IDEMPOTENCY_KEY, KEY, NOON, task

TOKENS = Tokens(KEYS)
TEMPLATES = Templates.load()
INPUT: Json = {"account_id": str(ID), "expires_in_seconds": 1800}
SETTINGS = MailSettings(
    sender=Mailbox("Acme", "no-reply@acme.example"),
    public_url="https://acme.example/id/",
    link_seconds_max=604_800,
)


@dataclass(frozen=True)
class FakeContact:
    address: str | None = "Ada@example.org"
    identity_key: str | None = "ada@example.org"
    name: str | None = "Ada"
    locale: str | None = None
    status: str = "pending"
    links: int = 2
    owner: UUID | None = None


PENDING = FakeContact()
TAKEN = replace(PENDING, owner=new_id(NOON, KEY.bucket))
VERIFIED = replace(PENDING, status="verified", owner=ID)
GONE = FakeContact(None, None, None, None, "expired")


@dataclass
class FakeContacts:
    """One account, and the days on which its owner has been told of others."""

    found: FakeContact | None = None
    notices_left: int = 1
    claimed: list[tuple[int, str]] = field(default_factory=list)

    async def contact(self, key: Key) -> FakeContact | None:
        return self.found if key == KEY else None

    async def claim_notice(self, bucket: int, identity_key: str) -> bool:
        self.claimed.append((bucket, identity_key))
        self.notices_left -= 1
        return self.notices_left >= 0


@dataclass
class FakeTransport:
    """Keeps what it is given, or fails."""

    failure: BaseException | None = None
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((sender, recipient, message))

    def mail(self) -> EmailMessage:
        """Return the one mail."""
        ((_, _, message),) = self.sent
        return email.message_from_bytes(message, _class=EmailMessage, policy=email.policy.default)

    def text(self) -> str:
        body = self.mail().get_body(("plain",))
        assert body is not None
        return str(body.get_content())


def tasks(
    contact: FakeContact | None,
    transport: FakeTransport,
    settings: MailSettings = SETTINGS,
    *,
    contacts: FakeContacts | None = None,
) -> EmailTasks:
    return EmailTasks(
        contacts or FakeContacts(contact), TOKENS, TEMPLATES, transport, FakeClock(), settings
    )


def mails(kind: str, outcome: str) -> float:
    labels = {"kind": kind, "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("countersign_mails_total", labels) or 0.0


SEND = ["send_verification_email", "send_reminder_email", "send_welcome_email"]
LINK_MAILS = SEND[:2]


async def run(subject: EmailTasks, function: str, input: Json = INPUT, attempt: int = 0) -> Answer:
    return await subject.handlers()[function].run(input, task(attempt))


def test_the_handlers_go_by_the_names_that_own_ones_may_not_take() -> None:
    assert set(tasks(None, FakeTransport()).handlers()) == set(SEND)
    assert set(SEND) < BUILT_IN


async def test_the_verification_mail_carries_the_newest_link_and_its_expiry() -> None:
    transport = FakeTransport()

    answer = await run(tasks(PENDING, transport), "send_verification_email")

    token = TOKENS.link_token(ID, 2)
    link = f"https://acme.example/id/verify?id={ID}#token={token}"
    mail = transport.mail()
    assert answer == Answer({"sent": True, "status": "pending"})
    assert TOKENS.read_link_token(token) == LinkToken(ID, 2)
    assert link in transport.text()
    assert "30 minutes" in transport.text()
    assert transport.sent[0][:2] == ("no-reply@acme.example", "Ada@example.org")
    assert (mail["From"], mail["To"]) == ("Acme <no-reply@acme.example>", "Ada@example.org")
    assert mail["Message-ID"] == f"<{IDEMPOTENCY_KEY}@acme.example>"
    assert mail["Date"].datetime == NOON


async def test_the_mail_speaks_the_visitors_language() -> None:
    transport = FakeTransport()

    await run(tasks(replace(PENDING, locale="de-CH"), transport), "send_verification_email")

    assert "30 Minuten" in transport.text()


async def test_a_retry_sends_the_very_same_mail() -> None:
    transport = FakeTransport()
    subject = tasks(PENDING, transport)

    await run(subject, "send_verification_email")
    await run(subject, "send_verification_email", attempt=1)

    assert transport.sent[0] == transport.sent[1]


async def test_a_reminder_carries_the_same_link_in_other_words() -> None:
    first, second = FakeTransport(), FakeTransport()

    await run(tasks(PENDING, first), "send_verification_email")
    answer = await run(tasks(PENDING, second), "send_reminder_email")

    assert answer == Answer({"sent": True, "status": "pending"})
    assert TOKENS.link_token(ID, 2) in second.text()
    assert first.mail()["Subject"] != second.mail()["Subject"]


@pytest.mark.parametrize("function", LINK_MAILS)
@pytest.mark.parametrize("status", ["verified", "superseded", "expired"])
async def test_no_link_is_sent_once_the_signup_is_decided(function: str, status: str) -> None:
    transport = FakeTransport()

    answer = await run(tasks(replace(PENDING, status=status), transport), function)

    assert (answer, transport.sent) == (Answer({"sent": False, "status": status}), [])


@pytest.mark.parametrize("function", SEND)
async def test_an_account_that_is_no_longer_kept_gets_no_mail(function: str) -> None:
    transport = FakeTransport()

    for contact in (None, GONE):
        answer = await run(tasks(contact, transport), function)
        assert answer == Answer({"sent": False, "status": "expired"})

    assert transport.sent == []


async def test_an_address_that_is_anothers_gets_a_notice_without_link_and_the_same_answer() -> None:
    transport = FakeTransport()
    contacts = FakeContacts(TAKEN)

    answer = await run(tasks(TAKEN, transport, contacts=contacts), "send_verification_email")

    assert answer == Answer({"sent": True, "status": "pending"})
    assert contacts.claimed == [(KEY.bucket, "ada@example.org")]
    assert b"token=" not in transport.sent[0][2]
    assert b"Ada," not in transport.sent[0][2], "the stranger's name is not put before the owner"


@pytest.mark.parametrize("function", LINK_MAILS)
async def test_a_second_notice_of_the_day_is_left_out_unnoticed(function: str) -> None:
    transport = FakeTransport()
    subject = tasks(TAKEN, transport, contacts=FakeContacts(TAKEN, notices_left=0))

    answer = await run(subject, function)

    assert (answer, transport.sent) == (Answer({"sent": True, "status": "pending"}), [])


async def test_a_welcome_goes_to_a_verified_account() -> None:
    transport = FakeTransport()

    answer = await run(tasks(VERIFIED, transport), "send_welcome_email")

    assert answer == Answer({"sent": True, "status": "verified"})
    assert "Ada" in transport.text()
    assert b"token=" not in transport.sent[0][2]


@pytest.mark.parametrize("status", ["pending", "superseded", "expired"])
async def test_a_welcome_goes_to_nobody_else(status: str) -> None:
    transport = FakeTransport()

    answer = await run(tasks(replace(PENDING, status=status), transport), "send_welcome_email")

    assert (answer, transport.sent) == (Answer({"sent": False, "status": status}), [])


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (MailUnavailable("CONNECT timed out"), "unavailable"),
        (MailRefused("RCPT was answered 550", 550), "refused"),
        (asyncio.CancelledError(), "unavailable"),
    ],
)
async def test_failures_escape_under_their_own_names_and_are_counted(
    failure: BaseException, outcome: str
) -> None:
    before = mails("verification", outcome)

    with capture_logs() as lines, pytest.raises(type(failure)):
        await run(tasks(PENDING, FakeTransport(failure)), "send_verification_email")

    assert mails("verification", outcome) == before + 1
    assert lines == []


async def test_a_sent_mail_is_counted_and_logged_without_the_person() -> None:
    before = mails("verification", "sent")

    with capture_logs() as lines:
        await run(tasks(PENDING, FakeTransport()), "send_verification_email", attempt=3)

    assert mails("verification", "sent") == before + 1
    assert lines == [
        {
            "event": "mail_sent",
            "kind": "verification",
            "execution": str(ID),
            "attempt": 3,
            "log_level": "info",
        }
    ]


@pytest.mark.parametrize(
    ("stated", "scale", "words"),
    [
        (7200, 1.0, "2 hours"),
        (1800, 1 / 30, "60 seconds"),
        (1, 0.001, "1 second"),
        (604_800, 1.0, "7 days"),
    ],
)
async def test_the_mail_states_the_wait_as_it_will_really_be(
    stated: int, scale: float, words: str
) -> None:
    transport = FakeTransport()
    input: Json = {"account_id": str(ID), "expires_in_seconds": stated}

    await run(
        tasks(PENDING, transport, replace(SETTINGS, time_scale=scale)),
        "send_verification_email",
        input,
    )

    assert words in transport.text()


@pytest.mark.parametrize(("most", "words"), [(604_800, "30 minutes"), (600, "10 minutes")])
async def test_without_a_statement_the_mail_says_half_an_hour_or_the_most_a_link_can_live(
    most: int, words: str
) -> None:
    transport = FakeTransport()
    settings = replace(SETTINGS, link_seconds_max=most)

    await run(
        tasks(PENDING, transport, settings), "send_verification_email", {"account_id": str(ID)}
    )

    assert words in transport.text()


@pytest.mark.parametrize("value", [0, -1, 604_801, 1.5, True, "1800", None, [], {}])
async def test_an_expiry_that_no_link_can_have_is_refused(value: Json) -> None:
    transport = FakeTransport()
    input: Json = {"account_id": str(ID), "expires_in_seconds": value}

    with pytest.raises(InvalidTaskInput) as raised:
        await run(tasks(PENDING, transport), "send_verification_email", input)

    assert raised.value.cause is not None
    assert raised.value.cause.startswith("expires_in_seconds: ")
    assert raised.value.cause.endswith(" is not an integer from 1 to 604800")
    assert transport.sent == []


@pytest.mark.parametrize("function", SEND)
@pytest.mark.parametrize("input", [None, {}, {"account_id": "me"}, {"account_id": 1}, "x", []])
async def test_input_without_an_account_is_refused(function: str, input: Json) -> None:
    with pytest.raises(InvalidTaskInput):
        await run(tasks(PENDING, FakeTransport()), function, input)


@pytest.mark.parametrize(
    ("sender", "public_url", "domain"),
    [
        ("no-reply@acme.example", "https://www.acme.example", "acme.example"),
        ("no-reply@bücher.example", "https://acme.example:8443/x", "acme.example"),
        ("no-reply@bücher.example", "http://[::1]:8080", "localhost"),
    ],
)
async def test_message_ids_end_in_a_plain_domain(sender: str, public_url: str, domain: str) -> None:
    transport = FakeTransport()
    settings = replace(SETTINGS, sender=Mailbox("", sender), public_url=public_url)

    await run(tasks(PENDING, transport, settings), "send_verification_email")

    assert f"Message-ID: <{IDEMPOTENCY_KEY}@{domain}>".encode() in transport.sent[0][2]


async def test_a_service_without_a_name_of_its_own_goes_by_the_products() -> None:
    transport = FakeTransport()
    settings = replace(SETTINGS, sender=Mailbox("", "no-reply@acme.example"))

    await run(tasks(VERIFIED, transport, settings), "send_welcome_email")

    assert "Countersign" in transport.text()
