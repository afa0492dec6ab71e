"""A real SMTP server that keeps its own record: outside the service, and on the disk first."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import re
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

from aiosmtpd.smtp import SMTP

_LINK: Final = re.compile(r"/verify\?id=([0-9a-f-]{36})#token=(\S+)")
MAIL_SECONDS_MAX: Final = 120.0
"""Rescued mails go out one by one, and a kill may send them back to the end of the line."""


@dataclass(frozen=True)
class Delivery:
    """A mail that was taken. `account` and `token` are those of its link, if it has one."""

    at: float  # of this process's monotonic clock
    recipient: str
    message_id: str
    subject: str
    account: str | None
    token: str | None

    @property
    def is_welcome(self) -> bool:
        return self.token is None


class MailSink:
    """Takes every mail but those to `refused`; each is a line of the file before it is answered."""

    def __init__(self, record: Path) -> None:
        self.deliveries: list[Delivery] = []
        self.refused: set[str] = set()
        self.held = 0
        self.port = 0
        self._record_path = record
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._unwritten: list[bytes] = []
        self._disk = asyncio.Lock()
        self._gate = asyncio.Event()
        self._gate.set()
        self._server: asyncio.Server | None = None
        self._transports: set[asyncio.BaseTransport] = set()
        # By the account of its link, or by the address of a mail without one.
        self._firsts: dict[str, asyncio.Future[Delivery]] = defaultdict(asyncio.Future)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?tls=none"

    async def start(self) -> None:
        """Listen: the first time on any port, later on the same one again."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Conversation(self, loop), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away: connections are cut, new ones refused."""
        if self._server is not None:
            self._server.close()
            for transport in self._transports:
                transport.abort()  # type: ignore[attr-defined]
            self._transports.clear()
            await self._server.wait_closed()
            self._server = None
            # A turn of the loop for each conversation to see its end.
            for _ in range(5):
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()
        os.close(self._record)

    def hold(self) -> None:
        """Leave every mail that comes unanswered, and unwritten, until `release`."""
        self._gate.clear()

    def release(self) -> None:
        """Take the mails that are held."""
        self._gate.set()

    def recorded(self) -> list[Delivery]:
        """Return all deliveries as the file has them."""
        lines = self._record_path.read_text(encoding="utf-8").splitlines()
        return [Delivery(**json.loads(line)) for line in lines]

    def to(self, recipient: str) -> list[Delivery]:
        """Return what was delivered to one address."""
        return [delivery for delivery in self.deliveries if delivery.recipient == recipient]

    async def link(self, account: str, *, seconds: float = MAIL_SECONDS_MAX) -> Delivery:
        """Return the first mail with a link of this account, once it is there."""
        return await _soon(self._firsts[account], f"a link for {account}", seconds)

    async def welcome(self, recipient: str) -> Delivery:
        """Return the first mail without a link to this address, once it is there."""
        return await _soon(self._firsts[recipient], f"a welcome to {recipient}", MAIL_SECONDS_MAX)

    async def keep(self, delivery: Delivery) -> None:
        """Write a mail down, together with all that come in the meantime: a disk takes its time."""
        self._unwritten.append(json.dumps(asdict(delivery)).encode() + b"\n")
        async with self._disk:
            lines, self._unwritten = b"".join(self._unwritten), []
            if lines:
                await asyncio.to_thread(self._write, lines)
        self.deliveries.append(delivery)
        first = self._firsts[delivery.account or delivery.recipient]
        if not first.done():
            first.set_result(delivery)

    def _write(self, lines: bytes) -> None:
        os.write(self._record, lines)
        os.fsync(self._record)

    # What aiosmtpd calls

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.held += 1
        try:
            await self._gate.wait()
        finally:
            self.held -= 1
        (recipient,) = envelope.rcpt_tos
        await self.keep(read_mail(recipient, envelope.content))
        return "250 taken"


class _Conversation(SMTP):
    def __init__(self, sink: MailSink, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(sink, hostname="sink.example", loop=loop)
        self._sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sink._transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._sink._transports.discard(self.transport)
        super().connection_lost(error)


async def _soon(first: asyncio.Future[Delivery], what: str, seconds: float) -> Delivery:
    done, _ = await asyncio.wait([first], timeout=seconds)
    assert done, f"not within {seconds:g} s: {what}"
    return first.result()


def read_mail(recipient: str, content: bytes) -> Delivery:
    """Return what is noted of a mail that is taken now."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    text = message.get_body(("plain",))
    assert text is not None, "a mail without a text part"
    link = _LINK.search(text.get_content())
    return Delivery(
        at=time.monotonic(),
        recipient=recipient,
        message_id=str(message["Message-ID"]),
        subject=str(message["Subject"]),
        account=str(UUID(link[1])) if link else None,
        token=link[2] if link else None,
    )
