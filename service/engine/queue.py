"""What waits for a committer: units that somebody waits for, and the steps of executions.

When a great many waits end at once, thousands of steps are ready before a visitor's request. It
would be answered when all of them are committed, which may take longer than a visitor, or a proxy,
waits. So those whom a caller waits for have half of each batch, and more when there is room; the
steps have the other half, so that neither can hold up the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from service.engine.turn import Request, Turn, Unit

BATCH_UNITS_MAX: Final = 200
CALLERS_SHARE: Final = BATCH_UNITS_MAX // 2


class UnitQueue:
    """Units in the order in which they came, but for callers, who may overtake steps."""

    def __init__(self) -> None:
        self._callers: deque[Unit] = deque()
        self._steps: deque[Unit] = deque()

    def __len__(self) -> int:
        return len(self._callers) + len(self._steps)

    def __iter__(self) -> Iterator[Unit]:
        yield from self._callers
        yield from self._steps

    def append(self, unit: Unit) -> None:
        """Queue a unit for the next batch that has room for it."""
        (self._steps if caller_of(unit) is None else self._callers).append(unit)

    def take(self) -> list[Unit]:
        """Take what fits into one batch; an execution in quarantine is a batch of its own."""
        if self._steps and _is_alone(self._steps[0]):
            return [self._steps.popleft()]
        batch = [self._callers.popleft() for _ in range(min(len(self._callers), CALLERS_SHARE))]
        while self._steps and len(batch) < BATCH_UNITS_MAX and not _is_alone(self._steps[0]):
            batch.append(self._steps.popleft())
        while self._callers and len(batch) < BATCH_UNITS_MAX:
            batch.append(self._callers.popleft())
        return batch


def caller_of(
    unit: Unit,
) -> asyncio.Future[None] | asyncio.Future[Mapping[str, object] | None] | None:
    """Return the future of whoever waits for this unit, if anybody does."""
    if isinstance(unit, Request):
        return unit.answer
    return unit.new.stored if unit.new is not None else None


def _is_alone(unit: Unit) -> bool:
    return isinstance(unit, Turn) and unit.tenure.is_alone
