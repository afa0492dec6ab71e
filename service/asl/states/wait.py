"""Wait state. ASL spec: "Wait State"; Step Functions guide: "Wait workflow state"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from service.asl.computed import Computed
from service.asl.context import Visit
from service.asl.dataflow import CAUSE_VALUE_CHARACTERS_MAX, find, shortened
from service.asl.errors import RUNTIME, EvaluationFailed, ExecutionError
from service.asl.execution import OpenWait
from service.asl.query.jsonpath import Path, PathNotFound
from service.asl.states.base import SECONDS_MAX, Goto, Park, State, read_common
from service.asl.states.fields import Node
from service.asl.values import Json, parse_timestamp

# Observed: 24,855 days ahead is accepted, 24,856 days are not; the service counts in signed 32-bit
# seconds.
DELAY_SECONDS_MAX: Final = 2**31 - 1

_FORMS: Final = ("Seconds", "SecondsPath", "Timestamp", "TimestampPath")


@dataclass(frozen=True, slots=True)
class Seconds:
    """A fixed number of seconds."""

    seconds: int

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over."""
        return _later(visit, self.seconds)


@dataclass(frozen=True, slots=True)
class SecondsPath:
    """A number of seconds that the input gives."""

    path: Path

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over.

        Raise ExecutionError("States.Runtime") unless the path yields an integer that is neither
        negative nor too large.
        """
        seconds = _selected("SecondsPath", self.path, value, visit)
        at = f"{self.path.text} == {shortened(seconds)}"
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            cause = f"The SecondsPath parameter cannot be parsed as a long value: {at}"
            raise ExecutionError(RUNTIME, cause)
        if seconds < 0:
            cause = f"The SecondsPath parameter references a negative value: {at}"
            raise ExecutionError(RUNTIME, cause)
        return _later(visit, seconds)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A fixed moment."""

    moment: datetime

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over.

        Raise ExecutionError("States.Runtime") when it is too far ahead.
        """
        return _bounded(visit, self.moment)


@dataclass(frozen=True, slots=True)
class TimestampPath:
    """A moment that the input gives."""

    path: Path

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over.

        Raise ExecutionError("States.Runtime") unless the path yields a timestamp that is not too
        far ahead.
        """
        text = _selected("TimestampPath", self.path, value, visit)
        try:
            if not isinstance(text, str):
                raise ValueError("not a string")
            moment = parse_timestamp(text)
        except ValueError as error:
            written = text if isinstance(text, str) else shortened(text)
            cause = (
                "The TimestampPath parameter does not reference a valid ISO-8601 extended offset "
                f"date-time format string: {self.path.text} == {written}"
            )
            raise ExecutionError(RUNTIME, cause) from error
        return _bounded(visit, moment)


@dataclass(frozen=True, slots=True)
class ComputedSeconds:
    """A number of seconds that an expression yields."""

    field: Computed

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over.

        Raise EvaluationFailed unless the expression yields an integer within limits.
        """
        return _later(visit, self.field.integer(visit, 0, SECONDS_MAX))


@dataclass(frozen=True, slots=True)
class ComputedTimestamp:
    """A moment that an expression yields."""

    field: Computed

    def resolve(self, value: Json, visit: Visit) -> datetime:
        """Return the moment at which the wait is over.

        Raise EvaluationFailed unless the expression yields a timestamp, ExecutionError
        ("States.Runtime") when it is too far ahead.
        """
        text = self.field.text(visit)
        try:
            moment = parse_timestamp(text)
        except ValueError as error:
            cause = (
                "The Timestamp field cannot be parsed as an ISO-8601 extended offset "
                f"date-time format string: {text[:CAUSE_VALUE_CHARACTERS_MAX]}"
            )
            raise EvaluationFailed(cause, self.field.location) from error
        return _bounded(visit, moment)


Until: TypeAlias = (
    Seconds | SecondsPath | Timestamp | TimestampPath | ComputedSeconds | ComputedTimestamp
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(State):
    """Hold the frame until a moment, which may be named in several ways, or until a signal."""

    until: Until

    @property
    def type(self) -> str:
        return "Wait"

    @property
    def fails_after_entry(self) -> bool:
        return True

    def enter(self, visit: Visit) -> Park:
        """Return the wait. A moment already past still parks: its timer is due at once.

        Raise ExecutionError when a path or an expression yields no integer or timestamp.
        """
        return Park(OpenWait(self.until.resolve(self.flow.selected(visit), visit)))

    def resume(self, visit: Visit, result: Json) -> Goto:
        """Return the way to the next state; a wait has no result, its input goes on."""
        return self.goto(visit, self.flow.selected(visit))


def _selected(field: str, path: Path, value: Json, visit: Visit) -> Json:
    try:
        return find(path, value, visit)
    except PathNotFound as error:
        cause = f"The {field} parameter does not reference an input value: {path.text}"
        raise ExecutionError(RUNTIME, cause) from error


def _later(visit: Visit, seconds: int) -> datetime:
    if seconds > SECONDS_MAX:
        raise ExecutionError(RUNTIME, "Wait state delay is too long.")
    return visit.now + timedelta(seconds=seconds * visit.time_scale)


def _bounded(visit: Visit, moment: datetime) -> datetime:
    if (moment - visit.now).total_seconds() > DELAY_SECONDS_MAX:
        raise ExecutionError(RUNTIME, "Wait state delay is too long.")
    return moment if moment > visit.now else visit.now


def read(node: Node, name: str) -> Wait:
    """Return the state, noting what is wrong with it."""
    common = read_common(node, name, "Assign")
    forms = [form for form in _FORMS if not (node.is_jsonata and form.endswith("Path"))]
    if node.exclusive(*forms) is None:
        node.problems.add(node.pointer, f"One of these fields is required: [{', '.join(forms)}]")
    return Wait(
        name=name, next=common.next, flow=common.flow, until=_read_until(node) or Seconds(0)
    )


def _read_until(node: Node) -> Until | None:
    if node.is_expression("Seconds"):
        field = node.computed("Seconds")
        return None if field is None else ComputedSeconds(field)
    if node.is_expression("Timestamp"):
        field = node.computed("Timestamp")
        return None if field is None else ComputedTimestamp(field)
    if (seconds := node.integer("Seconds", 0, SECONDS_MAX)) is not None:
        return Seconds(seconds)
    if (text := node.text("Timestamp")) is not None:
        try:
            return Timestamp(parse_timestamp(text))
        except ValueError:
            node.wrong("Timestamp", "String does not match RFC3339 timestamp")
    return None if node.is_jsonata else _read_path(node)


def _read_path(node: Node) -> Until | None:
    if (path := node.reference_path("SecondsPath")) is not None:
        return SecondsPath(path)
    if (path := node.reference_path("TimestampPath")) is not None:
        return TimestampPath(path)
    return None
