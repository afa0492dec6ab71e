"""Pass, Succeed and Fail states, and how paths and Parameters shape the data."""

from __future__ import annotations

import pytest

from service.asl import Json, Started
from tests.asl.builders import Run, ending, going, machine, task

PREFIX = "An error occurred while executing the state 'Only' (entered at the event id #2). "


def passed(input: Json, **fields: Json) -> tuple[str, Json]:
    run = Run(machine(Only=ending("Pass", **fields)), input)
    run.feed(Started())
    return run.outcome


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, {"a": {"b": 1}, "c": 2}),
        ({"InputPath": "$.a"}, {"b": 1}),
        ({"InputPath": None}, {}),
        ({"OutputPath": "$.a.b"}, 1),
        ({"OutputPath": None}, {}),
        ({"Result": None}, None),
        ({"Result": {"x.$": "$.a"}}, {"x.$": "$.a"}),
        ({"Result": 3, "ResultPath": None}, {"a": {"b": 1}, "c": 2}),
        ({"Result": 3, "ResultPath": "$.a.d"}, {"a": {"b": 1, "d": 3}, "c": 2}),
        ({"InputPath": "$.a", "ResultPath": "$.e"}, {"a": {"b": 1}, "c": 2, "e": {"b": 1}}),
        ({"Parameters": {"x.$": "$.c", "y": "$.c"}}, {"x": 2, "y": "$.c"}),
        ({"InputPath": "$.a", "Parameters": {"x.$": "$.b"}}, {"x": 1}),
        ({"ResultPath": "$.r", "OutputPath": "$.r.c"}, 2),
    ],
)
def test_each_field_shapes_the_data_in_its_turn(fields: dict[str, Json], output: Json) -> None:
    assert passed({"a": {"b": 1}, "c": 2}, **fields) == ("SUCCEEDED", output)


def test_the_context_object_tells_of_execution_machine_and_state() -> None:
    status, context = passed({"a": 1}, Parameters={"all.$": "$$"}, OutputPath="$.all")
    assert (status, context) == (
        "SUCCEEDED",
        {
            "Execution": {
                "Id": "arn:aws:states:eu-west-1:000000000000:execution:orders:o-1",
                "Input": {"a": 1},
                "StartTime": "2026-01-02T12:00:00.000Z",
                "Name": "o-1",
                "RoleArn": "arn:aws:iam::000000000000:role/flow",
                "RedriveCount": 0,
            },
            "StateMachine": {
                "Id": "arn:aws:states:eu-west-1:000000000000:stateMachine:orders",
                "Name": "orders",
            },
            "State": {"Name": "Only", "EnteredTime": "2026-01-02T12:00:00.000Z"},
        },
    )


def test_input_and_output_path_may_select_from_the_context_object() -> None:
    assert passed({"a": 1}, InputPath="$$.Execution.Name") == ("SUCCEEDED", "o-1")
    assert passed({"a": 1}, OutputPath="$$.Execution.Input.a") == ("SUCCEEDED", 1)


@pytest.mark.parametrize("field", ["InputPath", "OutputPath"])
def test_a_path_that_selects_nothing_is_a_runtime_error(field: str) -> None:
    cause = PREFIX + "Invalid path '$.no.such' : "
    status, (error, told) = passed({"a": 1}, **{field: "$.no.such"})
    assert (status, error, told[: len(cause)]) == ("FAILED", "States.Runtime", cause)


def test_a_result_without_place_in_the_input_is_a_match_failure() -> None:
    assert passed([1, 2], Result=3, ResultPath="$.a") == (
        "FAILED",
        [
            "States.ResultPathMatchFailure",
            PREFIX + "Unable to apply ReferencePath $.a to input [1,2]",
        ],
    )


def test_a_result_selector_shapes_a_tasks_answer_before_result_path_places_it() -> None:
    run = Run(machine(Only=task(ResultSelector={"n.$": "$.count"}, ResultPath="$.r")), {"a": 1})
    run.feed(Started())
    run.succeed({"count": 5, "more": 6})
    assert run.outcome == ("SUCCEEDED", {"a": 1, "r": {"n": 5}})


def test_a_succeed_state_filters_its_input() -> None:
    run = Run(
        machine(Only={"Type": "Succeed", "InputPath": "$.a", "OutputPath": "$.b"}), {"a": {"b": 1}}
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", 1)
    assert run.types == [
        "ExecutionStarted",
        "SucceedStateEntered",
        "SucceedStateExited",
        "ExecutionSucceeded",
    ]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, [None, None]),
        ({"Error": "E"}, ["E", None]),
        ({"Error": "E", "Cause": "c"}, ["E", "c"]),
        ({"ErrorPath": "$.e", "CausePath": "$$.State.Name"}, ["EE", "Only"]),
        ({"CausePath": "States.Format('{}!', $.e)"}, [None, "EE!"]),
        (
            {"ErrorPath": "$.x"},
            [
                "States.Runtime",
                PREFIX + "The JSONPath '$.x' specified for the field 'ErrorPath' could not be "
                """found in the input '{"e":"EE","n":1}'""",
            ],
        ),
        (
            {"CausePath": "$.n"},
            ["States.Runtime", PREFIX + "The CausePath parameter does not reference a string: 1"],
        ),
    ],
)
def test_a_fail_state_tells_its_error_and_cause(fields: dict[str, Json], outcome: Json) -> None:
    run = Run(machine(Only={"Type": "Fail", **fields}), {"e": "EE", "n": 1})
    run.feed(Started())
    assert run.outcome == ("FAILED", outcome)


def test_a_fail_state_without_error_shows_empty_details() -> None:
    run = Run(machine(Only={"Type": "Fail"}))
    run.feed(Started())
    (event,) = run.shown("ExecutionFailed")
    assert event["executionFailedEventDetails"] == {}


def test_a_filtered_output_is_the_next_states_input() -> None:
    run = Run(machine(A=going("Pass", "B", OutputPath="$.a"), B=ending("Pass")), {"a": "x"})
    run.feed(Started())
    assert [
        event["stateEnteredEventDetails"]["input"] for event in run.shown("PassStateEntered")
    ] == [
        '{"a":"x"}',
        '"x"',
    ]
