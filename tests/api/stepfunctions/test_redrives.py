"""RedriveExecution, and what the other actions tell of it, as the service does it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service.asl import HISTORY_EVENTS_MAX, ExecutionError, HistoryEvent, Json
from service.engine.history import pack, unpack
from service.engine.ids import name_bucket
from service.engine.ports import Key, Task
from service.store import ExecutionRows
from tests.api.stepfunctions.conftest import FAIL, PASS, REST, Api, execution_arn
from tests.engine.harness import definition, task
from tests.engine.maps import each, only

FLAKY = definition("Try", Try=task("flaky", Next="Tell"), Tell={"Type": "Succeed"})


class Flaky:
    """A function that fails until it is mended."""

    def __init__(self, api: Api) -> None:
        self.is_mended = False
        api.bench.handlers.coroutines["flaky"] = self

    async def __call__(self, input: Json, task: Task) -> Json:
        if not self.is_mended:
            raise ExecutionError("Broken", "as yet")
        return input


async def redriven(api: Api, arn: str, **members: Json) -> float:
    answer = await api.call("RedriveExecution", executionArn=arn, **members)
    assert answer.keys() == {"redriveDate"}
    date: float = answer["redriveDate"]
    return date


async def refused(api: Api, arn: str) -> str:
    """Return why an execution is not redriven, which DescribeExecution says as well."""
    shown = await api.call("DescribeExecution", executionArn=arn)
    code, message = await api.error("RedriveExecution", executionArn=arn)
    assert code == "ExecutionNotRedrivable"
    reason = message.removeprefix("Execution Not Redrivable: '").removesuffix("'")
    if shown["redriveStatus"] == "NOT_REDRIVABLE":
        assert shown["redriveStatusReason"] == reason
    return reason


async def key_of(api: Api, name: str) -> Key:
    """Return the key of an execution of the machine `flow`."""
    record = await ExecutionRows(api.bench.database).named(name_bucket("flow", name), "flow", name)
    assert record is not None
    return record.key


async def change(api: Api, assignment: str, *arguments: object) -> None:
    """Change all rows of executions as only time or another version could."""
    await write(api, f"update executions set {assignment}", *arguments)  # noqa: S608


async def write(api: Api, statement: str, *arguments: object) -> None:
    """Write to the database behind the service's back."""
    connection = await asyncpg.connect(api.bench.database.dsn)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def test_a_redriven_execution_goes_on_under_its_arn_and_is_shown_as_redriven(
    api: Api,
) -> None:
    flaky = Flaky(api)
    arn = await api.start(await api.create("flow", FLAKY), name="one", input='{"n": 1}')
    failed = await api.ended(arn)
    assert (failed["error"], failed["redriveStatus"], failed["redriveCount"]) == (
        "Broken",
        "REDRIVABLE",
        0,
    )
    assert "redriveDate" not in failed
    flaky.is_mended = True
    date = await redriven(api, arn, clientToken="once")
    shown = await api.ended(arn)
    assert (shown["status"], shown["output"], shown["startDate"]) == (
        "SUCCEEDED",
        '{"n":1}',
        failed["startDate"],
    )
    assert (shown["redriveCount"], shown["redriveDate"]) == (1, date)
    assert not {"error", "cause"} & shown.keys()
    history = await api.call("GetExecutionHistory", executionArn=arn)
    types = [event["type"] for event in history["events"]]
    assert types == [
        "ExecutionStarted",
        "TaskStateEntered",
        "LambdaFunctionScheduled",
        "LambdaFunctionStarted",
        "LambdaFunctionFailed",
        "ExecutionFailed",
        "ExecutionRedriven",
        "LambdaFunctionScheduled",
        "LambdaFunctionStarted",
        "LambdaFunctionSucceeded",
        "TaskStateExited",
        "SucceedStateEntered",
        "SucceedStateExited",
        "ExecutionSucceeded",
    ]
    event = history["events"][6]
    assert (event["id"], event["previousEventId"]) == (7, 6)
    assert event["executionRedrivenEventDetails"] == {"redriveCount": 1}


