"""The events of an execution's history, named and shaped as GetExecutionHistory shows them.

An event holds the values themselves, not their JSON text: writing text is for those who read a
history, and most histories are never read. `render` makes what the API shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from service.asl.values import Json, text_of

# Step Functions guide, "Service quotas": the history of a Standard execution ends here, and with it
# the execution.
HISTORY_EVENTS_MAX: Final = 25_000

_TEXT_MEMBERS: Final = frozenset({"input", "output", "parameters"})
_UTC_OFFSET: Final = "+00:00"
_CUT_MEMBERS: Final = frozenset({"input", "output", "assignedVariables"})


@dataclass(init=False, slots=True)
class HistoryEvent:
    """One thing that happened.

    `details` is None for a type that has none; ids count from 1 without a gap.
    """

    id: Final[int]
    previous_event_id: Final[int]
    timestamp: Final[datetime]
    type: Final[str]
    details: Final[dict[str, Json] | None]

    def __init__(
        self,
        id: int,
        previous_event_id: int,
        timestamp: datetime,
        type: str,
        details: dict[str, Json] | None = None,
    ) -> None:
        self.id = id
        self.previous_event_id = previous_event_id
        self.timestamp = timestamp
        self.type = type
        self.details = details

    @classmethod
    def from_json(cls, value: Json) -> HistoryEvent:
        """Return the event that `stored` made this of.

        Raise ValueError when `value` is nothing that `stored` makes.
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


def stored(events: Sequence[HistoryEvent]) -> list[Json]:
    """Return each of the events as a short JSON array, for storage.

    Those of one step have one moment between them, which is written once.
    """
    made: list[Json] = []
    moment, text = None, ""
    for event in events:
        if event.timestamp is not moment:
            moment = event.timestamp
            text = moment.isoformat()
            if text.endswith(_UTC_OFFSET):
                text = text.removesuffix(_UTC_OFFSET) + "Z"
        made.append([event.id, event.previous_event_id, text, event.type, event.details])
    return made


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
