"""GetExecutionHistory: the events of an execution, by the page, either way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service import documents
from service.api.stepfunctions.requests import PAGE
from service.asl import HISTORY_EVENTS_MAX, HistoryEvent, Json, render
from service.engine.catalog import ExecutionCatalog
from service.engine.history import unpack
from service.engine.ports import Key

ROWS_AT_ONCE: Final = 50
"""At least 2: the first row may be one whose events have all been shown."""

PAGE_BYTES_MAX: Final = 4_194_304
"""Of the events' JSON, beyond which a page ends early: 1,000 events may hold 256 KiB each."""

_LAST_EVENT_ID: Final = 2 * HISTORY_EVENTS_MAX
_EXECUTION_DATA: Final = tuple(
    f"{member}{details}"
    for member in ("input", "output", "assignedVariables")
    for details in ("", "Details")
)


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Events as the API shows them, and the id of the one that the next page begins with."""

    events: list[Json]
    next_event_id: int | None


async def read_page(
    catalog: ExecutionCatalog,
    key: Key,
    event_id: int | None,
    *,
    size: int,
    backwards: bool,
    with_data: bool,
) -> HistoryPage:
    """Return at most `size` (0: the default) events from `event_id` on, or from the first in this
    direction. Raises Unavailable.
    """
    at = event_id or (_LAST_EVENT_ID if backwards else 1)
    events: list[Json] = []
    bytes_left = PAGE_BYTES_MAX
    while True:
        rows = await catalog.history_page(key, at, ROWS_AT_ONCE, backwards=backwards)
        for event in _in_order(rows, at, backwards):
            shown = _shown(event, with_data)
            bytes_left -= len(documents.dumps(shown))
            if len(events) >= (size or PAGE) or (bytes_left < 0 and events):
                return HistoryPage(events, event.id)
            events.append(shown)
            at = event.id + (-1 if backwards else 1)
        if len(rows) < ROWS_AT_ONCE:
            return HistoryPage(events, None)


async def last_event_id(catalog: ExecutionCatalog, key: Key) -> int:
    """Return the id of the last event, which is how many there are; 0 without a history.

    Raises Unavailable.
    """
    rows = await catalog.history_page(key, _LAST_EVENT_ID, 1, backwards=True)
    return max((event.id for row in rows for event in unpack(row)), default=0)


def _in_order(rows: Sequence[bytes], at: int, backwards: bool) -> list[HistoryEvent]:
    """Return the events of these rows from `at` on, in the direction asked for."""
    events = []
    for row in rows:
        events += [
            event for event in unpack(row) if (event.id <= at if backwards else event.id >= at)
        ]
    return sorted(events, key=lambda event: event.id, reverse=backwards)


def _shown(event: HistoryEvent, with_data: bool) -> dict[str, Json]:
    shown = render(event)
    if not with_data:
        for details in shown.values():
            if isinstance(details, dict):
                for member in _EXECUTION_DATA:
                    details.pop(member, None)
    return shown
