"""A task starts an execution: one for each entry of its state, however often it is performed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from service.asl import Json
from service.engine.ports import Answer, Task
from service.tasks import StartRefused, execution, start_execution
from tests.api.stepfunctions.conftest import FAIL, REST, Api, execution_arn, machine_arn
from tests.engine.harness import Handlers, bench, definition

START = "arn:aws:states:::states:startExecution"


def starting(**parameters: Json) -> str:
    return definition(
        "Start",
        Start={"Type": "Task", "Resource": START, "Parameters": parameters, "End": True},
    )


def performed(api: Api) -> Task:
    """Return the task of one state's entry, as every repeat of it gets it."""
    return Task(
        execution=api.bench.key(),
        machine="parent",
        name="p",
        state="Start",
        entered_event_id=2,
        attempt=0,
    )


async def names_of(api: Api, machine: str) -> list[str]:
    listed = await api.call("ListExecutions", stateMachineArn=machine)
    return [execution["name"] for execution in listed["executions"]]


async def test_a_task_starts_an_execution_and_tells_which(api: Api) -> None:
    child = await api.create("child", REST)
    parent = await api.create(
        "parent", starting(**{"StateMachineArn": child, "Input.$": "$.for", "Name": "one"})
    )
    ended = await api.ended(await api.start(parent, input='{"for": {"n": 1.0}}'))
    assert ended["status"] == "SUCCEEDED"
    assert f'"ExecutionArn":"{execution_arn("child", "one")}"' in ended["output"]
    shown = await api.call("DescribeExecution", executionArn=execution_arn("child", "one"))
    assert (shown["status"], shown["input"]) == ("RUNNING", '{"n":1.0}')


async def test_a_name_that_is_taken_fails_the_task(api: Api) -> None:
    child = await api.create("child", REST)
    await api.start(child, name="one", input="[]")
    parent = await api.create("parent", starting(StateMachineArn=child, Name="one"))
    ended = await api.ended(await api.start(parent))
    assert ended["error"] == "StepFunctions.ExecutionAlreadyExistsException"
    assert ended["cause"].startswith(
        f"Execution Already Exists: '{execution_arn('child', 'one')}' (Service: AWSStepFunctions; "
        "Status Code: 400; Error Code: ExecutionAlreadyExists; Request ID: "
    )


@pytest.mark.parametrize("members", [{}, {"name": "one"}], ids=["unnamed", "named"])
async def test_a_repeat_is_answered_as_before_even_when_the_execution_has_ended(
    api: Api, members: dict[str, Json]
) -> None:
    child = await api.create("child", FAIL)
    asked = {"stateMachineArn": child, "input": "{}", **members}
    task = performed(api)
    first = await api.starts.start_by_task(asked, task)
    await api.ended(str(first["executionArn"]))
    assert await api.starts.start_by_task(asked, replace(task, attempt=1)) == first
    await api.call("DeleteStateMachine", stateMachineArn=child)
    assert await api.starts.start_by_task(asked, task) == first
    await api.create("child")
    assert await names_of(api, child) == [members.get("name", str(task.idempotency_key))]


async def test_repeats_at_the_same_moment_start_one_execution(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "FIRST_DELAY_SECONDS", 0.01)
    child, task = await api.create("child", FAIL), performed(api)
    handler = start_execution(api.starts.start_by_task)
    answers = await asyncio.gather(
        *(handler.run({"StateMachineArn": child}, task) for _ in range(8))
    )
    assert answers == [answers[0]] * 8
    assert await names_of(api, child) == [str(task.idempotency_key)]


async def test_who_takes_the_execution_over_is_answered_as_before(
    api: Api, fresh_database: str
) -> None:
    child, started = await api.create("child", FAIL), asyncio.Event()
    handler, tasks = start_execution(api.starts.start_by_task), []

    async def start_and_never_answer(input: Json, task: Task) -> Json:
        tasks.append(task)
        await handler.run(input, task)
        started.set()
        return await asyncio.get_running_loop().create_future()

    async def start(input: Json, task: Task) -> Answer:
        tasks.append(task)
        return await handler.run(input, task)

    api.bench.handlers.coroutines["startExecution"] = start_and_never_answer
    parent = await api.create("parent", starting(StateMachineArn=child))
    arn = await api.start(parent)
    await started.wait()
    # Either of the two may be the one that claims what is given up.
    api.bench.handlers.coroutines["startExecution"] = start
    async with bench(fresh_database, Handlers({"startExecution": start})) as other:
        await other.store.release(api.bench.engine.id)
        ended = await api.ended(arn)
    assert ended["status"] == "SUCCEEDED"
    assert [task.idempotency_key for task in tasks] == [tasks[0].idempotency_key] * 2
    (name,) = await names_of(api, child)
    assert f'"ExecutionArn":"{execution_arn("child", name)}"' in ended["output"]


async def test_another_entry_of_the_state_starts_another_execution(api: Api) -> None:
    child = await api.create("child")
    one, other = performed(api), performed(api)
    for task in (one, other):
        await api.starts.start_by_task({"stateMachineArn": child}, task)
    assert sorted(await names_of(api, child)) == sorted(
        [str(one.idempotency_key), str(other.idempotency_key)]
    )


async def test_a_name_that_another_task_has_used_up_is_taken(api: Api) -> None:
    asked: dict[str, Json] = {"stateMachineArn": await api.create("child"), "name": "one"}
    first = await api.starts.start_by_task(asked, performed(api))
    await api.ended(str(first["executionArn"]))
    with pytest.raises(StartRefused) as raised:
        await api.starts.start_by_task(asked, performed(api))
    assert raised.value.code == "ExecutionAlreadyExists"


async def test_an_express_machine_is_started_and_not_waited_for(api: Api) -> None:
    child = await api.create("child", type="EXPRESS")
    answer = await api.starts.start_by_task({"stateMachineArn": child}, performed(api))
    prefix = "arn:aws:states:us-east-1:000000000000:express:child:"
    assert str(answer["executionArn"]).startswith(prefix)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"stateMachineArn": machine_arn("none")}, "StateMachineDoesNotExist"),
        ({"stateMachineArn": "none"}, "InvalidArn"),
        ({"stateMachineArn": machine_arn("child"), "name": "a b"}, "InvalidName"),
        ({"stateMachineArn": machine_arn("child"), "name": "n" * 81}, "ValidationException"),
        ({"stateMachineArn": machine_arn("child"), "input": "{"}, "InvalidExecutionInput"),
    ],
)
async def test_what_start_execution_refuses_is_refused_to_a_task(
    api: Api, asked: dict[str, Json], code: str
) -> None:
    await api.create("child")
    with pytest.raises(StartRefused) as raised:
        await api.starts.start_by_task(asked, performed(api))
    assert (raised.value.code, raised.value.status) == (code, 400)
