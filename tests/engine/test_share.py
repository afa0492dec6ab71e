"""An execution that never waits holds up nobody: it comes back in one batch after another."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from service.asl import HISTORY_EVENTS_MAX, Json, Status, compile_definition
from service.asl.share import STEP_EVENTS_MAX
from service.engine.history import unpack
from service.engine.ports import Answer, Effect, EffectHandler, Key, Task
from service.engine.turn import Tenure
from service.engine.worker import Worker
from tests.engine.harness import Handlers, definition, task
from tests.engine.small import Small, small, until
from tests.engine.test_express import about, express

STEPS_MIN = HISTORY_EVENTS_MAX // STEP_EVENTS_MAX
NEVER: Json = {"Variable": "$.stop", "IsPresent": True, "Next": "End"}
LOOP: dict[str, Json] = {
    "Spin": {"Type": "Pass", "Next": "Again"},
    "Again": {"Type": "Choice", "Choices": [NEVER], "Default": "Spin"},
    "End": {"Type": "Succeed"},
}
SPINNING = definition("Spin", **LOOP)  # type: ignore[arg-type]


def beside(call: dict[str, Json]) -> str:
    """Return a definition that calls a function in one branch and loops in the other."""
    branches: Json = [
        {"StartAt": "Call", "States": {"Call": call}},
        {"StartAt": "Spin", "States": LOOP},
    ]
    return definition("Both", Both={"Type": "Parallel", "Branches": branches, "End": True})


async def steps(s: Small, key: Key) -> list[int]:
    """Return how many events each step of an execution has stored so far."""
    return [len(unpack(row)) for row in await s.store.read_history(key)]


async def echo(input: Json, task: Task) -> Json:
    return input


async def test_a_loop_leaves_room_between_its_steps_for_the_task_of_another_execution() -> None:
    calling = definition("Call", Call=task("echo", End=True))
    machines = {"loop": SPINNING, "call": calling}
    async with small(Handlers({"echo": echo}), machines=machines) as s:
        loop = await s.start("loop")
        call = await s.start("call")
        assert (await s.ended(call)).status is Status.SUCCEEDED
        assert len(await steps(s, loop)) < STEPS_MIN
        assert s.row(loop).is_running
        assert (await s.ended(loop)).error == "States.Runtime"
        stored = await steps(s, loop)
    assert (len(stored), sum(stored)) == (STEPS_MIN, HISTORY_EVENTS_MAX)
    assert max(stored) <= STEP_EVENTS_MAX


async def test_whoever_waits_has_a_turn_after_each_step_of_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loops, turns, seen = 3, 0, dict[Key, int]()
    holds = Worker.holds

    def noted(worker: Worker, tenure: Tenure) -> bool:
        seen.setdefault(tenure.key, turns)  # first of all by the committer, before it prepares
        return holds(worker, tenure)

    monkeypatch.setattr(Worker, "holds", noted)
    async with small(machines={"loop": SPINNING}) as s:
        s.store.may_begin.clear()
        first = asyncio.ensure_future(s.start("loop"))
        await until(lambda: seen)
        rest = [asyncio.ensure_future(s.start("loop")) for _ in range(loops)]
        await asyncio.sleep(0)
        s.store.may_begin.set()
        while len(seen) <= loops:
            turns += 1
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
    assert len(set(seen.values())) == loops + 1


async def test_a_loop_beside_an_open_task_goes_on_in_memory_and_hears_its_answer() -> None:
    answer = asyncio.Event()

    async def waits(input: Json, task: Task) -> Json:
        await answer.wait()
        return input

    text = beside(task("waits", End=True))
    async with small(Handlers({"waits": waits}), machines={"both": text}) as s:
        key = await s.start("both")
        assert s.at(key).owner == s.engine.id
        answer.set()
        assert (await s.ended(key)).error == "States.Runtime"
        types = await s.types(key)
        assert len(s.handlers.performed) == 1
    assert types.count("LambdaFunctionSucceeded") == 1


async def test_an_effect_beside_a_loop_is_applied_in_its_first_batch() -> None:
    look = EffectHandler(
        lambda input, task: Effect("get_account", (0, UUID(int=0))), lambda row: Answer({})
    )
    text = beside(task("look", End=True))
    async with small(Handlers(effects={"look": look}), machines={"both": text}) as s:
        key = await s.start("both")
        (first,) = (await s.store.read_history(key))[:1]
        assert (await s.ended(key)).error == "States.Runtime"
        assert s.answered("get_account") == 1
        batches = s.store.calls["committed"]
    assert [event.type for event in unpack(first)][-1] == "TaskStateExited"
    assert batches <= 2 * STEPS_MIN


async def test_a_loop_can_be_stopped_between_its_steps() -> None:
    async with small(machines={"loop": SPINNING}) as s:
        key = await s.start("loop")
        await s.engine.stop(key, "Enough")
        assert (s.at(key).status, s.at(key).error) == (Status.ABORTED, "Enough")
        assert len(await steps(s, key)) < STEPS_MIN


async def test_an_express_loop_lets_others_have_their_turn_after_each_step() -> None:
    machine = compile_definition(SPINNING, is_express=True)
    running = express(Handlers()).begin(machine, about({}))
    turns = 0
    while not running.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await running).error == "States.Runtime"
    assert turns >= STEPS_MIN