async def test_the_same_token_gives_the_same_answer_whatever_has_become_of_it(api: Api) -> None:
    arn = await api.start(await api.create("flow", FAIL))
    await api.ended(arn)
    date = await redriven(api, arn, clientToken="once")
    await api.ended(arn)
    assert await redriven(api, arn, clientToken="once") == date
    assert (await api.ended(arn))["redriveCount"] == 1
    assert await redriven(api, arn, clientToken="twice") > date
    assert (await api.ended(arn))["redriveCount"] == 2
    assert await redriven(api, arn) > date  # without a token every request is another one


async def test_what_runs_or_has_succeeded_is_not_redriven(api: Api) -> None:
    resting = await api.start(await api.create("rest", REST))
    assert await refused(api, resting) == "Execution is RUNNING and cannot be redriven"
    done = await api.start(await api.create("pass", PASS))
    await api.ended(done)
    assert await refused(api, done) == "Execution is SUCCEEDED and cannot be redriven"


async def test_a_redriven_execution_that_runs_is_not_redriven_by_another_token(api: Api) -> None:
    arn = await api.start(await api.create("rest", REST))
    await api.call("StopExecution", executionArn=arn)
    date = await redriven(api, arn, clientToken="once")
    assert await redriven(api, arn, clientToken="once") == date
    shown = await api.call("DescribeExecution", executionArn=arn)
    assert (shown["status"], shown["redriveCount"], "stopDate" in shown) == ("RUNNING", 1, False)
    assert await refused(api, arn) == "Execution is RUNNING and cannot be redriven"


async def test_a_deleted_machine_has_nothing_redriven(api: Api) -> None:
    machine = await api.create("flow", FAIL)
    arn = await api.start(machine)
    await api.ended(arn)
    await api.call("DeleteStateMachine", stateMachineArn=machine)
    assert await refused(api, arn) == "State machine is in DELETING status"


@pytest.mark.parametrize(
    ("column", "days", "reason"),
    [
        ("stopped_at", 14, "Execution redrivable period exceeded"),
        ("started_at", 365, "Execution has exceeded the max execution time"),
    ],
)
async def test_what_ended_or_began_too_long_ago_is_not_redriven(
    api: Api, column: str, days: int, reason: str
) -> None:
    arn = await api.start(await api.create("flow", FAIL), name="one")
    await api.ended(arn)
    await change(api, f"{column} = {column} - $1::interval", timedelta(days=days))
    assert await refused(api, arn) == reason


async def test_what_an_earlier_version_has_ended_is_not_redriven(api: Api) -> None:
    arn = await api.start(await api.create("flow", FAIL), name="one")
    await api.ended(arn)
    await change(api, "checkpoint = null")
    reason = "Execution was started before the launch of RedriveExecution"
    assert await refused(api, arn) == reason


async def test_what_was_erased_is_not_redriven(api: Api) -> None:
    arn = await api.start(await api.create("flow", FAIL), name="one")
    await api.ended(arn)
    for statement in ("erase_execution", "erase_history"):
        await api.bench.database.fetch(statement, *await key_of(api, "one"))
    assert await refused(api, arn) == "Execution was erased and cannot be redriven"


async def test_a_history_that_is_full_leaves_no_room_for_a_redrive(api: Api) -> None:
    arn = await api.start(await api.create("flow", FAIL), name="one")
    await api.ended(arn)
    await change(api, "checkpoint = null")
    key = await key_of(api, "one")
    ((*_, last),) = [
        unpack(row["events"]) for row in await api.bench.database.fetch("read_history", *key)
    ]
    id = HISTORY_EVENTS_MAX - 1
    full = pack([HistoryEvent(id, last.id, last.timestamp, last.type, last.details)])
    await write(api, "insert into history values ($1, $2, $3, $4)", *key, id, full)
    assert await refused(api, arn) == "Execution history event limit exceeded"


