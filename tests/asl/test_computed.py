"""States in JSONata: which fields they have, and how what cannot be evaluated is told."""

from __future__ import annotations

import json

import pytest

from service.asl import Json, Started, TimerFired, compile_definition
from tests.asl.builders import INVOKE, Run, State, definition, ending, going, problems, task

SCHEMA = "SCHEMA_VALIDATION_FAILED"
INVALID = "INVALID_JSONATA_EXPRESSION"
DONE: State = {"Type": "Succeed"}


def jsonata(**states: State) -> dict[str, Json]:
    return {"QueryLanguage": "JSONata"} | definition(**states)


def run_of(*, input: Json = None, **states: State) -> Run:
    run = Run(compile_definition(json.dumps(jsonata(**states))), input)
    run.feed(Started())
    return run


def only_for(field: str, language: str, other: str) -> str:
    return (
        f"The QueryLanguage is set to '{language}', but field '{field}' "
        f"is only supported for the '{other}' QueryLanguage"
    )


@pytest.mark.parametrize(
    "state",
    [
        ending("Pass", InputPath="$"),
        ending("Pass", Result=1),
        ending("Pass", Parameters={}),
        task(ResultSelector={}),
        task(TimeoutSecondsPath="$.t"),
        ending("Wait", Seconds=1, SecondsPath="$.s"),
        {"Type": "Fail", "CausePath": "$.c"},
        ending("Parallel", Branches=[definition(In=DONE)], ResultPath="$.r"),
        ending("Map", ItemProcessor=definition(In=DONE), ItemsPath="$.i"),
        ending("Map", ItemProcessor=definition(In=DONE), MaxConcurrencyPath="$.c"),
        ending("Map", ItemProcessor=definition(In=DONE), ToleratedFailureCountPath="$.c"),
        {"Type": "Succeed", "OutputPath": "$"},
    ],
)
def test_fields_of_jsonpath_are_refused_in_jsonata(state: State) -> None:
    field = next(name for name in state if name.endswith("Path") or name in _JSONPATH)
    message = only_for(field, "JSONata", "JSONPath")
    assert problems(jsonata(Only=state)) == [(SCHEMA, "/States/Only", message)]


_JSONPATH = {"Result", "Parameters", "ResultSelector"}


@pytest.mark.parametrize(
    "state",
    [
        ending("Pass", Output=1),
        task(Arguments={}),
        ending("Map", ItemProcessor=definition(In=DONE), Items=[]),
    ],
)
def test_fields_of_jsonata_are_refused_in_jsonpath(state: State) -> None:
    field = next(name for name in state if name in ("Output", "Arguments", "Items"))
    message = only_for(field, "JSONPath", "JSONata")
    assert problems(definition(Only=state)) == [(SCHEMA, "/States/Only", message)]


def test_rules_and_catchers_speak_the_language_of_their_state() -> None:
    choice: State = {
        "Type": "Choice",
        "Choices": [{"Condition": "{% true %}", "Variable": "$.a", "Next": "Work"}],
        "Default": "Work",
    }
    catch: Json = [{"ErrorEquals": ["E"], "ResultPath": "$.e", "Next": "Done"}]
    found = problems(
        jsonata(Pick=choice, Work=going("Task", "Done", Resource=INVOKE, Catch=catch), Done=DONE)
    )
    assert found == [
        (SCHEMA, "/States/Pick/Choices/0", only_for("Variable", "JSONata", "JSONPath")),
        (SCHEMA, "/States/Work/Catch/0", only_for("ResultPath", "JSONata", "JSONPath")),
    ]


def test_a_state_cannot_go_back_to_jsonpath() -> None:
    message = "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine"
    state = ending("Pass", QueryLanguage="JSONPath")
    assert problems(jsonata(Only=state)) == [(SCHEMA, "/States/Only", message)]


def test_states_inside_speak_the_language_of_the_machine_not_of_the_state_around() -> None:
    inner = definition(In=ending("Pass", Output=1))
    outer = ending("Map", QueryLanguage="JSONata", ItemProcessor=inner)
    at = "/States/Only/ItemProcessor/States/In"
    assert problems(definition(Only=outer)) == [
        (SCHEMA, at, only_for("Output", "JSONPath", "JSONata"))
    ]


def test_an_item_processor_has_no_language() -> None:
    processor: Json = {"QueryLanguage": "JSONata", **definition(In=DONE)}
    assert problems(definition(Only=ending("Map", ItemProcessor=processor))) == [
        (SCHEMA, "/States/Only/ItemProcessor", "Field 'QueryLanguage' is not supported")
    ]


def test_an_unknown_language_is_refused() -> None:
    found = problems(definition(Only=ending("Pass", QueryLanguage="jsonpath")))
    assert found == [
        (SCHEMA, "/States/Only/QueryLanguage", "'jsonpath' is none of [JSONPath, JSONata]")
    ]


