"""Stand-ins for what accounts need from outside: an engine, a store and a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from service.asl import Json
from service.engine.ids import new_id
from service.engine.ports import Effect, ExecutionDoesNotExist, Key

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEYS = (b"k" * 32,)

Row = Mapping[str, object] | None


@dataclass
class FakeClock:
    at: datetime = NOON

    def now(self) -> datetime:
        return self.at


@dataclass
class FakeEngine:
    """Notes what it is asked for. `decide` gives the row of each requested effect."""

    decide: Callable[[Effect], Row] = lambda effect: None
    clock: FakeClock = field(default_factory=FakeClock)
    failure: Exception | None = None
    running: set[Key] = field(default_factory=set)
    started: list[tuple[str, str, Json, Key, tuple[Effect, ...]]] = field(default_factory=list)
    requested: list[Effect] = field(default_factory=list)
    signalled: list[Key] = field(default_factory=list)
    stopped: list[tuple[Key, str | None]] = field(default_factory=list)

    def new_id(self, bucket: int) -> UUID:
        return new_id(self.clock.now(), bucket)

    async def start(
        self, machine: str, name: str, input: Json, *, key: Key, effects: Sequence[Effect] = ()
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.started.append((machine, name, input, key, tuple(effects)))

    async def request(
        self, effect: Effect, *, signal: Callable[[Row], Key | None] = lambda row: None
    ) -> Row:
        self.requested.append(effect)
        row = self.decide(effect)
        key = signal(row)
        if key is not None:
            self.signalled.append(key)
        return row

    async def stop(self, key: Key, error: str | None = None, cause: str | None = None) -> None:
        if key not in self.running:
            raise ExecutionDoesNotExist(key)
        self.stopped.append((key, error))


@dataclass
class FakeRow:
    """An account's row."""

    id: UUID
    status: str = "pending"
    address: str | None = "Ada@example.org"
    name: str | None = "Ada"
    locale: str | None = "de-CH"
    data: str | None = '{"plan":"pro"}'
    links: int = 1
    created_at: datetime = NOON
    decided_at: datetime | None = None


@dataclass
class FakeAccounts:
    """Rows in the order in which a page shows them."""

    rows: dict[Key, FakeRow] = field(default_factory=dict)
    pages: list[tuple[str | None, str | None, Key | None, int]] = field(default_factory=list)
    erased: list[Key] = field(default_factory=list)

    async def status(self, bucket: int, id: UUID) -> str | None:
        row = self.rows.get(Key(bucket, id))
        return None if row is None else row.status

    async def get(self, bucket: int, id: UUID) -> FakeRow | None:
        return self.rows.get(Key(bucket, id))

    async def page(
        self, identity_key: str | None, status: str | None, after: Key | None, limit: int
    ) -> Sequence[FakeRow]:
        self.pages.append((identity_key, status, after, limit))
        return [row for key, row in sorted(self.rows.items()) if after is None or key > after][
            :limit
        ]

    async def erase(self, bucket: int, id: UUID) -> bool:
        self.erased.append(Key(bucket, id))
        return Key(bucket, id) in self.rows
