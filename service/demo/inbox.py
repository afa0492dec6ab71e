"""The mail catcher: an SMTP server that keeps what it gets in memory, and a page to read it on.

It runs on the caller's event loop (aiosmtpd's own controller would take a thread of its own) and
listens on the loopback address only. It accepts every address, unlike a real mail server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from typing import Final, Self, cast

import jinja2
from aiosmtpd.smtp import SMTP, Envelope, Session

from service.asl.values import Json

MESSAGES_MAX: Final = 1000
MESSAGE_BYTES_MAX: Final = 262_144
PAGE_MESSAGES_MAX: Final = 50
"""Mails on the page; older ones, up to MESSAGES_MAX, are in the JSON."""

_PAGE: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("inbox.html.jinja")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Inbox:
    """The mails caught, the oldest of which make room for new ones."""

    def __init__(
        self, max_messages: int = MESSAGES_MAX, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._messages: deque[dict[str, Json]] = deque(maxlen=max_messages)
        self._now = now
        self._count = 0

    def add(self, recipients: Iterable[str], content: bytes) -> None:
        """Keep a mail as it came over SMTP. A malformed one is kept as far as it can be read."""
        message = message_from_bytes(content, policy=default_policy)
        self._count += 1
        self._messages.appendleft(
            {
                "id": str(self._count),
                "to": ", ".join(recipients),
                "subject": str(message.get("Subject", "")),
                "text": _body(message, "plain"),
                "html": _body(message, "html"),
                "received_at": self._now().isoformat(timespec="milliseconds"),
            }
        )

    def messages(self) -> list[dict[str, Json]]:
        """Return the mails, newest first: id, to, subject, text, html and received_at, all strings.

        `to` is whom the SMTP client named, `text` or `html` is empty where the mail has none,
        `received_at` is ISO 8601 in UTC.
        """
        return list(self._messages)

    def render_page(self) -> str:
        """Return a page that shows the newest mails and adds new ones as they come.

        A mail is shown in a frame without scripts, whose links open in a tab of their own.
        """
        shown = list(self._messages)[:PAGE_MESSAGES_MAX]
        return _PAGE.render(messages=shown, older=len(self._messages) - len(shown))


class MailCatcher:
    """An SMTP server on the loopback address that puts every mail into an inbox."""

    def __init__(self, inbox: Inbox, port: int = 0) -> None:
        """Prepare only; port 0 means any free one."""
        self.inbox = inbox
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def port(self) -> int:
        """Return the port it listens on; only once started."""
        assert self._server is not None, "the mail catcher is not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self, self._connections, loop), "127.0.0.1", self._port
        )

    async def stop(self) -> None:
        """Close the port and every connection. Harmless if not started."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            cast(asyncio.WriteTransport, connection.transport).abort()
        await self._server.wait_closed()
        self._server = None

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep the mail; return SMTP's answer."""
        assert isinstance(envelope.content, bytes)
        self.inbox.add(envelope.rcpt_tos, envelope.content)
        return "250 2.0.0 Caught"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()


class _Connection(SMTP):
    """One client's connection, listed while it is open so that stop() can end it."""

    def __init__(
        self,
        catcher: MailCatcher,
        connections: set[_Connection],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            catcher,
            data_size_limit=MESSAGE_BYTES_MAX,
            enable_SMTPUTF8=True,
            hostname="localhost",  # aiosmtpd's default asks DNS
            loop=loop,
        )
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(error)


def _body(message: EmailMessage, kind: str) -> str:
    """Return the mail's text of a kind, "plain" or "html", its lines ended by \\n; "" if none."""
    part = message.get_body(preferencelist=(kind,))
    if part is None:
        return ""
    try:
        text = str(part.get_content())
    except (LookupError, ValueError):  # A charset nobody knows, or a body that is not in it.
        payload = part.get_payload(decode=True)
        text = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
    return text.replace("\r\n", "\n")
