"""A mail server that accepts every mail and keeps none, at next to no cost.

It stands in for a relay on the same network: what a mail costs the service is then the service's
own work, and the time a real relay takes to answer is left out. `python -m benchmarks.sink` runs
one and writes its port to stdout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self, cast

import uvloop

from benchmarks.options import HOST, Mail
from benchmarks.processes import module_process

LINE_BYTES_MAX: Final = 1_000
MAIL_BYTES_MAX: Final = 1_048_576

_END: Final = b"\r\n.\r\n"
_OK: Final = b"250 2.0.0 OK\r\n"
_ANSWERS: Final = {
    b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    b"DATA": b"354 Go on\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


@asynccontextmanager
async def sink_for(mail: Mail) -> AsyncIterator[int]:
    """Yield the port of a sink in a process of its own; 0 where no mail is sent."""
    if mail != "sink":
        yield 0
        return
    async with module_process("benchmarks.sink") as (_, port):
        yield int(port)


class Sink:
    """Listens on loopback, on a port of the system's choice, inside `async with`."""

    def __init__(self) -> None:
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return where it listens."""
        assert self._listener is not None, "the sink is not open"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(_Conversation, HOST, 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()


class _Conversation(asyncio.Protocol):
    """One connection, whose client may send its commands ahead of the answers (RFC 2920)."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._is_mail = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._received += data
        answers = bytearray()
        while (answer := self._next()) is not None:
            answers += answer
        if answers:
            self._transport.write(bytes(answers))
        if len(self._received) > (MAIL_BYTES_MAX if self._is_mail else LINE_BYTES_MAX):
            self._transport.abort()

    def _next(self) -> bytes | None:
        """Return the answer to the next command or mail; None until it is there as a whole."""
        mark = _END if self._is_mail else b"\r\n"
        end = self._received.find(mark)
        if end < 0:
            return None
        verb = bytes(self._received[:4]).upper()
        del self._received[: end + len(mark)]
        if self._is_mail:
            self._is_mail = False
            return _OK
        if verb == b"DATA":
            self._is_mail = True
            # An empty mail is the end mark without the line end before it.
            self._received[:0] = b"\r\n"
        return _ANSWERS.get(verb, _OK)


async def _serve() -> None:
    async with Sink() as sink:
        print(sink.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
