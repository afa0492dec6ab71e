"""The engine's `Store` and `Transaction` on Postgres: the execution row is the queue.

Why a lease is safe. A row belongs to the worker named in it, and `epoch` rises with every change of
hands and with every checkpoint. Whoever writes a step does it by the epoch it knows: where the step
has effects it locks the row before (`lock`), and a checkpoint is written only to a row that is in
that epoch still (`save`). A worker that was taken for dead finds another one, and its step falls
out of the batch with all its effects. So a lease decides only who works, never what is true.

Why the order of locks. A transaction locks executions sorted by key, then what its effects touch,
each statement sorted again; two batches that meet wait for one another and do not cross. What
crosses all the same (an effect, then a signal) ends in 40P01 or in the lock timeout, and the
committer splits.

Every statement has a snapshot of its own (READ COMMITTED): what must be judged after waiting for a
lock is locked by one statement and judged by the next.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from operator import attrgetter
from types import TracebackType
from typing import Final
from uuid import UUID

from service.engine.map_ports import MapRunStore, Wanted
from service.engine.ports import (
    Beat,
    Checkpoint,
    Claim,
    Due,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Signalling,
    Standing,
)
from service.engine.redrive import OPEN_DAYS_MAX, REDRIVABLE_DAYS, TOKEN_SECONDS, TOKENS_MAX
from service.store.database import LOCK_PATIENCE_MS, Database, Row, Session
from service.store.effects import columns_of, grouped
from service.store.front import Front
from service.store.map_runs import MapRunRows

SIGNALLED_MAX: Final = 1_000
HISTORY_DAYS_AHEAD: Final = 3
# Giving up a lease happens once, at the end: better late than left to the rescuers.
RELEASE_PATIENCE_MS: Final = 5_000


class PostgresTransaction:
    """The engine's `Transaction`, and its own context manager.

    It begins with its first statement. One that is the only one is a transaction as it is: without
    `begin` and `commit` that is one round trip instead of three, and the commit of a statement
    whose answer is lost is in doubt as any other.
    """

    def __init__(self, database: Database, lock_patience_ms: int) -> None:
        self._database = database
        self._lock_patience_ms = lock_patience_ms
        self._begun: tuple[AbstractAsyncContextManager[Session], Session] | None = None

    async def __aenter__(self) -> PostgresTransaction:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._begun is not None:
            await self._begun[0].__aexit__(kind, error, traceback)

    async def _session(self) -> Session:
        """Return the connection of the transaction, which begins now unless it has."""
        if self._begun is None:
            transaction = self._database.transaction(self._lock_patience_ms)
            self._begun = transaction, await transaction.__aenter__()
        return self._begun[1]

    async def _fetch(self, name: str, *columns: object, is_all: bool = False) -> Sequence[Row]:
        """Return the rows of a statement; `is_all`: none that belongs to it comes after it."""
        is_patient = self._lock_patience_ms == LOCK_PATIENCE_MS  # as every connection is
        if is_all and is_patient and self._begun is None:
            return await self._database.fetch(name, *columns)
        return await (await self._session()).fetch(name, *columns)

    async def insert(
        self, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
        """Insert executions; return the keys that stand, and whether this call inserted each."""
        ordered = sorted(rows, key=lambda row: row.first.key)
        name, columns = "insert_executions", _insert_columns(ordered)
        effect = self._effect_at_start(ordered)
        if effect is not None:
            name, columns = effect, columns + columns_of(e.row for r in ordered for e in r.effects)
        is_apart = effect is None and any(row.effects for row in ordered)
        fresh = _keys(await self._fetch(name, *columns, is_all=is_all and not is_apart))
        if is_apart:
            begun = [row for row in ordered if row.first.key in fresh]
            await self.apply([effect for row in begun for effect in row.effects])
        missing = [row for row in ordered if row.first.key not in fresh]
        standing = dict.fromkeys(fresh, True)
        if missing:
            columns = columns_of((*row.first.key, row.machine, row.name) for row in missing)
            before = _keys(await self._fetch("inserted_before", *columns, is_all=is_all))
            standing |= dict.fromkeys(before, False)
        return standing

    def _effect_at_start(self, rows: Sequence[NewExecution]) -> str | None:
        """Return the statement that inserts executions together with their effects, if there is one
        for all of these: a companion `<name>.start`, for rows that begin with the execution's key.
        """
        effects = [(row.first.key, effect) for row in rows for effect in row.effects]
        queries = {effect.query for _, effect in effects}
        if len(queries) != 1 or any(effect.row[:2] != key for key, effect in effects):
            return None
        name = f"{queries.pop()}.start"
        return name if name in self._database.queries else None

    async def lock(self, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        """Lock the rows whose epoch still is this one; return each one's `is_signalled`."""
        if not fences:
            return {}
        columns = columns_of((*key, epoch) for key, epoch in sorted(fences))
        rows = await self._fetch("lock", *columns)
        return {Key(bucket, id): signalled for bucket, id, signalled in map(_values, rows)}

    async def apply(self, effects: Sequence[Effect]) -> Sequence[Mapping[str, object] | None]:
        """Run effects, one statement for each query name, by name; return the row of each."""
        answers: list[Mapping[str, object] | None] = [None] * len(effects)
        session = await self._session()
        for name, columns in grouped(effects):
            for row in await session.apply_effect(name, *columns):
                answers[row["ordinal"]] = dict(row)
        return answers

    async def standing(self, keys: Sequence[Key]) -> Sequence[Standing]:
        """Lock running executions, in sorted order, and return their rows."""
        if not keys:
            return []
        rows = await self._fetch("standing", *columns_of(sorted(set(keys))))
        return [Standing(_claim(row), row["owner"]) for row in rows]

    async def signal(self, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        """Mark executions that are locked as signalled, claiming those at rest."""
        if not keys:
            return []
        rows = await self._fetch("signal", *columns_of(sorted(set(keys))), owner)
        return [
            Signalling(_key(row), row["owner"], None if row["was_owned"] else _claim(row))
            for row in rows
        ]

    async def save(
        self, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        """Write checkpoints and append history; return the keys of those that were refused."""
        past = {step.key: step for step in history}
        ordered = sorted(rows, key=_key_of)
        steps = [past.pop(row.key, None) for row in ordered]
        assert not past, f"history of what is not saved: {[*past]}"
        if not ordered:
            return ()
        columns = _save_columns(ordered)
        ids = [step and step.first_event_id for step in steps]
        events = [step and step.events for step in steps]
        parameters = (range(len(ordered)), *columns, ids, events)
        (saved,) = await self._fetch("save", *parameters, is_all=True)
        written = saved["written"]
        if len(written) == len(ordered):
            return ()
        return {row.key for row in ordered} - {ordered[ordinal].key for ordinal in written}


class PostgresStore:
    """The engine's `Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.front = Front()
        self.map_runs: MapRunStore = MapRunRows(database)

    def transaction(self, lock_patience_ms: int = LOCK_PATIENCE_MS) -> PostgresTransaction:
        """Return a transaction, for one block, in which no lock is waited for longer than this."""
        return PostgresTransaction(self._database, lock_patience_ms)

    async def claim_due(self, owner: UUID, limit: int) -> Due:
        """Claim executions whose timer is due, earliest first."""
        rows = await self._database.fetch("claim_due", limit, owner, self.front.since)
        return Due(_claims(rows), rows[0]["next_due"] if 0 < len(rows) < limit else None)

    async def next_due(self) -> datetime | None:
        """Return the earliest due time of all executions at rest, as far as `front` looks."""
        began = time.monotonic()
        is_whole = self.front.begin(began)
        (row,) = await self._database.fetch("next_due", self.front.since)
        due_at: datetime | None = row["due_at"]
        if is_whole:
            self.front.end(began, time.monotonic(), due_at, row["now"])
        return due_at

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        """Return key and epoch of every row that `owner` holds."""
        rows = await self._database.fetch("owned", owner)
        return [(_key(row), row["epoch"]) for row in rows]

    async def claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Return those of the rows that `owner` holds, as they are."""
        if not keys:
            return []
        return _claims(await self._database.fetch("claim_owned", *columns_of(keys), owner))

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Claim running executions whoever holds them."""
        if not keys:
            return []
        async with self._database.transaction() as session:
            columns = columns_of(sorted(set(keys)))
            return _claims(await session.apply_effect("seize", *columns, owner))

    async def seize_children(
        self, owner: UUID, run: Wanted, first: UUID, last: UUID, limit: int
    ) -> Sequence[Claim]:
        """Claim running children of a run that was not redriven since, whoever holds them.

        A redrive of the run waits for this, and comes to its children after it.
        """
        async with self._database.transaction() as session:
            if await session.first("hold_map_run", *run.key, run.redrives) is None:
                return []
            bucket = run.key.bucket
            rows = await session.fetch("running_children", bucket, first, last, limit)
            columns = [bucket] * len(rows), [row["id"] for row in rows]
            return _claims(await session.apply_effect("seize", *columns, owner)) if rows else []

    async def redrive(
        self, owner: UUID, keys: Sequence[Key], token: str | None = None
    ) -> Sequence[Claim]:
        """Have executions run again that ended without success, and claim them."""
        if not keys:
            return []
        columns = columns_of(sorted(set(keys)))
        limits = (REDRIVABLE_DAYS, OPEN_DAYS_MAX, TOKEN_SECONDS, TOKENS_MAX)
        async with self._database.transaction() as session:
            await session.fetch("lock_ended", *columns)
            return _claims(await session.fetch("redrive", *columns, owner, token, *limits))

    async def redriven_by(self, key: Key, token: str) -> datetime | None:
        """Return when a token redrove an execution, if it did lately."""
        row = await self._database.first("redriven_by", *key, token, TOKEN_SECONDS)
        return None if row is None else row["redriven_at"]

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        """Raise the count of beginnings in the quarantine lane, by -1 to take one back."""
        return await self._database.first("quarantine", *key, epoch, by) is not None

    async def bury(self, key: Key, epoch: int, error: str, cause: str) -> bool:
        """End an execution as FAILED that cannot be read."""
        return await self._database.first("bury", *key, epoch, error, cause) is not None

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        """Renew the worker's lease; return the clock, what is signalled, and who holds any."""
        rows = await self._database.fetch("heartbeat", owner, lease_seconds, SIGNALLED_MAX)
        first, signalled = rows[0], [_key(row) for row in rows if row["id"] is not None]
        return Beat(first["now"], signalled, first["holds"], first["others_hold"])

    async def rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        """Claim executions of workers that are lost.

        Neither the lease that the worker promised to renew nor `lease_seconds` may have passed
        without a heartbeat.
        """
        return _claims(await self._database.fetch("rescue", owner, lease_seconds, limit))

    async def let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        """Put one claim back, due after the delay; False when the epoch no longer stands."""
        return await self._database.first("let_go", *key, epoch, delay_seconds) is not None

    async def release(self, owner: UUID) -> int:
        """Give up everything `owner` holds, and its lease; return how many rows."""
        async with self._database.transaction(RELEASE_PATIENCE_MS) as session:
            rows = await session.fetch("release", owner)
            await session.fetch("delete_worker", owner)
        return len(rows)

    async def sweep(self, limit: int) -> int:
        """Make due at once running rows with neither due time nor owner; return how many."""
        return len(await self._database.fetch("sweep", limit))

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` closed executions older than this; return how many.

        Also drops the history days of which no execution is left, and makes the coming ones.
        """
        deleted = await self._database.fetch("delete_closed", retention_days, limit)
        await self._database.fetch("delete_stray_history", retention_days, limit)
        await self._database.fetch("delete_lost_workers")
        await self._database.fetch("add_history_days", HISTORY_DAYS_AHEAD)
        await self._database.fetch("drop_history_days", retention_days)
        return len(deleted)

    async def read_history(self, key: Key) -> list[bytes]:
        """Return an execution's history, the events of one step each, in order."""
        return [row["events"] for row in await self._database.fetch("read_history", *key)]


_checkpoint_row = attrgetter(
    "key.bucket", "key.id", "epoch", "status", "due_at", "owner", "document", "output", "error",
    "cause", "stopped_at", "was_signalled",
)  # fmt: skip
_key_of = attrgetter("key")


def _insert_columns(rows: Sequence[NewExecution]) -> list[Sequence[object]]:
    bucket, id, *first, _ = _save_columns([row.first for row in rows])
    return [
        bucket,
        id,
        [row.started_at for row in rows],
        [row.definition for row in rows],
        [row.machine for row in rows],
        [row.name for row in rows],
        [row.input for row in rows],
        *first,
        [row.history and row.history.first_event_id for row in rows],
        [row.history and row.history.events for row in rows],
    ]


def _save_columns(rows: Sequence[Checkpoint]) -> list[Sequence[object]]:
    return columns_of(map(_checkpoint_row, rows))


def _keys(rows: Sequence[Row]) -> set[Key]:
    return {_key(row) for row in rows}


def _key(row: Row) -> Key:
    return Key(row["bucket"], row["id"])


def _values(row: Row) -> tuple[int, UUID, bool]:
    return row["bucket"], row["id"], row["signalled"]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    return [_claim(row) for row in rows]


def _claim(row: Row) -> Claim:
    return Claim(
        key=_key(row),
        epoch=row["epoch"],
        machine=row["machine"],
        definition=row["definition"],
        name=row["name"],
        input=row["input"],
        started_at=row["started_at"],
        checkpoint=row["checkpoint"],
        is_signalled=row["signalled"],
        claims=row["claims"],
        quarantined=row["quarantined"],
        claimed_at=row["claimed_at"],
        redrive_count=row["redrive_count"],
        redriven_at=row["redriven_at"],
    )
