"""Callers and steps share each batch, and an execution in quarantine shares it with nobody."""

from __future__ import annotations

import asyncio

from service.asl import About, Execution, compile_definition
from service.engine.clock import DatabaseClock
from service.engine.ids import key_of, new_id
from service.engine.ports import Effect
from service.engine.queue import BATCH_UNITS_MAX, CALLERS_SHARE, UnitQueue
from service.engine.random import SystemRandom
from service.engine.turn import Request, Surroundings, Tenure, Turn, Unit
from tests.engine.harness import Handlers, definition
from tests.engine.test_express import NOON

MACHINE = compile_definition(definition("Done", Done={"Type": "Succeed"}))
SURROUNDINGS = Surroundings(Handlers(), DatabaseClock(), SystemRandom())


def step(*, is_alone: bool = False) -> Turn:
    execution = Execution.new(About("", "", NOON, None, "", "", ""))
    tenure = Tenure(key_of(new_id(NOON, 7)), 1, MACHINE, "", execution, is_alone=is_alone)
    return Turn(tenure, [], SURROUNDINGS)


def request() -> Request:
    effect = Effect("get_account", (7, new_id(NOON, 7)))
    return Request(effect, lambda row: None, asyncio.Future())


def queue_of(*units: Unit) -> UnitQueue:
    queue = UnitQueue()
    for unit in units:
        queue.append(unit)
    return queue


async def test_a_caller_does_not_wait_for_a_thousand_steps() -> None:
    steps, caller = [step() for _ in range(1_000)], request()
    queue = queue_of(*steps, caller)
    assert queue.take() == [caller, *steps[: BATCH_UNITS_MAX - 1]]
    assert list(queue) == steps[BATCH_UNITS_MAX - 1 :]


async def test_steps_have_half_of_each_batch_however_many_callers_wait() -> None:
    steps, callers = [step() for _ in range(150)], [request() for _ in range(1_000)]
    queue = queue_of(*callers, *steps)
    half = BATCH_UNITS_MAX - CALLERS_SHARE
    assert queue.take() == [*callers[:CALLERS_SHARE], *steps[:half]]
    later = callers[CALLERS_SHARE:]
    assert queue.take() == [
        *later[:CALLERS_SHARE],
        *steps[half:],
        *later[CALLERS_SHARE:][: half // 2],
    ]
    assert len(queue) == 1_000 + 150 - 2 * BATCH_UNITS_MAX


async def test_whoever_comes_first_of_a_kind_is_taken_first_and_a_batch_is_bounded() -> None:
    callers = [request() for _ in range(BATCH_UNITS_MAX + 1)]
    queue = queue_of(*callers)
    assert queue.take() == callers[:BATCH_UNITS_MAX]
    assert queue.take() == callers[BATCH_UNITS_MAX:]
    assert queue.take() == []


async def test_an_execution_in_quarantine_is_a_batch_of_its_own() -> None:
    before, suspect, after, caller = step(), step(is_alone=True), step(), request()
    queue = queue_of(before, suspect, after, caller)
    assert [queue.take() for _ in range(3)] == [[caller, before], [suspect], [after]]
