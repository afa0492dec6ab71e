"""Answers with the headers that each kind of them always has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
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


class Answer(web.Response):
    """A whole answer, sent in one write.

    aiohttp's own way is made for bodies that stream, are compressed or come in chunks: a dozen
    coroutines, half the time of an answer. Nor does this one bear a Server header, which tells a
    stranger which versions to look up.
    """

    _writer: AbstractStreamWriter
    _sent: bytes
    _is_kept: bool | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Return whether the connection is kept; None before that is known."""
        return self._is_kept

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Make the head. Raise ValueError for a header that could not be sent as one line."""
        assert isinstance(self.body, bytes)
        headers, version = self.headers, request.version
        if self.status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(self.body))
        headers["Date"] = _date(int(time.time()))
        self._is_kept = request.keep_alive and super().keep_alive is not False
        if self._is_kept and version == HttpVersion10:
            headers["Connection"] = "keep-alive"
        elif not self._is_kept and version == HttpVersion11:
            headers["Connection"] = "close"
        self._sent = b"" if request.method == "HEAD" else self.body
        self._writer = request.writer
        await self._writer.write_headers(
            f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}", headers
        )
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send head and body. Raise ConnectionError when the client has gone."""
        await self._writer.write_eof(self._sent)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Return the Date of all answers of a second (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)


def answer_json(
    value: Json, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return the answer whose body is `value` as JSON; `headers` add to and replace the usual.

    `value` is this process's own, so no NaN is looked for in it.
    """
    return answer_bytes(documents.dumps_own(value), status=status, headers=headers)


def answer_bytes(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return an answer whose body is JSON already, or what a Content-Type in `headers` says."""
    response = Answer(body=body, status=status, headers=_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def answer_html(
    page: str, *, policy: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return a page under its Content-Security-Policy."""
    own = {"Content-Type": HTML_TYPE, "Content-Security-Policy": policy}
    return answer_bytes(page.encode(), status=status, headers={**own, **(headers or {})})


async def drop_banner(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Take the Server header out of what aiohttp answers itself, before any middleware (417)."""
    response.headers.popall("Server", None)
