"""Who may use the ops port: holders of a key, and no web page that is not its own."""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from service.api.bodies import read_body
from service.api.problems import Problem
from service.api.signature import ALGORITHM, BadSignature, check_signature

_OPEN_PATHS: Final = ("/health/live", "/health/ready", "/metrics")
"""What orchestrators and Prometheus ask for, by whatever name, and without a key."""

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


def guard(keys: Mapping[str, str], body_bytes_max: int, now: Callable[[], datetime]) -> Middleware:
    """Return the middleware that demands one of the keys (id to secret), by HTTP Basic or by AWS
    Signature V4, for which it reads the body.

    Without any key the port is on loopback only, where the danger is a web page in the operator's
    own browser: so the Host must be a loopback name, or a page could reach the port under a name
    of its own that it points here (DNS rebinding). With or without keys no other site's page may
    change anything, since browsers send the credentials they remember by themselves.
    """
    pairs = [(id.encode(), secret.encode()) for id, secret in keys.items()]

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN_PATHS:
            if pairs and _is_signed(request):
                await _check_signature(request, keys, body_bytes_max, now())
            elif pairs:
                _check_key(request, pairs)
            else:
                _check_host(request)
            if request.method not in _SAFE_METHODS:
                _check_origin(request)
        return await handler(request)

    return middleware


def _is_signed(request: web.Request) -> bool:
    return request.headers.get("Authorization", "").startswith(ALGORITHM)


async def _check_signature(
    request: web.Request, keys: Mapping[str, str], body_bytes_max: int, now: datetime
) -> None:
    body = await read_body(request, body_bytes_max)
    try:
        check_signature(request.method, request.rel_url, request.headers, body, keys, now)
    except BadSignature as error:
        raise _unauthorized(f"The signature does not hold: {error}.") from None


def _check_key(request: web.Request, pairs: list[tuple[bytes, bytes]]) -> None:
    given = _credentials(request.headers.get("Authorization", ""))
    # Every pair is compared in full, so that the time tells nothing about any of them.
    matches = given is not None and [
        hmac.compare_digest(given[0], id) & hmac.compare_digest(given[1], secret)
        for id, secret in pairs
    ]
    if not matches or not any(matches):
        raise _unauthorized("A key of OPS_KEYS is needed, by HTTP Basic or AWS Signature V4.")


def _unauthorized(detail: str) -> Problem:
    return Problem(
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": 'Basic realm="countersign ops", charset="UTF-8"'},
    )


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """Return id and secret of a Basic header (RFC 7617), or None when it is something else."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        id, _, secret = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return id, secret


def _check_host(request: web.Request) -> None:
    if not _is_loopback(request.headers.get("Host", "")):
        raise Problem(
            "foreign_host",
            "Without OPS_KEYS this port answers only under localhost or a loopback address.",
        )


def _is_loopback(authority: str) -> bool:
    try:
        # SDKs put `sync-` before the name for StartSyncExecution and TestState.
        name = (urlsplit(f"//{authority}").hostname or "").removeprefix("sync-")
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_origin(request: web.Request) -> None:
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    is_own = origin is None or origin.partition("://")[2] == request.headers.get("Host")
    if site not in ("none", "same-origin") or not is_own:
        raise Problem("cross_site", "Another site's page may not change anything here.")
