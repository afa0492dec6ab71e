"""What came of a case, in words for people: its path with virtual times, and what was expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from service.asl import Json, Status
from service.asl.values import equal
from service.documents import dumps
from service.simulation.cases import Expectation
from service.simulation.run import START, Played
from service.simulation.trace import Failure, Visit, visits_of

VALUE_CHARACTERS_SHOWN: Final = 100
TEXT_CHARACTERS_SHOWN: Final = 20
MEMBERS_SHOWN: Final = 8
DEPTH_SHOWN: Final = 4
FAILURES_SHOWN: Final = 3
VISITS_SHOWN: Final = 200
COMPARED_CHARACTERS_SHOWN: Final = 4_000

OK: Final = "ok"
FAIL: Final = "FAIL"
RAN: Final = "ran"  # nothing was expected of it
VERDICTS: Final = (OK, RAN, FAIL)

_Line = tuple[datetime, str, str]
"""When, what (the state), and the rest."""


def failures_of(played: Played) -> list[str]:
    """Return what of a case is not as expected, each with what was expected and what came."""
    failures = [] if played.problem is None else [played.problem]
    expect = played.case.expect
    return failures if expect is None else [*failures, *_differences(expect, played)]


def render(played: Played) -> str:
    """Return a case's heading, its path and its failures, as lines of text."""
    failures = failures_of(played)
    heading = f"{_verdict(played):4} {_plain(played.case.name)}: {_ending(played)}"
    if cause := played.execution.cause:
        failures.insert(0, f"cause: {_cut(_plain(cause), COMPARED_CHARACTERS_SHOWN)}")
    told = (f"     {line}" for text in failures for line in text.split("\n"))
    return "\n".join([heading, *_aligned(_path(played)), *told])


def summary(all_played: Sequence[Played], seed: int) -> str:
    """Return how many cases were played, and how many of them to which verdict."""
    verdicts = Counter(map(_verdict, all_played))
    counts = ", ".join(f"{verdicts[one]} {one}" for one in VERDICTS if verdicts[one])
    return f"{len(all_played)} played: {counts} (seed {seed})"


def _verdict(played: Played) -> str:
    if failures_of(played):
        return FAIL
    return RAN if played.case.expect is None else OK


def clock(seconds: float, *, has_milliseconds: bool | None = None) -> str:
    """Return a time since the start as 00:30:00, with milliseconds and days if there are any.

    `has_milliseconds` says whether they are shown in any case.
    """
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    shown = f"{hour:02}:{minute:02}:{second:02}"
    if has_milliseconds or (milliseconds and has_milliseconds is None):
        shown = f"{shown}.{milliseconds:03}"
    return f"{days}d {shown}" if days else shown


# -------------------------------------------------------------------- what was expected


def _differences(expect: Expectation, played: Played) -> Iterator[str]:
    execution = played.execution
    came: dict[str, Json] = {
        "path": list(played.path),
        "status": execution.status.value,
        "output": execution.output,
        "error": execution.error,
        "cause": execution.cause,
    }
    for member, got in came.items():
        expected = getattr(expect, member)
        if expect.tells(member) and not equal(expected, got):
            yield _difference(member, _whole(expected), _whole(got))
    if expect.seconds is not None:
        least, most = expect.seconds
        if not least <= played.seconds <= most:
            wanted = f"{least}" if least == most else f"[{least}, {most}]"
            yield _difference("seconds", wanted, f"{played.seconds}".removesuffix(".0"))


def _difference(member: str, expected: str, got: str) -> str:
    return f"{member}: expected {expected}\n{'got'.rjust(len(member) + 10)} {got}"


def _whole(value: Json) -> str:
    """Return a value as JSON that can be pasted into a cases file, unless it is very long."""
    return _cut(dumps(value).decode(), COMPARED_CHARACTERS_SHOWN)


# -------------------------------------------------------------------- what happened


def _ending(played: Played) -> str:
    execution = played.execution
    if execution.status is Status.RUNNING:
        return f"RUNNING at {clock(played.seconds)}"
    error = f" with {_plain(execution.error)}" if execution.error else ""
    return f"{execution.status.value}{error} after {clock(played.seconds)}"


