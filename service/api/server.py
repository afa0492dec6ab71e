"""Serve an application on a port: its limits, its answers to bad HTTP, and its graceful end."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from aiohttp import web

from service.api.problems import Problem, render_json

log = structlog.get_logger()

KEEPALIVE_SECONDS: Final = 75.0
"""Longer than the 60 seconds after which the usual proxy gives up its kept connection first."""

LINGERING_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client sees why."""

REQUEST_LINE_BYTES_MAX: Final = 4096
HEADER_BYTES_MAX: Final = 8190
HEADERS_MAX: Final = 64
READ_BUFFER_BYTES: Final = 16 * 1024
BACKLOG: Final = 1024
CONNECTIONS_MAX: Final = 10_000
"""Of one process and port; beyond it a new connection is closed before it costs anything."""

SHUTDOWN_SECONDS: Final = 10.0

_PROTOCOL_OPTIONS: Final[dict[str, Any]] = {
    "keepalive_timeout": KEEPALIVE_SECONDS,
    "lingering_time": LINGERING_SECONDS,
    "max_line_size": REQUEST_LINE_BYTES_MAX,
    "max_field_size": HEADER_BYTES_MAX,
    "max_headers": HEADERS_MAX,
    "read_bufsize": READ_BUFFER_BYTES,
    # A small body could become a large one; one with a content encoding is refused instead.
    "auto_decompress": False,
    "access_log": None,
}


class Served:
    """An application on a port."""

    def __init__(self, runner: web.AppRunner, listener: asyncio.Server) -> None:
        self._runner = runner
        self._listener = listener

    @property
    def port(self) -> int:
        """The port it listens on: the one chosen by the system when 0 was asked for."""
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Take no new connection, let requests in flight end within the time given, then cut."""
        self._listener.close()
        await self._runner.cleanup()


async def serve_app(
    app: web.Application,
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    shutdown_seconds: float = SHUTDOWN_SECONDS,
) -> Served:
    """Serve the application until the returned value is closed. Raise OSError for a taken port.

    A client that goes away does not cancel its request: what it began may be committed already.
    """
    # aiohttp's Site is not used: it offers no way to give bad HTTP an answer of one's own.
    runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=shutdown_seconds)
    await runner.setup()
    server = runner.server
    assert server is not None, "a runner that is set up has a server"
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(
            lambda: _Protocol(server, loop=loop, **_PROTOCOL_OPTIONS),
            host,
            port,
            backlog=BACKLOG,
            reuse_port=reuse_port or None,
        )
    except OSError:
        await runner.cleanup()
        raise
    return Served(runner, listener)


class _Protocol(web.RequestHandler):
    """One connection, with a problem document for what aiohttp would answer in plain text."""

    __slots__ = ("_server",)

    def __init__(self, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection, unless there are too many."""
        if len(self._server.connections) >= CONNECTIONS_MAX:
            log.warning("connection_refused", connections=CONNECTIONS_MAX)
            transport.close()
            return
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that is no HTTP, or that failed outside the middleware."""
        if status == 400:
            # Anyone can send such bytes at any rate, and they may hold what no log should.
            log.debug("request_malformed", error=type(exc).__name__)
            problem = Problem("malformed_request", "The request is not HTTP as RFC 9112 has it.")
        else:
            log.error("request_failed", exc_info=exc)
            problem = Problem("internal_error", "Something went wrong here.")
        response = render_json(request, problem)
        response.force_close()
        return response
