"""The rows of the model's database, by bucket, and the statements that need no transaction.

The rules are MemoryStore's. A statement takes place at once, as a whole; what is locked it leaves
out or reads as it was committed before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from service.engine.committer import LOCK_PATIENCE_MS
from service.engine.ports import (
    Beat,
    Checkpoint,
    Claim,
    Due,
    Effect,
    HistoryRow,
    Key,
)
from service.store.memory import ExecutionRow, MemoryStore, WorkerRow
from service.store.memory_accounts import AccountRow
from service.store.memory_table import Table
from tests.simulation.deterministic.world import BEGAN_AT, World

T = TypeVar("T")
IDLE_SECONDS_MAX: Final = 10.0
"""After which the server ends a transaction whose client has been silent."""

TALLY: Final = "tally"
"""An effect that is not idempotent: it counts how often it happened."""


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
        self.waiting: list[Any] = []
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


class Tables:
    """All rows, and what a single statement does with them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = Clock(world)
        self.shards: dict[int, Shard] = {}  # the executions, by bucket
        self.accounts: dict[int, Shard] = {}  # the accounts, likewise
        self.workers: dict[UUID, WorkerRow] = {}
        self.seen: Counter[str] = Counter()
        self.on_commit: Callable[[Session], None] = lambda session: None
        self.on_claim: Callable[[Key, UUID | None], None] = lambda key, owner: None
        self.on_rescue: Callable[[Key, UUID], None] = lambda key, owner: None
        self.on_release: Callable[[Key, UUID], None] = lambda key, owner: None
        self.on_redrive: Callable[[Key], None] = lambda key: None

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

    def free(self) -> list[tuple[Key, ExecutionRow, Shard]]:
        return [
            (key, row, shard)
            for _, shard in sorted(self.shards.items())
            if shard.holder is None
            for key, row in shard.executions.items()
        ]

    def _claim_due(self, owner: UUID, limit: int) -> Due:
        now = self.clock.now()
        due = sorted(
            (row.at.due_at, key, shard)
            for key, row, shard in self.free()
            if row.at.due_at is not None and row.at.due_at <= now
        )
        claims = [self._claim(shard, key, owner) for _, key, shard in due[:limit]]
        return self._due(claims, limit, now)

    def _due(self, claims: Sequence[Claim], limit: int, now: datetime) -> Due:
        """Return what was claimed of what was due by now, and the next timer if it is known."""
        later = (row.at.due_at for _, row in self.rows() if row.at.due_at and row.at.due_at > now)
        return Due(claims, min(later, default=None) if 0 < len(claims) < limit else None)

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

    def _redrive(self, owner: UUID, keys: Sequence[Key], token: str | None) -> Sequence[Claim]:
        claims = [
            claim
            for key in sorted(set(keys))
            for claim in at_once(self.shard(key.bucket).redrive(owner, [key], token))
        ]
        for claim in claims:
            self.seen["redrive"] += 1
            self.on_redrive(claim.key)
        return claims

    def _redriven_by(self, key: Key, token: str) -> datetime | None:
        row = self.shard(key.bucket).committed.get(key)
        redrives = () if row is None else row.redrives
        return next((at for by, at in redrives if by == token), None)

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
        holders = {row.at.owner for _, row in self.rows()} - {None}
        return Beat(now, signalled, owner in holders, bool(holders - {owner}))

    def _rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        lost = [
            (key, shard, row.at.owner)
            for key, row, shard in self.free()
            if row.at.owner not in (None, owner) and self._is_lost(row.at.owner, lease_seconds)
        ][:limit]
        for key, _, former in lost:
            assert former is not None
            self.on_rescue(key, former)
        return [shard.claim(key, owner) for key, shard, _ in lost]

    def _is_lost(self, owner: UUID | None, lease_seconds: float) -> bool:
        worker = self.workers.get(owner) if owner is not None else None
        if worker is None:
            return True
        lease = timedelta(seconds=max(lease_seconds, worker.lease_seconds))
        return worker.heartbeat_at < self.clock.now() - lease

    def _release(self, session: Session, owner: UUID) -> int:
        for key, _ in self._owned(owner):
            self.on_release(key, owner)
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
        row.at.document, row.is_signalled, row.claims, row.quarantined, now, row.redrive_count,
        row.redrives[0][1] if row.redrives else None,
    )  # fmt: skip


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the model waits for nothing")
