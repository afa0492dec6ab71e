"""An engine on a store in memory that fails where a test tells it to."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from service.asl import Json, compile_definition
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.engine import Engine, Settings
from service.engine.history import unpack
from service.engine.ids import key_of
from service.engine.map_ports import ItemFiles
from service.engine.ports import Beat, Checkpoint, Claim, Effect, Key
from service.engine.random import SystemRandom
from service.engine.timers import Timers
from service.engine.turn import OnEnded, Surroundings
from service.store import MemoryStore
from service.store.memory import ExecutionRow, MemoryDefinitions, MemoryTransaction
from tests.engine.harness import Handlers

PATIENCE_SECONDS = 3.0  # less than a heartbeat of these engines: nothing is mended by one
TEST_SECONDS_MAX = 10.0  # a caller who is never answered fails its test


async def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once the condition holds; raise TimeoutError when it does not come to that."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class FaultyStore(MemoryStore):
    """A store that counts calls and effects, and raises what a test has put into `faults`."""

    def __init__(self, clock: DatabaseClock) -> None:
        super().__init__(clock)
        self.faults: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()
        self.applied: list[Effect] = []
        self.refuse: Callable[[Sequence[Effect]], Exception | None] = lambda effects: None
        self.may_begin = asyncio.Event()
        self.may_begin.set()

    def _fault(self, name: str) -> None:
        self.calls[name] += 1
        if self.faults[name]:
            raise self.faults[name].popleft()

    @asynccontextmanager
    async def transaction(self, lock_patience_ms: int = 200) -> AsyncIterator[MemoryTransaction]:
        await self.may_begin.wait()
        # A round trip takes a while; nothing else in memory ever lets other tasks have their turn.
        await asyncio.sleep(0)
        async with super().transaction(lock_patience_ms) as tx:
            tx.apply = self._noted(tx)  # type: ignore[method-assign]
            yield tx
            self._fault("commit")
        self._fault("committed")

    def _noted(self, tx: MemoryTransaction) -> Callable[..., object]:
        apply = tx.apply

        async def noted(effects: Sequence[Effect]) -> object:
            self.applied += effects
            error = self.refuse(effects)
            if error is not None:
                raise error
            return await apply(effects)

        return noted

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        self._fault("owned")
        return await super().owned(owner)

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        self._fault("seize")
        return await super().seize(owner, keys)

    async def redrive(
        self, owner: UUID, keys: Sequence[Key], token: str | None = None
    ) -> Sequence[Claim]:
        self._fault("redrive")
        claims = await super().redrive(owner, keys, token)
        self._fault("redriven")
        return claims

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        self._fault("quarantine")
        return await super().quarantine(key, epoch, by)

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        self._fault("heartbeat")
        return await super().heartbeat(owner, lease_seconds)

    async def let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        self._fault("let_go")
        return await super().let_go(key, epoch, delay_seconds)

    async def release(self, owner: UUID) -> int:
        self._fault("release")
        return await super().release(owner)

    def put(self, key: Key, **changed: object) -> None:
        """Change a row as an operator's statement would: columns of the row or its checkpoint."""
        row = self.executions[key]
        at = {name: value for name, value in changed.items() if hasattr(row.at, name)}
        rest = {name: value for name, value in changed.items() if name not in at}
        self.executions[key] = replace(row, at=replace(row.at, **at), **rest)  # type: ignore[arg-type]

    def make_due(self, key: Key, **changed: object) -> None:
        self.put(key, due_at=self._clock.now() - timedelta(seconds=1), **changed)


@dataclass
class Small:
    """An engine and the store under it."""

    engine: Engine
    store: FaultyStore
    handlers: Handlers = field(default_factory=Handlers)

    async def publish(self, name: str, text: str) -> None:
        machine = compile_definition(text)
        await self.engine.definitions.publish_file(name, f"{name}.asl.json", machine, edited=True)

    def key(self, bucket: int = 0) -> Key:
        return key_of(self.engine.new_id(bucket))

    async def start(self, machine: str, input: Json = None, *effects: Effect) -> Key:
        key = self.key()
        await self.engine.start(machine, str(key.id), input or {}, key=key, effects=effects)
        return key

    def row(self, key: Key) -> ExecutionRow:
        return self.store.executions[key]

    def at(self, key: Key) -> Checkpoint:
        return self.row(key).at

    async def ended(self, key: Key) -> Checkpoint:
        await until(lambda: not self.row(key).is_running)
        return self.at(key)

    async def types(self, key: Key) -> list[str]:
        events = [event for row in await self.store.read_history(key) for event in unpack(row)]
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        return [event.type for event in events]

    def answered(self, query: str) -> int:
        """Return how many effects of this name were run, committed or not."""
        return sum(effect.query == query for effect in self.store.applied)


@asynccontextmanager
async def small(
    handlers: Handlers | None = None,
    *,
    store: FaultyStore | None = None,
    lease_seconds: float = 30.0,
    shutdown_seconds: float = 1.0,
    on_ended: OnEnded = lambda name, key: None,
    machines: Mapping[str, str] | None = None,
    time_scale: float = 1.0,
    files: ItemFiles | None = None,
) -> AsyncIterator[Small]:
    """Yield an engine that is open."""
    clock = DatabaseClock()
    handlers = handlers or Handlers()
    store = store or FaultyStore(clock)
    engine = Engine(
        store,
        Definitions(MemoryDefinitions()),
        Surroundings(handlers, clock, SystemRandom(), time_scale, on_ended),
        clock,
        Settings(lease_seconds=lease_seconds, shutdown_seconds=shutdown_seconds),
        Arns(),
        Timers(clock),
        files=files,
    )
    async with asyncio.timeout(TEST_SECONDS_MAX):
        await engine.open()
        try:
            made = Small(engine, store, handlers)
            for name, text in (machines or {}).items():
                await made.publish(name, text)
            yield made
        finally:
            await engine.close()
