"""The fields of each state type: what is checked, and what a wrong one is told."""

from __future__ import annotations

import pytest

from service.asl import Json
from tests.asl.builders import INVOKE, State, definition, ending, problems, task

ONE_OF = "There should only be one of the following fields"
SCHEMA, TARGET, NOT_SUPPORTED = (
    "SCHEMA_VALIDATION_FAILED",
    "MISSING_TRANSITION_TARGET",
    "NOT_SUPPORTED",
)
DONE: State = {"Type": "Succeed"}


@pytest.mark.parametrize(
    ("fields", "at", "message"),
    [
        (
            {},
            "",
            "One of these fields is required: [Seconds, SecondsPath, Timestamp, TimestampPath]",
        ),
        ({"Seconds": -5}, "/Seconds", "Minimum value is 0"),
        ({"Seconds": 1.5}, "/Seconds", "Expected a value of type Integer but was Number 1.5"),
        ({"Seconds": True}, "/Seconds", "Expected a value of type Integer but was Boolean True"),
        ({"SecondsPath": "$.a[*]"}, "/SecondsPath", "Value is not a Reference Path"),
        (
            {"Timestamp": "2016-12-05 21:29:29Z"},
            "/Timestamp",
            "String does not match RFC3339 timestamp",
        ),
        (
            {"Seconds": 1, "TimestampPath": "$.t"},
            "",
            f"{ONE_OF}: [Seconds, TimestampPath]",
        ),
    ],
)
def test_wait_fields_are_checked(fields: dict[str, Json], at: str, message: str) -> None:
    assert problems(definition(Only=ending("Wait", **fields))) == [
        (SCHEMA, "/States/Only" + at, message)
    ]


@pytest.mark.parametrize(
    ("fields", "code", "at", "message"),
    [
        ({"Resource": "send"}, SCHEMA, "/Resource", "Value is not a valid resource ARN"),
        (
            {"Resource": INVOKE + ".waitForTaskToken"},
            NOT_SUPPORTED,
            "/Resource",
            "The service integration pattern '.waitForTaskToken' is not supported",
        ),
        (
            {"Resource": "arn:aws:states:us-east-1:1:activity:a"},
            NOT_SUPPORTED,
            "/Resource",
            "An activity is not supported",
        ),
        ({"TimeoutSeconds": 0}, SCHEMA, "/TimeoutSeconds", "Minimum value is 1"),
        (
            {"TimeoutSeconds": 5, "HeartbeatSeconds": 5},
            SCHEMA,
            "/HeartbeatSeconds",
            "5 is not less than TimeoutSeconds, 5",
        ),
        (
            {"TimeoutSeconds": 5, "TimeoutSecondsPath": "$.t"},
            SCHEMA,
            "",
            f"{ONE_OF}: [TimeoutSeconds, TimeoutSecondsPath]",
        ),
        (
            {"Credentials": {}},
            SCHEMA,
            "/Credentials",
            "The field 'RoleArn' is required but was missing",
        ),
        (
            {"Credentials": {"RoleArn": ""}},
            SCHEMA,
            "/Credentials/RoleArn",
            "Value cannot be empty",
        ),
        (
            {"Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"Payload": 1}},
            SCHEMA,
            "/Parameters",
            "The field 'FunctionName' is required but was missing",
        ),
        (
            {"Resource": "arn:aws:states:::states:startExecution", "Parameters": {}},
            SCHEMA,
            "/Parameters",
            "The field 'StateMachineArn' is required but was missing",
        ),
        (
            {"ResultPath": "$$.x"},
            SCHEMA,
            "/ResultPath",
            "'$$.x': only the input can be written to",
        ),
        ({"Retry": [{}]}, SCHEMA, "/Retry/0", "These fields are required: [ErrorEquals]"),
        (
            {"Retry": [{"ErrorEquals": []}]},
            SCHEMA,
            "/Retry/0/ErrorEquals",
            "0 elements are not between 1 and 100",
        ),
        (
            {"Retry": [{"ErrorEquals": ["States.ALL", "E"]}]},
            SCHEMA,
            "/Retry/0/ErrorEquals",
            "States.ALL must be the only element of the array",
        ),
        (
            {"Retry": [{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["E"]}]},
            SCHEMA,
            "/Retry/0/ErrorEquals",
            "States.ALL is only allowed in the last element of the array",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "BackoffRate": 0.5}]},
            SCHEMA,
            "/Retry/0/BackoffRate",
            "Minimum value is 1.0",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "JitterStrategy": "HALF"}]},
            SCHEMA,
            "/Retry/0/JitterStrategy",
            "'HALF' is none of [FULL, NONE]",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 9, "MaxDelaySeconds": 8}]},
            SCHEMA,
            "/Retry/0/MaxDelaySeconds",
            "8 is less than IntervalSeconds, 9",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "Delay": 1}]},
            SCHEMA,
            "/Retry/0",
            "Field 'Delay' is not supported",
        ),
        (
            {"Catch": [{"ErrorEquals": ["E"]}]},
            SCHEMA,
            "/Catch/0",
            "These fields are required: [Next]",
        ),
        ({"Retry": {}}, SCHEMA, "/Retry", "Expected a value of type Array but was Object"),
    ],
)
def test_task_fields_are_checked(fields: dict[str, Json], code: str, at: str, message: str) -> None:
    assert problems(definition(Only=task(**{"End": True} | fields))) == [
        (code, "/States/Only" + at, message)
    ]


