"""Read a request's body, bounded in bytes and seconds, and check it against a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote

from aiohttp import web
from pydantic import BaseModel, ValidationError

from service import documents
from service.api.answers import JSON_TYPE
from service.api.problems import Fault, Problem, invalid
from service.asl.values import Json

BODY_BYTES_MAX: Final = 16 * 1024
BODY_SECONDS_MAX: Final = 10.0
"""A client that takes longer to send 16 KiB holds a connection, and nothing else."""

BODY_DEPTH_MAX: Final = 16
FORM_FIELDS_MAX: Final = 16
FORM_TYPE: Final = "application/x-www-form-urlencoded"

_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")
"""What PostgreSQL's text and UTF-8 cannot hold."""

_BODY: Final = web.RequestKey("body", bytes)
"""What a request keeps its body under: the ops port's guard reads it before the handler does."""

_Model = TypeVar("_Model", bound=BaseModel)


def is_form(request: web.BaseRequest) -> bool:
    """Return whether the body is what an HTML form sends."""
    return request.content_type == FORM_TYPE


async def read_members(request: web.Request) -> dict[str, Json]:
    """Return the members of the JSON object, or the fields of the form, that the body is.

    Raise Problem for any other type (415), for a body that is too large (413), too slow (408) or
    malformed (400), and for text with NUL characters or lone surrogates (422).
    """
    content_type = request.content_type
    if content_type not in (JSON_TYPE, FORM_TYPE):
        raise Problem(
            "unsupported_media_type",
            f"The body's type is {content_type!r}; {JSON_TYPE} or {FORM_TYPE} is needed.",
        )
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        # Not unpacked, so that no small body can become a large one.
        raise Problem("unsupported_media_type", "A body with a content encoding is not taken.")
    body = await read_body(request)
    return _json_members(body) if content_type == JSON_TYPE else _form_members(_decode(body))


def validate(model: type[_Model], members: Mapping[str, Any]) -> _Model:
    """Return the model made of `members`. Raise Problem `invalid_request` with all its faults."""
    try:
        return model.model_validate(members)
    except ValidationError as error:
        faults = [_fault(found) for found in error.errors(include_url=False, include_input=False)]
    raise invalid("invalid_request", *faults)


def too_large(bytes_max: int = BODY_BYTES_MAX) -> Problem:
    """Return the problem of a body over so many bytes."""
    return Problem("payload_too_large", f"The body is larger than {bytes_max} bytes.")


async def read_body(request: web.Request, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Return the body; the application must let that many bytes come.

    Raise Problem for one that is too large (413), too slow (408) or cut short (400).
    """
    length = request.content_length
    if length is not None and length > bytes_max:
        raise too_large(bytes_max)
    content = request.content
    if content.at_eof():  # There is none, or it has been read before.
        known: bytes = request.get(_BODY, b"")
        return known
    try:
        # Most bodies arrive together with their headers: nothing is waited for then.
        if content.is_eof():
            body = content.read_nowait()
        else:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(bytes_max) from None
    except TimeoutError:
        raise Problem(
            "body_timeout", f"The body took longer than {BODY_SECONDS_MAX:g} seconds."
        ) from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Problem("malformed_request", "The body ended early or is malformed.") from error
    if len(body) > bytes_max:
        raise too_large(bytes_max)
    request[_BODY] = body
    return body


def _decode(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            "malformed_request", f"The body is not UTF-8: byte {error.start} is out of place."
        ) from None


def _json_members(body: bytes) -> dict[str, Json]:
    try:
        value = documents.loads(body, depth_max=BODY_DEPTH_MAX)
    except ValueError as error:
        _decode(body)  # what is not UTF-8 is told so
        raise Problem("malformed_json", f"The body is not a JSON document: {error}.") from None
    if not isinstance(value, dict):
        raise invalid("invalid_request", Fault("#", "The body is not an object."))
    # In valid UTF-8 only an escape can stand for such a character, so most bodies need no search.
    if b"\\u" in body:
        _refuse_unfit_text(value)
    return value


def _form_members(text: str) -> dict[str, Json]:
    try:
        fields = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError as error:
        raise Problem("malformed_form", f"The body is not a form: {error}.") from None
    members: dict[str, Json] = dict(fields)
    _refuse_unfit_text(members)
    return members


def _refuse_unfit_text(document: Json) -> None:
    """Raise Problem at the first text that no database column or mail could carry."""
    waiting: list[tuple[str, Json]] = [("#", document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str) and _UNFIT.search(value):
            raise invalid(
                "invalid_request",
                Fault(place, "The text has a NUL character or half a surrogate pair in it."),
            )
        if isinstance(value, dict):
            waiting += [(f"{place}/{_escape(key)}", key) for key in value]
            waiting += [(f"{place}/{_escape(key)}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}/{index}", inner) for index, inner in enumerate(value)]


def _escape(key: str | int) -> str:
    """Return one token of a JSON pointer in a URI fragment (RFC 6901, sections 3 and 6)."""
    return quote(
        str(key).replace("~", "~0").replace("/", "~1"), safe="~", errors="backslashreplace"
    )


def _fault(found: Any) -> Fault:
    """Return a fault as pydantic found it, in words of our own where its are not a visitor's."""
    name = found["loc"][-1] if found["loc"] else ""
    detail = {
        "missing": f"{name} is missing.",
        "extra_forbidden": f"{name} is not a member of this request.",
        "dict_type": f"{name} is not an object.",
    }.get(found["type"], f"{name}: {found['msg'].removeprefix('Value error, ')}.")
    return Fault("#" + "".join(f"/{_escape(part)}" for part in found["loc"]), detail)
