"""Express executions run in memory, within bounds, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from service.asl import About, Execution, Json, RunTask, Status, TaskFailed, compile_definition
from service.engine.express import EXPRESS_SECONDS_MAX, Express
from service.engine.ports import (
    Answer,
    CoroutineHandler,
    Effect,
    EffectHandler,
    Handler,
    Overloaded,
    Task,
)
from service.engine.random import SystemRandom
from service.engine.turn import Surroundings
from tests.engine.harness import Handlers, definition, task

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class StillClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time

    def observe(self, now: datetime) -> None: ...


class TickingClock(StillClock):
    """A clock that goes on by 0.98 s whenever somebody looks at it."""

    def now(self) -> datetime:
        self.time += timedelta(seconds=0.98)
        return self.time


def about(input: Json = None) -> About:
    arn = "arn:aws:states:us-east-1:000000000000"
    return About(
        f"{arn}:express:flow:one:id", "one", NOON, input, "role", f"{arn}:stateMachine:flow", "flow"
    )


async def no_request(effect: Effect) -> Mapping[str, object] | None:
    raise AssertionError("nothing here has an effect")


def express(handlers: Handlers, clock: StillClock | None = None, **options: int) -> Express:
    shared = Surroundings(handlers, clock or StillClock(), SystemRandom())
    return Express(shared, no_request, **options)


async def test_tasks_are_performed_and_answered() -> None:
    async def double(input: Json, task: Task) -> Json:
        assert isinstance(input, int)
        return input * 2

    machine = compile_definition(
        definition("A", A=task("double", Next="B"), B=task("double", End=True))
    )
    handlers = Handlers({"double": double})
    execution = await express(handlers).run(machine, about(5))
    assert (execution.status, execution.output) == (Status.SUCCEEDED, 20)
    first, second = [key for _, key, _ in handlers.performed]
    assert first != second


async def test_a_failure_is_retried_with_its_key_and_then_the_executions() -> None:
    async def boom(input: Json, task: Task) -> Json:
        raise KeyError("boom")

    retry: Json = [{"ErrorEquals": ["KeyError"], "IntervalSeconds": 1, "MaxAttempts": 2}]
    machine = compile_definition(definition("A", A=task("boom", End=True, Retry=retry)))
    handlers = Handlers({"boom": boom})
    shared = Surroundings(handlers, StillClock(), SystemRandom(), time_scale=0.0)
    execution = await Express(shared, no_request).run(machine, about())
    assert (execution.status, execution.error) == (Status.FAILED, "KeyError")
    assert [attempt for _, _, attempt in handlers.performed] == [0, 1, 2]
    assert len({key for _, key, _ in handlers.performed}) == 1


async def test_a_task_without_a_handler_fails() -> None:
    machine = compile_definition(definition("A", A=task("gone", End=True)))
    execution = await express(Handlers()).run(machine, about())
    assert (execution.status, execution.error) == (
        Status.FAILED,
        "Lambda.ResourceNotFoundException",
    )


async def test_an_effect_has_a_transaction_of_its_own_and_is_told_of_its_row() -> None:
    told: list[object] = []
    asked: list[Effect] = []
    handler = EffectHandler(
        lambda input, task: Effect("get", (1,), committed=told.append),
        lambda row: Answer(dict(row or {})),  # type: ignore[arg-type]
    )

    async def request(effect: Effect) -> Mapping[str, object] | None:
        asked.append(effect)
        return {"found": 7}

    machine = compile_definition(definition("A", A=task("get", End=True)))
    shared = Surroundings(Handlers(effects={"get": handler}), StillClock(), SystemRandom())
    execution = await Express(shared, request).run(machine, about())
    assert (execution.status, execution.output) == (Status.SUCCEEDED, {"found": 7})
    assert (asked, told) == ([Effect("get", (1,))], [{"found": 7}])


class Slow:
    """One handler that answers when told to, and notes whether it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.was_cancelled = False

    def resolve(self, command: RunTask) -> tuple[Handler, Json] | TaskFailed:
        return CoroutineHandler(self.run), command.parameters

    async def run(self, input: Json, task: Task) -> Answer:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return Answer("done")


SLOW = compile_definition(definition("A", A=task("slow", End=True)))


async def test_no_execution_is_longer_than_five_minutes() -> None:
    slow, clock = Slow(), StillClock()
    clock.time = NOON + timedelta(seconds=EXPRESS_SECONDS_MAX)
    execution = await Express(Surroundings(slow, clock, SystemRandom()), no_request).run(
        SLOW, about()
    )
    assert execution.status is Status.TIMED_OUT


async def test_a_task_that_timed_out_is_cancelled() -> None:
    slow, clock = Slow(), TickingClock()
    machine = compile_definition(
        definition(
            "A",
            A=task(
                "slow",
                TimeoutSeconds=1,
                Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "B"}],
                End=True,
            ),
            B={"Type": "Pass", "Result": "late", "End": True},
        )
    )
    runs = Express(Surroundings(slow, clock, SystemRandom()), no_request)
    execution = await runs.run(machine, about())
    await asyncio.sleep(0)
    assert (execution.status, execution.output, slow.was_cancelled) == (
        Status.SUCCEEDED,
        "late",
        True,
    )


async def test_only_so_many_run_at_once() -> None:
    slow = Slow()
    runs = Express(Surroundings(slow, StillClock(), SystemRandom()), no_request, runs_max=2)
    both = [runs.begin(SLOW, about()) for _ in range(2)]
    with pytest.raises(Overloaded):
        runs.begin(SLOW, about())
    slow.go_on.set()
    ended: list[Execution] = await asyncio.gather(*both)
    assert [execution.output for execution in ended] == ["done", "done"]
    assert (await runs.run(SLOW, about())).output == "done"


async def test_closing_waits_for_what_runs_and_then_gives_it_up() -> None:
    slow = Slow()
    runs = Express(Surroundings(slow, StillClock(), SystemRandom()), no_request)
    run = runs.begin(SLOW, about())
    await slow.begun.wait()
    await runs.close(0.01)
    assert run.cancelled()
    await asyncio.sleep(0)
    assert slow.was_cancelled
