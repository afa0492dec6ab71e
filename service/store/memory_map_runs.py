"""The engine's `MapRunStore` without a database: the same rules on MemoryStore's dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from service.asl import Status
from service.engine.map_ports import Child, NewMapRun, Wanted
from service.engine.ports import Checkpoint, Clock, Key


class _Row(Protocol):
    """What is read of an execution's row."""

    @property
    def name(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def at(self) -> Checkpoint: ...
    @property
    def redrive_count(self) -> int: ...
    @property
    def is_running(self) -> bool: ...


@dataclass(slots=True)
class MapRunRow:
    """What the table `map_runs` holds."""

    begun: NewMapRun
    status: Status = Status.RUNNING
    items: int | None = None
    stopped_at: datetime | None = None
    redrives: int = 0
    redriven_at: datetime | None = None


class MemoryMapRuns:
    """The engine's `MapRunStore`. Tests may look at its rows."""

    def __init__(
        self, executions: Mapping[Key, _Row], clock: Clock, forget: Callable[[Key], None]
    ) -> None:
        self._executions = executions
        self._forget = forget
        self._clock = clock
        self.rows: dict[Key, MapRunRow] = {}

    async def begin(self, run: NewMapRun) -> None:
        """Insert a run unless it is there."""
        self.rows.setdefault(run.key, MapRunRow(run))

    async def redrive(self, run: Key, redrives: int) -> datetime:
        """Have a run go on for the nth time, unless it does already; return since when."""
        row = self.rows[run]
        if row.redrives < redrives or row.redriven_at is None:
            row.status, row.stopped_at = Status.RUNNING, None
            row.redrives, row.redriven_at = redrives, self._clock.now()
        return row.redriven_at

    async def forget(self, keys: Sequence[Key]) -> None:
        """Delete children that have ended without success: they are started again."""
        for key in keys:
            row = self._executions.get(key)
            if row is not None and row.at.status not in (Status.RUNNING, Status.SUCCEEDED):
                self._forget(key)

    async def status(self, run: Key) -> Status | None:
        """Return how a run stands; None when it is not there."""
        row = self.rows.get(run)
        return None if row is None else row.status

    async def end(self, run: Key, status: Status, items: int | None, owner: UUID) -> bool:
        """Note how a run ended; False when it had ended, or its execution is not `owner`'s."""
        row = self.rows.get(run)
        if row is None or row.status is not Status.RUNNING:
            return False
        if not self._owns(owner, Key(run.bucket, row.begun.execution)):
            return False
        row.status = status
        row.stopped_at = self._clock.now()
        row.items = row.items if items is None else items
        return True

    async def abort(self, run: Wanted) -> bool:
        """Note that nobody waits for a run any more; False when it has ended or was redriven."""
        row = self.rows.get(run.key)
        if row is None or row.status is not Status.RUNNING or row.redrives != run.redrives:
            return False
        row.status = Status.ABORTED
        return True

    async def stopped(self, run: Key) -> None:
        """Note that the children of a run that is ABORTED have been stopped."""
        row = self.rows[run]
        if row.status is Status.ABORTED and row.stopped_at is None:
            row.stopped_at = self._clock.now()

    async def children(self, bucket: int, first: UUID, last: UUID, limit: int) -> Sequence[Child]:
        """Return at most `limit` executions whose ids are in this range, in order."""
        found = sorted(self._between(bucket, first, last))[:limit]
        return [_child(key, self._executions[key]) for key in found]

    def running(self, run: Wanted, first: UUID, last: UUID) -> list[Key]:
        """Return the keys of children that have not ended, in order.

        None of a run that was redriven since.
        """
        row = self.rows.get(run.key)
        if row is None or row.redrives > run.redrives:
            return []
        keys = self._between(run.key.bucket, first, last)
        return sorted(key for key in keys if self._executions[key].is_running)

    async def ended(self, keys: Sequence[Key]) -> Mapping[Key, Status]:
        """Return how those of some executions ended that have ended."""
        rows = {key: self._executions[key] for key in keys if key in self._executions}
        return {key: row.at.status for key, row in rows.items() if not row.is_running}

    async def of(self, execution: Key, owner: UUID) -> Mapping[int, Wanted]:
        """Return the runs under way of an execution that is `owner`'s, by their commands' ids."""
        if not self._owns(owner, execution):
            return {}
        return {
            row.begun.command_id: Wanted(key, row.redrives)
            for key, row in self.rows.items()
            if (key.bucket, row.begun.execution) == execution and row.status is Status.RUNNING
        }

    async def forsaken(self, limit: int) -> Sequence[Wanted]:
        """Return at most `limit` runs to be stopped: their execution is over, or they are ABORTED
        and their children not all stopped.
        """
        return [
            Wanted(key, row.redrives)
            for key, row in self.rows.items()
            if self.is_open(key)
            and (
                row.status is Status.ABORTED or not self._runs(Key(key.bucket, row.begun.execution))
            )
        ][:limit]

    def is_open(self, run: Key) -> bool:
        """Tell whether a run is under way or being stopped."""
        row = self.rows.get(run)
        return row is not None and row.stopped_at is None

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` runs that ended longer ago than this; return how many."""
        before = self._clock.now() - timedelta(days=retention_days)
        closed = [
            key
            for key, row in self.rows.items()
            if row.stopped_at is not None and row.stopped_at < before
        ][:limit]
        for key in closed:
            del self.rows[key]
        return len(closed)

    def _between(self, bucket: int, first: UUID, last: UUID) -> Iterator[Key]:
        return (k for k in self._executions if k.bucket == bucket and first <= k.id <= last)

    def _owns(self, owner: UUID, execution: Key) -> bool:
        row = self._executions.get(execution)
        return row is not None and row.at.owner == owner

    def _runs(self, execution: Key) -> bool:
        row = self._executions.get(execution)
        return row is not None and row.is_running


def _child(key: Key, row: _Row) -> Child:
    at = row.at
    return Child(
        key.id, row.name, at.status, row.started_at, at.stopped_at, row.input, at.output, at.error,
        at.cause, row.redrive_count,
    )  # fmt: skip
