"""A real SMTP server (aiosmtpd) on loopback that answers, or hangs up, as a test tells it to."""

import asyncio
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult

HANG_UP = "hang up"
"""In place of a reply: cut the connection."""

HOLD = "hold"
"""In place of a reply: set `holding`, and say nothing more."""


@dataclass(frozen=True)
class Received:
    """A mail the server took."""

    sender: str
    recipient: str
    content: bytes
    over_tls: bool
    options: tuple[str, ...] = ()


class MailServer:
    """What a test sees of the server: its port, what it got, and how it is to answer next."""

    def __init__(self, *, takes_groups: bool = False, **options: Any) -> None:
        self._options = options
        self._takes_groups = takes_groups
        self._replies: dict[str, deque[str]] = defaultdict(deque)
        self._transports: list[asyncio.Transport] = []
        self.received: list[Received] = []
        self.connections = 0
        self.commands: list[str] = []
        self.holding = asyncio.Event()
        self.port = 0

    async def start(self, *, implicit_tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Conversation(self, hostname="mail.example", loop=loop, **self._options),
            "127.0.0.1",
            0,
            ssl=implicit_tls,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()
        # One turn of the loop for each side to see its connection end.
        for _ in range(5):
            await asyncio.sleep(0)

    def answer(self, verb: str, *replies: str) -> None:
        """Give these replies to the next commands of a verb, in place of the regular ones."""
        self._replies[verb].extend(replies)

    def hang_up(self) -> None:
        """Cut all connections."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def reply(self, verb: str, regular: str, server: SMTP) -> str:
        self.commands.append(verb)
        if not self._replies[verb]:
            return regular
        reply = self._replies[verb].popleft()
        if reply == HANG_UP:
            server.transport.abort()
        if reply == HOLD:
            self.holding.set()
            await asyncio.get_running_loop().create_future()
        return reply

    async def handle_HELO(self, server: SMTP, session: Any, _envelope: Any, hostname: str) -> str:
        session.host_name = hostname
        return await self.reply("HELO", "250 mail.example", server)

    async def handle_EHLO(
        self, server: SMTP, session: Any, _envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        reply = await self.reply("EHLO", "", server)
        if self._takes_groups:
            responses.insert(1, "250-PIPELINING")
        return [reply] if reply else responses

    async def handle_MAIL(
        self, server: SMTP, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        reply = await self.reply("MAIL", "250 ok", server)
        if reply.startswith("2"):
            envelope.mail_from, envelope.mail_options = address, options
        return reply

    async def handle_RCPT(
        self, server: SMTP, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        reply = await self.reply("RCPT", "250 ok", server)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_RSET(self, server: SMTP, _session: Any, _envelope: Any) -> str:
        return await self.reply("RSET", "250 ok", server)

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        reply = await self.reply("DATA", "250 ok", server)
        if reply.startswith("2") or reply == HANG_UP:
            (recipient,) = envelope.rcpt_tos
            self.received.append(
                Received(
                    envelope.mail_from,
                    recipient,
                    envelope.content,
                    session.ssl is not None or bool(server.transport.get_extra_info("sslcontext")),
                    tuple(envelope.mail_options),
                )
            )
        return reply


class _Conversation(SMTP):
    def __init__(self, owner: MailServer, **options: Any) -> None:
        super().__init__(owner, **options)
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._original_transport is None:
            self._owner.connections += 1
        self._owner._transports.append(cast(asyncio.Transport, transport))
        super().connection_made(transport)


def only(username: str, password: str) -> Any:
    """Return an authenticator that lets in this user alone."""

    def authenticate(
        _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> Any:
        is_known = (data.login, data.password) == (username.encode(), password.encode())
        return AuthResult(success=is_known, handled=False)

    return authenticate
