"""The engine's store without a database: the same rules on dictionaries, for tests and `simulate`.

Transactions run one after another, each with a journal of what it replaced, which a failure plays
back. Time comes from the clock that is passed in. It refuses what Postgres refuses (text with a NUL
or a lone surrogate), so that tests meet it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from service.asl import Status
from service.engine.ids import run_of
from service.engine.map_ports import Wanted
from service.engine.ports import (
    Beat,
    Checkpoint,
    Claim,
    Clock,
    Current,
    Due,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Published,
    Rejected,
    Signalling,
    Standing,
)
from service.engine.redrive import OPEN_DAYS_MAX, REDRIVABLE_DAYS, TOKEN_SECONDS, TOKENS_MAX
from service.store.effects import grouped
from service.store.executions import SIGNALLED_MAX
from service.store.memory_accounts import EFFECTS, MemoryAccounts
from service.store.memory_map_runs import MemoryMapRuns
from service.store.memory_table import Journal, Table


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """What the table `executions` holds."""

    machine: str
    definition: bytes
    name: str
    input: str
    started_at: datetime
    at: Checkpoint
    claims: int = 0
    quarantined: int = 0
    is_signalled: bool = False
    redrive_count: int = 0
    redrives: tuple[tuple[str | None, datetime], ...] = ()  # the last ones, by their tokens

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.at.status is Status.RUNNING


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What the table `workers` holds."""

    heartbeat_at: datetime
    lease_seconds: float


