"""What the child executions of a Distributed Map are given, item by item; how many may fail.

Items may come from a file that no checkpoint holds, so ItemSelector is evaluated outside of
`advance`, against the execution as it stands while the map waits: nothing of it changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from service.asl.commands import BatchItems, RunMap
from service.asl.context import Visit
from service.asl.dataflow import check_size
from service.asl.execution import Execution, Frame, OpenMap, Status
from service.asl.parser import StateMachine
from service.asl.states.distributed_map import DistributedMap
from service.asl.values import Json, Random, text_bytes


class ChildInput(NamedTuple):
    """What one child execution is given, and how many items that are."""

    value: Json
    items: int


@dataclass(slots=True)
class Tally:
    """How many items have failed, and how many may. `total` is None until it is known."""

    count: int | None
    percentage: float | None
    total: int | None
    failed: int = 0

    def note(self, status: Status, items: int) -> None:
        """Take note of a child that has ended."""
        if status is not Status.SUCCEEDED:
            self.failed += items

    @property
    def is_exceeded(self) -> bool:
        """Whether more have failed than is tolerated: none, when nothing is said."""
        if self.count is None and self.percentage is None:
            return self.failed > 0
        if self.count is not None and self.failed > self.count:
            return True
        if self.percentage is None or not self.total:
            return False
        return self.failed * 100 > self.percentage * self.total


@dataclass(slots=True)
class Batches:
    """Gathers items into batches, each of which is what one child is given."""

    state: str
    batcher: BatchItems
    _frame_bytes: int = 0  # of a batch without any item
    _gathered: list[Json] = field(default_factory=list)
    _gathered_bytes: int = 0

    def __post_init__(self) -> None:
        self._frame_bytes = text_bytes(self._framed([]))

    def add(self, value: Json) -> Iterator[ChildInput]:
        """Gather one more item; yield the batches that it completes. Raise ExecutionError."""
        size = text_bytes(value) + 1
        if self._frame_bytes + self._gathered_bytes + size > self.batcher.bytes_max:
            yield from self.rest()
        self._gathered.append(value)
        self._gathered_bytes += size
        if len(self._gathered) == self.batcher.items_max:
            yield from self.rest()

    def rest(self) -> Iterator[ChildInput]:
        """Yield what is gathered, if there is anything. Raise ExecutionError."""
        if not self._gathered:
            return
        items, self._gathered, self._gathered_bytes = self._gathered, [], 0
        value = self._framed(items)
        check_size(value, self.state)
        yield ChildInput(value, len(items))

    def skip(self, items: int) -> int:
        """Leave out as many of the first that are gathered; return how many these were."""
        known = min(items, len(self._gathered))
        self._gathered = self._gathered[known:]
        self._gathered_bytes = sum(text_bytes(value) + 1 for value in self._gathered)
        return known

    def _framed(self, items: list[Json]) -> Json:
        if self.batcher.shared is None:
            return {"Items": items}
        return {"BatchInput": self.batcher.shared, "Items": items}


@dataclass(slots=True)
class Inputs:
    """Makes the inputs of a map run's children."""

    state: DistributedMap
    _batches: Batches | None
    _visit: Visit
    _source: Json
    _index: int = 0  # of the next item

    @classmethod
    def of(
        cls,
        machine: StateMachine,
        execution: Execution,
        command: RunMap,
        now: datetime,
        random: Random,
    ) -> Inputs:
        """Return what makes the inputs for an open map of an execution. Raise ExecutionError."""
        frame = _frame_of(execution, command)
        state = machine.scopes[frame.scope].states[frame.state]
        assert isinstance(state, DistributedMap), state
        visit = Visit(execution, frame, now, random, 1.0, state.can_retry)
        batches = None if command.batcher is None else Batches(state.name, command.batcher)
        return cls(state, batches, visit, state.flow.selected(visit))

    def skip(self, items: int) -> int:
        """Leave out as many of the next items: they have been given to children already.

        Return how many of them have yet to be taken from where the items come from.
        """
        known = 0 if self._batches is None else self._batches.skip(items)
        self._index += items - known
        return items - known

    def from_items(self, items: Iterable[Json]) -> Iterator[ChildInput]:
        """Yield what children these items make; what is left over waits for more, or for `rest`.

        Raise ExecutionError when ItemSelector fails or a child's input exceeds the payload limit.
        """
        for item in items:
            value = self.state.item_input(self._visit, self._source, self._index, item)
            self._index += 1
            if self._batches is None:
                check_size(value, self.state.name)
                yield ChildInput(value, 1)
            else:
                yield from self._batches.add(value)

    def rest(self) -> Iterator[ChildInput]:
        """Yield the last batch, if there is one."""
        if self._batches is not None:
            yield from self._batches.rest()


def _frame_of(execution: Execution, command: RunMap) -> Frame:
    for frame in execution.frames.values():
        if isinstance(frame.open, OpenMap) and frame.open.command.id == command.id:
            return frame
    raise LookupError(f"{execution.about.arn}: no map waits for the command {command.id}")
