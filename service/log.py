"""Logging: structlog's events as JSON lines or for a console, and nothing personal in either."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from datetime import UTC, date, datetime
from typing import Any, Final, Literal
from uuid import UUID

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "[redacted]"
REDACTION_DEPTH_MAX: Final = 8
"""Levels of a logged value that are looked into; what nests deeper is left out whole."""

QUIET_LOGGERS: Final = ("aiohttp.access", "apscheduler", "mail.log")
"""Libraries that say at INFO what our own events say better: heard from WARNING on."""

_SECRET_KEY: Final = re.compile(
    r"(token|secret|password|authorization|cookie|address|email|recipient|credential)s?$", re.I
)
# Wider than an address may be: a word too many lost from a log costs less than a person named.
_ADDRESS: Final = re.compile(r"[^\s<>\"'(),:;=]{1,320}@[^\s<>\"'(),:;]{1,255}")
_SECRET_PARAMETER: Final = re.compile(r"\b(token|secret|password|code)=[^&\s\"'<>]+", re.I)

# structlog's own bound variables are found by a walk through the whole context, at each line.
_request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)

# One list for ever, changed in place: loggers keep what they were first used with.
_processors: Final[list[Processor]] = []


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Write events from `level` on to stderr, those of the standard library's loggers with them.

    Both pass the same processors, so that a library's message is redacted as our own are.
    """
    _processors[:] = [
        add_request_id,
        structlog.processors.add_log_level,
        _stamp,
        structlog.processors.format_exc_info,
        redact,
        _as_json if log_format == "json" else _Console(),
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(threshold)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def bind_request_id(request_id: str | None) -> None:
    """Have every event of this context, and of tasks begun in it, bear the request's id."""
    _request_id.set(request_id)


def add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event with the id of the request that it is an event of, if there is one.

    A processor of structlog's.
    """
    request_id = _request_id.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event


def _stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.now(UTC)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event with addresses, and whatever its key calls a secret, out of it.

    A processor of structlog's; what comes after it meets plain values only.
    """
    for key, value in event.items():
        if type(value) is str and not _is_secret(key):  # as nearly all are: two cheap looks
            if "@" in value or "=" in value:
                event[key] = _redacted_text(value)
        else:
            event[key] = _redacted(key, value, REDACTION_DEPTH_MAX)
    return event


def _redacted(key: str, value: object, depth: int) -> object:
    if value is None or isinstance(value, (int, float, UUID, date)):
        return value
    if _is_secret(key) or depth == 0:
        return REDACTED
    if isinstance(value, str):
        return _redacted_text(value)
    if isinstance(value, dict):
        return {_redacted_text(str(k)): _redacted(str(k), v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted(key, item, depth - 1) for item in value]
    return _redacted_text(repr(value))


@functools.lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _redacted_text(text: str) -> str:
    if "@" in text:
        text = _ADDRESS.sub(REDACTED, text)
    return _SECRET_PARAMETER.sub(rf"\1={REDACTED}", text) if "=" in text else text


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, option=orjson.OPT_UTC_Z)
    except TypeError:  # A lone surrogate or an integer beyond 64 bits must not cost the line.
        return json.dumps(event, default=_as_text).encode()


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


class _Console:
    """Lines for a person, coloured when stderr is a terminal and NO_COLOR is not set."""

    def __init__(self) -> None:
        colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._renderer = structlog.dev.ConsoleRenderer(colors=colors)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        event["timestamp"] = _as_text(event["timestamp"])
        return self._renderer(logger, method, event).encode(errors="backslashreplace")


class _ToStructlog(logging.Handler):
    """Hands the records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **fields)
