"""Definitions: what compiles, and how everything that does not is told at once, with its place."""

from __future__ import annotations

import hashlib
import json
from typing import cast

import pytest

from service.asl import InvalidDefinition, Json, Problem, TextProblem, compile_definition
from service.asl.parser import NESTING_DEPTH_MAX
from service.asl.states.base import STATE_NAME_CHARACTERS_MAX
from tests.asl.builders import State, definition, ending, function, problems, task

ONE_OF = "There should only be one of the following fields"
SCHEMA, TARGET, END = (
    "SCHEMA_VALIDATION_FAILED",
    "MISSING_TRANSITION_TARGET",
    "MISSING_END_STATE",
)
DONE: State = {"Type": "Succeed"}


def only(**fields: Json) -> dict[str, Json]:
    return definition(Only=cast(State, fields))


def test_a_definition_compiles_with_its_hash_and_comment() -> None:
    text = json.dumps(definition(Only=DONE) | {"Comment": "c", "TimeoutSeconds": 9})
    compiled = compile_definition(text)
    assert (compiled.text, compiled.comment, compiled.timeout_seconds) == (text, "c", 9)
    assert compiled.sha256 == hashlib.sha256(text.encode()).digest()
    assert (compiled.start_at, list(compiled.states)) == ("Only", ["Only"])


def test_all_problems_are_told_at_once_in_the_order_of_their_places() -> None:
    text = """{
  "StartAt": "Nowhere",
  "States": {
    "A": {"Type": "Wait", "Next": "Gone"},
    "B": {
      "Type": "Pass",
      "InputPath": "$.[",
      "Colour": "red"
    }
  }
}"""
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    found = [(p.code, p.pointer, p.line, p.column) for p in caught.value.problems]
    assert found == [
        (TARGET, "/StartAt", 2, 14),
        (SCHEMA, "/States/A", 4, 10),
        (TARGET, "/States/A", 4, 10),
        (TARGET, "/States/A/Next", 4, 35),
        (SCHEMA, "/States/B", 5, 10),
        (TARGET, "/States/B", 5, 10),
        (SCHEMA, "/States/B/InputPath", 7, 20),
        (SCHEMA, "/States/B", 8, 17),
    ]


def test_text_that_is_no_json_is_told_with_its_place() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition('{"StartAt": "A",\n "States": }')
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("INVALID_JSON_DESCRIPTION", 2, 12)


def test_json_that_is_no_object_is_told() -> None:
    assert problems([]) == [(SCHEMA, "", "Definition must be a valid JSON object")]


def test_the_exception_reads_as_one_line() -> None:
    error = InvalidDefinition([Problem("C", "no good", "/a", 1, 2), Problem("C", "bad", "", 1, 1)])
    assert str(error) == "no good (at /a); bad (at /)"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, [(SCHEMA, "", "These fields are required: [States, StartAt]")]),
        (
            definition(A=DONE) | {"Extra": 1},
            [(SCHEMA, "", "Field 'Extra' is not supported")],
        ),
        ({"StartAt": "A", "States": {}}, [(SCHEMA, "/States", "Value cannot be empty")]),
        (
            {"StartAt": "A", "States": {"A": 3}},
            [(SCHEMA, "/States/A", "Expected a value of type Object but was Integer 3")],
        ),
        (only(), [(SCHEMA, "/States/Only", "These fields are required: [Type]")]),
        (
            only(Type="Jump"),
            [
                (
                    SCHEMA,
                    "/States/Only/Type",
                    "'Jump' is none of [Choice, Fail, Map, Parallel, Pass, Succeed, Task, Wait]",
                )
            ],
        ),
        (
            only(Type="Pass"),
            [(SCHEMA, "/States/Only", "One of these fields is required: [Next, End]")],
        ),
        (
            only(Type="Pass", End=True, Next="Only"),
            [
                (
                    SCHEMA,
                    "/States/Only",
                    f"{ONE_OF}: [Next, End]",
                ),
                (END, "/States", "Workflow has no terminal state"),
            ],
        ),
        (
            only(Type="Pass", End=False),
            [(SCHEMA, "/States/Only/End", "The value of 'End' can only be true")],
        ),
        (
            only(Type="Succeed", End=True),
            [(SCHEMA, "/States/Only", "Field 'End' is not supported")],
        ),
        (
            only(Type="Fail", InputPath="$"),
            [(SCHEMA, "/States/Only", "Field 'InputPath' is not supported")],
        ),
        (
            only(Type="Fail", Error="E", ErrorPath="$.e"),
            [
                (
                    SCHEMA,
                    "/States/Only",
                    f"{ONE_OF}: [Error, ErrorPath]",
                )
            ],
        ),
        (
            only(Type="Pass", End=True, Comment=5),
            [(SCHEMA, "/States/Only/Comment", "Expected a value of type String but was Integer 5")],
        ),
        (
            definition(A=ending("Pass"), B=DONE),
            [(TARGET, "/States/B", 'State "B" is not reachable.')],
        ),
        (
            definition(A={"Type": "Pass", "Next": "A"}),
            [(END, "/States", "Workflow has no terminal state")],
        ),
        (
            definition(A=task(Catch=[{"ErrorEquals": ["E"], "Next": "Gone"}])),
            [(TARGET, "/States/A/Catch/0/Next", "Missing 'Next' target: Gone")],
        ),
    ],
)
def test_structure_is_checked(value: Json, expected: list[tuple[str, str, str]]) -> None:
    assert sorted(problems(value)) == sorted(expected)


