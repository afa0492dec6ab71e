"""One conversation with an SMTP server: connected, encrypted, logged in, then mail after mail.

The commands are sent one by one and not by aiosmtplib's `sendmail`: it parses each address four
times, and does not tell which command a failure answered, on which everything depends (errors.py).
"""

import ssl
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import aiosmtplib

from service.mail.errors import MailRefused, MailUnavailable, judge, unavailable

Tls = Literal["implicit", "starttls", "opportunistic", "none"]
T = TypeVar("T")

_CLOSING_CODE = 421
_NO_SMTPUTF8_CODE = 550
_NO_SMTPUTF8_STATUS = "5.6.7"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds each step of a conversation may take.

    Shorter than RFC 5321 4.5.3.2 allows a queueing server (5 to 10 minutes): the workflow is our
    queue, and a mail that holds a connection for minutes holds up the others.
    """

    connect: float = 10.0
    """TCP, TLS and, again as long, the greeting."""
    command: float = 20.0
    """Each of EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET and QUIT."""
    data: float = 60.0
    """Each of DATA's two replies: filters judge the mail before the second."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the mail server is and how to speak with it."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None = field(repr=False)
    local_hostname: str
    timeouts: Timeouts


class LostConnection(Exception):
    """The connection turned out dead at a mail's first command: repeating elsewhere is safe.

    It never leaves the package: whoever does not repeat raises `error`, whose class is the name
    that workflows know.
    """

    def __init__(self, error: MailUnavailable) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """A connection on which mails can be sent, one at a time. Made by `Session.open`."""

    def __init__(self, client: aiosmtplib.SMTP, timeouts: Timeouts) -> None:
        self._client = client
        self._timeouts = timeouts
        self._in_doubt = False
        self.mails_sent = 0
        self.idle_since = 0.0

    @classmethod
    async def open(cls, server: Server, context: ssl.SSLContext) -> "Session":
        """Return a session that is connected, encrypted and logged in as `server` demands.

        Raise MailUnavailable when any of it fails. Where encryption is demanded, nothing follows
        in plain text when it cannot be had.
        """
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=server.local_hostname,
            timeout=server.timeouts.command,
            use_tls=server.tls == "implicit",
            start_tls=False,
            tls_context=context,
        )
        session = cls(client, server.timeouts)
        try:
            await _step("connecting", client.connect(timeout=server.timeouts.connect))
            await session._greet(server)
        except BaseException:
            client.close()
            raise
        return session

    async def _greet(self, server: Server) -> None:
        await _step("EHLO", self._ehlo())
        if server.tls == "starttls" or (
            server.tls == "opportunistic" and self._client.supports_extension("starttls")
        ):
            if not self._client.supports_extension("starttls"):
                raise MailUnavailable("STARTTLS is required and the mail server does not offer it")
            await _step("STARTTLS", self._client.starttls())
            await _step("EHLO", self._ehlo())
        if server.username is not None:
            await _step("AUTH", self._client.login(server.username, server.password or ""))

    async def _ehlo(self) -> None:
        try:
            await self._client.ehlo()
        except aiosmtplib.SMTPHeloError:
            await self._client.helo()

    @property
    def is_usable(self) -> bool:
        """Whether the connection stands and both sides agree on where the conversation is."""
        return self._client.is_connected and not self._in_doubt

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand over one mail; return when the server has taken responsibility for it (250).

        Raise LostConnection when the first command met a dead connection, else MailUnavailable
        or MailRefused as errors.py says.
        """
        needs_smtputf8 = not (sender.isascii() and recipient.isascii())
        if needs_smtputf8 and not self._client.supports_extension("smtputf8"):
            raise MailRefused(
                "the mail server takes no international addresses (SMTPUTF8)",
                _NO_SMTPUTF8_CODE,
                _NO_SMTPUTF8_STATUS,
            )
        # In doubt until it went well: a cancelled command's reply would answer the next mail's.
        self._in_doubt = True
        await self._mail(sender, b" SMTPUTF8 BODY=8BITMIME" if needs_smtputf8 else b"")
        try:
            await self._rcpt(recipient)
            await self._data(message, recipient)
        except (MailRefused, MailUnavailable):
            await self._reset()
            raise
        self._in_doubt = False
        self.mails_sent += 1

    async def _mail(self, sender: str, options: bytes) -> None:
        command = b"FROM:<%b>%b" % (sender.encode(), options)
        try:
            code, reply = await self._client.execute_command(b"MAIL", command)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise LostConnection(_translated("MAIL", error)) from error
        if code == _CLOSING_CODE:
            raise LostConnection(unavailable("MAIL", code, reply))
        if code != 250:
            # No transaction has begun, so there is nothing to reset.
            self._in_doubt = False
            raise unavailable("MAIL", code, reply)

    async def _rcpt(self, recipient: str) -> None:
        command = b"TO:<%b>" % recipient.encode()
        try:
            code, reply = await self._client.execute_command(b"RCPT", command)
        except (aiosmtplib.SMTPException, OSError) as error:
            # Not chained, here and at DATA: tracebacks are logged, and a reply in the original may
            # name the address.
            raise _translated("RCPT", error) from None
        if not 250 <= code <= 252:
            raise judge("RCPT", code, reply, recipient)

    async def _data(self, message: bytes, recipient: str) -> None:
        try:
            await self._client.data(message, timeout=self._timeouts.data)
        except aiosmtplib.SMTPDataError as error:
            raise judge("DATA", error.code, error.message, recipient) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _translated("DATA", error) from None

    async def _reset(self) -> None:
        """Clear a failed transaction, so that the connection can be kept for the next mail."""
        try:
            await self._client.rset()
        except (aiosmtplib.SMTPException, OSError):
            return
        self._in_doubt = False

    async def quit(self) -> None:
        """Say goodbye and close; a server that does not answer is left all the same."""
        try:
            await self._client.quit()
        except (aiosmtplib.SMTPException, OSError):
            pass
        finally:
            self._client.close()

    def drop(self) -> None:
        """Close at once. A connection in good order is told QUIT, without waiting for the reply."""
        if self.is_usable and self._client.protocol is not None:
            self._client.protocol.write(b"QUIT\r\n")
        self._client.close()


async def _step(verb: str, action: Awaitable[T]) -> T:
    """Return what a step that names no recipient comes to; translate how it failed."""
    try:
        return await action
    except (aiosmtplib.SMTPException, OSError) as error:
        raise _translated(verb, error) from error


def _translated(verb: str, error: Exception) -> MailUnavailable:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return unavailable(verb, error.code, error.message)
    return MailUnavailable(f"{verb} failed: {type(error).__name__}: {error}")
