"""Regular expressions: functions that return a match and the way to the next one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from service.asl.query.jsonata.values import (
    UNDEFINED,
    Function,
    JsonataError,
    Run,
    Value,
    apply,
)

MATCH_STEPS: Final = 30  # what finding one match costs, beside the text walked over
CHARACTERS_PER_STEP_MATCHED: Final = 32

# RE2 goes from one set of its program's places to the next, a character at a time, as long as it
# can keep the sets it has seen; else it walks through the places themselves. Measured: of so small
# a program no more sets are seen than can be kept, and so many places are walked in a step's time.
PROGRAM_SMALL: Final = 15
PLACES_PER_STEP: Final = 20

_ATOM: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
_ENDLESS: Final = re.compile(r"[*+]|\{[0-9]*,\}")
_BRANCHING: Final = re.compile(r"\||\)[*+?{]")


class Match(NamedTuple):
    """A match: the text, where it starts and ends, and what its groups have matched."""

    match: str
    start: int
    end: int
    groups: list[Value]


class Regex(Function):
    """A regular expression, which is called with a text and returns its first match."""

    __slots__ = ("_groups", "_looks_far", "_places", "pattern", "source")

    arity = 2
    is_true = False

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern
        self.source: str = pattern.pattern
        self._groups = range(1, pattern.groups + 1)
        self._places: int = pattern.programsize
        # With a choice, and without an end, one match may be known only when all the rest of the
        # text has been seen, and so the next: of anything else twice the text is seen at most.
        plain = _ATOM.sub(".", self.source)
        self._looks_far = bool(_ENDLESS.search(plain) and _BRANCHING.search(plain))

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return the first match in a text with a way to the next, UNDEFINED if there is none."""
        return _chained(self.matches(run, _text_argument(arguments)))

    def matches(self, run: Run, subject: str) -> Iterator[Match]:
        """Yield the matches from left to right. Raise D1004 for a second one without length."""
        run.spend(2 * self._steps(len(subject)))
        end = 0
        # Of bytes the library need not count characters, which makes it twice as fast.
        searched = subject.encode("ascii") if subject.isascii() else subject
        for count, match in enumerate(self.pattern.finditer(searched)):
            run.spend(MATCH_STEPS)
            if count and end == len(subject):
                return
            start, end = match.span()
            if self._looks_far:
                run.spend(self._steps(len(subject) - end))
            if count and start == end:
                raise JsonataError("D1004", value=self.source)
            spans = map(match.span, self._groups)
            groups = [subject[at:to] if at >= 0 else UNDEFINED for at, to in spans]
            yield Match(subject[start:end], start, end, groups)
            if start == end < len(subject):
                raise JsonataError("D1004", value=self.source)

    def _steps(self, length: int) -> int:
        """Return what looking at so many characters may cost."""
        if self._places <= PROGRAM_SMALL:
            return length // CHARACTERS_PER_STEP_MATCHED
        return length * self._places // PLACES_PER_STEP


class _Next(Function):
    """The way from a match to the one after it."""

    __slots__ = ("_found", "_rest")

    arity = 0

    def __init__(self, rest: Iterator[Match]) -> None:
        self._rest = rest
        self._found: Value = None

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        if self._found is None:
            self._found = _chained(self._rest)
        return self._found


def _chained(rest: Iterator[Match]) -> Value:
    match = next(rest, None)
    return UNDEFINED if match is None else _described(match, _Next(rest))


def _described(match: Match, following: Function) -> dict[str, Value]:
    return {**match._asdict(), "next": following}


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
