"""One conversation with an SMTP server: connected, encrypted, logged in, then mail after mail.

A mail is two exchanges where the server takes commands in groups (PIPELINING, RFC 2920): MAIL, RCPT
and DATA in one piece, then the message. Elsewhere it is four. aiosmtplib reads and parses the
replies, but its `sendmail` is not used: it parses each address four times, goes through the message
with two regular expressions, sends no groups, and does not tell which command a failure answered,
on which everything depends (errors.py).
"""

import asyncio
import ssl
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeVar, cast

import aiosmtplib

from service.mail.errors import MailRefused, MailUnavailable, judge, unavailable
from service.mail.replies import Replies

Tls = Literal["implicit", "starttls", "opportunistic", "none"]
T = TypeVar("T")

_CLOSING_CODE = 421
_GO_ON_CODE = 354
_NO_SMTPUTF8_CODE = 550
_NO_SMTPUTF8_STATUS = "5.6.7"


class _Expected(NamedTuple):
    """A reply: the verb that it answers, as errors call it, and the codes that mean yes."""

    verb: Literal["MAIL", "RCPT", "DATA"]
    accepted: Collection[int]


_MAIL: Final = _Expected("MAIL", (250,))
_RCPT: Final = _Expected("RCPT", (250, 251, 252))
_DATA: Final = _Expected("DATA", (_GO_ON_CODE,))
_TEXT: Final = _Expected("DATA", (250,))


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
        """Take over a client that is ready for mails."""
        assert client.protocol is not None, "the client is not connected"
        self._client = client
        self._protocol = client.protocol
        self._replies = Replies(cast(asyncio.Transport, client.transport), client.protocol)
        self._timeouts = timeouts
        self._takes_groups = client.supports_extension("pipelining")
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
        try:
            await _step("connecting", client.connect(timeout=server.timeouts.connect))
            await _greet(client, server)
            return cls(client, server.timeouts)
        except BaseException:
            client.close()
            raise

    @property
    def is_usable(self) -> bool:
        """Whether the connection stands and both sides agree on where the conversation is."""
        return self._client.is_connected and not self._in_doubt and not self._replies.is_ahead

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
        options = b" SMTPUTF8 BODY=8BITMIME" if needs_smtputf8 else b""
        mail = b"MAIL FROM:<%b>%b\r\n" % (sender.encode(), options)
        rcpt = b"RCPT TO:<%b>\r\n" % recipient.encode()
        # In doubt until it went well: a cancelled command's reply would answer the next mail's.
        self._in_doubt = True
        if self._takes_groups:
            await self._exchange(mail + rcpt + b"DATA\r\n", (_MAIL, _RCPT, _DATA), recipient)
        else:
            await self._exchange(mail, (_MAIL,), recipient)
            await self._exchange(rcpt, (_RCPT,), recipient)
            await self._exchange(b"DATA\r\n", (_DATA,), recipient)
        await self._exchange(_as_data(message), (_TEXT,), recipient)
        self._in_doubt = False
        self.mails_sent += 1

    async def _exchange(self, piece: bytes, replies: Sequence[_Expected], recipient: str) -> None:
        """Send commands in one piece and read a reply to each; raise what the first refusal means.

        After a refusal the transaction is cleared, so that the connection can be kept.
        """
        refusal, expected, code = None, replies[0], 0
        try:
            self._write(piece)
            for expected in replies:
                code, reply = await self._read(expected)
                if code not in expected.accepted and refusal is None:
                    refusal = _refusal(expected.verb, code, reply, recipient)
                if code == _CLOSING_CODE:
                    break
        except (aiosmtplib.SMTPException, OSError) as error:
            # Not chained: tracebacks are logged, and a reply in the original may name the address.
            raise refusal or _lost(expected.verb, error) from None
        if refusal is not None:
            if code != _CLOSING_CODE:
                await self._clear(is_in_data=code == _GO_ON_CODE)
            raise refusal

    def _write(self, piece: bytes) -> None:
        if self._replies.is_ahead:
            # Taken for the answer to what comes now, it would be believed of the wrong mail.
            raise aiosmtplib.SMTPException("the mail server has answered what was not asked")
        self._protocol.write(piece)

    async def _read(self, expected: _Expected) -> tuple[int, str]:
        """Return the code and the text of the next reply."""
        timeouts = self._timeouts
        self._replies.ask(timeouts.data if expected.verb == "DATA" else timeouts.command)
        try:
            return await self._protocol.read_response()
        except aiosmtplib.SMTPServerDisconnected:
            if self._replies.is_late:
                raise aiosmtplib.SMTPReadTimeoutError("the mail server does not answer") from None
            raise

    async def _clear(self, *, is_in_data: bool) -> None:
        """End a refused transaction, so that the connection can be kept for the next mail."""
        try:
            if is_in_data:
                # RFC 2920 3.1: DATA in the same group may have been accepted all the same. A
                # message without recipients goes nowhere, so it ends before it began.
                self._write(b".\r\n")
                await self._read(_TEXT)
            self._replies.ask(self._timeouts.command)
            await self._client.rset(timeout=None)
        except (aiosmtplib.SMTPException, OSError):
            return
        self._in_doubt = False

    async def quit(self) -> None:
        """Say goodbye and close; a server that does not answer is left all the same."""
        self._replies.ask(self._timeouts.command)
        try:
            await self._client.quit(timeout=None)
        except (aiosmtplib.SMTPException, OSError):
            pass
        finally:
            self._client.close()

    def drop(self) -> None:
        """Close at once. A connection in good order is told QUIT, without waiting for the reply."""
        if self.is_usable:
            self._protocol.write(b"QUIT\r\n")
        self._client.close()


async def _greet(client: aiosmtplib.SMTP, server: Server) -> None:
    await _step("EHLO", _ehlo(client))
    if server.tls == "starttls" or (
        server.tls == "opportunistic" and client.supports_extension("starttls")
    ):
        if not client.supports_extension("starttls"):
            raise MailUnavailable("STARTTLS is required and the mail server does not offer it")
        await _step("STARTTLS", client.starttls())
        await _step("EHLO", _ehlo(client))
    if server.username is not None:
        await _step("AUTH", client.login(server.username, server.password or ""))


async def _ehlo(client: aiosmtplib.SMTP) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()


def _as_data(message: bytes) -> bytes:
    """Return what follows DATA: a dot more where a line begins with one, and the dot that ends it.

    RFC 5321 4.5.2; the lines have ended in CRLF since the mail was written.
    """
    dot = b"." if message.startswith(b".") else b""
    return b"%b%b.\r\n" % (dot, message.replace(b"\r\n.", b"\r\n.."))


def _refusal(
    verb: str, code: int, reply: str, recipient: str
) -> LostConnection | MailUnavailable | MailRefused:
    if verb != "MAIL":
        return judge(verb, code, reply, recipient)
    error = unavailable(verb, code, reply)
    return LostConnection(error) if code == _CLOSING_CODE else error


def _lost(verb: str, error: Exception) -> LostConnection | MailUnavailable:
    translated = _translated(verb, error)
    return LostConnection(translated) if verb == "MAIL" else translated


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