@pytest.mark.parametrize(
    ("rule", "at", "message"),
    [
        ({}, "", "These fields are required: [Variable]"),
        ({"Variable": "$.a"}, "", "A comparison operator is required"),
        (
            {"Variable": "$.a", "IsNull": True, "IsString": True},
            "",
            f"{ONE_OF}: [IsNull, IsString]",
        ),
        (
            {"Variable": "$.a", "NumericEquals": "1"},
            "/NumericEquals",
            "Expected a literal for Numeric but was String '1'",
        ),
        (
            {"Variable": "$.a", "NumericEquals": True},
            "/NumericEquals",
            "Expected a literal for Numeric but was Boolean True",
        ),
        (
            {"Variable": "$.a", "TimestampEquals": "noon"},
            "/TimestampEquals",
            "String does not match RFC3339 timestamp",
        ),
        (
            {"Variable": "$.a", "StringMatches": "a\\b"},
            "/StringMatches",
            "a backslash can only stand before * or another backslash",
        ),
        (
            {"Variable": "$.a", "IsNull": "yes"},
            "/IsNull",
            "Expected a value of type Boolean but was String 'yes'",
        ),
        ({"And": []}, "/And", "Value cannot be empty"),
        (
            {
                "And": [{"Variable": "$.a", "IsNull": True}],
                "Not": {"Variable": "$.a", "IsNull": True},
            },
            "",
            f"{ONE_OF}: [And, Not]",
        ),
        ({"Not": {"Variable": "$.a"}}, "/Not", "A comparison operator is required"),
        (
            {"Or": [{"Variable": "$.a", "IsNull": True, "Next": "End"}]},
            "/Or/0",
            "Field 'Next' is not supported",
        ),
    ],
)
def test_choice_rules_are_checked(rule: dict[str, Json], at: str, message: str) -> None:
    choice: State = {"Type": "Choice", "Choices": [rule | {"Next": "End"}], "Default": "End"}
    assert problems(definition(Only=choice, End=DONE)) == [
        (SCHEMA, "/States/Only/Choices/0" + at, message)
    ]


