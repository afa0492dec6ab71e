"""The committer: the steps of all executions that are ready, in one transaction.

Writing one row for each commit costs ten times what writing two hundred together costs, so whatever
is ready when the last commit ends goes into the next one; there is no lingering. The order inside a
transaction:

1. insert the new executions with their history and effects, and lock the rows of steps that have
   effects, where the epoch still stands; what was fenced falls out with its effects;
2. run the effects, one statement for each kind, and let their rows happen to the executions; as
   often as they ask;
3. write checkpoints and history, each only to a row that is as its step found it: of the steps
   without effects what was fenced falls out here, and is looked at under a lock in the next batch;
4. commit. Only then is anything performed or anybody answered.

A batch that fails is never given up, and no row takes its neighbours down. What the database
refuses, or a lock not granted in time, halves the batch until the culprit stands alone. A lost
connection leaves the batch in doubt: it may have been committed. Every write raises the row's
epoch, so `Outcomes.reconcile` can tell by reading, and what stands is then left out of the next
try.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from service import metrics
from service.asl import Poisoned, Redriven
from service.engine.batch import Batch, Broken, Concerns, Outcomes
from service.engine.ports import (
    Contended,
    ExecutionAlreadyExists,
    Overloaded,
    Rejected,
    Store,
    Unavailable,
)
from service.engine.queue import UnitQueue, caller_of
from service.engine.turn import Request, Turn, Unit

log = structlog.get_logger()

QUEUE_UNITS_MAX: Final = 20_000
LOCK_PATIENCE_MS: Final = 200
# A batch is split because a lock was not granted; the halves must not wait as long again, eight
# times over.
SPLIT_LOCK_PATIENCE_MS: Final = 25
CONTENDED_DELAY_SECONDS: Final = 0.25
CONTENDED_TRIES_MAX: Final = 8  # of a caller that waits; an execution's own step is tried for ever
# A batch that loses its connection this often in a row may itself be what the server dies of.
LOSSES_BEFORE_SPLIT: Final = 2
OUTAGE_DELAY_SECONDS: Final = (0.02, 0.1, 0.25, 0.5, 1.0)
# How long a caller waits for a database that has gone before it is answered Unavailable.
CALLER_PATIENCE_SECONDS: Final = 2.0
REFUSED_EFFECT: Final = "the database refused a value of this task's effect"
REJECTED: Final = "Engine.CheckpointRejected"


class Committer:
    """One queue, one batch at a time, on one connection."""

    def __init__(
        self, store: Store, owner: UUID, outcomes: Outcomes, *, concerns: Concerns
    ) -> None:
        """Commit to `store`. No other committer of this worker has units that it `concerns`."""
        self._store = store
        self._concerns = concerns
        self._owner = owner
        self._outcomes = outcomes
        self._queue = UnitQueue()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_down = False
        self._is_closed = False
        self._under_way: list[Unit] = []
        self._postponed: set[Unit] = set()

    @property
    def is_down(self) -> bool:
        """Tell whether the last transaction found no database."""
        return self._is_down

    def submit(self, unit: Unit) -> None:
        """Queue a unit for the next batch."""
        if self._is_closed:
            self._lose_patience(unit)
            return
        self._queue.append(unit)
        self._idle.clear()
        self._wake.set()

    def admit(self) -> None:
        """Raise Overloaded or Unavailable when a caller had better come back later."""
        if self._is_down:
            raise Unavailable("the database does not answer")
        if len(self._queue) >= QUEUE_UNITS_MAX:
            raise Overloaded(f"{QUEUE_UNITS_MAX} steps are waiting to be committed")

    async def drained(self) -> None:
        """Return when everything submitted so far is committed or has failed."""
        await self._idle.wait()

    def close(self) -> None:
        """Answer whoever still waits: nothing is committed any more. `run` has ended."""
        self._is_closed = True
        for unit in (*self._under_way, *self._queue, *self._postponed):
            self._lose_patience(unit)

    async def run(self) -> None:
        """Commit batch after batch until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._under_way = self._queue.take()
                await self._commit(self._under_way)
                self._under_way = []
            if not self._postponed:
                self._idle.set()

    async def _commit(self, batch: list[Unit]) -> None:
        """Bring every unit to its outcome, in as many transactions as that takes."""
        stack = [_Try(batch)]
        while stack:
            units, patience_ms, losses = stack.pop()
            units = await self._prepare(units)
            if not units:
                continue
            try:
                done = await self._transact(units, patience_ms)
            except Unavailable as error:
                await self._outlast(units, error)
                stack += self._after_loss(units, patience_ms, losses + 1)
            except Broken as broken:
                stack.append(_Try(self._without(broken, units), patience_ms))
            except Exception as error:
                metrics.BATCH_SPLITS.labels(type(error).__name__).inc()
                if len(units) > 1:
                    stack += _halves(units, SPLIT_LOCK_PATIENCE_MS)
                elif self._blame(units[0], error):
                    stack.append(_Try(units, patience_ms))
            else:
                self._finish(done)

    async def _prepare(self, units: Sequence[Unit]) -> list[Unit]:
        """Play each turn's events before the transaction, which then holds no lock while the
        language works.

        A turn that has stopped short has taken long enough for everybody else to have a turn.
        """
        ready: list[Unit] = []
        for unit in units:
            if isinstance(unit, Turn):
                if not self._outcomes.holds(unit.tenure):
                    self._lose_patience(unit)
                    continue
                if unit.new is not None and unit.new.stored.done() and not unit.tenure.epoch:
                    # Its caller was told that it could not be stored, and so far that is true.
                    self._outcomes.dropped(unit)
                    continue
                try:
                    unit.prepare()
                except Exception as error:
                    self._outcomes.broken(unit, error)
                    continue
                if unit.execution.halt is not None:
                    await asyncio.sleep(0)
            elif unit.answer.done():
                continue
            ready.append(unit)
        return ready

    async def _transact(self, units: Sequence[Unit], patience_ms: int) -> Batch:
        began = time.perf_counter()  # a uvloop clock goes in whole milliseconds
        batch = Batch.of(units, self._owner, self._outcomes)
        async with self._store.transaction(patience_ms) as tx:
            await batch.run(tx)
        metrics.COMMIT_BATCH_ROWS.observe(len(units))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began)
        return batch

    def _without(self, broken: Broken, units: list[Unit]) -> list[Unit]:
        """Return the units to go on with when the engine failed at one turn of their batch."""
        if broken.turn in units:
            self._outcomes.broken(broken.turn, broken.error)
            return [unit for unit in units if unit is not broken.turn]
        # A signal brought it in. That is no reason to fail the signaller.
        log.warning("signal_apart", execution=str(broken.turn.key.id), reason=str(broken.error))
        for unit in units:
            if isinstance(unit, Request) and unit.signalled == broken.turn.key:
                unit.is_apart = True
        return units

    def _after_loss(self, units: list[Unit], patience_ms: int, losses: int) -> list[_Try]:
        """Return the tries that follow a lost connection, smaller when it happens again."""
        if losses < LOSSES_BEFORE_SPLIT:
            return [_Try(units, patience_ms, losses)]
        if len(units) > 1:
            return _halves(units, patience_ms, losses)
        self._postpone(units[0])
        return []

    def _finish(self, batch: Batch) -> None:
        """Tell everybody what came of the batch; what is lost leaves memory before it may come in
        again.
        """
        for turn in batch.lost:
            if turn.new is not None:
                self._turn_away(turn, ExecutionAlreadyExists(turn.tenure.name))
            else:
                self._outcomes.lost(turn)
        for turn in batch.contested:
            turn.is_contested = True
            self.submit(turn)
        for turn in batch.stood:
            self._outcomes.stood(turn)
            _answer_start(turn)
        for turn in (*batch.turns.values(), *batch.claimed):
            turn.tell()
            self._outcomes.committed(turn)
            _answer_start(turn)
        for signalling in batch.elsewhere:
            self._outcomes.signalled(signalling)
        for request in batch.requests:
            if not request.answer.done():
                request.answer.set_result(request.row)
        self._is_down = False

    def _blame(self, unit: Unit, error: Exception) -> bool:
        """Deal with the one unit that fails alone; True when it is worth another try at once."""
        if isinstance(error, Contended):
            self._postpone(unit)
            return False
        is_refused = isinstance(error, Rejected)
        if is_refused and isinstance(unit, Turn) and unit.refuse(REFUSED_EFFECT):
            return True
        if isinstance(unit, Request) and unit.signalled is not None and not unit.is_apart:
            unit.is_apart = True  # what it signals may be to blame, and has its own try then
            return True
        if caller_of(unit) is not None:
            self._turn_away(unit, error)
            return False
        assert isinstance(unit, Turn)
        if not is_refused or any(isinstance(event, Poisoned) for event in unit.events):
            self._outcomes.broken(unit, error)
            return False
        log.error("checkpoint_rejected", execution=str(unit.key.id), reason=str(error))
        # One that is to be redriven has ended: first it has to go on.
        redriven = [event for event in unit.events if isinstance(event, Redriven)]
        cause = "the database refused what this step would store"
        unit.events = [*redriven, Poisoned(REJECTED, cause)]
        return True

    def _postpone(self, unit: Unit) -> None:
        """Try again later what a lock holds up; a caller that waits for it is answered after some
        tries.
        """
        unit.tries += 1
        waiting = caller_of(unit)
        if waiting is not None and unit.tries >= CONTENDED_TRIES_MAX:
            self._turn_away(unit, Unavailable("a row stayed locked"))
            return
        self._postponed.add(unit)
        delay_seconds = CONTENDED_DELAY_SECONDS * min(unit.tries, CONTENDED_TRIES_MAX)
        asyncio.get_running_loop().call_later(delay_seconds, self._resubmit, unit)

    def _resubmit(self, unit: Unit) -> None:
        self._postponed.discard(unit)
        self.submit(unit)

    async def _outlast(self, units: list[Unit], error: Unavailable) -> None:
        """Wait for the database to come back, and make memory agree with it."""
        log.warning("database_lost", units=len(units), reason=str(error))
        self._is_down = True
        loop = asyncio.get_running_loop()
        gone_at, tries = loop.time(), 0
        while True:
            if loop.time() - gone_at >= CALLER_PATIENCE_SECONDS:
                for unit in (*units, *self._queue):
                    self._lose_patience(unit)
            await asyncio.sleep(OUTAGE_DELAY_SECONDS[min(tries, len(OUTAGE_DELAY_SECONDS) - 1)])
            tries += 1
            try:
                await self._outcomes.reconcile(self._concerns)
            except Unavailable:
                continue
            except Exception as trouble:
                # A row that was locked, a cancelled statement: no reason to end this loop.
                log.warning("reconciliation_failed", reason=str(trouble))
                continue
            log.info("database_back", seconds=round(loop.time() - gone_at, 3))
            self._is_down = False
            return

    def _lose_patience(self, unit: Unit) -> None:
        """Answer a caller who has waited long enough; what it asked may be committed already."""
        waiting = caller_of(unit)
        if waiting is not None and not waiting.done():
            reason = "is shutting down" if self._is_closed else "cannot reach its database"
            waiting.set_exception(Unavailable(f"the service {reason}"))

    def _turn_away(self, unit: Unit, error: Exception) -> None:
        """Give up a unit that a caller waits for, and tell the caller why."""
        waiting = caller_of(unit)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if isinstance(unit, Turn):
            self._outcomes.dropped(unit)


class _Try(NamedTuple):
    """Units that go into one transaction."""

    units: list[Unit]
    patience_ms: int = LOCK_PATIENCE_MS
    losses: int = 0  # of connections, in a row


def _halves(units: list[Unit], patience_ms: int, losses: int = 0) -> list[_Try]:
    """Return both halves as tries, the first of them last: a stack is read from its end."""
    half = len(units) // 2
    return [_Try(units[half:], patience_ms, losses), _Try(units[:half], patience_ms, losses)]


def _answer_start(turn: Turn) -> None:
    if turn.new is not None and not turn.new.stored.done():
        turn.new.stored.set_result(None)
