"""Problem documents: every error answer of both ports (RFC 9457), each with a stable code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias

from aiohttp import web

from service.accounts.address import InvalidAddress
from service.accounts.directory import BadCursor, NotPending
from service.accounts.tokens import UnknownToken
from service.api.answers import answer_json
from service.asl.values import Json
from service.engine.ports import Overloaded, Unavailable

CONTENT_TYPE: Final = "application/problem+json"

# RFC 9110's names, which the standard library has in some versions of Python and not in others.
_TITLE_BY_STATUS: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}

STATUS_BY_CODE: Final[Mapping[str, HTTPStatus]] = {
    "malformed_request": HTTPStatus.BAD_REQUEST,
    "malformed_json": HTTPStatus.BAD_REQUEST,
    "malformed_form": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "cross_site": HTTPStatus.FORBIDDEN,
    "foreign_host": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "unknown_account": HTTPStatus.NOT_FOUND,
    "unknown_signup": HTTPStatus.NOT_FOUND,
    "unknown_token": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "body_timeout": HTTPStatus.REQUEST_TIMEOUT,
    "not_pending": HTTPStatus.CONFLICT,
    "expired": HTTPStatus.GONE,
    "superseded": HTTPStatus.GONE,
    "payload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "expectation_failed": HTTPStatus.EXPECTATION_FAILED,
    "invalid_request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_email": HTTPStatus.UNPROCESSABLE_ENTITY,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Every code either port answers with. A code, once published, keeps its meaning and status."""


class Fault(NamedTuple):
    """One thing wrong with a request: a JSON pointer as a URI fragment (RFC 6901), and why."""

    pointer: str
    detail: str


class Problem(Exception):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Json] | None = None,
    ) -> None:
        """Take a code of STATUS_BY_CODE, a sentence for people, and members of the code's own."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.status = STATUS_BY_CODE[code]
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.members = members or {}

    def document(self) -> dict[str, Json]:
        """Return the members of the problem document."""
        document: dict[str, Json] = {
            "type": "about:blank",
            "title": _TITLE_BY_STATUS.get(self.status, self.status.phrase),
            "status": self.status.value,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }
        if self.errors:
            document["errors"] = [fault._asdict() for fault in self.errors]
        return document


Render: TypeAlias = Callable[[web.BaseRequest, Problem], web.Response]


def render_json(request: web.BaseRequest, problem: Problem) -> web.Response:
    """Return the problem as `application/problem+json`."""
    return answer_json(
        problem.document(),
        status=problem.status,
        headers={"Content-Type": CONTENT_TYPE, **problem.headers},
    )


def problem_of(error: Exception) -> Problem | None:
    """Return the problem that an exception stands for, or None when it is a fault of ours."""
    match error:
        case Problem():
            return error
        case web.HTTPException():
            return _of_http(error)
        case UnknownToken():
            return Problem("unknown_token", "No signup has this token.")
        case InvalidAddress():
            return invalid("invalid_email", Fault("#/email", str(error)))
        case BadCursor():
            return invalid("invalid_request", Fault("#/cursor", "No page gave this cursor."))
        case NotPending():
            return Problem(
                "not_pending",
                f"The account is {error.status}; only a pending one can be verified.",
                members={"account_status": error.status},
            )
        case Overloaded():
            return _retry_later("overloaded", "Too much is going on now.", error)
        case Unavailable():
            return _retry_later("unavailable", "The database does not answer now.", error)
        case _:
            return None


def invalid(code: str, *faults: Fault) -> Problem:
    """Return the problem of a request that was understood and cannot be accepted."""
    return Problem(code, " ".join(fault.detail for fault in faults), errors=faults)


def _retry_later(code: str, detail: str, error: Overloaded | Unavailable) -> Problem:
    # Whole seconds, and never 0: RFC 9110 has no fractions, and 0 would mean "at once".
    seconds = max(1, math.ceil(error.retry_after_seconds))
    return Problem(code, f"{detail} Nothing was decided.", headers={"Retry-After": str(seconds)})


def _of_http(error: web.HTTPException) -> Problem | None:
    """Return the problem for an exception that aiohttp itself raises; None for its redirects."""
    match error:
        case web.HTTPNotFound():
            return Problem("not_found", "Nothing is at this path.")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Problem(
                "method_not_allowed",
                f"{error.method} is not a method of this path; it has {allowed}.",
                headers={"Allow": allowed},
            )
        case web.HTTPRequestEntityTooLarge():
            return Problem("payload_too_large", "The body is larger than this port takes.")
        case web.HTTPClientError():
            return Problem("malformed_request", f"{error.reason}.")
        case _:
            return None
