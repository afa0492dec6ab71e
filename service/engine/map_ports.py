"""What the runs of Distributed Maps need from outside, and the values that cross that border.

`store` satisfies `MapRunStore` structurally, `tasks` provides `ItemFiles`. Every method of the
store raises what those of `ports.Store` raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from service.asl import Json, Status
from service.asl.commands import ReadItems
from service.engine.ports import Claim, Key, Store


@dataclass(frozen=True, slots=True)
class NewMapRun:
    """A run as it begins, performed for the command `command_id` of `execution`."""

    key: Key
    execution: UUID
    command_id: int
    machine: str
    label: str
    max_concurrency: int
    tolerated_failure_count: int | None
    tolerated_failure_percentage: float | None
    started_at: datetime


class Child(NamedTuple):
    """A child execution as its row has it. The documents are JSON texts."""

    id: UUID
    name: str
    status: Status
    started_at: datetime
    stopped_at: datetime | None
    input: str
    output: str | None
    error: str | None
    cause: str | None
    redrive_count: int = 0


class Wanted(NamedTuple):
    """A run as somebody speaks of it: one that is redriven goes on as another."""

    key: Key
    redrives: int


class MapRunStore(Protocol):
    """The runs, and their children by ranges of ids."""

    async def begin(self, run: NewMapRun) -> None:
        """Insert a run unless it is there."""
        ...

    async def redrive(self, run: Key, redrives: int) -> datetime:
        """Have a run go on for the nth time, unless it does already; return since when."""
        ...

    async def forget(self, keys: Sequence[Key]) -> None:
        """Delete children that have ended without success: they are started again."""
        ...

    async def status(self, run: Key) -> Status | None:
        """Return how a run stands; None when it is not there."""
        ...

    async def end(self, run: Key, status: Status, items: int | None, owner: UUID) -> bool:
        """Note how a run ended; False when it had ended, or its execution is not `owner`'s."""
        ...

    async def abort(self, run: Wanted) -> bool:
        """Note that nobody waits for a run any more; False when it has ended or was redriven."""
        ...

    async def stopped(self, run: Key) -> None:
        """Note that the children of a run that is ABORTED have been stopped."""
        ...

    async def children(self, bucket: int, first: UUID, last: UUID, limit: int) -> Sequence[Child]:
        """Return at most `limit` executions whose ids are in this range, in order."""
        ...

    async def ended(self, keys: Sequence[Key]) -> Mapping[Key, Status]:
        """Return how those of some executions ended that have ended."""
        ...

    async def of(self, execution: Key, owner: UUID) -> Mapping[int, Wanted]:
        """Return the runs under way of an execution that is `owner`'s, by their commands' ids."""
        ...

    async def forsaken(self, limit: int) -> Sequence[Wanted]:
        """Return at most `limit` runs to be stopped: their execution is over, or they are ABORTED
        and their children not all stopped.
        """
        ...

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` runs that ended longer ago than this; return how many."""
        ...


class EngineStore(Store, Protocol):
    """The executions and the map runs, which share a database."""

    async def seize_children(
        self, owner: UUID, run: Wanted, first: UUID, last: UUID, limit: int
    ) -> Sequence[Claim]:
        """Claim running children of a run, whoever holds them: the first `limit` of this range.

        None of a run that was redriven since: its children go on with it.
        """
        ...

    @property
    def map_runs(self) -> MapRunStore:
        """Return the runs."""
        ...


class ItemFiles(Protocol):
    """The folder that stands for buckets. Both methods block, and are called in threads."""

    def items(self, reader: ReadItems) -> Iterator[Json]:
        """Yield the items that an ItemReader asks for.

        Raise ExecutionError("States.ItemReaderFailed") when they cannot be read.
        """
        ...

    def write(self, bucket: str, key: str, chunks: Iterable[bytes]) -> int:
        """Write an object, in place of one that is there; return its size in bytes.

        Raise ExecutionError("States.ResultWriterFailed") when it cannot be written.
        """
        ...
