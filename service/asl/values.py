"""What a workflow computes with: JSON values, their equality and size, moments, random numbers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Protocol, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

# Step Functions guide, "Service quotas": input and output of a task, state or execution, in UTF-8.
PAYLOAD_BYTES_MAX: Final = 262_144

# A loop that wraps its own state data grows deeper by a level each turn. The encoders below us give
# up near 254 levels, so a value this deep counts as too large while it is still easy to report.
NESTING_MAX: Final = 200

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_TIMESTAMP_CHARACTERS_SHOWN: Final = 64
_NUMBER_BYTES_MAX: Final = 25  # "-2.2250738585072014e-308" and a comma
_ESCAPED_CHARACTER_BYTES_MAX: Final = 6  # a control character as its \u escape
_SHORT_INTEGERS: Final = 10**18  # and below take no more than _NUMBER_BYTES_MAX


class Random(Protocol):
    """Where the language gets its random numbers from: it has none of its own."""

    def bits(self, n: int) -> int:
        """Return a uniformly random integer of `n` bits, from 0."""

    def uniform(self) -> float:
        """Return a uniformly random number, from 0 and below 1."""


def equal(a: Json, b: Json) -> bool:
    """Return whether two values are the same JSON: numbers by value, members in any order.

    A boolean is never a number, unlike in Python, where `True == 1`.
    """
    pairs = [(a, b)]
    while pairs:
        a, b = pairs.pop()
        if a is b:
            continue
        if isinstance(a, dict):
            if not isinstance(b, dict) or a.keys() != b.keys():
                return False
            pairs.extend((a[name], b[name]) for name in a)
        elif isinstance(a, list):
            if not isinstance(b, list) or len(a) != len(b):
                return False
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, bool) or isinstance(b, bool) or a != b:
            return False
    return True


def exceeds(value: Json, limit_bytes: int = PAYLOAD_BYTES_MAX) -> bool:
    """Return whether the compact UTF-8 JSON text of a value is longer than `limit_bytes`.

    A value nested deeper than NESTING_MAX exceeds every limit.
    """
    # A bound tells it of nearly all values, and is found without writing down a level of them.
    if _bytes_at_most(value, limit_bytes, 0) <= limit_bytes:
        return False
    return measured(value, limit_bytes) > limit_bytes


def measured(value: Json, limit_bytes: int = PAYLOAD_BYTES_MAX) -> int:
    """Return about how many bytes a value's JSON text has: over the limit exactly if it exceeds it.

    One walk adds up what the text needs at least and at most; it is written out only when the limit
    lies between the two.
    """
    at_least = at_most = 0
    level: list[Json] = [value]
    for _ in range(NESTING_MAX + 1):
        below: list[Json] = []
        for part in level:
            if isinstance(part, str):
                at_least += len(part) + 2
                at_most += _ESCAPED_CHARACTER_BYTES_MAX * len(part) + 3
            elif isinstance(part, dict):
                names = sum(map(len, part))
                at_least += max(2, names + 4 * len(part) + 1)
                at_most += _ESCAPED_CHARACTER_BYTES_MAX * names + 4 * len(part) + 3
                below.extend(part.values())
            elif isinstance(part, list):
                at_least += max(2, len(part) + 1)
                at_most += 3
                below.extend(part)
            elif isinstance(part, int):
                at_least += 1
                at_most += part.bit_length() // 3 + 6
            else:
                at_least += 3
                at_most += _NUMBER_BYTES_MAX
            if at_least > limit_bytes:
                return at_least
        if not below:
            return at_least if at_most <= limit_bytes else text_bytes(value)
        level = below
    return limit_bytes + 1


def _bytes_at_most(value: Json, limit_bytes: int, depth: int) -> int:
    """Return how many bytes a value's JSON text has at most.

    Any number over the limit when that is more, or when the value is nested as deep as it may be.
    """
    if isinstance(value, str):
        return _ESCAPED_CHARACTER_BYTES_MAX * len(value) + 3
    if isinstance(value, dict):
        at_most = 3 if depth < NESTING_MAX else limit_bytes + 1
        for name, member in value.items():
            if at_most > limit_bytes:
                break
            at_most += _ESCAPED_CHARACTER_BYTES_MAX * len(name) + 4
            at_most += _bytes_at_most(member, limit_bytes, depth + 1)
        return at_most
    if isinstance(value, list):
        at_most = 3 if depth < NESTING_MAX else limit_bytes + 1
        for member in value:
            if at_most > limit_bytes:
                break
            at_most += _bytes_at_most(member, limit_bytes, depth + 1)
        return at_most
    if isinstance(value, int) and not -_SHORT_INTEGERS < value < _SHORT_INTEGERS:
        return value.bit_length() // 3 + 6
    return _NUMBER_BYTES_MAX


def text_of(value: Json) -> str:
    """Return the compact JSON text of a value, its characters unescaped where JSON allows it."""
    return _encode(value)


def text_bytes(value: Json) -> int:
    """Return the length of a value's compact JSON text in UTF-8."""
    # A lone surrogate has no UTF-8; it is written as its escape, which is what is counted here.
    return len(text_of(value).encode("utf-8", "backslashreplace"))


def parse_timestamp(text: str) -> datetime:
    """Return the moment a timestamp names, in UTC, cut to microseconds.

    Raise ValueError for what is not RFC 3339 with a capital T and either a capital Z or an offset,
    or no moment of the calendar. Source: ASL spec, "Timestamps".
    """
    shown = repr(text[:_TIMESTAMP_CHARACTERS_SHOWN])
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown} is not an RFC 3339 timestamp such as 2016-03-14T01:59:00Z")
    *calendar, fraction, sign, offset_hours, offset_minutes = match.groups()
    year, month, day, hour, minute, second = map(int, calendar)
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    try:
        zone = _zone(sign, offset_hours, offset_minutes)
        moment = datetime(year, month, day, hour, minute, second, microsecond, zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{shown} is not a moment of the calendar: {error}") from None


def _zone(sign: str | None, hours: str | None, minutes: str | None) -> timezone:
    if sign is None or hours is None or minutes is None:
        return UTC
    if int(minutes) > 59:
        raise ValueError("offset minutes must be in 00..59")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(offset if sign == "+" else -offset)


def format_timestamp(moment: datetime) -> str:
    """Return a moment as the context object writes it: UTC, cut to milliseconds, with a Z."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
