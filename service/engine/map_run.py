"""One run of a Distributed Map: from its items to what its children have come to.

The theory. A child's id follows from the run's and its place, so whoever performs the run again
after a crash finds what was started, and starts the rest; where the run stands is what the rows of
its children say, and nothing else is kept. Children are executions like any other: their ends are
heard at once when they end in this process, and looked for when another has them. A run that is
redriven is performed again in the same way: children that did not succeed before are redriven, or,
when they are Express and so have kept nothing, forgotten and started again.

Bounds: so many children as MaxConcurrency allows are under way; those that wait to be stored are
two slices at most. Of this process's memory a run leaves room for the maps within its children,
which could never begin otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from service import metrics
from service.asl import (
    About,
    Event,
    ExecutionError,
    Json,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    RunMap,
    Status,
)
from service.asl.errors import EXCEED_TOLERATED_FAILURE_THRESHOLD, ITEM_READER_FAILED, RUNTIME
from service.asl.interpreter import TOLERANCE_CAUSE
from service.asl.map_run import ChildInput, Inputs, Tally
from service.documents import loads
from service.engine.arns import Arns, child_machine
from service.engine.express import Express
from service.engine.ids import child_index, child_key, map_run_key
from service.engine.map_express import ExpressChildren
from service.engine.map_items import ItemFeed, count
from service.engine.map_ports import Child, EngineStore, ItemFiles, NewMapRun, Wanted
from service.engine.map_results import NO_FOLDER, Results, child_name, children_of
from service.engine.ports import (
    Contended,
    ExecutionAlreadyExists,
    Key,
    Overloaded,
    Rejected,
)
from service.engine.queue import BATCH_UNITS_MAX
from service.engine.turn import Tenure, failure_of
from service.engine.worker import Worker

SLICE: Final = BATCH_UNITS_MAX
"""Children started at once: one transaction's worth."""

POLL_SECONDS: Final = 2.0
"""After which children that another process may have are looked for."""

POLLED_AT_ONCE: Final = 1_000
CHECK_SECONDS: Final = 1.0
"""How often a run that starts children asks whether it is still wanted."""


class Forsaken(Exception):
    """Nobody waits for the run any more."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs of a process share."""

    worker: Worker
    store: EngineStore
    express: Express
    arns: Arns
    files: ItemFiles | None
    stop_children: Callable[[Wanted], Coroutine[Any, Any, None]]


