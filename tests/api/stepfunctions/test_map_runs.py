"""Distributed Maps through the API: what is created, and how their children are shown."""

from __future__ import annotations

import json

from service.engine.ids import run_of
from service.store import ExecutionRows
from tests.api.stepfunctions.conftest import ROLE, Api, machine_arn

ITEM = {"StartAt": "Item", "States": {"Item": {"Type": "Pass", "End": True}}}
STANDARD = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
EACH = {
    "Type": "Map",
    "ItemProcessor": {**ITEM, "ProcessorConfig": STANDARD},
    "Label": "each",
    "End": True,
}
MAP = json.dumps({"StartAt": "Each", "States": {"Each": EACH}})
REFUSED = "Express state machine does not support Distributed Map"


async def test_a_child_is_shown_by_its_arn_with_its_run(api: Api) -> None:
    parent = await api.start(await api.create("flow", MAP), input='["x"]')
    assert (await api.ended(parent))["output"] == '["x"]'
    (child,) = await ExecutionRows(api.bench.database).page("flow/each", None, None, 10)
    run = run_of(child.key).id
    arn = f"arn:aws:states:us-east-1:000000000000:execution:flow/each:{run}-0"
    shown = await api.call("DescribeExecution", executionArn=arn)
    map_run = f"arn:aws:states:us-east-1:000000000000:mapRun:flow/each:{run}"
    assert (shown["status"], shown["input"], shown["mapRunArn"]) == ("SUCCEEDED", '"x"', map_run)
    assert shown["stateMachineArn"] == machine_arn("flow/each")
    history = await api.call("GetExecutionHistory", executionArn=arn)
    assert [event["type"] for event in history["events"]] == [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "ExecutionSucceeded",
    ]
    of_parent = await api.call("GetExecutionHistory", executionArn=parent)
    (began,) = [e for e in of_parent["events"] if e["type"] == "MapRunStarted"]
    assert began["mapRunStartedEventDetails"] == {"mapRunArn": map_run}
    machine = await api.call("DescribeStateMachineForExecution", executionArn=arn)
    assert (machine["stateMachineArn"], machine["label"], machine["mapRunArn"]) == (
        machine_arn("flow/each"),
        "each",
        map_run,
    )
    assert "mapRunArn" not in await api.call("DescribeExecution", executionArn=parent)


async def test_a_distributed_map_is_refused_in_an_express_machine(api: Api) -> None:
    code, message = await api.error(
        "CreateStateMachine", name="fast", definition=MAP, roleArn=ROLE, type="EXPRESS"
    )
    assert (code, REFUSED in message) == ("InvalidDefinition", True)
    arn = await api.create("fast", type="EXPRESS")
    code, message = await api.error("UpdateStateMachine", stateMachineArn=arn, definition=MAP)
    assert (code, REFUSED in message) == ("InvalidDefinition", True)
    answer = await api.call("ValidateStateMachineDefinition", definition=MAP, type="EXPRESS")
    assert [d["message"] for d in answer["diagnostics"]] == [REFUSED]
    answer = await api.call("ValidateStateMachineDefinition", definition=MAP)
    assert answer["result"] == "OK"


async def test_the_machine_of_children_is_no_machine_to_start_or_list(api: Api) -> None:
    await api.create("flow", MAP)
    child = machine_arn("flow/each")
    for action in ("StartExecution", "DescribeStateMachine", "ListExecutions"):
        code, _ = await api.error(action, stateMachineArn=child)
        assert code == "StateMachineDoesNotExist"