async def test_children_are_redriven_by_their_map_run(api: Api) -> None:
    flaky = Flaky(api)
    flow = only(each(task("flaky", End=True), ToleratedFailureCount=0))
    arn = await api.start(await api.create("flow", flow), input="[1]")
    await api.ended(arn)
    (row,) = await ExecutionRows(api.bench.database).page("flow/each", None, None, 10)
    child = execution_arn("flow/each", row.name)
    shown = await api.call("DescribeExecution", executionArn=child)
    assert (shown["status"], shown["redriveStatus"]) == ("FAILED", "REDRIVABLE_BY_MAP_RUN")
    assert await refused(api, child) == "Execution is redriven by its map run"
    flaky.is_mended = True
    await redriven(api, arn)
    assert (await api.ended(arn))["output"] == "[1]"
    shown = await api.call("DescribeExecution", executionArn=child)
    assert (shown["status"], shown["redriveCount"]) == ("SUCCEEDED", 1)


async def test_executions_are_listed_by_whether_they_were_redriven(api: Api) -> None:
    machine = await api.create("flow", FAIL)
    for name in ("never", "once"):
        await api.ended(await api.start(machine, name=name))
    date = await redriven(api, execution_arn("flow", "once"))
    await api.ended(execution_arn("flow", "once"))
    found = {}
    for filter_ in ("REDRIVEN", "NOT_REDRIVEN"):
        listed = await api.call("ListExecutions", stateMachineArn=machine, redriveFilter=filter_)
        found[filter_] = [
            (item["name"], item["redriveCount"], item.get("redriveDate"))
            for item in listed["executions"]
        ]
    assert found == {"REDRIVEN": [("once", 1, date)], "NOT_REDRIVEN": [("never", 0, None)]}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, "ValidationException"),
        ({"executionArn": "x"}, "InvalidArn"),
        ({"executionArn": execution_arn("flow", "nope")}, "ExecutionDoesNotExist"),
        (
            {"executionArn": "arn:aws:states:us-east-1:000000000000:express:flow:one:two"},
            "InvalidArn",
        ),
        ({"executionArn": execution_arn("f", "n"), "clientToken": ""}, "ValidationException"),
        ({"executionArn": execution_arn("f", "n"), "clientToken": "a b"}, "ValidationException"),
        ({"executionArn": execution_arn("f", "n"), "clientToken": "x" * 65}, "ValidationException"),
    ],
)
async def test_requests_that_name_nothing_to_redrive_are_refused(
    api: Api, members: dict[str, Any], code: str
) -> None:
    assert (await api.error("RedriveExecution", **members))[0] == code


async def test_a_token_of_other_characters_is_told_the_rule(api: Api) -> None:
    members: dict[str, Json] = {"executionArn": execution_arn("f", "n"), "clientToken": "a b"}
    assert (await api.error("RedriveExecution", **members))[1] == (
        "1 validation error detected: Value 'a b' at 'clientToken' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: ^[!-~]+$"
    )


async def test_the_context_object_tells_of_the_redrive(api: Api) -> None:
    flaky = Flaky(api)
    tell: Json = {"Type": "Pass", "Parameters": {"e.$": "$$.Execution"}, "End": True}
    text = definition("Try", Try=task("flaky", Next="Tell"), Tell=tell)  # type: ignore[arg-type]
    arn = await api.start(await api.create("flow", text))
    await api.ended(arn)
    flaky.is_mended = True
    date = await redriven(api, arn)
    seen = json.loads((await api.ended(arn))["output"])["e"]
    assert seen["RedriveCount"] == 1
    told = datetime.fromisoformat(seen["RedriveTime"])
    assert abs(told - datetime.fromtimestamp(date, UTC)) <= timedelta(milliseconds=1)