def test_a_parallel_needs_branches() -> None:
    assert problems(only(Type="Parallel", End=True, Branches=[])) == [
        (SCHEMA, "/States/Only/Branches", "Value cannot be empty")
    ]
    assert problems(only(Type="Parallel", End=True)) == [
        (SCHEMA, "/States/Only", "These fields are required: [Branches]")
    ]


def test_state_names_are_unique_in_the_whole_definition() -> None:
    branch = definition(Only=DONE)
    assert problems(only(Type="Parallel", End=True, Branches=[branch])) == [
        (
            "DUPLICATE_STATE_NAME",
            "/States/Only/Branches/0/States/Only",
            "Duplicate state name: 'Only'",
        )
    ]


def test_a_state_name_has_a_limit() -> None:
    assert problems(definition(**{"n" * STATE_NAME_CHARACTERS_MAX: DONE})) == []
    ((code, _, message),) = problems(definition(**{"n" * 81: DONE}))
    assert (code, message) == (SCHEMA, "81 characters of a state's name are over the limit of 80")


def test_a_bad_template_is_told_as_its_field_and_placed_at_the_very_member() -> None:
    text = """{"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": true, "Parameters": {
  "good.$": "$.a",
  "deep": [{"bad.$": 5}],
  "worse.$": "States.Nope()"
}}}}"""
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    rule = "must be a valid JSONPath or a valid intrinsic function call"
    at = "/States/Only/Parameters"
    why = "there is no function States.Nope (at character 1 of the call)"
    assert list(caught.value.problems) == [
        TextProblem(
            SCHEMA, f"The value for the field 'bad.$' {rule}", at, 3, 22, at, "it is no string"
        ),
        TextProblem(SCHEMA, f"The value for the field 'worse.$' {rule}", at, 4, 14, at, why),
    ]
    assert str(caught.value).endswith(f"'worse.$' {rule}: {why} (at {at})")


def test_places_in_lists_are_written_as_the_service_writes_them() -> None:
    choices: Json = [{"Variable": "$.a", "IsNull": True, "Next": "Gone"}]
    text = json.dumps(only(Type="Choice", Choices=choices) | {"StartAt": "Only"})
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    told = [(p.location, p.message) for p in caught.value.problems if isinstance(p, TextProblem)]
    assert told == [
        ("/States/Only/Choices[0]/Next", "Missing 'Next' target: Gone"),
        (None, "Workflow has no terminal state"),
    ]


@pytest.mark.parametrize("text", ["", " \n"])
def test_blank_text_is_no_definition(text: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        compile_definition(text)
    message = "Definition must be a valid JSON object"
    assert caught.value.problems == (TextProblem(SCHEMA, message, "", 1, 1, None, ""),)


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> dict[str, Json]:
        inner = definition(**{f"S{depth}": DONE})
        for level in range(depth - 1, 0, -1):
            inner = definition(
                **{f"S{level}": {"Type": "Map", "ItemProcessor": inner, "End": True}}
            )
        return inner

    assert problems(nested(NESTING_DEPTH_MAX)) == []
    ((code, _, message),) = problems(nested(NESTING_DEPTH_MAX + 1))
    assert (code, message) == (SCHEMA, "Map and Parallel states are nested deeper than 20")


def test_a_function_may_be_named_in_any_partition() -> None:
    arn = function("send").replace("arn:aws:", "arn:aws-cn:")
    assert problems(definition(Only=task(Resource=arn))) == []
