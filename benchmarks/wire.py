"""A kept HTTP connection that does as little as can be done: the load must not be the limit."""

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

ANSWER_BYTES_MAX: Final = 1_048_576
HEAD_BYTES_MAX: Final = 16_384

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One request at a time to one server, which must answer with a Content-Length."""

    def __init__(self, host: str, port: int) -> None:
        self._host_line = f"Host: {host}:{port}\r\n".encode()
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Return a connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(host, port), host, port)
        return connection

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and body of a GET."""
        return await self._ask(b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._host_line))

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and body of a POST of JSON."""
        return await self._ask(
            b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), self._host_line, len(body), body)
        )

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        assert self._answer is None, "one request at a time"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            if len(self._received) > HEAD_BYTES_MAX:
                self._fail(ValueError(f"an answer's head has over {HEAD_BYTES_MAX} bytes"))
            return
        length = _LENGTH.search(self._received, 0, head + 2)
        if length is None or int(length[1]) > ANSWER_BYTES_MAX:
            self._fail(ValueError("an answer has no Content-Length, or a vast one"))
            return
        end = head + 4 + int(length[1])
        if len(self._received) >= end and self._answer is not None and not self._answer.done():
            status = int(self._received[9:12])
            self._answer.set_result((status, bytes(self._received[head + 4 : end])))
            del self._received[:end]

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
