"""The events of an execution's history, named and shaped as GetExecutionHistory shows them.

An event holds the values themselves, not their JSON text: writing text is for those who read a
history, and most histories are never read. `render` makes what the API shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from service.asl.values import Json, text_of

# Step Functions guide, "Service quotas": the history of a Standard execution ends here, and with it
# the execution.
HISTORY_EVENTS_MAX: Final = 25_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TEXT_MEMBERS: Final = frozenset({"input", "output", "parameters"})
_CUT_MEMBERS: Final = frozenset({"input", "output", "assignedVariables"})


class HistoryEvent(NamedTuple):
    """One thing that happened.

    `details` is None for a type that has none; ids count from 1 without a gap.
    """

    id: int
    previous_event_id: int
    timestamp: datetime
    type: str
    details: Mapping[str, Json] | None = None

    def to_json(self) -> Json:
        """Return the event as a short JSON array, for storage."""
        micros = (self.timestamp - _EPOCH) // _MICROSECOND
        short: list[Json] = [self.id, self.previous_event_id, micros, self.type]
        if self.details is not None:
            short.append(dict(self.details))
        return short

    @classmethod
    def from_json(cls, value: Json) -> HistoryEvent:
        """Return the event that `to_json` wrote.

        Raise ValueError when `value` is nothing that `to_json` writes.
        """
        if not isinstance(value, list) or len(value) not in (4, 5):
            raise ValueError(f"the history event is malformed: {value!r:.200}")
        id_, previous, micros, type_, *details = value
        if not (isinstance(id_, int) and isinstance(previous, int) and isinstance(micros, int)):
            raise ValueError(f"the history event is malformed: {value!r:.200}")
        timestamp = _EPOCH + micros * _MICROSECOND
        return cls(id_, previous, timestamp, str(type_), _object(details[0]) if details else None)


def _object(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"the details of a history event are malformed: {value!r:.200}")
    return value


def details_member(type_: str) -> str:
    """Return the name of the member that holds the details of an event of this type."""
    if type_.endswith("StateEntered"):
        return "stateEnteredEventDetails"
    if type_.endswith("StateExited"):
        return "stateExitedEventDetails"
    return f"{type_[0].lower()}{type_[1:]}EventDetails"


def render(event: HistoryEvent) -> dict[str, Any]:
    """Return the event as GetExecutionHistory shows it: payloads as text, time as epoch seconds."""
    shown: dict[str, Any] = {
        "timestamp": event.timestamp.timestamp(),
        "type": event.type,
        "id": event.id,
        "previousEventId": event.previous_event_id,
    }
    if event.details is None:
        return shown
    details: dict[str, Any] = {}
    for name, value in event.details.items():
        if name == "assignedVariables":
            assert isinstance(value, dict), value
            details[name] = {variable: text_of(value[variable]) for variable in sorted(value)}
        else:
            details[name] = text_of(value) if name in _TEXT_MEMBERS else value
        if name in _CUT_MEMBERS:
            details[f"{name}Details"] = {"truncated": False}
    shown[details_member(event.type)] = details
    return shown
