"""Task states: the command, its limits, its answers, and the history of both kinds of task."""

from __future__ import annotations

import pytest

from service.asl import Json, RunTask, Started, TaskFailed, TaskHeartbeat, TaskSucceeded, TimerFired
from service.asl.parser import TaskReference
from service.asl.states.task import function_name_of
from tests.asl.builders import (
    INVOKE,
    Run,
    at,
    definition,
    function,
    going,
    machine,
    problems,
    task,
)

LARGE = "x" * 262_143  # with its quotes one byte over the limit


def started(input: Json = None, **fields: Json) -> Run:
    run = Run(machine(Send=task(**fields)), input)
    run.feed(Started())
    return run


def test_a_lambda_task_is_told_as_lambda_events() -> None:
    run = started({"id": 7}, TimeoutSeconds=60)
    run.succeed({"ok": True})
    assert run.links == [
        (1, 0, "ExecutionStarted"),
        (2, 0, "TaskStateEntered"),
        (3, 2, "LambdaFunctionScheduled"),
        (4, 3, "LambdaFunctionStarted"),
        (5, 4, "LambdaFunctionSucceeded"),
        (6, 5, "TaskStateExited"),
        (7, 6, "ExecutionSucceeded"),
    ]
    (scheduled,) = run.shown("LambdaFunctionScheduled")
    assert scheduled["lambdaFunctionScheduledEventDetails"] == {
        "resource": function("send"),
        "input": '{"id":7}',
        "inputDetails": {"truncated": False},
        "timeoutInSeconds": 60,
    }


def test_a_task_is_given_the_whole_context_object_without_the_redrive_count() -> None:
    named = "$$.Execution.RedriveCount"
    run = started(Parameters={"all.$": "$$", "count.$": named, "execution.$": "$$.Execution"})
    given = run.open_task.parameters
    assert isinstance(given, dict)
    assert given["count"] == 0
    whole, execution = given["all"], given["execution"]
    assert isinstance(whole, dict)
    assert isinstance(execution, dict)
    assert execution.pop("RedriveCount") == 0
    assert whole["Execution"] == execution


def test_a_service_task_is_told_as_task_events() -> None:
    parameters: Json = {"FunctionName": "send", "Payload": {"id": 7}}
    run = started(Resource=INVOKE, Parameters=parameters, TimeoutSeconds=60, HeartbeatSeconds=10)
    run.succeed({"StatusCode": 200})
    names = {"resourceType": "lambda", "resource": "invoke"}
    assert [
        run.shown(type_)[0].get(f"t{type_[1:]}EventDetails")
        for type_ in ("TaskScheduled", "TaskStarted", "TaskSucceeded")
    ] == [
        {
            **names,
            "region": "eu-west-1",
            "parameters": '{"FunctionName":"send","Payload":{"id":7}}',
            "timeoutInSeconds": 60,
            "heartbeatInSeconds": 10,
        },
        names,
        {**names, "output": '{"StatusCode":200}', "outputDetails": {"truncated": False}},
    ]


def test_the_command_holds_what_a_handler_needs() -> None:
    run = started(
        {"id": 7, "limit": 30},
        Parameters={"order.$": "$.id"},
        TimeoutSecondsPath="$.limit",
        HeartbeatSeconds=10,
    )
    command = RunTask(3, 2, "Send", function("send"), {"order": 7}, 0, 30, 10)
    assert run.execution.open_tasks == (command,)


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, None, 100_000_000])
def test_a_limit_that_is_no_positive_integer_fails_the_task(value: Json) -> None:
    run = started({"limit": value}, TimeoutSecondsPath="$.limit")
    status, (error, cause) = run.outcome
    assert (status, error) == ("FAILED", "States.Runtime")
    assert "The TimeoutSecondsPath parameter does not reference a positive integer" in cause


def test_a_limit_that_is_not_there_fails_the_task() -> None:
    run = started({}, HeartbeatSecondsPath="$.limit")
    assert run.outcome == (
        "FAILED",
        [
            "States.Runtime",
            "An error occurred while executing the state 'Send' (entered at the event id #2). "
            "The HeartbeatSecondsPath parameter does not reference an input value: $.limit",
        ],
    )


@pytest.mark.parametrize(
    ("resource", "type_"), [(function("send"), "LambdaFunctionTimedOut"), (INVOKE, "TaskTimedOut")]
)
def test_a_task_over_its_timeout_fails_with_states_timeout(resource: str, type_: str) -> None:
    run = started(Resource=resource, TimeoutSeconds=5)
    assert run.execution.due_at == at(5)
    assert run.feed(TimerFired(), after=4) == []
    assert run.types[-1].endswith("Started")
    run.feed(TimerFired(), after=1)
    assert run.outcome == ("FAILED", ["States.Timeout", None])
    assert run.types[-2] == type_


def test_a_handlers_own_timeout_is_told_as_one() -> None:
    run = started()
    run.fail("States.Timeout", "")
    assert run.types[-2] == "LambdaFunctionTimedOut"


def test_a_heartbeat_starts_the_heartbeat_timeout_again() -> None:
    run = started(TimeoutSeconds=60, HeartbeatSeconds=10)
    assert run.execution.due_at == at(10)
    assert run.feed(TaskHeartbeat(run.open_task.id), after=9) == []
    assert run.execution.due_at == at(19)
    run.feed(TimerFired(), after=10)
    assert run.outcome == ("FAILED", ["States.HeartbeatTimeout", None])


