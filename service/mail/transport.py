"""Mail to one SMTP server over a few kept connections.

A connection for every mail costs ten times the CPU and, with TLS, several round trips; so
connections are kept for a while and each carries many mails, one after the other. A kept connection
may have died unnoticed. If it did, its first command fails, and the mail moves to a fresh one;
anything later is reported and never repeated here, since the server may have taken the mail.
"""

import asyncio
import re
import socket
import ssl

from service.mail.errors import MailUnavailable
from service.mail.session import LostConnection, Server, Session, Timeouts, Tls

CONNECTIONS_MAX = 20
"""Fewer than common servers let one client have (Postfix: 50). A mail waits for its server two to
four times, and each reply for its turn in a busy process: eight connections mostly had nothing to
do.
"""

WAITERS_MAX = 2_000
"""Mails that may wait for a connection; more of them are told to come back by their Retry."""

MAILS_PER_CONNECTION_MAX = 100
"""Common servers end a conversation after some hundred mails, not always politely."""

IDLE_SECONDS_MAX = 30.0
"""Well below the five minutes after which a server may hang up (RFC 5321 4.5.3.2.7)."""

TIMEOUTS = Timeouts()

_PATH = re.compile(r"[^\x00-\x20\x7f-\x9f<>\"@]+@[^\x00-\x20\x7f-\x9f<>\"@]+")


class SmtpTransport:
    """A pool of sessions with one server. The last one used is used next, so spare ones end."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: Tls,
        username: str | None = None,
        password: str | None = None,
        *,
        connections_max: int = CONNECTIONS_MAX,
        waiters_max: int = WAITERS_MAX,
        mails_per_connection_max: int = MAILS_PER_CONNECTION_MAX,
        idle_seconds_max: float = IDLE_SECONDS_MAX,
        timeouts: Timeouts = TIMEOUTS,
        local_hostname: str | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare to speak with a server; nothing is opened yet.

        `tls` is `implicit` (smtps), `starttls` (refused without), `opportunistic` (encrypted when
        the server offers it, its certificate not checked) or `none`. `local_hostname` is what EHLO
        says, by default this machine's name as it stands: asking DNS for it may take seconds.
        `tls_context` stands in for the system's certificates. Raise ValueError when a password
        would go to whoever sits on the line.
        """
        if tls == "opportunistic" and username is not None:
            raise ValueError(
                "SMTP: tls=opportunistic with a user name would give the password to anyone on the"
                " line; use smtps:// or STARTTLS, or say tls=none if the line is your own"
            )
        self._server = Server(
            host, port, tls, username, password, local_hostname or socket.gethostname(), timeouts
        )
        self._mails_per_connection_max = mails_per_connection_max
        self._idle_seconds_max = idle_seconds_max
        self._waiters_max = waiters_max
        self._waiting = 0
        self._slots = asyncio.Semaphore(connections_max)
        self._context = tls_context
        self._idle: list[Session] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_open = False

    async def open(self) -> None:
        """Get ready to send. No connection is made: a mail server may be down when we start."""
        if self._context is None:
            # In a thread: reading the system's certificates takes some 30 ms.
            self._context = await asyncio.to_thread(_context, self._server.tls)
        self._is_open = True

    async def close(self) -> None:
        """End the kept connections; those in use end with their mail. Later mails are refused."""
        self._is_open = False
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        idle, self._idle = self._idle, []
        await asyncio.gather(*(session.quit() for session in idle))

    async def check(self) -> None:
        """Connect, encrypt and log in as a mail would, on a connection of its own, and send none.

        Raise MailUnavailable saying which step failed and how.
        """
        session = await self._fresh()
        await session.quit()

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Send a finished mail to one address; return when the server has accepted it.

        Raise MailUnavailable when a later try may succeed, MailRefused when none will (errors.py),
        ValueError when an address could not be a command's argument, or a line of the message does
        not end in CRLF.
        """
        for what, address in (("sender", sender), ("recipient", recipient)):
            if _PATH.fullmatch(address) is None:
                raise ValueError(f"{what}: not an address that a command can carry")
        lines = message.count(b"\r\n")
        if not message.endswith(b"\r\n") or {message.count(b"\r"), message.count(b"\n")} != {lines}:
            # RFC 5321 2.3.8: what one server takes for the end of a line, the next one may not.
            raise ValueError("message: a line does not end in CRLF")
        await self._take_slot()
        try:
            kept = self._kept()
            if kept is not None:
                try:
                    return await self._send_on(kept, sender, recipient, message)
                except LostConnection:
                    pass
            try:
                await self._send_on(await self._fresh(), sender, recipient, message)
            except LostConnection as lost:
                raise lost.error from lost
        finally:
            self._slots.release()

    async def _send_on(self, session: Session, sender: str, recipient: str, message: bytes) -> None:
        try:
            await session.send(sender, recipient, message)
        finally:
            self._put_back(session)

    async def _take_slot(self) -> None:
        """Take one of the connections that may be open at once; who takes it releases it."""
        if self._slots.locked() and self._waiting >= self._waiters_max:
            raise MailUnavailable(f"{self._waiting} mails are already waiting for a connection")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    async def _fresh(self) -> Session:
        if not self._is_open or self._context is None:
            raise MailUnavailable("the mail transport is closed")
        return await Session.open(self._server, self._context)

    def _kept(self) -> Session | None:
        """Return the kept session that was used last, if one still stands."""
        while self._idle:
            session = self._idle.pop()
            if session.is_usable:
                return session
            session.drop()
        return None

    def _put_back(self, session: Session) -> None:
        """Keep the session for the next mail, or end it."""
        is_worn = session.mails_sent >= self._mails_per_connection_max
        if is_worn or not session.is_usable or not self._is_open:
            session.drop()
            return
        session.idle_since = asyncio.get_running_loop().time()
        self._idle.append(session)
        if self._idle_timer is None:
            self._arm_idle_timer()

    def _arm_idle_timer(self) -> None:
        """Set the timer for the session that is idle longest: the first, as the last is reused."""
        self._idle_timer = asyncio.get_running_loop().call_at(
            self._idle[0].idle_since + self._idle_seconds_max, self._end_idle
        )

    def _end_idle(self) -> None:
        """End the sessions that nobody used for too long."""
        self._idle_timer = None
        long_ago = asyncio.get_running_loop().time() - self._idle_seconds_max
        while self._idle and self._idle[0].idle_since <= long_ago:
            self._idle.pop(0).drop()
        if self._idle:
            self._arm_idle_timer()


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls == "opportunistic":
        # RFC 7435: encryption without proof of identity is still better than none, which is what
        # this mode falls back to anyway.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
