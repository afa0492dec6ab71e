"""What happens around every request: errors become problems, and named origins may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from random import Random
from typing import Final, TypeAlias

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from service.api.answers import answer_bytes
from service.api.problems import Problem, Render, problem_of
from service.log import bind_request_id

log = structlog.get_logger()

PREFLIGHT_SECONDS: Final = 600
"""How long a browser may keep the answer to a preflight request."""

_SHARED_PATHS: Final = ("/signup", "/verify")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer_problems(render: Render) -> Middleware:
    """Return the middleware that answers every exception of a handler with a problem.

    One that is no answer of ours is logged with its traceback, once, and told to the client as a
    request id only.
    """

    # An id tells requests apart and protects nothing: the system need not be asked for each.
    random = Random()  # noqa: S311

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = f"{random.getrandbits(64):016x}"
        # Nothing is unbound afterwards: aiohttp gives each request a task and a context of its own.
        bind_request_id(request_id)
        try:
            return await handler(request)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                log.exception("request_failed", method=request.method, route=_route(request))
                problem = Problem(
                    "internal_error",
                    "Something went wrong here; the log has it under this request id.",
                    members={"request_id": request_id},
                )
            return render(request, problem)

    return middleware


def _route(request: web.Request) -> str | None:
    """Return the pattern that matched, for a path itself may carry what no log should."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None


def allow_origins(origins: Collection[str]) -> Middleware:
    """Return the middleware that lets pages of exactly these origins call /signup and /verify.

    No cookie or other ambient credential is used by this port, so none is allowed to come along.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_shared(request.path):
            return await handler(request)
        origin = request.headers.get("Origin")
        is_allowed = origin is not None and origin in origins
        if is_allowed and _is_preflight(request):
            response: web.StreamResponse = _preflight_answer()
        else:
            response = await handler(request)
        # Also where the origin is not allowed, or a cache would hand that answer to one that is.
        response.headers.add("Vary", "Origin")
        if is_allowed:
            response.headers["Access-Control-Allow-Origin"] = str(origin)
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        return response

    return middleware


def _is_shared(path: str) -> bool:
    return any(path == shared or path.startswith(f"{shared}/") for shared in _SHARED_PATHS)


def _is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _preflight_answer() -> web.Response:
    response = answer_bytes(
        b"",
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )
    del response.headers["Content-Type"]
    return response
