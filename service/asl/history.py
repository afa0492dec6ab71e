"""The events of an execution's history, named and shaped as GetExecutionHistory shows them.

An event holds the values themselves, not their JSON text: writing text is for those who read a
history, and most histories are never read. `render` makes what the API shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from service.asl.values import Json, text_of

# Step Functions guide, "Service quotas": the history of a Standard execution ends here, and with it
# the execution.
HISTORY_EVENTS_MAX: Final = 25_000

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
        moment = self.timestamp.isoformat()
        details = None if self.details is None else dict(self.details)
        return [self.id, self.previous_event_id, moment, self.type, details]

    @classmethod
    def from_json(cls, value: Json) -> HistoryEvent:
        """Return the event that `to_json` wrote.

        Raise ValueError when `value` is nothing that `to_json` writes.
        """
        if isinstance(value, list) and len(value) == 5:
            id_, previous, moment, type_, details = value
            if (
                isinstance(id_, int)
                and isinstance(previous, int)
                and isinstance(moment, str)
                and isinstance(type_, str)
                and (details is None or isinstance(details, dict))
            ):
                return cls(id_, previous, datetime.fromisoformat(moment), type_, details)
        raise ValueError(f"the history event is malformed: {value!r:.200}")


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
