"""Tasks that send mail: the link, a reminder of it, a welcome.

A mail is sent at least once, under the Message-ID of the state that sends it, so that a repeat
after a crash is the same mail. Nothing secret is in the task's input: the address is looked up and
the link derived when the mail is written, and the answer tells only whether one was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import structlog

from service import metrics
from service.accounts.ports import Clock, Contact, Contacts
from service.accounts.tokens import Tokens
from service.asl import Json
from service.engine.ports import Answer, CoroutineHandler, Key, Task
from service.mail import Envelope, Kind, Mailbox, MailRefused, Templates, Variables
from service.tasks.accounts import FORGOTTEN
from service.tasks.inputs import read_account, read_whole_number

EXPIRES_IN_SECONDS: Final = 1800
"""What a mail says when its task does not: the Wait of the shipped workflow."""

PRODUCT: Final = "Countersign"
"""How mails name the service when MAIL_FROM has no name."""

LinkMail: TypeAlias = Literal["verification", "reminder"]

_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,120}")

log = structlog.get_logger()


class Transport(Protocol):
    """What takes the bytes of a mail to a mail server."""

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Return once a server has accepted the mail. Raise MailUnavailable, MailRefused."""
        ...


@dataclass(frozen=True, slots=True)
class MailSettings:
    """What an operator decides about mails. `time_scale`: of the Waits, whose length they state."""

    sender: Mailbox
    public_url: str
    link_seconds_max: int
    time_scale: float = 1.0


class EmailTasks:
    """The handlers that send mail."""

    def __init__(
        self,
        contacts: Contacts,
        tokens: Tokens,
        templates: Templates,
        transport: Transport,
        clock: Clock,
        settings: MailSettings,
    ) -> None:
        self._contacts = contacts
        self._tokens = tokens
        self._templates = templates
        self._transport = transport
        self._clock = clock
        self._settings = settings
        self._product = settings.sender.name or PRODUCT
        self._public_url = settings.public_url.rstrip("/")
        self._message_id_domain = _message_id_domain(settings)

    def handlers(self) -> Mapping[str, CoroutineHandler]:
        """Return the handlers by function name."""
        return {
            "send_verification_email": CoroutineHandler(self.send_verification_email),
            "send_reminder_email": CoroutineHandler(self.send_reminder_email),
            "send_welcome_email": CoroutineHandler(self.send_welcome_email),
        }

    async def send_verification_email(self, input: Json, task: Task) -> Answer:
        """Send the link of a pending signup. Answer `{"sent", "status"}`; see `_send_link`."""
        return await self._send_link("verification", input, task)

    async def send_reminder_email(self, input: Json, task: Task) -> Answer:
        """Send the link of a pending signup again, worded as a reminder."""
        return await self._send_link("reminder", input, task)

    async def send_welcome_email(self, input: Json, task: Task) -> Answer:
        """Greet the owner of a verified account; send nothing to any other."""
        contact = await self._contacts.contact(read_account(input))
        if contact is None or contact.status != "verified":
            return _unsent(contact)
        variables = Variables(product=self._product, name=contact.name)
        await self._send("welcome", contact, variables, task)
        return _sent(contact)

    async def _send_link(self, kind: LinkMail, input: Json, task: Task) -> Answer:
        """Send the newest link of a pending signup; send nothing once it is decided.

        When another account has verified the address, its owner is told so instead, without a link
        and at most once a day. The answer is the same: the workflow takes the same course and time.

        Raise MailUnavailable or MailRefused, which Retry and Catch know by these names.
        """
        key = read_account(input)
        seconds = self._read_expiry(input)
        contact = await self._contacts.contact(key)
        if contact is None or contact.status != "pending":
            return _unsent(contact)
        if contact.owner is not None:
            await self._send_notice(key, contact, task)
        else:
            variables = Variables(
                product=self._product,
                name=contact.name,
                link=self._link(key, contact),
                expires_in_seconds=seconds,
            )
            await self._send(kind, contact, variables, task)
        return _sent(contact)

    async def _send_notice(self, key: Key, contact: Contact, task: Task) -> None:
        """Tell the owner of an address that somebody signs up with it, unless they were told today.

        The day is taken before the mail goes out. If that then fails, the notice is left out, which
        is better than a second one to somebody who asked for none.
        """
        assert contact.identity_key is not None, key
        if await self._contacts.claim_notice(key.bucket, contact.identity_key):
            await self._send("account_exists", contact, Variables(product=self._product), task)

    async def _send(self, kind: Kind, contact: Contact, variables: Variables, task: Task) -> None:
        assert contact.address is not None, (
            f"{task.name}: a {contact.status} account has no address"
        )
        envelope = Envelope(
            message_id=f"<{task.idempotency_key}@{self._message_id_domain}>",
            date=self._clock.now(),
            sender=self._settings.sender,
            recipient=contact.address,
        )
        message = self._templates.render(kind, contact.locale, variables, envelope)
        outcome = "unavailable"
        try:
            await self._transport.send(self._settings.sender.address, contact.address, message)
            outcome = "sent"
        except MailRefused:
            outcome = "refused"
            raise
        finally:
            # A timeout cancels the sending: the mail is then as good as unavailable.
            metrics.child(metrics.MAILS, kind, outcome).inc()
        log.info("mail_sent", kind=kind, execution=task.name, attempt=task.attempt)

    def _read_expiry(self, input: Json) -> int:
        """Return what the mail says of its link, in seconds: the Wait as it will really be."""
        most = self._settings.link_seconds_max
        default = min(EXPIRES_IN_SECONDS, most)
        stated = read_whole_number(input, "expires_in_seconds", least=1, most=most, default=default)
        return max(1, round(stated * self._settings.time_scale))

    def _link(self, key: Key, contact: Contact) -> str:
        # The token stands in the fragment, which no browser sends to a server or names as referrer.
        token = self._tokens.link_token(key.id, contact.links)
        return f"{self._public_url}/verify?id={key.id}#token={token}"


def _sent(contact: Contact) -> Answer:
    return Answer({"sent": True, "status": contact.status})


def _unsent(contact: Contact | None) -> Answer:
    return Answer({"sent": False, "status": FORGOTTEN if contact is None else contact.status})


def _message_id_domain(settings: MailSettings) -> str:
    """Return the domain of all Message-IDs: the sender's, or else the public one's, if plain."""
    candidates = (
        settings.sender.address.rpartition("@")[2],
        urlsplit(settings.public_url).hostname,
    )
    return next((name for name in candidates if name and _DOMAIN.fullmatch(name)), "localhost")
