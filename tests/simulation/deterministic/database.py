"""The model of the database: MemoryStore's rules, with locks between transactions.

A statement takes place at once, as a whole. A transaction locks what it touches until it ends: the
executions of a bucket, or its accounts. That is coarser than Postgres's rows and crosses in the
same ways: others wait for it as long as their patience goes, and two that wait for one another come
to nothing; `claim_due` and `rescue` skip what is locked, and reads see what was committed before.
What waits is kept here and goes on when the lock is free, whether or not anybody still listens: a
statement that was sent is performed, also for a process that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from service.asl import Status
from service.engine.ports import (
    Beat,
    Checkpoint,
    Claim,
    Contended,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Signalling,
    Standing,
    Unavailable,
)
from service.store.memory import ExecutionRow, MemoryStore, MemoryTransaction, WorkerRow
from service.store.memory_accounts import EFFECTS, AccountRow
from service.store.memory_table import Table
from tests.simulation.deterministic.world import BEGAN_AT, World

T = TypeVar("T")
IDLE_SECONDS_MAX: Final = 10.0
"""After which the server ends a transaction whose client has been silent."""

LOCK_PATIENCE_MS: Final = 200
TALLY: Final = "tally"
"""An effect that is not idempotent: it counts how often it happened."""

Reply: TypeAlias = Callable[[Any, Exception | None], None]


class Clock:
    """The database's clock, which alone is right."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return datetime.fromtimestamp(BEGAN_AT + self._world.now, UTC)

    def observe(self, now: datetime) -> None:
        """Take no notice: it is the one that others observe."""


class Session:
    """A connection's transaction, or one statement on its own."""

    def __init__(self, who: str, patience_ms: int = LOCK_PATIENCE_MS) -> None:
        self.who = who
        self.patience_ms = patience_ms
        self.held: list[Shard] = []
        self.is_over = False
        self.arrives_at = 0.0  # when the last thing sent by the client does
        self.applied: list[tuple[Effect, Mapping[str, object] | None]] = []
        self.saved: list[Checkpoint] = []
        self.told: list[HistoryRow] = []