def test_expressions_that_do_not_parse_are_told_at_their_place() -> None:
    output: Json = {"fine": "{% 1 %}", "deep": ["x", "{% 1 + %}"]}
    choice: State = {
        "Type": "Choice",
        "Choices": [{"Condition": "{% (1 %}", "Next": "Only"}],
        "Default": "Only",
    }
    found = problems(jsonata(Pick=choice, Only=ending("Pass", Output=output)))
    assert [(code, pointer) for code, pointer, _ in found] == [
        (INVALID, "/States/Pick/Choices/0/Condition"),
        (INVALID, "/States/Only/Output/deep/1"),
    ]
    assert found[1][2] == "Unexpected end of expression"


@pytest.mark.parametrize(
    ("state", "field", "message"),
    [
        (ending("Wait", Seconds="soon"), "Seconds", "Integer but was String 'soon'"),
        (ending("Wait", Seconds=" {% 1 %}"), "Seconds", "Integer but was String ' {% 1 %}'"),
        (task(TimeoutSeconds="9"), "TimeoutSeconds", "Integer but was String '9'"),
        (
            ending("Map", ItemProcessor=definition(In=DONE), Items={"a": 1}),
            "Items",
            "Array but was Object",
        ),
    ],
)
def test_constants_are_checked_by_type(state: State, field: str, message: str) -> None:
    assert problems(jsonata(Only=state)) == [
        (SCHEMA, f"/States/Only/{field}", f"Expected a value of type {message}")
    ]


@pytest.mark.parametrize(
    ("state", "location", "reason"),
    [
        (
            ending("Wait", Seconds="{% 'x' %}"),
            "Seconds",
            "The JSONata expression ''x'' specified for the field 'Seconds' returned an unexpected "
            "result type. Expected 'number', but was 'string' for value: \"x\"",
        ),
        (
            ending("Wait", Seconds="{% -1 %}"),
            "Seconds",
            "The Seconds field is not an integer between 0 and 99999999: -1",
        ),
        (
            ending("Wait", Seconds="{% 1.5 %}"),
            "Seconds",
            "The Seconds field is not an integer between 0 and 99999999: 1.5",
        ),
        (
            task(TimeoutSeconds="{% 0 %}"),
            "TimeoutSeconds",
            "The TimeoutSeconds field is not an integer between 1 and 99999999: 0",
        ),
        (
            {"Type": "Fail", "Error": "{% 5 %}"},
            "Error",
            "The JSONata expression '5' specified for the field 'Error' returned an unexpected "
            "result type. Expected 'string', but was 'number' for value: 5",
        ),
        (
            ending(
                "Map",
                Items=[1],
                ItemProcessor=definition(In=DONE),
                ToleratedFailurePercentage="{% 101 %}",
            ),
            "ToleratedFailurePercentage",
            "The ToleratedFailurePercentage field is not a number between 0 and 100: 101",
        ),
    ],
)
def test_what_a_field_cannot_use_fails_the_state(state: State, location: str, reason: str) -> None:
    run = run_of(Only=state)
    cause = (
        f"An error occurred while executing the state 'Only' (entered at the event id #2). {reason}"
    )
    error = "States.QueryEvaluationError"
    assert run.outcome == ("FAILED", [error, cause])
    (shown,) = run.shown("EvaluationFailed")
    details = {"error": error, "cause": cause, "location": location, "state": "Only"}
    assert shown["evaluationFailedEventDetails"] == details


def test_a_map_without_items_takes_its_input_which_must_be_an_array() -> None:
    run = run_of(input={"a": 1}, Only=ending("Map", ItemProcessor=definition(In=DONE)))
    assert str(run.execution.cause).endswith('Map state input must be an array but was: {"a":1}')
    (shown,) = run.shown("EvaluationFailed")
    details = shown["evaluationFailedEventDetails"]
    assert isinstance(details, dict)
    assert sorted(details) == ["cause", "error", "state"]


def test_a_retry_of_what_could_not_be_evaluated_is_linked_to_the_try_before() -> None:
    retry: Json = [{"ErrorEquals": ["States.QueryEvaluationError"], "MaxAttempts": 1}]
    run = run_of(Only=task(Arguments="{% $gone %}", Retry=retry))
    run.wake()
    assert run.links == [
        (1, 0, "ExecutionStarted"),
        (2, 0, "TaskStateEntered"),
        (3, 0, "EvaluationFailed"),
        (4, 3, "EvaluationFailed"),
        (5, 4, "ExecutionFailed"),
    ]


def test_a_try_that_left_no_event_is_retried_in_a_later_step() -> None:
    """The second try fails otherwise than the first, in a step that has not seen the entry."""
    half = "x" * 140_000
    state = task(
        Arguments="{% $states.context.State.RetryCount = 0 ? [$v, $v] : $gone %}",
        Retry=[{"ErrorEquals": ["States.DataLimitExceeded"], "MaxAttempts": 1}],
    )
    run = run_of(Set=going("Pass", "Only", Assign={"v": half}), Only=state)
    run.feed(TimerFired(), after=2)
    assert run.links[3:] == [
        (4, 3, "TaskStateEntered"),
        (5, 4, "EvaluationFailed"),
        (6, 5, "ExecutionFailed"),
    ]


