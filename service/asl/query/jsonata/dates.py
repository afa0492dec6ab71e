"""JSONata's functions of moments, and of integers in words, letters and Roman numerals.

The pictures of both are the library's. Source: XPath and XQuery Functions 3.1, `format-integer` and
`format-dateTime`, as JSONata narrows them.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.asl.query.jsonata.library import (
    MESSAGES,
    DateTimeUtils,
    JException,
    RegexFlags,
    UnsupportedPattern,
    compile_pattern,
)
from service.asl.query.jsonata.number_pictures import check_length
from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import UNDEFINED, JsonataError, Run, Value, double

_ROMAN_LETTER_VALUE: Final = 1000  # a Roman numeral has a letter for every thousand
_WIDE: Final = re.compile(r"\[[^\]]*,[^\]]*[0-9]{4}")
_INTEGER_MAX: Final = 10**21
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ISO_8601: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?)?"
    r"(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?"
)


def _format_integer(run: Run, value: Value, picture: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if not math.isfinite(double(value)) or abs(value) >= _INTEGER_MAX:
        raise JsonataError("D1001", value=value)
    whole = math.floor(value)
    check_length(picture)
    if picture[:1] in {"i", "I"}:
        run.hold(abs(whole) // _ROMAN_LETTER_VALUE)
        run.spend(abs(whole) // _ROMAN_LETTER_VALUE)
    return _by_library(DateTimeUtils.format_integer, whole, picture)


def _parse_integer(run: Run, written: Value, picture: Value) -> Value:
    if written is UNDEFINED:
        return UNDEFINED
    check_length(written)  # which the library's own regexes walk
    return _by_library(DateTimeUtils.parse_integer, written, picture)


def _from_millis(run: Run, millis: Value, picture: Value, timezone: Value) -> Value:
    if millis is UNDEFINED:
        return UNDEFINED
    if picture is not UNDEFINED and _WIDE.search(picture):
        raise JsonataError("D3137", message="A width in a date/time picture is at most 999")
    return _by_library(
        DateTimeUtils.format_datetime,
        int(millis),
        None if picture is UNDEFINED else picture,
        None if timezone is UNDEFINED else timezone,
    )


def milliseconds(moment: datetime) -> int:
    """Return the milliseconds from 1970 to a moment, rounded down."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _now(run: Run, picture: Value, timezone: Value) -> Value:
    return _from_millis(run, milliseconds(run.now), picture, timezone)


def _millis(run: Run) -> Value:
    return milliseconds(run.now)


