"""Answers with the headers that each kind of them always has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from service import documents
from service.asl.values import Json

JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html; charset=utf-8"

# `no-store`, because an answer holds a signup's secret or its status; the policy keeps an answer
# that a browser is made to show as a document from doing anything.
_HEADERS: Final = CIMultiDict(
    {
        "Content-Type": JSON_TYPE,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    }
)


def answer_json(
    value: Json, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return the answer whose body is `value` as JSON; `headers` add to and replace the usual."""
    return answer_bytes(documents.dumps(value), status=status, headers=headers)


def answer_bytes(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an answer whose body is JSON already, or what a Content-Type in `headers` says."""
    response = web.Response(body=body, status=status, headers=_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def answer_html(
    page: str, *, policy: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a page under its Content-Security-Policy."""
    own = {"Content-Type": HTML_TYPE, "Content-Security-Policy": policy}
    return answer_bytes(page.encode(), status=status, headers={**own, **(headers or {})})


async def drop_banner(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Take out the Server header, which tells a stranger which versions to look up."""
    response.headers.popall("Server", None)
