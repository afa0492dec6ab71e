"""Tests of service.tasks.registry."""

from __future__ import annotations

import json
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl import Json, TaskFailed, compile_definition
from service.engine.ports import Answer, CoroutineHandler, Task
from service.tasks import ACCOUNT_TASKS, Registry
from service.tasks.registry import Function, read_function
from tests.tasks.calls import ARN, ID, IDEMPOTENCY_KEY, INVOKE, command, perform


async def echo(input: Json, task: Task) -> Answer:
    return Answer({"echo": input})


async def boom(input: Json, task: Task) -> Answer:
    raise KeyError("boom")


REGISTRY = Registry(
    {"echo": CoroutineHandler(echo), "boom": CoroutineHandler(boom), **ACCOUNT_TASKS},
    region="eu-central-1",
    account="123456789012",
)


@pytest.mark.parametrize(
    "resource",
    [
        "arn:aws:lambda:us-east-1:000000000000:function:echo",
        "arn:aws:lambda:eu-west-3:999999999999:function:echo",
        "arn:aws-cn:lambda:cn-north-1:999999999999:function:echo",
        "arn:aws:lambda:us-east-1:000000000000:function:echo:$LATEST",
        "arn:aws:lambda:us-east-1:000000000000:function:echo:live",
        "arn:aws:lambda:us-east-1:000000000000:function:echo:12",
    ],
)
async def test_a_function_runs_here_whatever_its_arn_says_beside_its_name(resource: str) -> None:
    answer = await perform(REGISTRY.resolve(command(resource, {"n": 1})))

    assert answer == Answer({"echo": {"n": 1}})


@pytest.mark.parametrize(
    "name",
    [
        "echo",
        "echo:live",
        "echo:$LATEST",
        "000000000000:function:echo",
        "000000000000:function:echo:live",
        "arn:aws:lambda:us-east-1:000000000000:function:echo",
        "arn:aws:lambda:us-east-1:000000000000:function:echo:$LATEST",
    ],
)
async def test_an_invocation_gets_its_payload_and_answers_as_the_service_wraps_it(
    name: str,
) -> None:
    parameters: Json = {"FunctionName": name, "Payload": [1, 2]}

    answer = await perform(REGISTRY.resolve(command(INVOKE, parameters)))

    assert answer == Answer(
        {
            "ExecutedVersion": "$LATEST",
            "Payload": {"echo": [1, 2]},
            "SdkHttpMetadata": {
                "AllHttpHeaders": {
                    "Content-Type": ["application/json"],
                    "X-Amz-Executed-Version": ["$LATEST"],
                    "x-amzn-RequestId": [str(IDEMPOTENCY_KEY)],
                },
                "HttpHeaders": {
                    "Content-Type": "application/json",
                    "X-Amz-Executed-Version": "$LATEST",
                    "x-amzn-RequestId": str(IDEMPOTENCY_KEY),
                },
                "HttpStatusCode": 200,
            },
            "SdkResponseMetadata": {"RequestId": str(IDEMPOTENCY_KEY)},
            "StatusCode": 200,
        }
    )


async def test_an_invocation_of_an_effect_is_wrapped_and_still_acknowledges_the_signal() -> None:
    parameters: Json = {"FunctionName": "get_account", "Payload": {"account_id": str(ID)}}

    answer = await perform(
        REGISTRY.resolve(command(INVOKE, parameters)), {"status": "verified", "data": None}
    )

    assert isinstance(answer.output, dict)
    assert answer.output["Payload"] == {
        "account_id": str(ID),
        "status": "verified",
        "verified": True,
    }
    assert answer.output["SdkResponseMetadata"] == {"RequestId": str(IDEMPOTENCY_KEY)}
    assert answer.acknowledges_signal


async def test_an_invocation_without_payload_passes_an_empty_object() -> None:
    answer = await perform(REGISTRY.resolve(command(INVOKE, {"FunctionName": "echo"})))

    assert isinstance(answer.output, dict)
    assert answer.output["Payload"] == {"echo": {}}


async def test_what_a_handler_raises_escapes_an_invocation_as_it_is() -> None:
    with pytest.raises(KeyError, match="boom"):
        await perform(REGISTRY.resolve(command(INVOKE, {"FunctionName": "boom"})))


