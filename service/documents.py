"""JSON text and the values it stands for, exactly: no number or string changes on the way.

orjson does nearly all of the work. It falls short in three places, each told by a cheap look:
integers beyond 64 bits become floats (a run of 19 digits is the sign), NaN and infinity are written
as null (a null in the output is the sign), and lone surrogates are refused (an error is the sign).
There the standard library, which knows no such limits, does the work again.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, Final, NoReturn

import orjson

from service.asl.values import Json

DEPTH_MAX: Final = 240
"""Nested arrays and objects, read or written; orjson writes 254 at most, the stack ends later."""

INPUT_DEPTH_MAX: Final = 100
"""What an edge should accept, so that an execution can nest it further before DEPTH_MAX."""

_CONTAINERS: Final = frozenset({dict, list, tuple})
# A run of digits is looked for as one of zeros: no pattern is matched as fast as bytes are found.
_DIGITS_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_DIGITS: Final = b"0" * 19
_ORJSON_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def loads(text: bytes | str, *, depth_max: int = DEPTH_MAX) -> Json:
    """Return the value of a JSON text. Of a repeated key the last value stands.

    Raises ValueError, naming the rule, for text that is not JSON (RFC 8259) in UTF-8, for NaN,
    Infinity and numbers beyond a double such as 1e400, for integers of more than 4,300 digits, and
    for more than `depth_max` levels.
    """
    value = _read(text)
    _check_depth(value, text, depth_max)
    return value


def dumps(value: Json) -> bytes:
    """Return the compact JSON text of a value in UTF-8, a lone surrogate as its escape.

    Raises ValueError for NaN, infinity and more than DEPTH_MAX levels, TypeError for what has no
    form in JSON, object keys other than strings included.
    """
    try:
        text = orjson.dumps(value, option=_ORJSON_OPTIONS)
    except TypeError:
        text = _dumps_exactly(value)
    else:
        if b"null" in text:
            _check_finite(value)
    _check_depth(value, text, DEPTH_MAX)
    return text


def dumps_own(value: Json) -> bytes:
    """Return what `dumps` does, for a value that this process has read or checked itself.

    What `loads` returned and what a handler's answer was checked for holds no NaN, so it is not
    looked for again: that alone took six times as long as the writing.
    """
    try:
        return orjson.dumps(value, option=_ORJSON_OPTIONS)
    except TypeError:
        return dumps(value)


def _read(text: bytes | str) -> Json:
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _loads_exactly(text)
    encoded = text if isinstance(text, bytes) else text.encode()
    return _loads_exactly(text) if _LONG_DIGITS in encoded.translate(_DIGITS_TO_ZEROS) else value


def _loads_exactly(text: bytes | str) -> Json:
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value: Json = _EXACT_READER.decode(text)
    except RecursionError:
        raise _too_deep(DEPTH_MAX) from None
    return value


def _dumps_exactly(value: Json) -> bytes:
    levels = _levels(value, DEPTH_MAX)
    if len(levels) > DEPTH_MAX:
        raise _too_deep(DEPTH_MAX)
    _check_keys(levels)
    # What UTF-8 cannot carry is a lone surrogate in a string, where Python's escape is JSON's too.
    return _EXACT_WRITER.encode(value).encode(errors="backslashreplace")


def _check_depth(value: Json, text: bytes | str, depth_max: int) -> None:
    """Raise ValueError if the value nests deeper; the brackets in its text are a cheap bound."""
    if isinstance(text, str):
        text = text.encode(errors="surrogatepass")
    brackets = text.count(b"[") + text.count(b"{")
    if brackets > depth_max and len(_levels(value, depth_max)) > depth_max:
        raise _too_deep(depth_max)


def _check_finite(value: Json) -> None:
    """Raise ValueError for a float that is no number. What orjson wrote has a bounded depth."""
    containers: list[Any] = [value] if isinstance(value, (dict, list, tuple)) else []
    for container in containers:  # which grows while it is walked
        for child in container.values() if isinstance(container, dict) else container:
            kind = type(child)
            if kind is float:
                if not isfinite(child):
                    raise ValueError(f"{child} is not a JSON number")
            elif kind in _CONTAINERS:
                containers.append(child)
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value} is not a JSON number")


def _check_keys(levels: list[list[Any]]) -> None:
    """Raise TypeError for a key that is not a string: the library would quietly make it one."""
    for level in levels:
        for container in level:
            if isinstance(container, dict):
                for key in container:
                    if not isinstance(key, str):
                        raise TypeError(f"object key {key!r} is not a string")


def _levels(value: Json, depth_max: int) -> list[list[Any]]:
    """Return the arrays and objects of a value by level, to one level beyond `depth_max`."""
    levels: list[list[Any]] = []
    level = [value] if isinstance(value, (dict, list, tuple)) else []
    while level and len(levels) <= depth_max:
        levels.append(level)
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list, tuple))
        ]
    return levels


def _too_deep(depth_max: int) -> ValueError:
    return ValueError(f"nested deeper than {depth_max} levels of arrays and objects")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is beyond the largest double, 1.8e308")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_EXACT_READER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_EXACT_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
