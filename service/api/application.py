"""What both ports' applications have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from service.api.answers import drop_banner
from service.api.bodies import BODY_BYTES_MAX, too_large
from service.api.problems import Problem, render_json

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


BODY_LIMIT: Final = web.AppKey("body_limit", int)


def new_application(
    middlewares: Sequence[Middleware], body_bytes_max: int = BODY_BYTES_MAX
) -> web.Application:
    """Return an empty application whose bodies are bounded."""
    app = web.Application(middlewares=middlewares, client_max_size=body_bytes_max)
    app[BODY_LIMIT] = body_bytes_max
    app.on_response_prepare.append(drop_banner)
    return app


def add_handler(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """Add a handler for a method of a path. One for GET answers HEAD as well."""
    for name in (method, "HEAD") if method == "GET" else (method,):
        app.router.add_route(name, path, handler, expect_handler=_answer_expectation)


async def _answer_expectation(request: web.Request) -> web.StreamResponse | None:
    """Tell a client that waits for leave to send its body; None goes on to the handler.

    aiohttp's own way lets any body come, and answers an unknown expectation in plain text.
    """
    if request.headers.get("Expect", "").lower() != "100-continue":
        problem = Problem("expectation_failed", "100-continue is the only expectation known here.")
        return render_json(request, problem)
    body_bytes_max = request.app[BODY_LIMIT]
    if (request.content_length or 0) > body_bytes_max:
        return render_json(request, too_large(body_bytes_max))
    await request.writer.write(_CONTINUE)
    # The interim response is not the beginning of the answer, which is what this number counts.
    request.writer.output_size = 0
    return None
