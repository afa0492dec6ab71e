"""What a handler is called with in these tests: a command of a state and the task made of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from service.asl import Json, RunTask, TaskFailed
from service.engine.ids import key_of, new_id
from service.engine.ports import Answer, CoroutineHandler, EffectHandler, Task

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ID = new_id(NOON, 42)
KEY = key_of(ID)
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
INVOKE = "arn:aws:states:::lambda:invoke"


def command(resource: str, parameters: Json = None) -> RunTask:
    return RunTask(id=7, entered_event_id=2, state="Call", resource=resource, parameters=parameters)


def task(attempt: int = 0) -> Task:
    return Task(
        execution=KEY,
        machine="verification",
        name=str(ID),
        state="Call",
        entered_event_id=2,
        attempt=attempt,
    )


IDEMPOTENCY_KEY = task().idempotency_key


async def perform(
    resolved: tuple[CoroutineHandler | EffectHandler, Json] | TaskFailed,
    row: Mapping[str, object] | None = None,
) -> Answer:
    """Return what a resolved handler answers; an effect's row is `row`."""
    assert not isinstance(resolved, TaskFailed), resolved
    handler, input = resolved
    if isinstance(handler, CoroutineHandler):
        return await handler.run(input, task())
    handler.effect(input, task())
    return handler.answer(row)