def test_a_timeout_before_the_next_heartbeat_is_a_timeout() -> None:
    run = started(TimeoutSeconds=12, HeartbeatSeconds=10)
    run.feed(TaskHeartbeat(run.open_task.id), after=9)
    assert run.execution.due_at == at(12)
    run.feed(TimerFired(), after=3)
    assert run.outcome == ("FAILED", ["States.Timeout", None])


def test_a_heartbeat_of_a_task_without_heartbeat_timeout_sets_none() -> None:
    run = started()
    run.feed(TaskHeartbeat(run.open_task.id))
    assert run.execution.due_at is None


def test_an_answer_after_the_timeout_is_too_late() -> None:
    run = Run(
        machine(
            Send=task(TimeoutSeconds=5, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Other"}]),
            Other=task("other"),
        )
    )
    run.feed(Started())
    late = run.open_task.id
    run.feed(TimerFired(), after=5)
    assert run.feed(TaskSucceeded(late, "late")) == []
    assert run.open_task.state == "Other"


def test_a_failed_task_fails_the_execution_with_its_error_and_cause_as_they_came() -> None:
    run = started()
    cause = '{"errorMessage": "no", "errorType": "Refused"}'
    run.fail("Refused", cause)
    assert run.outcome == ("FAILED", ["Refused", cause])
    (event,) = run.shown("LambdaFunctionFailed")
    assert event["lambdaFunctionFailedEventDetails"] == {"error": "Refused", "cause": cause}


@pytest.mark.parametrize(
    ("resource", "origin"), [(function("send"), function("send")), (INVOKE, "lambda")]
)
def test_an_answer_over_the_payload_limit_fails_the_task(resource: str, origin: str) -> None:
    run = started(Resource=resource)
    run.succeed(LARGE)
    cause = (
        f"The state/task '{origin}' returned a result with a size exceeding "
        "the maximum number of bytes service limit."
    )
    assert run.outcome == ("FAILED", ["States.DataLimitExceeded", cause])
    assert run.types[-2].endswith("Failed")


def test_an_answer_at_the_payload_limit_is_taken() -> None:
    run = started()
    run.succeed(LARGE[:-1])
    assert run.outcome == ("SUCCEEDED", LARGE[:-1])


def test_parameters_over_the_payload_limit_fail_the_task() -> None:
    run = started("x" * 140_000, Parameters={"a.$": "$", "b.$": "$"})
    status, (error, _) = run.outcome
    assert (status, error) == ("FAILED", "States.DataLimitExceeded")
    assert run.types == ["ExecutionStarted", "TaskStateEntered", "ExecutionFailed"]


def test_attempts_of_one_visit_share_the_entered_event_and_loops_do_not() -> None:
    run = Run(
        machine(
            Send=going("Task", "Again", Resource=function("send"), Retry=[{"ErrorEquals": ["E"]}]),
            Again={
                "Type": "Choice",
                "Choices": [{"Variable": "$", "IsNull": True, "Next": "Send"}],
                "Default": "Done",
            },
            Done={"Type": "Succeed"},
        )
    )
    run.feed(Started())
    first = run.open_task
    run.feed(TaskFailed(first.id, "E"))
    (second,) = run.wake()
    assert isinstance(second, RunTask)
    run.succeed(None)
    third = run.open_task
    assert [c.entered_event_id for c in (first, second, third)] == [2, 2, 12]
    assert [c.attempt for c in (first, second, third)] == [0, 1, 0]
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("send", "send"),
        ("send:live", "send"),
        (function("send"), "send"),
        (function("send") + ":$LATEST", "send"),
    ],
)
def test_a_function_is_known_by_its_bare_name(text: str, name: str) -> None:
    assert function_name_of(text) == name


def test_a_machine_lists_what_its_tasks_call_and_where_it_says_so() -> None:
    compiled = machine(
        A=going("Task", "B", Resource=function("send")),
        B=going("Task", "C", Resource=INVOKE, Parameters={"FunctionName": "get:live"}),
        C=going("Task", "D", Resource=INVOKE, Parameters={"FunctionName.$": "$.f"}),
        D={
            "Type": "Parallel",
            "Branches": [{"StartAt": "E", "States": {"E": task("inner")}}],
            "End": True,
        },
    )
    assert compiled.tasks == (
        TaskReference("/States/A/Resource", function("send"), "send"),
        TaskReference("/States/B/Resource", INVOKE, "get"),
        TaskReference("/States/C/Resource", INVOKE, None),
        TaskReference("/States/D/Branches/0/States/E/Resource", function("inner"), "inner"),
    )
    assert (compiled.place("/States/A/Resource").line, compiled.start_at) == (1, "A")


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (
            "arn:aws:states:::states:startExecution.sync",
            "Express state machine does not support '.sync' service integration",
        ),
        (
            "arn:aws:states:::states:startExecution.sync:2",
            "Express state machine does not support '.sync' service integration",
        ),
        (
            "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            "Express state machine does not support '.waitForTaskToken' service integration",
        ),
        (
            "arn:aws:states:us-east-1:000000000000:activity:wait",
            "Express state machine does not support Activity ARN "
            "'arn:aws:states:us-east-1:000000000000:activity:wait'",
        ),
    ],
)
def test_what_an_express_machine_cannot_wait_for_is_refused(resource: str, message: str) -> None:
    value = definition(Only={"Type": "Task", "Resource": resource, "End": True})
    assert problems(value, is_express=True) == [
        ("SCHEMA_VALIDATION_FAILED", "/States/Only/Resource", message)
    ]
    assert [code for code, *_ in problems(value)] == ["NOT_SUPPORTED"]
