"""TestState: what is told of a state that is tried, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest

from service.api import OpsDeps, create_ops_app
from service.api.stepfunctions import Trials
from service.asl import About, Execution, ExecutionError, Json, StateMachine, Status
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.express import Express
from service.engine.ports import Effect, Task
from service.engine.random import SystemRandom
from service.engine.turn import Surroundings
from tests.api.conftest import Open, Port
from tests.api.fakes import FakeDirectory, FakeProbe
from tests.engine.harness import Handlers

ROLE = "arn:aws:iam::111111111111:role/sfn-role"
FUNCTION = "arn:aws:lambda:us-east-1:111111111111:function:"
INNER = {"StartAt": "Inner", "States": {"Inner": {"Type": "Pass", "End": True}}}
MAP = {"Type": "Map", "ItemProcessor": INNER, "End": True}
DISTRIBUTED = {**INNER, "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}}
PARALLEL = {"Type": "Parallel", "Branches": [INNER], "End": True}
INVOKE = {
    "Type": "Task",
    "Resource": "arn:aws:states:::lambda:invoke",
    "Parameters": {"FunctionName": "f", "Payload.$": "$.x"},
    "End": True,
}
START = {
    "Type": "Task",
    "QueryLanguage": "JSONata",
    "Resource": "arn:aws:states:::states:startExecution",
    "Arguments": {"StateMachineArn": "{% $states.input.arn %}"},
    "End": True,
}
BROKEN = {"errorOutput": {"error": "Broken", "cause": "told"}}


@dataclass
class Client:
    """What asks for TestState."""

    port: Port

    async def ask(self, state: Any, members: Mapping[str, Json]) -> tuple[int, dict[str, Any]]:
        answer = await self.port.ask(
            "POST",
            "/",
            data=json.dumps({"definition": json.dumps(state), **members}).encode(),
            headers={"X-Amz-Target": "AWSStepFunctions.TestState"},
        )
        return answer.status, answer.json

    async def tell(self, state: Any, input: Json = None, **members: Json) -> dict[str, Any]:
        """Return what came of a state, its JSON texts read."""
        status, told = await self.ask(state, {"input": json.dumps(input or {}), **members})
        assert status == 200, told
        return _read(told)

    async def inspect(self, state: Any, input: Json = None, **members: Json) -> dict[str, Any]:
        told = await self.tell(state, input, inspectionLevel="TRACE", **members)
        inspected = told["inspectionData"]
        assert isinstance(inspected, dict)
        return inspected

    async def refuse(self, state: Any, **members: Json) -> tuple[str, str]:
        """Return code and message of what is refused."""
        status, told = await self.ask(state, members)
        assert status == 400, told
        return told["__type"], told["message"]


def _read(told: dict[str, Any]) -> dict[str, Any]:
    read = dict(told)
    if "output" in read:
        read["output"] = json.loads(read["output"])
    if "inspectionData" in read:
        read["inspectionData"] = {
            name: json.loads(value) if isinstance(value, str) else value
            for name, value in read["inspectionData"].items()
        }
    return read


def _mock(result: Json, mode: str | None = None) -> dict[str, Json]:
    mock: dict[str, Json] = {"result": json.dumps(result)}
    return mock if mode is None else mock | {"fieldValidationMode": mode}


async def _double(input: Any, task: Task) -> Json:
    return {"doubled": input["n"] * 2, "attempt": task.attempt}


async def _break(input: Any, task: Task) -> Json:
    raise ExecutionError("Broken", "told")


async def _request(effect: Effect) -> None:
    raise AssertionError("none of the handlers has effects")


@pytest.fixture
async def client(open_port: Open) -> AsyncIterator[Client]:
    handlers = Handlers(coroutines={"double": _double, "break": _break})
    clock, random = DatabaseClock(), SystemRandom()
    express = Express(Surroundings(handlers, clock, random), _request)
    actions = Trials(express, Arns(), random, clock.now).actions()
    app = create_ops_app(OpsDeps(FakeDirectory(), FakeProbe(), actions=actions))
    yield Client(await open_port(app))
    await express.close(1.0)


# ---------------------------------------------------------------- what comes of a state


async def test_pass_tells_output_and_next_state(client: Client) -> None:
    told = await client.tell({"Type": "Pass", "Parameters": {"a.$": "$.x"}, "Next": "B"}, {"x": 1})
    assert told == {"status": "SUCCEEDED", "output": {"a": 1}, "nextState": "B"}


async def test_input_is_an_empty_object_unless_given(client: Client) -> None:
    _, told = await client.ask({"Type": "Succeed"}, {})
    assert told == {"status": "SUCCEEDED", "output": "{}"}


async def test_wait_is_over_at_once(client: Client) -> None:
    told = await client.tell({"Type": "Wait", "Seconds": 99_999_999, "End": True}, {"x": 1})
    assert told == {"status": "SUCCEEDED", "output": {"x": 1}}


async def test_fail_tells_error_and_cause(client: Client) -> None:
    told = await client.tell({"Type": "Fail", "Error": "E", "Cause": "C"})
    assert told == {"status": "FAILED", "error": "E", "cause": "C"}


async def test_cause_of_a_failed_field_does_not_name_the_state(client: Client) -> None:
    state = {**MAP, "ItemsPath": "$$.Execution.Input"}
    context = json.dumps({"Execution": {"Input": {}}})
    told = await client.tell(state, [1], mock=_mock([1]), context=context)
    assert told == {
        "status": "FAILED",
        "error": "States.Runtime",
        "cause": 'Reference path "$.Execution.Input" must point to array.',
    }


async def test_choice_tells_the_chosen_state(client: Client) -> None:
    rule = {"Variable": "$.n", "NumericGreaterThan": 1, "Next": "Big"}
    choice = {"Type": "Choice", "Choices": [rule], "Default": "Small"}
    assert (await client.tell(choice, {"n": 2}))["nextState"] == "Big"
    assert (await client.tell(choice, {"n": 1}))["nextState"] == "Small"


async def test_task_without_mock_is_performed(client: Client) -> None:
    state = {"Type": "Task", "Resource": f"{FUNCTION}double", "ResultPath": "$.r", "Next": "B"}
    told = await client.tell(state, {"n": 2}, roleArn=ROLE)
    output = {"n": 2, "r": {"doubled": 4, "attempt": 0}}
    assert told == {"status": "SUCCEEDED", "output": output, "nextState": "B"}


async def test_task_that_fails_is_retriable_or_lost(client: Client) -> None:
    state = {"Type": "Task", "Resource": f"{FUNCTION}break", "End": True}
    failed = {"error": "Broken", "cause": "told"}
    assert await client.tell(state, roleArn=ROLE) == {"status": "FAILED", **failed}
    again = {**state, "Retry": [{"ErrorEquals": ["States.ALL"]}]}
    assert await client.tell(again, roleArn=ROLE) == {"status": "RETRIABLE", **failed}


class _Overdue:
    """Takes as long as an Express run may, for every run."""

    async def run(self, machine: StateMachine, about: About) -> Execution:
        return Execution(about, Status.TIMED_OUT)


async def test_task_that_takes_too_long_fails_by_its_timeout() -> None:
    trials = Trials(cast(Any, _Overdue()), Arns(), SystemRandom(), DatabaseClock().now)
    state = json.dumps({"Type": "Task", "Resource": f"{FUNCTION}double", "End": True})
    told = await trials.try_state({"definition": state, "roleArn": ROLE})
    assert told == {"status": "FAILED", "error": "States.Timeout"}


# ---------------------------------------------------------------- what its fields do


async def test_inspection_shows_every_step_of_a_task(client: Client) -> None:
    state = {
        **INVOKE,
        "InputPath": "$.in",
        "ResultSelector": {"code.$": "$.StatusCode"},
        "ResultPath": "$.r",
        "OutputPath": "$.r",
    }
    input, result = {"in": {"x": 1}}, {"StatusCode": 200, "Payload": [1]}
    told = await client.tell(state, input, mock=_mock(result), inspectionLevel="DEBUG")
    assert told == {
        "status": "SUCCEEDED",
        "output": {"code": 200},
        "inspectionData": {
            "input": input,
            "afterInputPath": {"x": 1},
            "afterParameters": {"FunctionName": "f", "Payload": 1},
            "result": result,
            "afterResultSelector": {"code": 200},
            "afterResultPath": {**input, "r": {"code": 200}},
        },
    }


async def test_inspection_ends_where_the_state_fails(client: Client) -> None:
    inspected = await client.inspect(INVOKE, {"y": 1}, mock=_mock({}))
    assert inspected == {"input": {"y": 1}, "afterInputPath": {"y": 1}}


async def test_fixed_result_of_pass_hides_what_it_replaces(client: Client) -> None:
    inspected = await client.inspect({"Type": "Pass", "Result": 1, "End": True}, {"x": 1})
    assert inspected == {
        "input": {"x": 1},
        "result": 1,
        "afterResultSelector": 1,
        "afterResultPath": 1,
    }


@pytest.mark.parametrize(
    "state",
    [
        {"Type": "Succeed"},
        {"Type": "Fail"},
        {"Type": "Wait", "Seconds": 1, "End": True},
        {"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True, "Next": "B"}]},
    ],
)
async def test_types_without_a_result_show_their_input_alone(client: Client, state: Any) -> None:
    inspected = await client.inspect(state, {"x": 1})
    assert inspected == {"input": {"x": 1}, "afterInputPath": {"x": 1}}
    assert await client.inspect(_jsonata(state), {"x": 1}) == {"input": {"x": 1}}


def _jsonata(state: dict[str, Any]) -> dict[str, Any]:
    rules = [{"Condition": "{% false %}", "Next": "B"}]
    return {**state, "QueryLanguage": "JSONata"} | (
        {"Choices": rules} if "Choices" in state else {}
    )


async def test_inspection_of_a_jsonata_task_shows_arguments_and_variables(client: Client) -> None:
    state = {
        "Type": "Task",
        "QueryLanguage": "JSONata",
        "Resource": f"{FUNCTION}double",
        "Arguments": {"n": "{% $old %}"},
        "Assign": {"new": "{% $states.result.doubled %}"},
        "Output": "{% $old %}",
        "End": True,
    }
    told = await client.tell(
        state, {"x": 1}, roleArn=ROLE, variables='{"old": 3}', inspectionLevel="TRACE"
    )
    assert told == {
        "status": "SUCCEEDED",
        "output": 3,
        "inspectionData": {
            "input": {"x": 1},
            "afterArguments": {"n": 3},
            "result": {"doubled": 6, "attempt": 0},
            "variables": {"old": 3, "new": 6},
        },
    }


async def test_inspection_of_a_map_shows_items_and_limits(client: Client) -> None:
    state = {
        **MAP,
        "ItemsPath": "$.v",
        "ItemSelector": {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value"},
        "ToleratedFailurePercentagePath": "$.p",
        "MaxConcurrency": 2,
        "ResultPath": "$.r",
    }
    input = {"v": ["a", "b"], "p": 50}
    assert await client.inspect(state, input, mock=_mock([1, 2])) == {
        "input": input,
        "afterInputPath": input,
        "afterItemsPath": ["a", "b"],
        "afterItemSelector": [{"i": 0, "v": "a"}, {"i": 1, "v": "b"}],
        "afterResultSelector": [1, 2],
        "afterResultPath": {**input, "r": [1, 2]},
        "maxConcurrency": 2,
        "toleratedFailurePercentage": 50,
    }


async def test_inspection_of_a_parallel_shows_its_result_alone(client: Client) -> None:
    assert await client.inspect(PARALLEL, {"x": 1}, mock=_mock([1])) == {
        "input": {"x": 1},
        "afterResultSelector": [1],
        "afterResultPath": [1],
    }


# ---------------------------------------------------------------- mocked failures


async def test_retrier_takes_a_failure_until_its_attempts_are_used_up(client: Client) -> None:
    state = {
        **INVOKE,
        "Retry": [
            {"ErrorEquals": ["Other"]},
            {"ErrorEquals": ["Broken"], "IntervalSeconds": 3, "MaxAttempts": 2},
        ],
        "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.e", "Next": "B"}],
    }
    details = {}
    for count in (0, 1):
        told = await client.tell(
            state,
            {"x": 1},
            mock=BROKEN,
            stateConfiguration={"retrierRetryCount": count},
            inspectionLevel="TRACE",
        )
        assert told["status"] == "RETRIABLE"
        details[count] = told["inspectionData"]["errorDetails"]
    assert details == {
        0: {"retryIndex": 1, "retryBackoffIntervalSeconds": 3},
        1: {"retryIndex": 1, "retryBackoffIntervalSeconds": 6},
    }
    told = await client.tell(
        state,
        {"x": 1},
        mock=BROKEN,
        stateConfiguration={"retrierRetryCount": 2},
        inspectionLevel="TRACE",
    )
    assert told.pop("inspectionData")["errorDetails"] == {"catchIndex": 0}
    assert told == {
        "status": "CAUGHT_ERROR",
        "error": "Broken",
        "cause": "told",
        "output": {"x": 1, "e": {"Error": "Broken", "Cause": "told"}},
        "nextState": "B",
    }


async def test_catcher_that_fails_in_turn_fails_the_state(client: Client) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "ResultPath": "$[1].e", "Next": "B"}]
    told = await client.tell({**INVOKE, "Catch": catch}, {"x": 1}, mock=BROKEN)
    assert (told["status"], told["error"]) == ("FAILED", "States.ResultPathMatchFailure")


async def test_failures_of_iterations_beyond_the_tolerance_fail_the_map(client: Client) -> None:
    state = {**MAP, "ItemProcessor": DISTRIBUTED, "ToleratedFailureCount": 1}
    asked: Any = {"input": [1, 2, 3], "mock": _mock([1, 0, 0])}
    within = await client.tell(state, **asked, stateConfiguration={"mapIterationFailureCount": 1})
    assert within == {"status": "SUCCEEDED", "output": [1, 0, 0]}
    beyond = await client.tell(state, **asked, stateConfiguration={"mapIterationFailureCount": 2})
    assert beyond == {
        "status": "FAILED",
        "error": "States.ExceedToleratedFailureThreshold",
        "cause": "The specified tolerated failure threshold was exceeded",
    }


async def test_failure_by_a_state_within_is_one_of_a_branch(client: Client) -> None:
    catch = [{"ErrorEquals": ["States.BranchFailed"], "Next": "B"}]
    state = {**PARALLEL, "Catch": catch}
    told = await client.tell(state, mock=BROKEN, stateConfiguration={"errorCausedByState": "Inner"})
    assert (told["status"], told["nextState"]) == ("CAUGHT_ERROR", "B")
    assert (await client.tell(state, mock=BROKEN))["status"] == "FAILED"


def _reading(**config: Json) -> dict[str, Any]:
    reader = {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": config,
        "Parameters": {"Bucket": "b", "Key": "k"},
    }
    return {**MAP, "ItemProcessor": DISTRIBUTED, "ItemReader": reader}


FIRST_ROW: dict[str, Json] = {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}


@pytest.mark.parametrize(
    ("config", "data", "items"),
    [
        ({"InputType": "JSON"}, "[7, 8]", [7, 8]),
        ({"InputType": "JSON", "MaxItems": 1}, "[7, 8]", [7]),
        ({"InputType": "JSON", "MaxItemsPath": "$.most"}, "[7, 8, 9]", [7, 8]),
        ({"InputType": "JSONL"}, '{"a": 7}\n\n8\n', [{"a": 7}, 8]),
        (FIRST_ROW, 'a,b\r\n7,"x\ny"\r\n', [{"a": "7", "b": "x\ny"}]),
        ({**FIRST_ROW, "CSVDelimiter": "PIPE"}, "a|b\n7|8\n", [{"a": "7", "b": "8"}]),
    ],
)
async def test_data_of_a_reader_have_the_form_of_their_source(
    client: Client, config: dict[str, Json], data: str, items: list[Json]
) -> None:
    asked: Any = {"mock": _mock([1]), "stateConfiguration": {"mapItemReaderData": data}}
    told = await client.inspect(_reading(**config), {"most": 2}, **asked)
    assert told["afterItemsPath"] == items


async def test_inspection_of_a_distributed_map_shows_what_pointer_and_batcher_make(
    client: Client,
) -> None:
    state = {
        **_reading(InputType="JSON", ItemsPointer="/a"),
        "ItemSelector": {"v.$": "$$.Map.Item.Value"},
        "ItemBatcher": {"MaxItemsPerBatch": 2, "BatchInput": {"k.$": "$.k"}},
    }
    asked: Any = {"mock": _mock([1]), "stateConfiguration": {"mapItemReaderData": '{"a": [7,8,9]}'}}
    told = await client.inspect(state, {"k": "K"}, **asked)
    selected: list[Json] = [{"v": 7}, {"v": 8}, {"v": 9}]
    assert {name: told[name] for name in told if name.startswith("afterItem")} == {
        "afterItemsPointer": [7, 8, 9],
        "afterItemsPath": [7, 8, 9],
        "afterItemSelector": selected,
        "afterItemBatcher": [
            {"BatchInput": {"k": "K"}, "Items": selected[:2]},
            {"BatchInput": {"k": "K"}, "Items": selected[2:]},
        ],
    }


async def test_batcher_that_cannot_be_evaluated_fails_the_map(client: Client) -> None:
    state = {**MAP, "ItemProcessor": DISTRIBUTED, "ItemBatcher": {"MaxItemsPerBatchPath": "$[0]"}}
    told = await client.tell(state, [0], mock=_mock([1]))
    assert told == {
        "status": "FAILED",
        "error": "States.Runtime",
        "cause": "MaxItemsPerBatchPath must be greater than zero.",
    }


async def test_inspection_in_jsonata_shows_the_selected_items_but_no_paths(client: Client) -> None:
    state = {
        **MAP,
        "QueryLanguage": "JSONata",
        "Items": "{% $states.input %}",
        "ItemSelector": {"v": "{% $states.context.Map.Item.Value %}"},
    }
    assert await client.inspect(state, [7, 8], mock=_mock([1, 2])) == {
        "input": [7, 8],
        "afterItemSelector": [{"v": 7}, {"v": 8}],
        "maxConcurrency": 0,
    }


# ---------------------------------------------------------------- which state, and what it sees


async def test_state_is_found_by_its_name_at_any_depth(client: Client) -> None:
    states = {"Each": {**MAP, "ItemProcessor": DISTRIBUTED}}
    machine = {"StartAt": "Each", "States": states}
    told = await client.tell(machine, {"x": 1}, stateName="Inner")
    assert told == {"status": "SUCCEEDED", "output": {"x": 1}}
    assert await client.refuse(machine, stateName="Other") == (
        "ValidationException",
        "State not found in definition",
    )


async def test_context_is_the_one_given_or_that_of_an_express_run(client: Client) -> None:
    state = {
        "Type": "Pass",
        "QueryLanguage": "JSONata",
        "Output": "{% $states.context %}",
        "End": True,
    }
    given = {"Execution": {"Name": "n"}, "State": {}}
    assert (await client.tell(state, context=json.dumps(given)))["output"] == given
    context = (await client.tell(state, {"x": 1}))["output"]
    name, machine = context["Execution"]["Name"], context["StateMachine"]["Name"]
    assert context["Execution"]["Id"].startswith(
        f"arn:aws:states:us-east-1:000000000000:express:{machine}:{name}:"
    )
    assert context["Execution"]["Input"] == {"x": 1}
    assert context["Execution"]["RoleArn"] is None
    assert context["State"]["Name"] == "StateName"


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"Map": {}}, "'Map' field is not supported when mocking a Context object"),
        ({"Execution": {"nope": 1}}, "Field 'nope' is not allowed"),
        ({"Nope": {}}, "Field 'Nope' is not allowed"),
        ({"State": 1}, "Field 'State' must be an object"),
        ([], "it is not a JSON object"),
        (
            {"Task": {"Token": "t"}},
            "Context object contains 'Task' when state is not a Task state with a '.sync' or "
            "'.waitForTaskToken' service integration pattern",
        ),
    ],
)
async def test_context_of_no_such_state_is_refused(
    client: Client, context: Json, reason: str
) -> None:
    refused = await client.refuse(INVOKE, mock=_mock({}), context=json.dumps(context))
    assert refused == ("ValidationException", f"Invalid Context object provided: {reason}")


async def test_mocked_callback_sees_the_token_of_its_context(client: Client) -> None:
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"MessageBody.$": "$$.Task.Token"},
        "End": True,
    }
    context = json.dumps({"Task": {"Token": "t"}})
    inspected = await client.inspect(state, mock=_mock({"any": 1}), context=context)
    assert inspected["afterParameters"] == {"MessageBody": "t"}
    assert await client.refuse(state, roleArn=ROLE) == (
        "InvalidDefinition",
        f"TestState does not support '{state['Resource']}' when a mock is not specified",
    )


# ---------------------------------------------------------------- what is refused

PASS = {"Type": "Pass", "End": True}
FORK = (
    "TestState API does not support Map or Parallel states. "
    "Supported state types include: [Task, Wait, Pass, Succeed, Fail, Choice]"
)
BOTH = {"result": "1", **BROKEN}


@pytest.mark.parametrize(
    ("state", "members", "message"),
    [
        (INVOKE, {"mock": BOTH}, "A test mock should have only one of the following fields: "
         "[result, errorOutput]."),
        (INVOKE, {"mock": {}}, "A test mock should have one of the following fields: "
         "[result, errorOutput]."),
        (INVOKE, {"mock": BROKEN, "revealSecrets": True},
         "TestState does not support RevealSecrets when a mock is specified."),
        (INVOKE, {}, "RoleArn must be specified when testing a Task state"),
        (INVOKE, {"mock": {"result": "no JSON"}}, "Mocked result must be valid JSON"),
        (PASS, {"mock": BROKEN}, "State type 'Pass' is not supported when a mock is specified"),
        (PARALLEL, {"mock": {"result": "{}"}}, "Mocked result must be an array."),
        (MAP, {"stateConfiguration": {"mapIterationFailureCount": 0}},
         "TestState does not support MapIterationFailureCount when a mock is not specified."),
        (MAP, {"mock": {"result": "[1]"}, "input": "[1]",
               "stateConfiguration": {"mapIterationFailureCount": 2}},
         "Map iteration failure count must be less than or equal to the number of Map iterations"),
        (PASS, {"variables": "[]"}, "variables must be a JSON object"),
        (MAP, {"mock": {"result": "[1]"}, "stateConfiguration": {"mapItemReaderData": "{}"}},
         "mapItemReaderData does not hold a JSON array"),
        (_reading(InputType="JSONL"), {"mock": {"result": "[1]"},
                                       "stateConfiguration": {"mapItemReaderData": "1\nx"}},
         "mapItemReaderData: line 2: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (_reading(InputType="JSON", ItemsPointer="/a"), {"mock": {"result": "[1]"},
                                       "stateConfiguration": {"mapItemReaderData": "{}"}},
         "mapItemReaderData: ItemsPointer '/a' leads nowhere"),
    ],
)  # fmt: skip
async def test_parameters_that_do_not_go_together_are_refused(
    client: Client, state: Any, members: dict[str, Json], message: str
) -> None:
    assert await client.refuse(state, **members) == ("ValidationException", message)


async def test_fork_needs_a_mock(client: Client) -> None:
    assert await client.refuse(MAP) == ("InvalidDefinition", FORK)
    assert await client.refuse(PARALLEL) == ("InvalidDefinition", FORK)


async def test_broken_state_is_refused_with_its_place(client: Client) -> None:
    assert await client.refuse({**PARALLEL, "Branches": []}) == (
        "InvalidDefinition",
        "Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: Value cannot be empty at "
        "/States/StateName/Branches'",
    )


async def test_input_that_is_no_json_is_refused(client: Client) -> None:
    code, message = await client.refuse(PASS, input="{")
    assert code == "InvalidExecutionInput"
    assert message.startswith("Invalid State Machine Execution Input: '")


# ---------------------------------------------------------------- results that no action gives


@pytest.mark.parametrize(
    ("resource", "result", "reason"),
    [
        ("states:startExecution", {}, "Required field 'ExecutionArn' is missing"),
        ("states:startExecution", {"ExecutionArn": "a", "StartDate": 1},
         "Field 'StartDate' must be a string"),
        ("lambda:invoke", {"StatusCode": "200"}, "Field 'StatusCode' must be a number"),
        ("aws-sdk:kms:encrypt", {"CiphertextBlob": ""},
         "Field 'CiphertextBlob' is smaller than the minimum length"),
        ("aws-sdk:lambda:getFunction", {"Configuration": {"MemorySize": 10241}},
         "Field 'MemorySize' exceeds the maximum value"),
        ("aws-sdk:lambda:getFunction", {"Configuration": {"MemorySize": 127}},
         "Field 'MemorySize' is less than the minimum value"),
        ("events:putEvents", {"Entries": "x"}, "Field 'Entries' must be an array"),
        ("events:putEvents", {"Entries": [{"EventId": "a"}, {"EventId": 1}]},
         "Field 'EventId' must be a string"),
        ("sqs:sendMessage", [], "the result of 'sqs:sendMessage' must be an object"),
    ],
)  # fmt: skip
async def test_result_that_the_action_cannot_give_is_refused(
    client: Client, resource: str, result: Json, reason: str
) -> None:
    state = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "End": True}
    message = f"Mock result schema validation error: {reason}"
    assert await client.refuse(state, mock=_mock(result)) == ("ValidationException", message)
    told = await client.tell(state, mock=_mock(result, "NONE"))
    assert told == {"status": "SUCCEEDED", "output": result}


@pytest.mark.parametrize(
    ("resource", "result", "mode"),
    [
        ("states:startExecution", {"executionArn": "a"}, "PRESENT"),
        ("events:putEvents", {"random": "json"}, "STRICT"),
        ("lambda:invoke", {"Payload": {"any": ["JSON"]}, "StatusCode": 200}, "STRICT"),
        ("aws-sdk:unknown:action", {"any": 1}, "STRICT"),
        ("aws-sdk:kms:nope", {"any": 1}, "STRICT"),
        ("sqs:sendMessage", {"MessageId": None}, "STRICT"),
    ],
)
async def test_result_that_is_not_known_to_be_wrong_is_taken(
    client: Client, resource: str, result: Json, mode: str
) -> None:
    state = {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "End": True}
    told = await client.tell(state, mock=_mock(result, mode))
    assert told == {"status": "SUCCEEDED", "output": result}
