"""The visits of states that an execution's history tells of: one entry and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.asl import HistoryEvent, Json


@dataclass(frozen=True, slots=True)
class Failure:
    """A try of a state that failed."""

    at: datetime
    error: str
    cause: str | None


@dataclass(slots=True)
class Visit:
    """A frame's stay in a state. `left_at` is None when it ended there, with the execution."""

    state: str
    entered_at: datetime
    input: Json
    left_at: datetime | None = None
    output: Json = None
    assigned: Json = None  # the variables that were set on the way out, if any
    failures: list[Failure] = field(default_factory=list)


def visits_of(events: Sequence[HistoryEvent]) -> list[Visit]:
    """Return the visits in the order in which the states were entered."""
    visits: dict[int, Visit] = {}
    # For each event id, which count from 1 without a gap, the last entry that led to it. An event's
    # predecessor is what happened before it in its frame, or in the frames that its state forked.
    entries = [0]
    for event in events:
        entry = entries[event.previous_event_id]
        details = event.details or {}
        if event.type.endswith("StateEntered"):
            entry = event.id
            visits[entry] = Visit(str(details["name"]), event.timestamp, details.get("input"))
        elif event.type.endswith("StateExited"):
            while visits[entry].state != details["name"]:
                entry = entries[events[entry - 1].previous_event_id]
            visits[entry].left_at = event.timestamp
            visits[entry].output = details.get("output")
            visits[entry].assigned = details.get("assignedVariables")
        elif _is_failed_try(event):
            visits[entry].failures.append(_failure(event.timestamp, details))
        entries.append(entry)
    return list(visits.values())


def _is_failed_try(event: HistoryEvent) -> bool:
    """Return whether this tells of a task; what fails with it (branch, execution) repeats it."""
    is_of_task = event.type.startswith(("LambdaFunction", "Task"))
    return is_of_task and event.type.endswith(("Failed", "TimedOut"))


def _failure(at: datetime, details: Mapping[str, Json]) -> Failure:
    cause = details.get("cause")
    return Failure(at, str(details["error"]), None if cause is None else str(cause))