def test_a_choice_cannot_end_or_lead_on_by_itself() -> None:
    rule: Json = {"Variable": "$.a", "IsNull": True, "Next": "Gone"}
    choice: State = {"Type": "Choice", "Choices": [rule], "Next": "End"}
    assert sorted(problems(definition(Only=choice, End=DONE))) == [
        (TARGET, "/States/End", 'State "End" is not reachable.'),
        (TARGET, "/States/Only/Choices/0/Next", "Missing 'Next' target: Gone"),
        (SCHEMA, "/States/Only", "Field 'Next' is not supported"),
    ]


@pytest.mark.parametrize(
    ("fields", "code", "at", "message"),
    [
        (
            {"ItemProcessor": None},
            SCHEMA,
            "/ItemProcessor",
            "Expected a value of type Object but was null",
        ),
        (
            {"Iterator": definition(J=DONE)},
            SCHEMA,
            "",
            f"{ONE_OF}: [ItemProcessor, Iterator]",
        ),
        (
            {"ItemSelector": {}, "Parameters": {}},
            SCHEMA,
            "",
            f"{ONE_OF}: [ItemSelector, Parameters]",
        ),
        ({"MaxConcurrency": -1}, SCHEMA, "/MaxConcurrency", "Minimum value is 0"),
        (
            {"ToleratedFailurePercentage": 101},
            SCHEMA,
            "/ToleratedFailurePercentage",
            "Maximum value is 100.0",
        ),
        ({"ItemReader": {}}, SCHEMA, "", "Field 'ItemReader' is not supported"),
        (
            {"ItemProcessor": definition(I=DONE) | {"ProcessorConfig": {"Mode": "SPREAD"}}},
            SCHEMA,
            "/ItemProcessor/ProcessorConfig/Mode",
            "'SPREAD' is none of [INLINE, DISTRIBUTED]",
        ),
        (
            {"ItemProcessor": definition(I={"Type": "Pass", "Next": "Only"})},
            TARGET,
            "/ItemProcessor/States/I/Next",
            "Missing 'Next' target: Only",
        ),
    ],
)
def test_map_fields_are_checked(fields: dict[str, Json], code: str, at: str, message: str) -> None:
    state = {"Type": "Map", "End": True, "ItemProcessor": definition(I=DONE)} | fields
    found = problems(definition(Only=state))
    assert (code, "/States/Only" + at, message) in found


@pytest.mark.parametrize(
    ("fields", "at", "message"),
    [
        (
            {"Resource": "arn:aws:lambda:eu-west-1:0:function:" + "f" * 2_048},
            "/Resource",
            "2084 characters are over the limit of 2048",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"], "BackoffRate": "2"}]},
            "/Retry/0/BackoffRate",
            "Expected a value of type Number but was String '2'",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E"]}] * 101},
            "/Retry",
            "101 entries are over the limit of 100",
        ),
        (
            {"Retry": [{"ErrorEquals": ["E", 5]}]},
            "/Retry/0/ErrorEquals/1",
            "Expected a value of type String but was Integer 5",
        ),
        ({"Catch": ["E"]}, "/Catch/0", "Expected a value of type Object but was String 'E'"),
    ],
)
def test_sizes_and_types_of_entries_are_checked(
    fields: dict[str, Json], at: str, message: str
) -> None:
    found = problems(definition(Only=task(**{"End": True} | fields)))
    assert found == [(SCHEMA, "/States/Only" + at, message)]


def test_choice_rules_have_a_limit_of_depth() -> None:
    rule: dict[str, Json] = {"Variable": "$.a", "IsNull": True}
    for _ in range(21):
        rule = {"Not": rule}
    choice: State = {"Type": "Choice", "Choices": [rule | {"Next": "End"}]}
    ((code, pointer, message),) = problems(definition(Only=choice, End=DONE))
    assert (code, message) == (SCHEMA, "Rules are nested deeper than 20")
    assert pointer == "/States/Only/Choices/0" + "/Not" * 21


def test_a_problems_message_is_cut() -> None:
    ((_, _, message),) = problems(definition(Only=ending("Pass", InputPath="x" * 2_000)))
    assert len(message) == 500
