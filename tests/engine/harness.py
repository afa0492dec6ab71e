"""An engine with made-up handlers on a real store, as each test of the engine needs it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from service.asl import Json, RunTask, TaskFailed, compile_definition
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.engine import Engine, Settings
from service.engine.ids import key_of
from service.engine.ports import Answer, CoroutineHandler, Effect, EffectHandler, Handler, Key, Task
from service.engine.random import SystemRandom
from service.engine.timers import Timers
from service.engine.turn import OnEnded, Surroundings
from service.store import Database, DefinitionRows, PostgresStore, migrate

Run = Callable[[Json, Task], Awaitable[Json]]


def lambda_arn(function: str) -> str:
    return f"arn:aws:lambda:us-east-1:000000000000:function:{function}"


def task(function: str, **fields: Json) -> dict[str, Json]:
    return {"Type": "Task", "Resource": lambda_arn(function), **fields}


def definition(start_at: str, **states: Mapping[str, Json]) -> str:
    return json.dumps({"StartAt": start_at, "States": states})


@dataclass
class Handlers:
    """Coroutines and effects by function name, and a note of what was performed."""

    coroutines: dict[str, Run] = field(default_factory=dict)
    effects: dict[str, EffectHandler] = field(default_factory=dict)
    performed: list[tuple[str, UUID, int]] = field(default_factory=list)

    def resolve(self, command: RunTask) -> tuple[Handler, Json] | TaskFailed:
        function = command.resource.rsplit(":", 1)[-1]
        if function in self.effects:
            return self.effects[function], command.parameters
        if function not in self.coroutines:
            return TaskFailed(command.id, "Lambda.ResourceNotFoundException", function)

        async def run(input: Json, task: Task) -> Answer:
            self.performed.append((function, task.idempotency_key, task.attempt))
            output = await self.coroutines[function](input, task)
            return output if isinstance(output, Answer) else Answer(output)

        return CoroutineHandler(run), command.parameters


@dataclass
class Bench:
    """An engine with the store under it."""

    engine: Engine
    store: PostgresStore
    database: Database
    handlers: Handlers

    async def publish(self, name: str, text: str) -> None:
        machine = compile_definition(text)
        await self.engine.definitions.publish_file(name, f"{name}.asl.json", machine, edited=True)

    def key(self, bucket: int = 0) -> Key:
        return key_of(self.engine.new_id(bucket))

    async def start(self, machine: str, input: Json = None, *effects: Effect) -> Key:
        key = self.key()
        await self.engine.start(machine, str(key.id), input or {}, key=key, effects=effects)
        return key

    async def row(self, key: Key) -> Mapping[str, object]:
        row = await self.database.first("execution", *key)
        assert row is not None, key
        return row

    async def ended(self, key: Key, seconds: float = 20.0) -> Mapping[str, object]:
        """Return the execution's row once it has ended."""
        async with asyncio.timeout(seconds):
            while (row := await self.row(key))["status"] == "RUNNING":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return row

    async def at_rest(self, key: Key, seconds: float = 20.0) -> Mapping[str, object]:
        """Return the execution's row once it waits for nothing but time."""
        async with asyncio.timeout(seconds):
            while (row := await self.row(key))["due_at"] is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return row


@asynccontextmanager
async def bench(
    url: str,
    handlers: Handlers | None = None,
    *,
    lease_seconds: float = 30.0,
    time_scale: float = 1.0,
    on_ended: OnEnded = lambda name, key: None,
) -> AsyncIterator[Bench]:
    """Yield an engine that is open, on a schema that is up to date."""
    handlers = handlers or Handlers()
    database = Database(url)
    await database.open()
    await migrate(database)
    clock = DatabaseClock()
    store = PostgresStore(database)
    engine = Engine(
        store,
        Definitions(DefinitionRows(database)),
        Surroundings(handlers, clock, SystemRandom(), time_scale, on_ended),
        clock,
        Settings(lease_seconds=lease_seconds, shutdown_seconds=2.0),
        Arns(),
        Timers(clock),
    )
    await engine.open()
    try:
        yield Bench(engine, store, database, handlers)
    finally:
        await engine.close()
        await database.close()