def _to_millis(run: Run, written: Value, picture: Value) -> Value:
    if written is UNDEFINED:
        return UNDEFINED
    if picture is not UNDEFINED:
        return _by_library(_parse_by_picture, run, written, picture)
    match = _ISO_8601.fullmatch(written)
    if match is None:
        raise JsonataError("D3110", value=written)
    *parts, fraction, sign, offset_hours, offset_minutes = match.groups()
    year, month, day, hour, minute, second = (
        int(part or least) for part, least in zip(parts, (1, 1, 1, 0, 0, 0), strict=True)
    )
    thousandths = int((fraction or "0").ljust(3, "0")[:3])
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    try:
        moment = datetime(year, month, 1, hour, minute, second, thousandths * 1000, UTC)
        moment += timedelta(days=day - 1)  # the 31st of February is in March
    except (ValueError, OverflowError) as error:
        raise JsonataError("D3110", value=written) from error
    local = milliseconds(moment)
    return local + (1 if sign == "-" else -1) * (offset // timedelta(milliseconds=1))


def _parse_by_picture(run: Run, written: str, picture: str) -> Value:
    """Return the moment a text names, in milliseconds, UNDEFINED for a text of another form.

    The library does the same with a regex engine that runs away, and fills in from its own clock.
    """
    matcher = DateTimeUtils._generate_regex(DateTimeUtils._analyse_datetime_picture(picture))
    pattern = "".join(f"({part.regex})" for part in matcher.parts)
    match = compile_pattern(pattern, RegexFlags(case_insensitive=True)).fullmatch(written)
    if match is None:
        return UNDEFINED
    found: dict[str, int] = {}
    for part, piece in zip(matcher.parts, match.groups(), strict=True):
        if part.component is not None:
            found[part.component] = part.parse(piece)
    if not found:
        return UNDEFINED
    return _moment_of(_completed(found, run.now), found)


def _completed(found: dict[str, int], now: datetime) -> dict[str, int]:
    """Return the components of a moment: before the first one given those of now, then the least.

    Raise D3136 for a gap between two that are given.
    """
    if any(component in found for component in "XxwWF") and "Y" not in found:
        raise JsonataError("D3136")
    by_day_of_year = "d" in found and "M" not in found and "D" not in found
    by_half_day = ("P" in found or "h" in found) and "H" not in found
    order = ("Yd" if by_day_of_year else "YMD") + ("Phmsf" if by_half_day else "Hmsf")
    current = {
        "Y": now.year,
        "M": now.month,
        "D": now.day,
        "d": now.timetuple().tm_yday,
        "H": now.hour,
        "P": now.hour // 12,
        "h": now.hour % 12,
        "m": now.minute,
        "s": now.second,
        "f": now.microsecond // 1000,
    }
    completed: dict[str, int] = {}
    started = ended = False
    for component in order:
        given = found.get(component)
        if given is not None and ended:
            raise JsonataError("D3136")
        started = started or given is not None
        ended = ended or (started and given is None)
        least = 1 if component in "MDd" else 0
        completed[component] = (
            given if given is not None else least if started else current[component]
        )
    return completed


def _moment_of(parts: dict[str, int], found: dict[str, int]) -> int:
    hour = parts["H"] if "H" in parts else parts["h"] % 12 + 12 * parts["P"]
    month, day = (1, 1) if "d" in parts else (parts["M"], parts["D"])
    moment = datetime(
        parts["Y"], month, day, hour, parts["m"], parts["s"], parts["f"] * 1000, tzinfo=UTC
    )
    moment += timedelta(days=parts.get("d", 1) - 1)
    minutes_east = found.get("Z", found.get("z", 0))
    return milliseconds(moment) - minutes_east * 60_000


_CODES: Final = {
    "Formatting or parsing an integer as a sequence": "D3130",
    "No matching closing bracket": "D3135",
    "The timezone integer format": "D3134",
    "In a decimal digit pattern": "D3131",
    "The date/time picture string is missing": "D3136",
}


def _by_library(function: Any, *arguments: Any) -> Value:
    """Return what the library's function returns, its failures as those of the expression."""
    for argument in arguments[1:]:
        check_length(argument)
    try:
        result = function(*arguments)
    except JException as error:
        known = error.error in MESSAGES
        code = error.error if known else "D3137"
        raise JsonataError(code, message=str(error), value=error.current) from error
    except KeyError as error:
        raise JsonataError("D3132", value=error.args[0]) from error
    except (RuntimeError, UnsupportedPattern) as error:
        reason = str(error)
        code = next((code for start, code in _CODES.items() if reason.startswith(start)), "D3137")
        raise JsonataError(
            code,
            message=reason,
            value=arguments[-1][:1] if isinstance(arguments[-1], str) else UNDEFINED,
        ) from error
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError, OSError) as error:
        # What the library trips over is a picture, or a text, that it was not written for.
        raise JsonataError("D3137", message=f"The picture cannot be used: {error}") from error
    return UNDEFINED if result is None else result


DATE_FUNCTIONS: Final = (
    Native("formatInteger", "<n-s:s>", _format_integer, 2),
    Native("parseInteger", "<s-s:n>", _parse_integer, 2),
    Native("fromMillis", "<n-s?s?:s>", _from_millis, 3),
    Native("toMillis", "<s-s?:n>", _to_millis, 2),
    Native("now", "<s?s?:s>", _now, 2),
    Native("millis", "<:n>", _millis, 0),
)