def _aligned(lines: list[_Line]) -> Iterator[str]:
    """Yield the lines with their times and states one below the other."""
    seconds = [(at - START).total_seconds() for at, _, _ in lines]
    is_split = any(round(moment * 1000) % 1000 for moment in seconds)
    times = [clock(moment, has_milliseconds=is_split) for moment in seconds]
    time_width = max(map(len, times), default=0)
    state_width = max((len(state) for _, state, _ in lines), default=0)
    for time, (_, state, rest) in zip(times, lines, strict=True):
        yield f"     {time:>{time_width}}  {state:<{state_width}}  {rest}".rstrip()


def _path(played: Played) -> list[_Line]:
    """Return a line for each visit and failed try, and one for the visitor, in order of time."""
    visits = visits_of(played.events)
    lines: list[_Line] = []
    for before, visit in zip([None, *visits], visits[:VISITS_SHOWN], strict=False):
        lines += _lines(visit, before)
    if played.verified_at is not None:
        lines.append((played.verified_at, "(the visitor verifies)", ""))
    # A sort that keeps the order of what happens at one moment, but puts the visitor first there.
    lines.sort(key=lambda line: (line[0], not line[1].startswith("(")))
    if (more := len(visits) - VISITS_SHOWN) > 0:
        lines.append((lines[-1][0], f"(and {more} more)", ""))
    return lines


def _lines(visit: Visit, before: Visit | None) -> Iterator[_Line]:
    """Yield the visit, an input that is the output of the visit before as a mere "…", and its
    failures.
    """
    state = _plain(visit.state)
    is_passed_on = before is not None and before.left_at and equal(before.output, visit.input)
    shown = "…" if is_passed_on else _short(visit.input)
    if visit.left_at is not None:
        shown += f" → {_change(visit.input, visit.output)}"
        if visit.assigned is not None:
            shown += f", variables {_short(visit.assigned)}"
        if visit.left_at > visit.entered_at:
            shown += f", {clock((visit.left_at - visit.entered_at).total_seconds())} later"
    yield visit.entered_at, state, shown
    for failure in visit.failures[:FAILURES_SHOWN]:
        yield failure.at, state, f"failed: {_reason(failure)}"
    if (more := len(visit.failures) - FAILURES_SHOWN) > 0:
        last = visit.failures[-1]
        yield last.at, state, f"failed {more} times more, at last: {_reason(last)}"


def _reason(failure: Failure) -> str:
    if failure.cause is None:
        return _plain(failure.error)
    return f"{_plain(failure.error)}: {_cut(_plain(failure.cause), VALUE_CHARACTERS_SHOWN)}"


def _change(before: Json, after: Json) -> str:
    """Return what a state made of its input: the members it added or changed, if it only did so."""
    if equal(before, after):
        return "the same"
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() <= after.keys():
        news = {k: v for k, v in after.items() if k not in before or not equal(before[k], v)}
        if len(news) < len(after):
            return f"{{…,{_short(news)[1:]}"
    return _short(after)


def _short(value: Json) -> str:
    return _cut(dumps(_abridged(value, DEPTH_SHOWN)).decode(), VALUE_CHARACTERS_SHOWN)


def _abridged(value: Json, depth: int) -> Json:
    """Return a value with its long texts and its many members cut short."""
    if isinstance(value, str):
        return _cut(value, TEXT_CHARACTERS_SHOWN)
    if not isinstance(value, dict | list) or not value:
        return value
    if not depth:
        return "…"
    if isinstance(value, dict):
        members = list(value.items())[:MEMBERS_SHOWN]
        short = {name: _abridged(member, depth - 1) for name, member in members}
        return short if len(short) == len(value) else short | {"…": len(value) - len(short)}
    items: list[Json] = [_abridged(item, depth - 1) for item in value[:MEMBERS_SHOWN]]
    return items if len(items) == len(value) else [*items, "…"]


def _plain(text: str) -> str:
    """Return a text on one line: line breaks, control characters, lone surrogates as escapes."""
    return dumps(text).decode()[1:-1].replace('\\"', '"')


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1].rstrip('…')}…"