class MemoryStore:
    """The engine's `Store`. Tests may look at its tables, and set them up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._journal = Journal()
        self._turn = asyncio.Lock()
        self.executions: Table[Key, ExecutionRow] = Table(self._journal)
        self.names: Table[tuple[int, str, str], Key] = Table(self._journal)
        self.history: Table[tuple[Key, int], bytes] = Table(self._journal)
        self.workers: Table[UUID, WorkerRow] = Table(self._journal)
        self.accounts = MemoryAccounts(self._journal, clock)
        self.map_runs = MemoryMapRuns(self.executions, clock, self._forget)

    @asynccontextmanager
    async def transaction(self, lock_patience_ms: int = 200) -> AsyncIterator[MemoryTransaction]:
        """Begin a transaction. There are no locks to wait for: it has the whole store to itself."""
        async with self._turn:
            with self._journal.kept():
                yield MemoryTransaction(self, self._clock)

    async def claim_due(self, owner: UUID, limit: int) -> Due:
        """Claim executions whose timer is due, earliest first."""
        async with self._turn:
            now = self._clock.now()
            due = sorted(
                (row.at.due_at, key)
                for key, row in self.executions.items()
                if row.at.due_at is not None and row.at.due_at <= now
            )
            claims = [self.claim(key, owner) for _, key in due[:limit]]
        return Due(claims, await self.next_due() if 0 < len(claims) < limit else None)

    async def next_due(self) -> datetime | None:
        """Return the earliest due time of all executions at rest."""
        return min(
            (row.at.due_at for row in self.executions.values() if row.at.due_at), default=None
        )

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        """Return key and epoch of every row that `owner` holds."""
        return [(key, self.executions[key].at.epoch) for key in self._held_by(owner)]

    async def claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Return those of the rows that `owner` holds, as they are."""
        held = set(self._held_by(owner))
        return [self.as_claim(key) for key in keys if key in held]

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Claim running executions whoever holds them."""
        async with self._turn:
            running = [key for key in sorted(set(keys)) if self.is_running(key)]
            return [self.claim(key, owner, counts=0) for key in running]

    async def seize_children(
        self, owner: UUID, run: Wanted, first: UUID, last: UUID, limit: int
    ) -> Sequence[Claim]:
        """Claim running children of a run that was not redriven since, whoever holds them."""
        async with self._turn:
            running = self.map_runs.running(run, first, last)[:limit]
            return [self.claim(key, owner, counts=0) for key in running]

    async def redrive(
        self, owner: UUID, keys: Sequence[Key], token: str | None = None
    ) -> Sequence[Claim]:
        """Have executions run again that ended without success, and claim them."""
        async with self._turn:
            found = [key for key in sorted(set(keys)) if self._is_redrivable(key, token)]
            return [self.raise_again(key, owner, token) for key in found]

    async def redriven_by(self, key: Key, token: str) -> datetime | None:
        """Return when a token redrove an execution, if it did lately."""
        row, now = self.executions.get(key), self._clock.now()
        redrives = () if row is None else row.redrives
        return next((at for by, at in redrives if by == token and _is_recent(at, now)), None)

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        """Raise the count of beginnings in the quarantine lane, by -1 to take one back."""
        async with self._turn:
            if not self.stands(key, epoch):
                return False
            row = self.executions[key]
            self.executions[key] = replace(row, quarantined=row.quarantined + by)
            return True

    async def bury(self, key: Key, epoch: int, error: str, cause: str) -> bool:
        """End an execution as FAILED that cannot be read."""
        async with self._turn:
            if not self.stands(key, epoch):
                return False
            row = self.executions[key]
            at = Checkpoint(
                key=key,
                epoch=epoch + 1,
                status=Status.FAILED,
                due_at=None,
                owner=None,
                document=row.at.document,
                output=None,
                error=error,
                cause=cause,
                stopped_at=self._clock.now(),
            )
            self.executions[key] = replace(row, at=at)
            return True

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        """Renew the worker's lease; return the clock and the keys of its signalled executions."""
        async with self._turn:
            now = self._clock.now()
            self.workers[owner] = WorkerRow(now, lease_seconds)
            signalled = [key for key in self._held_by(owner) if self.executions[key].is_signalled]
            holders = {row.at.owner for row in self.executions.values()} - {None}
            return Beat(now, signalled[:SIGNALLED_MAX], owner in holders, bool(holders - {owner}))

    async def rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        """Claim executions of workers that are lost."""
        async with self._turn:
            now = self._clock.now()
            lost = [
                key
                for key, row in self.executions.items()
                if row.at.owner not in (None, owner)
                and self._is_lost(row.at.owner, now, lease_seconds)
            ]
            return [self.claim(key, owner) for key in lost[:limit]]

    async def let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        """Put one claim back, due after the delay; False when the epoch no longer stands."""
        async with self._turn:
            if not self.stands(key, epoch):
                return False
            self._rest(key, self._clock.now() + timedelta(seconds=delay_seconds))
            return True

    async def release(self, owner: UUID) -> int:
        """Give up everything `owner` holds, and its lease; return how many rows."""
        async with self._turn:
            held = self._held_by(owner)
            for key in held:
                self._rest(key, self._clock.now())
                row = self.executions[key]
                self.executions[key] = replace(row, claims=max(row.claims - 1, 0))
            self.workers.pop(owner, None)
            return len(held)

    async def sweep(self, limit: int) -> int:
        """Make due at once running rows with neither due time nor owner; return how many."""
        async with self._turn:
            stray = [
                key
                for key, row in self.executions.items()
                if row.is_running and row.at.owner is None and row.at.due_at is None
            ][:limit]
            for key in stray:
                row = self.executions[key]
                self.executions[key] = replace(row, at=replace(row.at, due_at=self._clock.now()))
            return len(stray)

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` closed ones older than this, with their history; return how many."""
        async with self._turn:
            before = self._clock.now() - timedelta(days=retention_days)
            closed = [
                key
                for key, row in self.executions.items()
                if row.at.stopped_at is not None
                and row.at.stopped_at < before
                and not self.map_runs.is_open(run_of(key))
            ][:limit]
            for key in closed:
                self._forget(key)
                for step in [step for step in self.history if step[0] == key]:
                    self.history.pop(step)
            return len(closed)

    async def read_history(self, key: Key) -> list[bytes]:
        """Return an execution's history, the events of one step each, in order."""
        steps = sorted((step, events) for step, events in self.history.items() if step[0] == key)
        return [events for _, events in steps]

    # What the transaction shares

    def is_running(self, key: Key) -> bool:
        """Tell whether an execution is there and has not ended."""
        row = self.executions.get(key)
        return row is not None and row.is_running

    def stands(self, key: Key, epoch: int) -> bool:
        """Tell whether an execution runs at this epoch."""
        return self.is_running(key) and self.executions[key].at.epoch == epoch

    def claim(self, key: Key, owner: UUID, *, counts: int = 1) -> Claim:
        """Make an execution this worker's, in the next epoch."""
        row = self.executions[key]
        at = replace(row.at, epoch=row.at.epoch + 1, owner=owner, due_at=None)
        self.executions[key] = replace(row, at=at, claims=row.claims + counts)
        return self.as_claim(key)

    def raise_again(self, key: Key, owner: UUID, token: str | None) -> Claim:
        """Make an execution that has ended run again, as this worker's."""
        row = self.executions[key]
        at = Checkpoint(
            key, row.at.epoch, Status.RUNNING, None, None, row.at.document, None, None, None, None
        )
        redrives = ((token, self._clock.now()), *row.redrives)[:TOKENS_MAX]
        self.executions[key] = replace(
            row,
            at=at,
            claims=0,
            quarantined=0,
            redrive_count=row.redrive_count + 1,
            redrives=redrives,
        )
        return self.claim(key, owner, counts=0)

    def _is_redrivable(self, key: Key, token: str | None) -> bool:
        row, now = self.executions.get(key), self._clock.now()
        if row is None or row.at.status in (Status.RUNNING, Status.SUCCEEDED):
            return False
        if row.at.document is None or row.at.stopped_at is None:
            return False
        return (
            row.at.stopped_at > now - timedelta(days=REDRIVABLE_DAYS)
            and row.started_at > now - timedelta(days=OPEN_DAYS_MAX)
            and not any(by == token is not None and _is_recent(at, now) for by, at in row.redrives)
        )

    def as_claim(self, key: Key) -> Claim:
        """Return an execution's row as the engine sees it."""
        row = self.executions[key]
        return Claim(
            key=key,
            epoch=row.at.epoch,
            machine=row.machine,
            definition=row.definition,
            name=row.name,
            input=row.input,
            started_at=row.started_at,
            checkpoint=row.at.document,
            is_signalled=row.is_signalled,
            claims=row.claims,
            quarantined=row.quarantined,
            claimed_at=self._clock.now(),
            redrive_count=row.redrive_count,
            redriven_at=row.redrives[0][1] if row.redrives else None,
        )

    def _forget(self, key: Key) -> None:
        row = self.executions.pop(key)
        self.names.pop((key.bucket, row.machine, row.name))

    def _held_by(self, owner: UUID) -> list[Key]:
        return [key for key, row in self.executions.items() if row.at.owner == owner]

    def _is_lost(self, owner: UUID | None, now: datetime, lease_seconds: float) -> bool:
        worker = self.workers.get(owner) if owner is not None else None
        if worker is None:
            return True
        lease = timedelta(seconds=max(lease_seconds, worker.lease_seconds))
        return worker.heartbeat_at < now - lease

    def _rest(self, key: Key, due_at: datetime) -> None:
        row = self.executions[key]
        at = replace(row.at, epoch=row.at.epoch + 1, owner=None, due_at=due_at)
        self.executions[key] = replace(row, at=at)


class MemoryTransaction:
    """The engine's `Transaction`."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def insert(
        self, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
        """Insert executions; return the keys that stand, and whether this call inserted each."""
        store = self._store
        standing: dict[Key, bool] = {}
        for row in rows:
            key, name = row.first.key, (row.first.key.bucket, row.machine, row.name)
            _refuse(row.machine, row.name, row.input, *_texts(row.first))
            is_new = key not in store.executions and name not in store.names
            if is_new:
                store.names[name] = key
                store.executions[key] = ExecutionRow(
                    row.machine, row.definition, row.name, row.input, row.started_at, row.first
                )
                if row.history is not None:
                    self._append(row.history)
                if row.effects:
                    await self.apply(row.effects)
            if store.names.get(name) == key:
                standing.setdefault(key, is_new)
        return standing

    async def lock(self, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        """Return `is_signalled` of the rows whose epoch still is this one."""
        store = self._store
        held = [key for key, epoch in fences if store.stands(key, epoch)]
        return {key: store.executions[key].is_signalled for key in held}

    async def apply(self, effects: Sequence[Effect]) -> Sequence[Mapping[str, object] | None]:
        """Run effects, one group for each query name, by name; return the row of each."""
        answers: list[Mapping[str, object] | None] = [None] * len(effects)
        for name, (ordinals, *columns) in grouped(effects):
            for column in columns:
                _refuse(*column)
            rows = zip(ordinals, *columns, strict=True)
            for answer in EFFECTS[name](self._store.accounts, list(rows)):
                answers[answer["ordinal"]] = answer
        return answers

    async def standing(self, keys: Sequence[Key]) -> Sequence[Standing]:
        """Return the rows of running executions."""
        store = self._store
        running = [key for key in sorted(set(keys)) if store.is_running(key)]
        return [Standing(store.as_claim(key), store.executions[key].at.owner) for key in running]

    async def signal(self, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        """Mark running executions as signalled, claiming those at rest."""
        store = self._store
        return [self._signal(key, owner) for key in sorted(set(keys)) if store.is_running(key)]

    def _signal(self, key: Key, owner: UUID) -> Signalling:
        rows = self._store.executions
        row = rows[key] = replace(rows[key], is_signalled=True)
        if row.at.owner is not None:
            return Signalling(key, row.at.owner, None)
        return Signalling(key, owner, self._store.claim(key, owner))

    async def save(
        self, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        """Write checkpoints and append history; return the keys of those that were refused."""
        store = self._store
        refused: set[Key] = set()
        for at in rows:
            _refuse(*_texts(at))
            row = store.executions.get(at.key)
            found = None if row is None else (row.at.epoch, row.is_signalled)
            if row is None or found != (at.epoch - 1, at.was_signalled):
                refused.add(at.key)
                continue
            store.executions[at.key] = replace(
                row, at=at, claims=0, quarantined=0, is_signalled=False
            )
        for step in history:
            if step.key not in refused:
                self._append(step)
        return refused

    def _append(self, step: HistoryRow) -> None:
        if (step.key, step.first_event_id) in self._store.history:
            raise Rejected(f"{step.key} has an event {step.first_event_id} already")
        self._store.history[step.key, step.first_event_id] = step.events


class MemoryDefinitions:
    """The engine's `DefinitionStore`."""

    def __init__(self) -> None:
        self._texts: dict[bytes, str] = {}
        self._currents: dict[str, bytes] = {}
        self._published: set[tuple[str, bytes]] = set()

    async def currents(self) -> Mapping[str, Current]:
        """Return what new executions of every machine take: no file gives one a role."""
        return {name: Current(sha256) for name, sha256 in self._currents.items()}

    async def definition(self, sha256: bytes) -> str | None:
        """Return the text of a definition."""
        return self._texts.get(sha256)

    async def publish_file(
        self, name: str, file: str, text: str, sha256: bytes, *, edited: bool
    ) -> Published:
        """Make a file's text the machine's current one, unless it is an older build's."""
        self._texts[sha256] = text
        current = self._currents.get(name)
        is_old = (name, sha256) in self._published and not edited
        if current is not None and (current == sha256 or is_old):
            return Published(False, current)
        self._currents[name] = sha256
        self._published.add((name, sha256))
        return Published(True, sha256)


def _is_recent(redriven_at: datetime, now: datetime) -> bool:
    return redriven_at > now - timedelta(seconds=TOKEN_SECONDS)


def _texts(at: Checkpoint) -> Iterable[str]:
    return (text for text in (at.output, at.error, at.cause) if text is not None)


def _refuse(*values: object) -> None:
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                raise Rejected("CharacterNotInRepertoireError: text with a NUL")
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise Rejected(f"UnicodeEncodeError: {error.reason}") from error