def test_the_context_is_seen_whole_and_in_parts() -> None:
    output: Json = {
        "name": "{% $states.context.Execution.Name %}",
        "keys": "{% $keys($states) %}",
        "same": "{% ($s := $states; $s.context.State.Name) %}",
    }
    assert run_of(Only=ending("Pass", Output=output)).outcome == (
        "SUCCEEDED",
        {"name": "o-1", "keys": ["input", "context"], "same": "Only"},
    )


def test_errors_of_expressions_match_states_all_and_states_task_failed() -> None:
    for name in ("States.ALL", "States.TaskFailed", "States.QueryEvaluationError"):
        catch: Json = [
            {"ErrorEquals": [name], "Output": "{% $states.errorOutput.Error %}", "Next": "Done"}
        ]
        run = run_of(
            Only=going("Task", "Done", Resource=INVOKE, Arguments="{% $gone %}", Catch=catch),
            Done=DONE,
        )
        assert run.outcome == ("SUCCEEDED", "States.QueryEvaluationError")


@pytest.mark.parametrize(
    ("credentials", "role"),
    [({"RoleArn": "arn:role"}, "arn:role"), ({"RoleArn.$": "$.role"}, "arn:chosen")],
)
def test_the_role_of_a_task_is_told_in_jsonpath_as_well(credentials: Json, role: str) -> None:
    text = json.dumps(definition(Only=task(Credentials=credentials)))
    run = Run(compile_definition(text), {"role": "arn:chosen"})
    run.feed(Started())
    (shown,) = run.shown("LambdaFunctionScheduled")
    details = shown["lambdaFunctionScheduledEventDetails"]
    assert isinstance(details, dict)
    assert details["taskCredentials"] == {"roleArn": role}


def test_a_role_that_is_no_string_fails_the_state() -> None:
    computed = run_of(Only=task(Credentials={"RoleArn": "{% 5 %}"}))
    assert computed.shown("EvaluationFailed")[0]["evaluationFailedEventDetails"] == {
        "error": "States.QueryEvaluationError",
        "cause": "An error occurred while executing the state 'Only' (entered at the event id #2). "
        "The JSONata expression '5' specified for the field 'Credentials/RoleArn' returned an "
        "unexpected result type. Expected 'string', but was 'number' for value: 5",
        "location": "Credentials/RoleArn",
        "state": "Only",
    }
    text = json.dumps(definition(Only=task(Credentials={"RoleArn.$": "$.role"})))
    found = Run(compile_definition(text), {"role": 5})
    found.feed(Started())
    assert found.outcome[0] == "FAILED"
    assert found.links[2:] == [(3, 2, "ExecutionFailed")]


RESULT_MISSING = "$states.result is not available in this field"
ERROR_MISSING = "$states.errorOutput is not available in this field"


@pytest.mark.parametrize(
    ("state", "place", "message"),
    [
        ({"Type": "Pass", "Output": "{% $states.result %}"}, "/Output", RESULT_MISSING),
        ({"Type": "Pass", "Assign": {"x": "{% $states.result.a %}"}}, "/Assign/x", RESULT_MISSING),
        (
            {"Type": "Pass", "Output": ["{% 1 + $states.result.a[0] %}"]},
            "/Output/0",
            RESULT_MISSING,
        ),
        ({"Type": "Succeed", "Output": "{% $states.errorOutput %}"}, "/Output", ERROR_MISSING),
        ({"Type": "Wait", "Seconds": "{% $states.result.n %}"}, "/Seconds", RESULT_MISSING),
        ({"Type": "Fail", "Cause": "{% $states.errorOutput.Cause %}"}, "/Cause", ERROR_MISSING),
        (task(Arguments="{% $states.result %}"), "/Arguments", RESULT_MISSING),
        (task(Output="{% $states.errorOutput %}"), "/Output", ERROR_MISSING),
        (
            task(
                Catch=[
                    {
                        "ErrorEquals": ["E"],
                        "Output": "{% $states.result %}",
                        "Next": "Only",
                    }
                ]
            ),
            "/Catch/0/Output",
            RESULT_MISSING,
        ),
    ],
)
def test_what_states_does_not_have_in_a_field_is_refused(
    state: State, place: str, message: str
) -> None:
    whole = state if state["Type"] in ("Succeed", "Fail") else state | {"End": True}
    assert problems(jsonata(Only=whole)) == [
        ("INVALID_JSONATA_EXPRESSION", f"/States/Only{place}", message)
    ]


@pytest.mark.parametrize(
    "state",
    [
        task(Output="{% $states.result.a %}", Assign={"x": "{% [$states.result] %}"}),
        task(
            Catch=[
                {
                    "ErrorEquals": ["E"],
                    "Output": "{% $states.errorOutput.Cause %}",
                    "Assign": {"x": "{% $states.errorOutput %}"},
                    "Next": "Only",
                }
            ]
        ),
        {"Type": "Pass", "Output": "{% ($states := {'result': 1}; $states.result) %}"},
        {"Type": "Pass", "Output": "{% $states.input.result %}"},
    ],
)
def test_what_states_has_in_a_field_is_taken(state: State) -> None:
    assert problems(jsonata(Only=state | {"End": True})) == []
