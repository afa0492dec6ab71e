"""M1: the engine with one of its rules broken at a time; a run that lets it pass proves nothing.

Each mutant breaks one rule that the promise rests on, in the engine or in the model of what its
statements do, for as long as it is played. It counts as killed when a story of D1 goes wrong; the
line says which seed did it and by which count. D1's own seeds are played from `seed` on, so the
figures say how many of them it takes. What must hold: every mutant is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID, uuid5

from benchmarks.circumstances import core
from service.engine.batch import Batch
from service.engine.committer import Committer
from service.engine.ports import Checkpoint, HistoryRow, Key, Signalling, Task
from service.engine.rescuer import Rescuer
from service.engine.turn import Tenure, Unit
from service.engine.worker import Worker
from service.store.memory import ExecutionRow, MemoryTransaction
from service.store.memory_accounts import EFFECTS, MemoryAccounts
from tests.faults.ledger import Counts
from tests.faults.run import Outcome, Run, Stage
from tests.simulation.deterministic.client import RemoteStore
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.network import Reply
from tests.simulation.deterministic.play import play as play_story
from tests.simulation.deterministic.story import story_of

Patches = Sequence[Any]


@dataclass(frozen=True)
class Mutant:
    """A rule that is broken, and how."""

    name: str
    rule: str
    patches: Callable[[], Patches]

    @contextmanager
    def at_large(self) -> Iterator[None]:
        """Break the rule for a while."""
        with ExitStack() as broken:
            for each in self.patches():
                broken.enter_context(each)
            yield


@dataclass(frozen=True)
class Killed:
    """By which seed a mutant was caught, after how many, and by which counts."""

    seed: int
    plays: int
    counts: Sequence[str]


# No fence


async def _lock_whatever_runs(
    self: MemoryTransaction, fences: Sequence[tuple[Key, int]]
) -> Mapping[Key, bool]:
    store = self._store
    return {key: store.executions[key].is_signalled for key, _ in fences if store.is_running(key)}


async def _save_whatever_comes(
    self: MemoryTransaction, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
) -> Collection[Key]:
    store = self._store
    for at in rows:
        row = store.executions[at.key]
        store.executions[at.key] = replace(row, at=at, claims=0, quarantined=0, is_signalled=False)
    for step in history:
        store.history.setdefault((step.key, step.first_event_id), step.events)
    return ()


def _no_fence() -> Patches:
    return (
        patch.object(MemoryTransaction, "lock", _lock_whatever_runs),
        patch.object(MemoryTransaction, "save", _save_whatever_comes),
    )


# Claims that are looked up first and taken afterwards


def _ask_in_two_steps() -> Patches:
    ask = ModelDatabase.ask

    def claimed_later(
        self: ModelDatabase, who: str, name: str, arguments: Sequence[Any], reply: Reply
    ) -> None:
        if name != "claim_due":
            ask(self, who, name, arguments, reply)
            return
        owner, limit = arguments
        now = self.clock.now()
        due = [k for k, row in self.rows() if row.at.due_at is not None and row.at.due_at <= now]

        def take() -> None:
            claims = [self._claim(self.shard(k.bucket), k, owner) for k in due if self._runs(k)]
            reply(self._due(claims[:limit], limit, now), None)

        self.world.after(0.002, take)

    def runs(self: ModelDatabase, key: Key) -> bool:
        return self.shard(key.bucket).is_running(key)

    return (
        patch.object(ModelDatabase, "ask", claimed_later),
        patch.object(ModelDatabase, "_runs", runs, create=True),
    )


# The order of commit, effect and answer


def _perform_before_commit() -> Patches:
    async def transact(self: Committer, units: Sequence[Unit], patience_ms: int) -> Batch:
        batch = Batch.of(units, self._owner, self._outcomes)
        async with self._store.transaction(patience_ms) as tx:
            await batch.run(tx)
            for turn in batch.turns.values():
                self._outcomes.committed(turn)
        return batch

    return (patch.object(Committer, "_transact", transact),)


def _answer_before_commit() -> Patches:
    start = Worker.start

    def begin(self: Worker, *arguments: Any) -> Any:
        stored = start(self, *arguments)
        stored.add_done_callback(lambda done: done.cancelled() or done.exception())
        answered = stored.get_loop().create_future()
        answered.set_result(None)
        return answered

    return (patch.object(Worker, "start", begin),)


# Leases


def _no_quiet_period() -> Patches:
    return (patch.object(Rescuer, "_be_quiet", lambda self: None),)


def _lease_by_own_clock() -> Patches:
    async def rescue(self: RemoteStore, owner: UUID, lease_seconds: float, limit: int) -> Any:
        return await self.ask("rescue", owner, lease_seconds - self.process.wall_ahead, limit)

    def is_lost(self: ModelDatabase, owner: UUID, lease_seconds: float) -> bool:
        beat_at = self.workers[owner].heartbeat_at if owner in self.workers else None
        return beat_at is None or beat_at < self.clock.now() - timedelta(seconds=lease_seconds)

    return (
        patch.object(RemoteStore, "rescue", rescue),
        patch.object(ModelDatabase, "_is_lost", is_lost),
    )


# What a checkpoint holds


def _dispatched_is_done() -> Patches:
    go_on = Worker._go_on

    def gone_on(self: Worker, tenure: Tenure, *rest: Any) -> None:
        for command in tenure.execution.open_tasks:
            tenure.performing[command.id] = asyncio.get_running_loop().create_future()  # type: ignore[assignment]
        go_on(self, tenure, *rest)

    return (patch.object(Worker, "_go_on", gone_on),)


def _key_by_attempt() -> Patches:
    def key(task: Task) -> UUID:
        return uuid5(task.execution.id, f"{task.entered_event_id}/{task.attempt}")

    return (patch.object(Task, "idempotency_key", property(key)),)


# Signals


def _signal_is_forgotten() -> Patches:
    def signal(self: MemoryTransaction, key: Key, owner: UUID) -> Signalling:
        rows = self._store.executions
        row: ExecutionRow = rows[key]
        if row.at.owner is not None:
            return Signalling(key, row.at.owner, None)
        rows[key] = replace(row, is_signalled=True)
        return Signalling(key, owner, self._store.claim(key, owner))

    return (patch.object(MemoryTransaction, "_signal", signal),)


# Decisions


def _delete_the_verified() -> Patches:
    delete = MemoryAccounts.delete_unverified

    def delete_any(self: MemoryAccounts, rows: Any) -> Any:
        for _, bucket, id in rows:
            account = self.rows[Key(bucket, id)]
            self.rows[Key(bucket, id)] = replace(account, status="pending")
        return delete(self, rows)

    return (patch.dict(EFFECTS, {"delete_unverified_account": delete_any}),)


def _verify_the_deleted() -> Patches:
    def verify_any(self: MemoryAccounts, rows: Any) -> Any:
        answers = []
        for ordinal, bucket, id, _ in rows:
            account = self.rows[Key(bucket, id)]
            self.rows[Key(bucket, id)] = replace(account, status="verified")
            is_new = account.status != "verified"
            answers.append({"ordinal": ordinal, "status": "verified", "newly": is_new})
        return answers

    return (patch.dict(EFFECTS, {"verify_account": verify_any}),)


# Ambiguous commits


def _insert_again() -> Patches:
    insert = MemoryTransaction.insert

    async def inserted(self: MemoryTransaction, rows: Any) -> Mapping[Key, bool]:
        return dict.fromkeys(await insert(self, rows), True)

    return (patch.object(MemoryTransaction, "insert", inserted),)


def _nothing_is_read_again() -> Patches:
    async def reconcile(self: Worker, in_doubt: Any = None) -> None:
        await self._store.owned(self.id)

    return (patch.object(Worker, "reconcile", reconcile),)


def _lost_batches_stay_lost() -> Patches:
    return (patch.object(Committer, "_after_loss", lambda self, units, patience, losses: []),)


MUTANTS: Final = (
    Mutant("effect before commit", "performed is only what is committed", _perform_before_commit),
    Mutant("answer before commit", "acknowledged is only what is committed", _answer_before_commit),
    Mutant("key by attempt", "a key is the same for retries and repeats", _key_by_attempt),
    Mutant("dispatched is done", "a command stays until its answer", _dispatched_is_done),
    Mutant("verified deleted", "a delete spares the verified", _delete_the_verified),
    Mutant(
        "lost batch dropped", "a batch whose answer is lost is tried again", _lost_batches_stay_lost
    ),
    Mutant("no fence", "a write holds only at the epoch it knows", _no_fence),
    Mutant("claim in two steps", "a claim looks and takes in one statement", _ask_in_two_steps),
    Mutant("no quiet period", "after an outage nobody rescues for a lease", _no_quiet_period),
    Mutant("lease by own clock", "the database's clock decides leases", _lease_by_own_clock),
    Mutant("signal forgotten", "a signal that finds no Wait is remembered", _signal_is_forgotten),
    Mutant("deleted verified", "a link decides only what is pending", _verify_the_deleted),
    Mutant("start run again", "a start that stands is not run again", _insert_again),
    Mutant("nothing read again", "what is in doubt is decided by reading", _nothing_is_read_again),
)


def kill(mutant: Mutant, first_seed: int, seeds: int) -> Killed | None:
    """Play stories until one goes wrong; None when none does."""
    with mutant.at_large():
        for seed in range(first_seed, first_seed + seeds):
            came = play_story(story_of(seed))
            if not came.verdict.held:
                return Killed(seed, seed - first_seed + 1, sorted(came.verdict.wrong))
    return None


@dataclass(frozen=True)
class Size:
    """How many stories a mutant may survive, and how many mutants are let out."""

    seeds: int
    mutants: int = len(MUTANTS)


async def play(stage: Stage, size: Size) -> Outcome:
    """Let one mutant out after another, and kill it."""
    assert core() == "interpreted", "compiled code calls its own, never what is patched"
    table: dict[str, object] = {}
    survivors = []
    for mutant in MUTANTS[: size.mutants]:
        killed = kill(mutant, stage.seed, size.seeds)
        if killed is None:
            survivors.append(f"{mutant.name!r} survives {size.seeds} stories: {mutant.rule}")
            table[mutant.name] = None
        else:
            told = {"seed": killed.seed, "plays": killed.plays, "by": list(killed.counts)}
            table[mutant.name] = {"run": "D1", **told}
        stage.tell(f"{mutant.name} ({mutant.rule}): {table[mutant.name] or 'survives'}")
    return Outcome(Counts(), 1.0, {"killed": table}, survivors)


RUN: Final = Run(
    name="M1",
    title="the engine with one rule broken at a time: D1 has to notice",
    small=Size(seeds=300, mutants=5),
    full=Size(seeds=10_000),
    play=play,
    is_of_sources=True,
)