class MapRun:
    """A run at work, for one performance of its command."""

    def __init__(self, tenure: Tenure, command: RunMap, parts: Parts) -> None:
        self.key = map_run_key(command.entered_at, tenure.key, command.id)
        self._tenure = tenure
        self._wanted = Wanted(self.key, command.redrives)
        self._command = command
        self._parts = parts
        self._maps = parts.store.map_runs
        about = tenure.execution.about
        self._machine = child_machine(about.machine_name, command.label)
        self._program = tenure.machine.processor(command.label)
        # The rest of this process's memory is left to the maps within the children.
        scope = tenure.machine.labels[command.label]
        depth = scope.count("/ItemProcessor") + scope.count("/Iterator")
        self._slots_reserved = parts.worker.tenures.limit >> depth
        self._in_flight: dict[Key, int] = {}  # and of how many items each is
        self._storing: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()
        self._checked_at = float("-inf")
        self._started = 0
        self._is_told = False
        self._redriven_at: datetime | None = None
        shared = parts.worker.surroundings
        self._clock = shared.clock
        self._express = ExpressChildren(
            parts.express, parts.store, self._program, self._clock, self.heard, self._changed.set
        )
        self._inputs = partial(
            Inputs.of, tenure.machine, tenure.execution, command, self._clock.now(), shared.random
        )
        total = None if command.items is None else len(command.items)
        self._tally = Tally(command.tolerated_count, command.tolerated_percentage, total)

    def heard(self, child: Key, status: Status) -> None:
        """Take note that a child has ended."""
        items = self._in_flight.pop(child, None)
        if items is not None:
            self._tally.note(status, items)
            self._changed.set()

    async def to_the_end(self) -> Event:
        """Have all items processed, and return what the map's frame waits for.

        Raises Forsaken, and what the store raises.
        """
        await self._maps.begin(self._row())
        if self._command.redrives:
            await self._redrive()
        if not self._tenure.execution.has_begun(self._command):
            self._tell_of_progress()
        event: Event
        try:
            event = await self._processed()
        except ExecutionError as error:
            # What is on its way to be stored would not be found yet.
            await asyncio.gather(*self._storing, return_exceptions=True)
            await self._parts.stop_children(self._wanted)
            failure = failure_of(self._command.id, error)
            event = MapRunFailed(failure.command_id, failure.error, failure.cause)
        finally:
            self._express.cancel()
        is_good = isinstance(event, MapRunSucceeded)
        status = Status.SUCCEEDED if is_good else Status.FAILED
        await self._maps.end(self.key, status, self._tally.total, self._parts.worker.id)
        return event

    async def _redrive(self) -> None:
        """Have the run go on; the children of one that is still being stopped come to rest before.

        Not those of one whose end was not even noted: they may as well run on.
        """
        if await self._maps.status(self.key) is Status.ABORTED:
            await self._parts.stop_children(Wanted(self.key, self._command.redrives - 1))
        self._redriven_at = await self._maps.redrive(self.key, self._command.redrives)

    def _tell_of_progress(self) -> None:
        """Tell the execution that its run is there, once for each performance.

        Of one that goes on after a crash this is told when it has got further: it makes a
        checkpoint, after which the crash no longer counts against the execution.
        """
        if not self._is_told:
            self._is_told = True
            arn = self._parts.arns.map_run(self._machine, self.key.id)
            self._parts.worker.deliver(self._tenure, MapRunBegan(self._command.id, arn))

    def _row(self) -> NewMapRun:
        command = self._command
        return NewMapRun(
            self.key,
            self._tenure.key.id,
            command.id,
            self._machine,
            command.label,
            command.concurrency,
            command.tolerated_count,
            command.tolerated_percentage,
            self._clock.now(),
        )

    async def _processed(self) -> Event:
        command = self._command
        feed = await self._open()
        await self._process(feed)
        if self._tally.is_exceeded:
            await self._parts.stop_children(self._wanted)
        results = Results(self._maps, self._parts.arns, self.key, self._machine, command.state)
        output: Json = None
        if command.writer is not None and command.writer.parameters is not None:
            output = await results.written(command.writer, self._parts.files, feed, self._started)
        if self._tally.is_exceeded:
            return MapRunFailed(command.id, EXCEED_TOLERATED_FAILURE_THRESHOLD, TOLERANCE_CAUSE)
        if output is None:
            form = "COMPACT" if command.writer is None else command.writer.transformation
            output = [*await results.gathered(form)]
        return MapRunSucceeded(command.id, output)

    async def _open(self) -> ItemFeed:
        """Return the items. Raise ExecutionError when they cannot be read."""
        command, files = self._command, self._parts.files
        if command.items is not None:
            return ItemFeed(iter(command.items), self._inputs(), is_blocking=False)
        assert command.reader is not None, command
        if files is None:
            raise ExecutionError(ITEM_READER_FAILED, NO_FOLDER)
        if command.tolerated_percentage is not None:
            # A percentage is one of all items, which only reading them tells.
            self._tally.total = await count(files.items(command.reader))
        return ItemFeed(files.items(command.reader), self._inputs(), is_blocking=True)

    # ---------------------------------------------------------------- starting children

    async def _process(self, feed: ItemFeed) -> None:
        """Start what has not been started, and wait for the ends of all."""
        await self._recover(feed)
        while not self._tally.is_exceeded:
            await self._express.store()
            room = self._room()
            if room <= 0:
                await self._wait()
                continue
            children = await feed.take(min(room, SLICE))
            if not children:
                break
            await self._check()
            await self._start(children)
        await self._stored(self._storing)
        while self._in_flight and not self._tally.is_exceeded:
            await self._express.store()
            if self._in_flight:
                await self._wait()
        if self._tally.total is None and not self._tally.is_exceeded:
            self._tally.total = feed.items

    async def _recover(self, feed: ItemFeed) -> None:
        """Take note of the children that were started before, and fill gaps between them."""
        to_redrive: dict[Key, int] = {}
        async for child in children_of(self._maps, self.key):
            while self._started < child_index(child.id) and (missing := await feed.take(1)):
                await self._start(missing)
            key = Key(self.key.bucket, child.id)
            is_to_run_again = self._is_to_run_again(child)
            if is_to_run_again and self._command.is_express:
                await self._start_again(key, feed)
                continue
            items = self._items_of(child)
            await feed.skip(items)
            if is_to_run_again:
                to_redrive[key] = items
            elif child.status is Status.RUNNING:
                self._in_flight[key] = items
            else:
                self._tally.note(child.status, items)
            self._started += 1
            if len(to_redrive) == SLICE:
                await self._redrive_children(to_redrive)
        await self._redrive_children(to_redrive)

    def _is_to_run_again(self, child: Child) -> bool:
        """Return whether a child ended without success before the run was redriven."""
        if self._redriven_at is None or self._tally.is_exceeded:
            return False
        if child.stopped_at is None or child.status is Status.SUCCEEDED:
            return False
        return child.stopped_at <= self._redriven_at

    async def _start_again(self, key: Key, feed: ItemFeed) -> None:
        await self._has_room()
        await self._maps.forget([key])
        await self._start(await feed.take(1))

    async def _redrive_children(self, children: dict[Key, int]) -> None:
        """Redrive children, of so many items each, as the concurrency allows; none is left."""
        while children and not self._tally.is_exceeded:
            room = await self._has_room()
            some = {key: children.pop(key) for key in [*children][:room]}
            self._in_flight |= some  # before any of them can have ended
            claims = await self._parts.store.redrive(self._parts.worker.id, [*some])
            await self._hear_of(some.keys() - {claim.key for claim in claims})
            await self._parts.worker.adopt(claims)
        children.clear()

    async def _has_room(self) -> int:
        """Return how many children may be started, once it is one at least."""
        while (room := self._room()) <= 0:
            await self._wait()
            await self._express.store()
        return min(room, SLICE)

    def _items_of(self, child: Child) -> int:
        if self._command.batcher is None:
            return 1
        batch = loads(child.input)
        assert isinstance(batch, dict), child.id
        items = batch["Items"]
        assert isinstance(items, list), child.id
        return len(items)

    def _room(self) -> int:
        """Return how many children may be started now; at least one is always under way."""
        try:
            self._parts.worker.lanes.admit()
        except Overloaded:
            return 0
        room = self._command.concurrency - len(self._in_flight)
        spare = self._parts.worker.tenures.slots - self._slots_reserved
        return min(room, spare) if self._in_flight else max(1, min(room, spare))

    async def _check(self) -> None:
        """Raise Forsaken when the run was stopped, perhaps by another process."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        if await self._maps.status(self.key) is Status.ABORTED:
            raise Forsaken(str(self.key.id))

    async def _start(self, children: list[ChildInput]) -> None:
        worker = self._parts.worker
        # Known before anything is waited for: whoever stops the children waits for them first.
        before, self._storing = self._storing, []
        for child in children:
            key = child_key(self.key, self._started)
            name = child_name(self.key, self._started)
            about = worker.about(self._machine, name, child.value, self._clock.now())
            self._in_flight[key] = child.items
            self._started += 1
            if self._command.is_express:
                await self._begin_express(key, about)
                continue
            try:
                self._storing.append(worker.start(self._program, about, key))
            except ExecutionAlreadyExists as error:
                # An earlier performance, cut off, started it: stored or given up in a moment.
                raise Contended(f"the child {name} is being stored") from error
        started = metrics.child(
            metrics.EXECUTIONS_STARTED, metrics.bounded("machine", self._machine)
        )
        started.inc(len(self._storing))
        await self._stored(before)

    async def _stored(self, storing: list[asyncio.Future[None]]) -> None:
        """Return when a slice is stored: the one before the last, or at the end the last."""
        for outcome in await asyncio.gather(*storing, return_exceptions=True):
            if isinstance(outcome, Rejected):
                cause = f"The database refuses the input of a child execution: {outcome}"
                raise ExecutionError(RUNTIME, cause)
            if isinstance(outcome, BaseException):
                raise outcome
        if storing:
            self._tell_of_progress()

    # ---------------------------------------------------------------- hearing of their ends

    async def _wait(self) -> None:
        """Return when a child has ended, or after a while in which none was heard of."""
        # What there was to do by itself it has done. Its children may stand behind it in the
        # quarantine lane, and would wait for it as it does for them.
        self._tell_of_progress()
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            await self._check()
            await self._poll()
        self._changed.clear()

    async def _poll(self) -> None:
        """Look for the ends of children that are not in this process's memory."""
        worker = self._parts.worker
        elsewhere = [key for key in self._in_flight if key not in worker.tenures]
        for at in range(0, len(elsewhere), POLLED_AT_ONCE):
            await self._hear_of(elsewhere[at : at + POLLED_AT_ONCE])

    async def _hear_of(self, children: Collection[Key]) -> None:
        """Take note of those that have ended.

        A child that could not be redriven may have kept nothing, or its time is over; but it may
        also run, or have succeeded, since a worker that was taken for dead redrove it before.
        """
        for key, status in (await self._maps.ended([*children])).items():
            self.heard(key, status)

    async def _begin_express(self, key: Key, about: About) -> None:
        while True:
            try:
                self._express.begin(key, about)
            except Overloaded:
                await self._wait()
                await self._express.store()
            else:
                return
