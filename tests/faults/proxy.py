"""A TCP proxy before PostgreSQL that does what networks do: reset, swallow, delay, cut at a commit.

It sees the messages that go by, so that it can cut where it hurts most: when the server has got the
COMMIT, or the statement that is a transaction of its own, and the client will not get its answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import Final, Self

from tests.faults.postgres import HOST
from tests.faults.wire import CommittedBy, Conversation

PIECE_BYTES: Final = 65_536
ANSWER_SECONDS_MAX: Final = 30.0
"""How long a server may take to answer the commit whose client is gone."""
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Proxy:
    """Listens on a port of its own and passes on to the server's, until a fault is asked for."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.commits: Counter[CommittedBy] = Counter()
        """Commits cut off from their answer so far; `committed` of them took place."""
        self.committed: Counter[CommittedBy] = Counter()
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._wanted: tuple[CommittedBy, asyncio.Future[None]] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres?sslmode=disable"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for link in list(self._links):
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def reset(self) -> int:
        """Reset every connection; return how many."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def swallow(self, seconds: float) -> int:
        """Pass nothing on for a while, as a network that has gone, and then reset what is open."""
        await self.delay(seconds)
        return self.reset()

    async def delay(self, seconds: float) -> None:
        """Pass nothing on for a while, and then all of it."""
        self._flows.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flows.set()

    async def cut_at_commit(self, by: CommittedBy, seconds_max: float) -> bool:
        """Reset the next client that commits by this, which reaches the server; False if none does.

        The server's answer is read, to count what it was, and goes nowhere.
        """
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = by, taken
        try:
            async with asyncio.timeout(seconds_max):
                await taken
        except TimeoutError:
            return False
        finally:
            self._wanted = None
        return True

    # What the links call

    async def passage(self) -> None:
        """Return when something may be passed on."""
        await self._flows.wait()

    def takes(self, by: CommittedBy) -> bool:
        """Tell whether the commit that goes by now is the one to cut at; only the first is told."""
        if self._wanted is None or self._wanted[0] != by or self._wanted[1].done():
            return False
        self._wanted[1].set_result(None)
        self.commits[by] += 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.passage()
            server = await asyncio.open_connection(HOST, self._server_port)
            link = _Link(self, (reader, writer), server)
            self._links.add(link)
            await link.run()
            self._links.discard(link)
        except (OSError, asyncio.CancelledError):
            # The server is away, or this proxy ends: passed on, that would be told as an error.
            _reset(writer)
        finally:
            self._tasks.discard(task)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A client's connection and the server's."""

    def __init__(self, proxy: Proxy, client: _Streams, server: _Streams) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._conversation = Conversation()
        self._cut: CommittedBy | None = None

    async def run(self) -> None:
        """Pass on both ways until one of them ends."""
        up, down = asyncio.create_task(self._up()), asyncio.create_task(self._down())
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if self._cut is not None:
                await asyncio.wait((down,), timeout=ANSWER_SECONDS_MAX)
        finally:
            for way in (up, down):
                way.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            self._to_client.close()
            self._to_server.close()

    def reset(self) -> None:
        """Reset both connections."""
        _reset(self._to_client)
        _reset(self._to_server)

    async def _up(self) -> None:
        with suppress(OSError):
            while self._cut is None and (piece := await self._from_client.read(PIECE_BYTES)):
                await self._proxy.passage()
                by = self._conversation.ask(piece)
                if by is not None and self._proxy.takes(by):
                    self._cut = by
                    _reset(self._to_client)
                self._to_server.write(piece)
                await self._to_server.drain()

    async def _down(self) -> None:
        with suppress(OSError):
            while piece := await self._from_server.read(PIECE_BYTES):
                await self._proxy.passage()
                # Before it is passed on: what the client asks next depends on it.
                has_committed = self._conversation.answer(piece)
                if self._cut is None:
                    self._to_client.write(piece)
                    await self._to_client.drain()
                elif has_committed is not None:
                    self._proxy.committed[self._cut] += has_committed
                    return


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, which the other side meets as "connection reset by peer"."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() != -1:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    writer.transport.abort()