@pytest.mark.parametrize(
    ("resource", "parameters", "arn"),
    [
        (ARN + "gone", {}, ARN + "gone:$LATEST"),
        (ARN + "gone:live", {}, ARN + "gone:live"),
        (
            INVOKE,
            {"FunctionName": "gone"},
            "arn:aws:lambda:eu-central-1:123456789012:function:gone:$LATEST",
        ),
        (
            INVOKE,
            {"FunctionName": "000000000000:function:gone:7"},
            "arn:aws:lambda:eu-central-1:000000000000:function:gone:7",
        ),
    ],
)
def test_a_missing_function_fails_in_the_words_of_the_service(
    resource: str, parameters: Json, arn: str
) -> None:
    failure = REGISTRY.resolve(command(resource, parameters))

    assert isinstance(failure, TaskFailed)
    assert failure.cause is not None
    assert (failure.command_id, failure.error) == (7, "Lambda.ResourceNotFoundException")
    before, request_id, after = failure.cause.partition("Request ID: ")
    assert before + request_id == (
        f"Function not found: {arn} (Service: AWSLambda; Status Code: 404; "
        "Error Code: ResourceNotFoundException; Request ID: "
    )
    assert after[36:] == "; Proxy: null)"
    assert REGISTRY.resolve(command(resource, parameters)) == failure


@pytest.mark.parametrize(
    ("resource", "parameters", "cause"),
    [
        (
            "arn:aws:states:::sqs:sendMessage",
            {},
            "Resource: 'arn:aws:states:::sqs:sendMessage' is neither the ARN of a Lambda function "
            "nor 'arn:aws:states:::lambda:invoke' nor 'arn:aws:states:::states:startExecution'; "
            "nothing else is supported",
        ),
        (
            INVOKE,
            {"Payload": 1},
            "The Parameters could not be used to start the Task: "
            '[The field "FunctionName" is required but was missing]',
        ),
        (
            INVOKE,
            None,
            "The Parameters could not be used to start the Task: "
            '[The field "FunctionName" is required but was missing]',
        ),
        (
            INVOKE,
            {"FunctionName": "no such name"},
            "FunctionName: 'no such name' is neither a name nor an ARN",
        ),
        (
            INVOKE,
            {"FunctionName": "echo", "InvocationType": "Event"},
            "InvocationType: 'Event' is not 'RequestResponse'",
        ),
    ],
)
def test_what_cannot_be_called_at_all_is_a_runtime_failure(
    resource: str, parameters: Json, cause: str
) -> None:
    assert REGISTRY.resolve(command(resource, parameters)) == TaskFailed(7, "States.Runtime", cause)


def test_a_plain_name_is_no_resource() -> None:
    assert isinstance(REGISTRY.resolve(command("echo")), TaskFailed)


def test_input_that_an_effect_cannot_use_fails_before_the_database_is_asked() -> None:
    assert REGISTRY.resolve(command(ARN + "get_account", {"account_id": 5})) == TaskFailed(
        7, "InvalidTaskInput", "account_id: 5 is not the id of an account"
    )


def definition(*states: dict[str, Json]) -> str:
    """Return a definition whose Tasks follow each other, one line each."""
    lines = ['{"StartAt": "T0", "States": {']
    for n, state in enumerate(states):
        onward = {"Next": f"T{n + 1}"} if n + 1 < len(states) else {"End": True}
        comma = "," if n + 1 < len(states) else ""
        lines.append(f'"T{n}": ' + json.dumps({"Type": "Task", **state, **onward}) + comma)
    return "\n".join([*lines, "}}"])


def test_every_task_without_a_handler_is_told_with_its_place() -> None:
    machine = compile_definition(
        definition(
            {"Resource": ARN + "echo"},
            {"Resource": ARN + "gone:live"},
            {"Resource": INVOKE, "Parameters": {"FunctionName": "boom", "Payload": {}}},
            {"Resource": INVOKE, "Parameters": {"FunctionName": "lost", "Payload": {}}},
            {"Resource": INVOKE, "Parameters": {"FunctionName.$": "$.name", "Payload": {}}},
        )
    )

    known = "the known ones are: boom, delete_unverified_account, echo, get_account"
    assert [astuple(problem) for problem in REGISTRY.missing(machine)] == [
        (
            "UNKNOWN_RESOURCE",
            f"no handler is named 'gone'; {known}",
            "/States/T1/Resource",
            3,
            36,
        ),
        (
            "UNKNOWN_RESOURCE",
            f"no handler is named 'lost'; {known}",
            "/States/T3/Resource",
            5,
            36,
        ),
    ]


def test_nothing_is_missing_from_a_definition_without_tasks() -> None:
    machine = compile_definition('{"StartAt": "P", "States": {"P": {"Type": "Succeed"}}}')

    assert REGISTRY.missing(machine) == []


def test_a_full_arn_is_read_into_its_parts() -> None:
    assert read_function("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f-1:live") == (
        Function("f-1", "us-gov-west-1", "123456789012", "live")
    )


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9:$-]{0,40}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    function = read_function(text)

    assert function is None or function.name in text
