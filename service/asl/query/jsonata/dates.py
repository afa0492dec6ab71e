"""JSONata's functions of moments, and of integers in words, letters and Roman numerals.

The pictures of both are the library's. Source: XPath and XQuery Functions 3.1, `format-integer` and
`format-dateTime`, as JSONata narrows them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
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
from service.asl.query.jsonata.regex import PLACES_PER_STEP
from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import UNDEFINED, JsonataError, Run, Value, double

# The library takes a picture apart, and writes by it, so slowly that it counts.
READ_STEPS: Final = 70  # for a picture and each of its parts
CHARACTER_STEPS: Final = 10  # and for a character
PATTERN_STEPS: Final = 60  # compiling a part for reading by it
PART_STEPS: Final = 30  # writing a part, or reading it
WEEK_STEPS: Final = 140  # writing one that has to do with weeks
INTEGER_STEPS: Final = 100  # writing or reading an integer

ISO_8601_PICTURE: Final = "[Y0001]-[M01]-[D01]T[H01]:[m01]:[s01].[f001][Z01:01t]"
_ROMAN_LETTER_VALUE: Final = 1000  # a Roman numeral has a letter for every thousand
_WIDE: Final = re.compile(r"\[[^\]]*,[^\]]*[0-9]{4}")
_INTEGER_MAX: Final = 10**21
_WEEKS: Final = frozenset("XxWw")
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
    run.spend(INTEGER_STEPS + len(picture))
    return _by_library(
        lambda: DateTimeUtils._format_integer(whole, _of_integer(run, picture)), picture
    )


def _of_integer(run: Run, picture: str) -> Any:
    # Its grouping is found by looking at all of it for each of its characters.
    steps = READ_STEPS + CHARACTER_STEPS * len(picture) + len(picture) ** 2 // 32
    return run.once(picture, steps, lambda: DateTimeUtils._analyse_integer_picture(picture))


def _of_moment(run: Run, picture: str) -> Any:
    steps = READ_STEPS * (1 + picture.count("[")) + CHARACTER_STEPS * len(picture)
    key = "moment", picture
    return run.once(key, steps, lambda: DateTimeUtils._analyse_datetime_picture(picture))


def _parse_integer(run: Run, written: Value, picture: Value) -> Value:
    if written is UNDEFINED:
        return UNDEFINED
    check_length(written)  # which the library's own regexes walk
    check_length(picture)
    run.spend(INTEGER_STEPS + CHARACTER_STEPS * len(written))

    def parse() -> Value:
        matcher = DateTimeUtils._generate_regex_with_component(None, _of_integer(run, picture))
        return matcher.parse(written)

    return _by_library(parse, written, picture)


def _from_millis(run: Run, millis: Value, picture: Value, timezone: Value) -> Value:
    if millis is UNDEFINED:
        return UNDEFINED
    if picture is not UNDEFINED and _WIDE.search(picture):
        raise JsonataError("D3137", message="A width in a date/time picture is at most 999")
    if picture is not UNDEFINED:
        check_length(picture)
    return _by_library(lambda: _written(run, int(millis), picture, timezone), picture, timezone)


def _written(run: Run, millis: int, picture: Value, timezone: Value) -> str:
    """Return a moment by a picture, in ISO 8601 where there is none, at an offset such as +0100."""
    east = 0 if timezone is UNDEFINED else int(timezone)
    hours, minutes = math.trunc(east / 100), int(math.fmod(east, 100))
    moment = _EPOCH + timedelta(milliseconds=millis, hours=hours, minutes=minutes)
    if picture is UNDEFINED and not east:
        return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    parts = _of_moment(run, ISO_8601_PICTURE if picture is UNDEFINED else picture).parts
    run.spend(sum(WEEK_STEPS if part.component in _WEEKS else PART_STEPS for part in parts))
    return "".join(
        part.value
        if part.type == "literal"
        else DateTimeUtils._format_component(moment, part, hours, minutes)
        for part in parts
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
        check_length(written)
        check_length(picture)
        return _by_library(lambda: _parse_by_picture(run, written, picture), written, picture)
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
    spec = _of_moment(run, picture)
    steps = PATTERN_STEPS * (1 + len(spec.parts))
    matcher, pattern = run.once(("pattern", picture), steps, lambda: _pattern_of(spec))
    run.spend(PART_STEPS * len(spec.parts) + len(written) * pattern.programsize // PLACES_PER_STEP)
    match = pattern.fullmatch(written)
    if match is None:
        return UNDEFINED
    found: dict[str, int] = {}
    for part, piece in zip(matcher.parts, match.groups(), strict=True):
        if part.component is not None:
            found[part.component] = part.parse(piece)
    if not found:
        return UNDEFINED
    return _moment_of(_completed(found, run.now), found)


def _pattern_of(spec: Any) -> tuple[Any, Any]:
    """Return the library's matcher of a picture, and its pattern compiled by another engine."""
    matcher = DateTimeUtils._generate_regex(spec)
    pattern = "".join(f"({part.regex})" for part in matcher.parts)
    return matcher, compile_pattern(pattern, RegexFlags(case_insensitive=True))


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


def _by_library(function: Callable[[], Value], *arguments: Value) -> Value:
    """Return what the library makes of the arguments, its failures as those of the expression."""
    try:
        result = function()
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
            value=next((a[:1] for a in reversed(arguments) if isinstance(a, str)), UNDEFINED),
        ) from error
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError, OSError) as error:
        # What the library trips over is a picture, or a text, that it was not written for.
        raise JsonataError("D3137", message=f"The picture cannot be used: {error}") from error
    return UNDEFINED if result is None else result


DATE_FUNCTIONS: Final = (
    Native("formatInteger", "<n-s:s>", _format_integer, 2),
    Native("parseInteger", "<s-s:n>", _parse_integer, 2),
    Native("fromMillis", "<n-s?s?:s>", _from_millis, 3, steps=25),
    Native("toMillis", "<s-s?:n>", _to_millis, 2, steps=70),
    Native("now", "<s?s?:s>", _now, 2, steps=25),
    Native("millis", "<:n>", _millis, 0),
)