class Shard(MemoryStore):
    """The executions of one bucket, or its accounts, and who has them locked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.tallies: Table[tuple[Key, int], int] = Table(self._journal)
        self.holder: Session | None = None
        self.committed: Mapping[Key, ExecutionRow] = self.executions._rows
        self.committed_accounts: Mapping[Key, AccountRow] = self.accounts.rows._rows
        self.waiting: list[_Waiting] = []
        self._change: AbstractContextManager[None] | None = None

    def take(self, session: Session) -> None:
        """Lock it."""
        self.holder, self.committed = session, dict(self.executions)
        self.committed_accounts = dict(self.accounts.rows)
        self._change = self._journal.kept()
        self._change.__enter__()
        session.held.append(self)

    def leave(self, *, is_committed: bool) -> None:
        """Unlock it, with what was changed or without."""
        assert self._change is not None
        if is_committed:
            self._change.__exit__(None, None, None)
        else:
            with suppress(_Undone):
                self._change.__exit__(_Undone, _Undone(), None)
        self.holder, self.committed, self._change = None, self.executions._rows, None
        self.committed_accounts = self.accounts.rows._rows


class _Undone(Exception):
    """A transaction ends without a commit."""


class _Waiting:
    """A statement that waits for a lock."""

    def __init__(self, session: Session, go_on: Callable[[], None]) -> None:
        self.session = session
        self.go_on = go_on


class ModelDatabase:
    """The server: sessions come in, statements are performed, replies go out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = Clock(world)
        self.shards: dict[int, Shard] = {}  # the executions, by bucket
        self.accounts: dict[int, Shard] = {}  # the accounts, likewise
        self.workers: dict[UUID, WorkerRow] = {}
        self.seen: Counter[str] = Counter()
        self.on_commit: Callable[[Session], None] = lambda session: None
        self.on_claim: Callable[[Key, UUID | None], None] = lambda key, owner: None
        self.on_rescue: Callable[[UUID, UUID], None] = lambda by, owner: None

    def shard(self, bucket: int) -> Shard:
        """Return the executions of a bucket."""
        if bucket not in self.shards:
            self.shards[bucket] = Shard(self.clock)
        return self.shards[bucket]

    def account_shard(self, bucket: int) -> Shard:
        """Return the accounts of a bucket."""
        if bucket not in self.accounts:
            self.accounts[bucket] = Shard(self.clock)
        return self.accounts[bucket]

    def rows(self) -> Iterable[tuple[Key, ExecutionRow]]:
        """Yield all executions as they are committed."""
        for _, shard in sorted(self.shards.items()):
            yield from shard.committed.items()

    # Transactions

    def perform(self, session: Session, name: str, rows: Any, reply: Reply) -> None:
        """Perform a statement of a transaction, as soon as what it touches is not locked."""
        if session.is_over:
            reply(None, Unavailable("this transaction was idle too long, or its connection broke"))
            return

        def act() -> Any:
            return getattr(self, f"_{name}")(session, *rows)

        self._locked(session, self._touched(name, rows), act, reply)

    def commit(self, session: Session, reply: Reply) -> None:
        """End a transaction: what it did is there for everybody."""
        if session.is_over:
            reply(None, Unavailable("the connection is closed"))
            return
        self._end(session, is_committed=True)
        self.on_commit(session)
        reply(None, None)

    def abort(self, session: Session) -> None:
        """End a transaction as if it had never been; too late is no error."""
        if not session.is_over:
            self._end(session, is_committed=False)

    def _end(self, session: Session, *, is_committed: bool) -> None:
        session.is_over = True
        for shard in session.held:
            shard.leave(is_committed=is_committed)
        held, session.held = session.held, []
        for shard in held:
            waiting, shard.waiting = shard.waiting, []
            for one in waiting:
                one.go_on()

    def _locked(
        self, session: Session, touched: Sequence[Shard], act: Callable[[], Any], reply: Reply
    ) -> None:
        """Lock what a statement touches, in order, and perform it."""
        for shard in touched:
            if shard.holder is session:
                continue
            if shard.holder is not None:
                self._wait(
                    session, shard, lambda: self._locked(session, touched, act, reply), reply
                )
                return
            shard.take(session)
        try:
            answer = act()
        except Exception as error:
            reply(None, error)
        else:
            reply(answer, None)

    def _wait(
        self, session: Session, shard: Shard, again: Callable[[], None], reply: Reply
    ) -> None:
        def go_on() -> None:
            if session.is_over:
                reply(None, Unavailable("the connection is closed"))
            else:
                again()

        def lose_patience() -> None:
            if waiting in shard.waiting:
                shard.waiting.remove(waiting)
                self.seen["lock timeout"] += 1
                reply(None, Contended("canceling statement due to lock timeout"))

        waiting = _Waiting(session, go_on)
        shard.waiting.append(waiting)
        self.world.after(session.patience_ms / 1000, lose_patience)

    def _touched(self, name: str, rows: Any) -> list[Shard]:
        """Return what a statement of a transaction locks, in the order in which it does."""
        (values, *_) = rows
        if name == "insert":
            buckets = {row.first.key.bucket for row in values}
        elif name == "lock":
            buckets = {key.bucket for key, _ in values}
        elif name in ("standing", "signal"):
            buckets = {key.bucket for key in values}
        elif name == "apply":
            writing = {e.row[0] for e in values if e.query not in (TALLY, "get_account")}
            return [self.account_shard(bucket) for bucket in sorted(writing)]
        else:
            buckets = {row.key.bucket for part in rows for row in part}
        return [self.shard(bucket) for bucket in sorted(buckets)]

    def _tx(self, bucket: int) -> MemoryTransaction:
        return MemoryTransaction(self.shard(bucket), self.clock)

    def _insert(self, session: Session, rows: Sequence[NewExecution]) -> Mapping[Key, bool]:
        standing: dict[Key, bool] = {}
        for row in rows:
            inserted = at_once(self._tx(row.first.key.bucket).insert([row]))
            self.seen["start that stood"] += list(inserted.values()).count(False)
            standing |= inserted
            session.saved.append(row.first)
        return standing

    def _lock(self, session: Session, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        held: dict[Key, bool] = {}
        for key, epoch in fences:
            held |= at_once(self._tx(key.bucket).lock([(key, epoch)]))
        self.seen["fenced write"] += len(fences) - len(held)
        self.seen["signal found by a step"] += sum(held.values())
        return held

    def _apply(
        self, session: Session, effects: Sequence[Effect]
    ) -> Sequence[Mapping[str, object] | None]:
        answers: list[Mapping[str, object] | None] = [None] * len(effects)
        # By name and then in order, as the statements would see them.
        for ordinal in sorted(range(len(effects)), key=lambda at: (effects[at].query, at)):
            effect = effects[ordinal]
            answers[ordinal] = self._effect(session, effect)
        session.applied += zip(effects, answers, strict=True)
        return answers

    def _effect(self, session: Session, effect: Effect) -> Mapping[str, object] | None:
        bucket, id, *rest = effect.row
        key = Key(bucket, id)  # type: ignore[arg-type]
        if effect.query == TALLY:
            tallies, at = self.shard(key.bucket).tallies, (key, rest[0])
            tallies[at] = tallies.get(at, 0) + 1  # type: ignore[index,arg-type]
            return {"times": tallies[at]}  # type: ignore[index]
        shard = self.account_shard(key.bucket)
        accounts = shard.accounts
        if shard.holder is not session:  # it only reads
            accounts = copy(accounts)
            accounts.rows = shard.committed_accounts  # type: ignore[assignment]
        for answer in EFFECTS[effect.query](accounts, [(0, *effect.row)]):
            return answer
        return None

    def _standing(self, session: Session, keys: Sequence[Key]) -> Sequence[Standing]:
        found = [
            one
            for key in sorted(set(keys))
            for one in at_once(self._tx(key.bucket).standing([key]))
        ]
        for standing in found:
            self.seen["signal at rest" if standing.owner is None else "signal to a step"] += 1
            due_at = self.shard(standing.claim.key.bucket).executions[standing.claim.key].at.due_at
            if due_at is not None and due_at <= self.clock.now():
                self.seen["signal beside a wake-up"] += 1
        return found

    def _signal(self, session: Session, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        return [
            one
            for key in sorted(set(keys))
            for one in at_once(self._tx(key.bucket).signal([key], owner))
        ]

    def _save(
        self, session: Session, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        refused: set[Key] = set()
        for bucket in sorted({row.key.bucket for part in (rows, history) for row in part}):
            refused |= set(
                at_once(
                    self._tx(bucket).save(
                        [row for row in rows if row.key.bucket == bucket],
                        [step for step in history if step.key.bucket == bucket],
                    )
                )
            )
        self.seen["fenced write"] += len(refused)
        session.saved += [row for row in rows if row.key not in refused]
        session.told += [step for step in history if step.key not in refused]
        return refused

    # Statements on their own

    def ask(self, who: str, name: str, arguments: Sequence[Any], reply: Reply) -> None:
        """Perform a statement that is a transaction of its own."""
        if name in ("seize", "quarantine", "bury", "let_go", "release"):
            patience_ms = 5_000 if name == "release" else LOCK_PATIENCE_MS
            session = Session(who, patience_ms)

            def ended(answer: Any, error: Exception | None) -> None:
                self._end(session, is_committed=error is None)
                reply(answer, error)

            def act() -> Any:
                if name == "release":
                    return self._release(session, *arguments)
                return getattr(self, f"_{name}")(*arguments)

            self._locked(session, self._rows_of(name, arguments), act, ended)
            return
        try:
            answer = getattr(self, f"_{name}")(*arguments)
        except Exception as error:
            reply(None, error)
        else:
            reply(answer, None)

    def _rows_of(self, name: str, arguments: Sequence[Any]) -> list[Shard]:
        if name == "seize":
            buckets = {key.bucket for key in arguments[1]}
        elif name == "release":
            buckets = {key.bucket for key, row in self.rows() if row.at.owner == arguments[0]}
        else:
            buckets = {arguments[0].bucket}
        return [self.shard(bucket) for bucket in sorted(buckets)]

    def _free(self) -> list[tuple[Key, ExecutionRow, Shard]]:
        return [
            (key, row, shard)
            for _, shard in sorted(self.shards.items())
            if shard.holder is None
            for key, row in shard.executions.items()
        ]

    def _claim_due(self, owner: UUID, limit: int) -> Sequence[Claim]:
        now = self.clock.now()
        due = sorted(
            (row.at.due_at, key, shard)
            for key, row, shard in self._free()
            if row.at.due_at is not None and row.at.due_at <= now
        )
        return [self._claim(shard, key, owner) for _, key, shard in due[:limit]]

    def _claim(self, shard: Shard, key: Key, owner: UUID) -> Claim:
        self.on_claim(key, shard.executions[key].at.owner)
        return shard.claim(key, owner)

    def _next_due(self) -> datetime | None:
        return min((row.at.due_at for _, row in self.rows() if row.at.due_at), default=None)

    def _owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        return [(key, row.at.epoch) for key, row in self.rows() if row.at.owner == owner]

    def _claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        claims = []
        for key in keys:
            shard = self.shard(key.bucket)
            row = shard.committed.get(key)
            if row is not None and row.at.owner == owner:
                claims.append(_as_claim(key, row, self.clock.now()))
        return claims

    def _seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        return [
            self.shard(key.bucket).claim(key, owner, counts=0)
            for key in sorted(set(keys))
            if self.shard(key.bucket).is_running(key)
        ]

    def _quarantine(self, key: Key, epoch: int, by: int) -> bool:
        self.seen["quarantine"] += 1
        return at_once(self.shard(key.bucket).quarantine(key, epoch, by))

    def _bury(self, key: Key, epoch: int, error: str, cause: str) -> bool:
        return at_once(self.shard(key.bucket).bury(key, epoch, error, cause))

    def _let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        return at_once(self.shard(key.bucket).let_go(key, epoch, delay_seconds))

    def _heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        now = self.clock.now()
        self.workers[owner] = WorkerRow(now, lease_seconds)
        signalled = [k for k, row in self.rows() if row.at.owner == owner and row.is_signalled]
        return Beat(now, signalled)

    def _rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        lost = [
            (key, shard, row.at.owner)
            for key, row, shard in self._free()
            if row.at.owner not in (None, owner) and self._is_lost(row.at.owner, lease_seconds)
        ][:limit]
        for _, _, former in lost:
            assert former is not None
            self.on_rescue(owner, former)
        return [shard.claim(key, owner) for key, shard, _ in lost]

    def _is_lost(self, owner: UUID | None, lease_seconds: float) -> bool:
        worker = self.workers.get(owner) if owner is not None else None
        if worker is None:
            return True
        lease = timedelta(seconds=max(lease_seconds, worker.lease_seconds))
        return worker.heartbeat_at < self.clock.now() - lease

    def _release(self, session: Session, owner: UUID) -> int:
        held = sum(at_once(shard.release(owner)) for shard in session.held)
        self.workers.pop(owner, None)
        return held

    def _sweep(self, limit: int) -> int:
        return sum(at_once(s.sweep(limit)) for s in self.shards.values() if s.holder is None)

    def _tidy(self, retention_days: int, limit: int) -> int:
        return 0  # nothing in a run is old enough

    def _contact(self, key: Key) -> Any:
        shard = self.account_shard(key.bucket)
        row = shard.committed_accounts.get(key)
        if row is None:
            return None
        owner = shard.accounts.verified_addresses.get((key.bucket, row.identity_key or ""))
        return row, None if owner == key.id else owner


def _as_claim(key: Key, row: ExecutionRow, now: datetime) -> Claim:
    return Claim(
        key, row.at.epoch, row.machine, row.definition, row.name, row.input, row.started_at,
        row.at.document, row.is_signalled, row.claims, row.quarantined, now,
    )  # fmt: skip


def has_ended(row: ExecutionRow) -> bool:
    """Tell whether an execution came to its end."""
    return row.at.status is not Status.RUNNING


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the model waits for nothing")
