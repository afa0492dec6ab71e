"""The committer: the steps of all executions that are ready, in one transaction.

Writing one row for each commit costs ten times what writing two hundred together costs, so whatever
is ready when the last commit ends goes into the next one; there is no lingering. The order inside a
transaction:

1. insert the new executions and lock the rows whose epoch still stands; what was fenced falls out
   with its effects;
2. run the effects, one statement for each kind, and let their rows happen to the executions; as
   often as they ask;
3. write checkpoints and history, commit. Only then is anything performed or anybody answered.

A batch that fails is never given up, and no row takes its neighbours down. What the database
refuses, or a lock not granted in time, halves the batch until the culprit stands alone. A lost
connection leaves the batch in doubt: it may have been committed. Every write raises the row's
epoch, so `Outcomes.reconcile` can tell by reading, and what stands is then left out of the next
try.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol
from uuid import UUID

import structlog

from service import metrics
from service.asl import Poisoned, Signalled
from service.engine.ports import (
    Claim,
    Contended,
    Effect,
    ExecutionAlreadyExists,
    Key,
    Overloaded,
    Rejected,
    Signalling,
    Store,
    Transaction,
    Unavailable,
)
from service.engine.turn import Request, Tenure, Turn, Unit

log = structlog.get_logger()

BATCH_UNITS_MAX: Final = 200
QUEUE_UNITS_MAX: Final = 20_000
LOCK_PATIENCE_MS: Final = 200
# A batch is split because a lock was not granted; the halves must not wait as long again, eight
# times over.
SPLIT_LOCK_PATIENCE_MS: Final = 25
CONTENDED_DELAY_SECONDS: Final = 0.25
CONTENDED_TRIES_MAX: Final = 8  # of a caller that waits; an execution's own step is tried for ever
OUTAGE_DELAY_SECONDS: Final = (0.02, 0.1, 0.25, 0.5, 1.0)
# How long a caller waits for a database that has gone before it is answered Unavailable.
CALLER_PATIENCE_SECONDS: Final = 2.0
REFUSED_EFFECT: Final = "the database refused a value of this task's effect"
REJECTED: Final = "Engine.CheckpointRejected"


class Outcomes(Protocol):
    """What the worker is told, and asked."""

    def committed(self, turn: Turn) -> None:
        """The turn is durable: perform what it asks for."""

    def lost(self, turn: Turn) -> None:
        """Another worker owns the execution now."""

    def dropped(self, turn: Turn) -> None:
        """The execution was not started after all."""

    def broken(self, turn: Turn, error: Exception) -> None:
        """The engine failed at this execution, not the execution itself."""

    def signalled(self, signalling: Signalling) -> None:
        """A signal was stored for an execution that this transaction did not hold."""

    def holds(self, tenure: Tenure) -> bool:
        """Tell whether this tenure is still the one in memory."""
        ...

    def tenure(self, claim: Claim) -> Tenure | None:
        """Return a tenure for a claim made inside a transaction, or None when its definition is not
        at hand.
        """
        ...

    def signal_turn(self, tenure: Tenure) -> Turn:
        """Return the turn in which a signal ends what the claimed execution waits for."""
        ...

    async def reconcile(self) -> None:
        """Compare memory with the rows after an outage. Raises Unavailable while it lasts."""


@dataclass(slots=True)
class _Batch:
    """What one transaction found and made."""

    turns: dict[Key, Turn]
    requests: list[Request]
    lost: list[Turn] = field(default_factory=list)
    claimed: list[Turn] = field(default_factory=list)
    elsewhere: list[Signalling] = field(default_factory=list)


class Committer:
    """One queue, one batch at a time, on one connection."""

    def __init__(self, store: Store, owner: UUID, outcomes: Outcomes) -> None:
        self._store = store
        self._owner = owner
        self._outcomes = outcomes
        self._queue: deque[Unit] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_down = False
        self._postponed = 0

    @property
    def is_down(self) -> bool:
        """Tell whether the last transaction found no database."""
        return self._is_down

    def submit(self, unit: Unit) -> None:
        """Queue a unit for the next batch."""
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

    async def run(self) -> None:
        """Commit batch after batch until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._commit(self._take())
            if not self._postponed:
                self._idle.set()

    def _take(self) -> list[Unit]:
        """Take what fits into one batch; an execution in quarantine is a batch of its own."""
        batch: list[Unit] = []
        while self._queue and len(batch) < BATCH_UNITS_MAX:
            unit = self._queue[0]
            if isinstance(unit, Turn) and unit.tenure.is_alone:
                return batch or [self._queue.popleft()]
            batch.append(self._queue.popleft())
        return batch

    async def _commit(self, batch: list[Unit]) -> None:
        """Bring every unit to its outcome, in as many transactions as that takes."""
        stack = [(batch, LOCK_PATIENCE_MS)]
        while stack:
            units, patience_ms = stack.pop()
            units = self._prepare(units)
            if not units:
                continue
            try:
                done = await self._transact(units, patience_ms)
            except Unavailable as error:
                stack.append((await self._outlast(units, error), patience_ms))
            except _Broken as broken:
                self._outcomes.broken(broken.turn, broken.error)
                stack.append(([u for u in units if u is not broken.turn], patience_ms))
            except Exception as error:
                metrics.BATCH_SPLITS.labels(type(error).__name__).inc()
                if len(units) > 1:
                    half = len(units) // 2
                    stack.append((units[half:], SPLIT_LOCK_PATIENCE_MS))
                    stack.append((units[:half], SPLIT_LOCK_PATIENCE_MS))
                elif self._blame(units[0], error):
                    stack.append((units, patience_ms))
            else:
                self._finish(done)

    def _prepare(self, units: Sequence[Unit]) -> list[Unit]:
        """Play each turn's events before the transaction, which then holds no lock while the
        language works.
        """
        ready: list[Unit] = []
        for unit in units:
            if isinstance(unit, Turn):
                if not self._outcomes.holds(unit.tenure):
                    continue
                if unit.new is not None and unit.new.stored.done() and not unit.tenure.epoch:
                    # Its caller was told that it could not be stored, and so far that is true.
                    self._outcomes.dropped(unit)
                    continue
                try:
                    unit.prepare()
                    unit.settle()
                except Exception as error:
                    self._outcomes.broken(unit, error)
                    continue
            elif unit.answer.done():
                continue
            ready.append(unit)
        return ready

    async def _transact(self, units: Sequence[Unit], patience_ms: int) -> _Batch:
        began = time.perf_counter()  # a uvloop clock goes in whole milliseconds
        batch = _Batch(
            {unit.key: unit for unit in units if isinstance(unit, Turn)},
            [unit for unit in units if isinstance(unit, Request)],
        )
        async with self._store.transaction(patience_ms) as tx:
            await self._own(tx, batch)
            await self._play(tx, batch)
            turns = [*batch.turns.values(), *batch.claimed]
            rows = [row for turn in turns if (row := turn.changed(self._owner)) is not None]
            history = [past for turn in turns if (past := turn.history()) is not None]
            if rows or history:
                await tx.save(rows, history)
        metrics.COMMIT_BATCH_ROWS.observe(len(units))
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began)
        return batch

    async def _own(self, tx: Transaction, batch: _Batch) -> None:
        """Insert what is new and lock what is not; let go what another worker has taken."""
        fresh = [turn for turn in batch.turns.values() if turn.new is not None]
        standing: set[Key] = set()
        if fresh:
            standing |= set(await tx.insert([turn.row(self._owner) for turn in fresh]))
        fences = [(t.key, t.tenure.epoch) for t in batch.turns.values() if t.new is None]
        held: Mapping[Key, bool] = await tx.lock(fences) if fences else {}
        for key, turn in list(batch.turns.items()):
            if key not in standing and key not in held:
                batch.lost.append(batch.turns.pop(key))
            elif held.get(key):
                _guard(turn, partial(turn.feed, Signalled()))

    async def _play(self, tx: Transaction, batch: _Batch) -> None:
        """Run effects in rounds until no execution asks for more."""
        requests: list[Request] = batch.requests
        while True:
            turns = [*batch.turns.values(), *batch.claimed]
            for turn in turns:
                _guard(turn, turn.settle)
            asked = [(turn, turn.wanted) for turn in turns if turn.wanted]
            effects: list[Effect] = [request.effect for request in requests]
            for _, wanted in asked:
                effects += wanted
            if not effects:
                return
            rows = await tx.apply(effects)
            signals = []
            for request, row in zip(requests, rows, strict=False):
                request.row = row
                key = request.signal(row)
                if key is not None:
                    signals.append(key)
            at = len(requests)
            requests = []
            for turn, wanted in asked:
                _guard(turn, partial(turn.answered, rows[at : at + len(wanted)]))
                at += len(wanted)
            if signals:
                await self._signal(tx, batch, signals)

    async def _signal(self, tx: Transaction, batch: _Batch, keys: Sequence[Key]) -> None:
        """Signal executions; those at rest are claimed and go on in this very transaction."""
        for signalling in await tx.signal(keys, self._owner):
            turn = batch.turns.get(signalling.key)
            if turn is not None:
                _guard(turn, partial(turn.feed, Signalled()))
                continue
            tenure = self._outcomes.tenure(signalling.claim) if signalling.claim else None
            if tenure is None:
                batch.elsewhere.append(signalling)
                continue
            turn = self._outcomes.signal_turn(tenure)
            _guard(turn, turn.prepare)
            batch.claimed.append(turn)

    def _finish(self, batch: _Batch) -> None:
        for turn in (*batch.turns.values(), *batch.claimed):
            turn.tell()
            self._outcomes.committed(turn)
            if turn.new is not None and not turn.new.stored.done():
                turn.new.stored.set_result(None)
        for turn in batch.lost:
            if turn.new is not None:
                self._turn_away(turn, ExecutionAlreadyExists(turn.tenure.name))
            else:
                self._outcomes.lost(turn)
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
        if _caller(unit) is not None:
            self._turn_away(unit, error)
            return False
        assert isinstance(unit, Turn)
        if not is_refused or any(isinstance(event, Poisoned) for event in unit.events):
            self._outcomes.broken(unit, error)
            return False
        log.error("checkpoint_rejected", execution=str(unit.key.id), reason=str(error))
        unit.events = [Poisoned(REJECTED, "the database refused what this step would store")]
        return True

    def _postpone(self, unit: Unit) -> None:
        """Try again later what a lock holds up; a caller that waits for it is answered after some
        tries.
        """
        unit.tries += 1
        waiting = _caller(unit)
        if waiting is not None and unit.tries >= CONTENDED_TRIES_MAX:
            self._turn_away(unit, Unavailable("a row stayed locked"))
            return
        self._postponed += 1
        delay_seconds = CONTENDED_DELAY_SECONDS * min(unit.tries, CONTENDED_TRIES_MAX)
        asyncio.get_running_loop().call_later(delay_seconds, self._resubmit, unit)

    def _resubmit(self, unit: Unit) -> None:
        self._postponed -= 1
        self.submit(unit)

    async def _outlast(self, units: list[Unit], error: Unavailable) -> list[Unit]:
        """Wait for the database to come back; return the units that then remain to be committed."""
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
                await self._outcomes.reconcile()
            except Unavailable:
                continue
            log.info("database_back", seconds=round(loop.time() - gone_at, 3))
            self._is_down = False
            return units

    def _lose_patience(self, unit: Unit) -> None:
        """Answer a caller who has waited long enough; what it asked may be committed already."""
        waiting = _caller(unit)
        if waiting is not None and not waiting.done():
            waiting.set_exception(Unavailable("the database does not answer"))

    def _turn_away(self, unit: Unit, error: Exception) -> None:
        """Give up a unit that a caller waits for, and tell the caller why."""
        waiting = _caller(unit)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if isinstance(unit, Turn):
            self._outcomes.dropped(unit)


class _Broken(Exception):
    """The engine's own failure at one turn, inside a transaction that must be rolled back."""

    def __init__(self, turn: Turn, error: Exception) -> None:
        super().__init__(str(error))
        self.turn = turn
        self.error = error


def _guard(turn: Turn, play: Callable[[], None]) -> None:
    """Play a part of a turn; what the engine fails at there is that turn's trouble alone."""
    try:
        play()
    except Exception as error:
        raise _Broken(turn, error) from error


def _caller(
    unit: Unit,
) -> asyncio.Future[None] | asyncio.Future[Mapping[str, object] | None] | None:
    """Return the future of whoever waits for this unit, if anybody does."""
    if isinstance(unit, Request):
        return unit.answer
    return unit.new.stored if unit.new is not None else None
