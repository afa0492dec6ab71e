"""Regular expressions: functions that return a match and the way to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.asl.query.jsonata.values import (
    LIST_ITEMS_PER_STEP,
    UNDEFINED,
    Function,
    JsonataError,
    Run,
    Value,
    apply,
)

MATCH_STEPS: Final = 10  # what finding one match costs, beside the text walked over


class Regex(Function):
    """A regular expression, which is called with a text and returns its first match."""

    __slots__ = ("pattern", "source")

    arity = 2
    is_true = False

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern
        self.source: str = pattern.pattern

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return the first match in a text with a way to the next, UNDEFINED if there is none."""
        return _chained(run, self.matches(run, _text_argument(arguments)))

    def matches(self, run: Run, subject: str) -> Iterator[Any]:
        """Yield the matches from left to right. Raise D1004 for a second one without length."""
        run.spend(1 + len(subject) // LIST_ITEMS_PER_STEP)
        end = 0
        for count, match in enumerate(self.pattern.finditer(subject)):
            run.spend(MATCH_STEPS)
            if count and end == len(subject):
                return
            if count and match.start() == match.end():
                raise JsonataError("D1004", value=self.source)
            yield match
            end = match.end()
            if match.start() == end < len(subject):
                raise JsonataError("D1004", value=self.source)


class _Next(Function):
    """The way from a match to the one after it."""

    __slots__ = ("_found", "_rest")

    arity = 0

    def __init__(self, rest: Iterator[Any]) -> None:
        self._rest = rest
        self._found: Value = None

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        if self._found is None:
            self._found = _chained(run, self._rest)
        return self._found


def _chained(run: Run, rest: Iterator[Any]) -> Value:
    match = next(rest, None)
    return UNDEFINED if match is None else _described(match, _Next(rest))


def _described(match: Any, following: Function) -> dict[str, Value]:
    return {
        "match": match.group(),
        "start": match.start(),
        "end": match.end(),
        "groups": _groups(match),
        "next": following,
    }


def _groups(match: Any) -> list[Value]:
    return [UNDEFINED if group is None else group for group in match.groups()]


def _text_argument(arguments: list[Value]) -> str:
    if not arguments or not isinstance(arguments[0], str):
        raise JsonataError("T0410", index=1)
    return arguments[0]


def found_by(run: Run, matcher: Function, subject: str) -> Iterator[dict[str, Value]]:
    """Yield what a regular expression, or a function in its place, finds in a text."""
    if isinstance(matcher, Regex):
        for match in matcher.matches(run, subject):
            yield _described(match, matcher)
        return
    found = apply(run, matcher, [subject])
    while found is not UNDEFINED:
        if not (
            isinstance(found, dict)
            and isinstance(found.get("match"), str)
            and isinstance(found.get("start"), int)
            and isinstance(found.get("end"), int)
            and isinstance(found.get("groups"), list)
            and isinstance(found.get("next"), Function)
        ):
            raise JsonataError("T1010")
        yield found
        found = apply(run, found["next"], [])
