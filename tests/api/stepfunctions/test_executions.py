"""Executions are started, stopped, shown and listed as the service does it."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from service.asl.values import PAYLOAD_BYTES_MAX
from tests.api.stepfunctions.conftest import (
    FAIL,
    PASS,
    REST,
    ROLE,
    Api,
    execution_arn,
    machine_arn,
    without_times,
)
from tests.engine.harness import definition, task


async def test_an_execution_that_succeeded_is_shown(api: Api) -> None:
    machine = await api.create("flow", definition("D", D=task("double", End=True)))
    arn = await api.start(machine, name="one", input='{"n": 21}')
    assert arn == execution_arn("flow", "one")
    shown = await api.ended(arn)
    assert {"startDate", "stopDate"} <= shown.keys()
    assert without_times(shown) == {
        "executionArn": arn,
        "stateMachineArn": machine,
        "name": "one",
        "status": "SUCCEEDED",
        "input": '{"n":21}',
        "inputDetails": {"included": True},
        "output": '{"doubled":42}',
        "outputDetails": {"included": True},
        "redriveCount": 0,
        "redriveStatus": "NOT_REDRIVABLE",
        "redriveStatusReason": "Execution is SUCCEEDED and cannot be redriven",
    }


async def test_an_execution_that_failed_says_why(api: Api) -> None:
    shown = await api.ended(await api.start(await api.create("flow", FAIL)))
    assert (shown["status"], shown["error"], shown["cause"], shown["redriveStatus"]) == (
        "FAILED",
        "Sad",
        "for a reason",
        "REDRIVABLE",
    )
    assert "output" not in shown


async def test_metadata_only_leaves_the_documents_out(api: Api) -> None:
    arn = await api.start(await api.create("flow"), input='{"n": 1}')
    await api.ended(arn)
    shown = await api.call("DescribeExecution", executionArn=arn, includedData="METADATA_ONLY")
    assert not {"input", "output"} & shown.keys()
    assert shown["inputDetails"] == shown["outputDetails"] == {"included": False}
    machine = await api.call(
        "DescribeStateMachineForExecution", executionArn=arn, includedData="METADATA_ONLY"
    )
    assert "definition" not in machine


async def test_without_a_name_an_execution_gets_a_uuid_and_no_input_is_an_object(api: Api) -> None:
    started = await api.call("StartExecution", stateMachineArn=await api.create("flow"))
    shown = await api.ended(started["executionArn"])
    assert str(UUID(shown["name"])) == shown["name"]
    assert shown["input"] == "{}"
    assert shown["startDate"] == started["startDate"]


async def test_the_same_start_of_a_running_execution_is_answered_as_before(api: Api) -> None:
    machine = await api.create("flow", REST)
    same = {"stateMachineArn": machine, "name": "one", "input": '{"n": 1.0}'}
    first = await api.call("StartExecution", **same)
    assert await api.call("StartExecution", **(same | {"input": '{ "n":1.0}'})) == first
    taken = (
        "ExecutionAlreadyExists",
        f"Execution Already Exists: '{execution_arn('flow', 'one')}'",
    )
    assert await api.error("StartExecution", **(same | {"input": '{"n": 1}'})) == taken
    await api.call("StopExecution", executionArn=first["executionArn"])
    assert await api.error("StartExecution", **same) == taken


async def test_starts_of_one_name_at_the_same_moment_give_one_execution(api: Api) -> None:
    machine = await api.create("flow", REST)
    members = {"stateMachineArn": machine, "name": "one"}
    answers = await asyncio.gather(*(api.call("StartExecution", **members) for _ in range(8)))
    assert answers == [answers[0]] * 8
    listed = await api.call("ListExecutions", stateMachineArn=machine)
    assert len(listed["executions"]) == 1


async def test_a_name_is_each_machines_own(api: Api) -> None:
    for name in ("a", "b"):
        await api.start(await api.create(name), name="same")
    shown = await api.ended(execution_arn("b", "same"))
    assert shown["stateMachineArn"] == machine_arn("b")


async def test_an_execution_named_by_an_id_is_found_wherever_that_id_leads(api: Api) -> None:
    await api.bench.publish("verification", REST)
    key = await api.bench.start("verification")
    shown = await api.call(
        "DescribeExecution", executionArn=execution_arn("verification", str(key.id))
    )
    assert shown["status"] == "RUNNING"
    again = await api.error(
        "StartExecution",
        stateMachineArn=machine_arn("verification"),
        name=str(key.id),
        input="[]",
    )
    assert again[0] == "ExecutionAlreadyExists"


@pytest.mark.parametrize("text", ["{", "nope", '{"n": NaN}', "[" * 200 + "]" * 200])
async def test_an_input_that_is_no_json_is_refused(api: Api, text: str) -> None:
    machine = await api.create("flow")
    code, message = await api.error("StartExecution", stateMachineArn=machine, input=text)
    assert code == "InvalidExecutionInput"
    assert message.startswith("Invalid State Machine Execution Input: '")


@pytest.mark.parametrize("kind", ["STANDARD", "EXPRESS"])
async def test_an_input_is_bounded_in_bytes_and_not_in_characters(api: Api, kind: str) -> None:
    machine = await api.create("flow", type=kind)
    text = json.dumps("é" * (PAYLOAD_BYTES_MAX // 2), ensure_ascii=False)
    code, _ = await api.error("StartExecution", stateMachineArn=machine, input=text)
    assert code == "InvalidExecutionInput"


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 81])
async def test_a_bad_name_is_refused(api: Api, name: str) -> None:
    code, _ = await api.error("StartExecution", stateMachineArn=await api.create("flow"), name=name)
    assert code == ("InvalidName" if len(name) <= 80 else "ValidationException")


async def test_a_stopped_execution_ends_with_what_was_said(api: Api) -> None:
    arn = await api.start(await api.create("flow", REST))
    first = await api.call("StopExecution", executionArn=arn, error="Enough", cause="of this")
    assert await api.call("StopExecution", executionArn=arn, error="Again") == first
    shown = await api.call("DescribeExecution", executionArn=arn)
    assert (shown["status"], shown["error"], shown["cause"], shown["stopDate"]) == (
        "ABORTED",
        "Enough",
        "of this",
        first["stopDate"],
    )


@pytest.mark.parametrize(
    "action",
    [
        "DescribeExecution",
        "StopExecution",
        "GetExecutionHistory",
        "DescribeStateMachineForExecution",
    ],
)
async def test_an_execution_that_was_never_started(api: Api, action: str) -> None:
    arn = execution_arn("flow", "none")
    assert await api.error(action, executionArn=arn) == (
        "ExecutionDoesNotExist",
        f"Execution Does Not Exist: '{arn}'",
    )
    assert (await api.error(action, executionArn="none"))[0] == "InvalidArn"
    assert (await api.error(action, executionArn=machine_arn("flow")))[0] == "InvalidArn"


async def test_executions_are_listed_the_latest_first_a_page_at_a_time(api: Api) -> None:
    machine = await api.create("flow")
    for name in ("one", "two", "three"):
        await api.ended(await api.start(machine, name=name))
    await api.start(await api.create("other"), name="else")
    first = await api.call("ListExecutions", stateMachineArn=machine, maxResults=2)
    assert [item["name"] for item in first["executions"]] == ["three", "two"]
    rest = await api.call(
        "ListExecutions", stateMachineArn=machine, maxResults=2, nextToken=first["nextToken"]
    )
    assert [without_times(item) for item in rest["executions"]] == [
        {
            "executionArn": execution_arn("flow", "one"),
            "stateMachineArn": machine,
            "name": "one",
            "status": "SUCCEEDED",
            "redriveCount": 0,
        }
    ]
    assert "nextToken" not in rest
    assert await api.error(
        "ListExecutions",
        stateMachineArn=machine_arn("other"),
        nextToken=first["nextToken"],
    ) == ("InvalidToken", "Invalid Token: 'Invalid token'")


async def test_executions_are_listed_by_status(api: Api) -> None:
    machine = await api.create("flow", REST)
    await api.start(machine, name="running")
    await api.call("StopExecution", executionArn=await api.start(machine, name="stopped"))
    names = {}
    for status in ("RUNNING", "ABORTED", "FAILED", "PENDING_REDRIVE"):
        listed = await api.call("ListExecutions", stateMachineArn=machine, statusFilter=status)
        names[status] = [item["name"] for item in listed["executions"]]
    assert names == {
        "RUNNING": ["running"],
        "ABORTED": ["stopped"],
        "FAILED": [],
        "PENDING_REDRIVE": [],
    }


async def test_the_role_of_a_machine_is_what_its_executions_see(api: Api) -> None:
    text = definition(
        "Look", Look={"Type": "Pass", "Parameters": {"r.$": "$$.Execution.RoleArn"}, "End": True}
    )
    shown = await api.ended(await api.start(await api.create("flow", text)))
    assert json.loads(shown["output"]) == {"r": ROLE}


# EXPRESS


async def test_a_synchronous_execution_answers_how_it_ended(api: Api) -> None:
    machine = await api.create("fast", definition("D", D=task("double", End=True)), type="EXPRESS")
    shown = await api.call(
        "StartSyncExecution", stateMachineArn=machine, name="one", input='{"n": 4}'
    )
    arn = shown.pop("executionArn")
    prefix = "arn:aws:states:us-east-1:000000000000:express:fast:one:"
    assert arn.startswith(prefix)
    assert UUID(arn.removeprefix(prefix))
    assert shown.pop("billingDetails")["billedDurationInMilliseconds"] % 100 == 0
    assert without_times(shown) == {
        "stateMachineArn": machine,
        "name": "one",
        "status": "SUCCEEDED",
        "input": '{"n": 4}',
        "inputDetails": {"included": True},
        "output": '{"doubled":8}',
        "outputDetails": {"included": True},
    }


async def test_a_synchronous_execution_that_fails_is_no_failed_request(api: Api) -> None:
    machine = await api.create("fast", FAIL, type="EXPRESS")
    shown = await api.call("StartSyncExecution", stateMachineArn=machine)
    assert (shown["status"], shown["error"], shown["cause"]) == ("FAILED", "Sad", "for a reason")


async def test_an_express_execution_leaves_nothing_behind(api: Api) -> None:
    machine = await api.create("fast", PASS, type="EXPRESS")
    first, second = [await api.start(machine, name="one") for _ in range(2)]
    assert first != second
    assert (await api.error("DescribeExecution", executionArn=first))[0] == "InvalidArn"
    assert await api.error("ListExecutions", stateMachineArn=machine) == (
        "StateMachineTypeNotSupported",
        "This operation is not supported by this type of state machine",
    )


async def test_a_standard_machine_is_not_run_synchronously(api: Api) -> None:
    code, _ = await api.error("StartSyncExecution", stateMachineArn=await api.create("flow"))
    assert code == "StateMachineTypeNotSupported"
