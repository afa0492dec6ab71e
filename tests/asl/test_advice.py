"""Advice: which paths and functions are told of because nothing evaluates them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.asl.parser import warnings_of
from tests.asl.builders import definition, ending, task

INNER = ending("Pass", Parameters={"a": "$.a"})
PROCESSOR = {"StartAt": "Inner", "States": {"Inner": INNER}}
RULE = {"Variable": "$.a", "StringEquals": "$.b", "Next": "Other"}


def told(state: dict[str, Any], **top: Any) -> list[tuple[str, str]]:
    """Return the codes and places of the advice on a definition with this state."""
    found = warnings_of(json.dumps({**definition(Only=state), **top}))
    return [(problem.code, problem.pointer.removeprefix("/States/Only")) for problem in found]


@pytest.mark.parametrize(
    ("state", "code", "place"),
    [
        (ending("Pass", Result={"a": ["$.a"]}), "PASS_RESULT_IS_STATIC", "/Result"),
        (ending("Pass", Result="States.UUID()"), "PASS_RESULT_IS_STATIC", "/Result"),
        (ending("Pass", Parameters={"a": "$.a"}), "NO_DOLLAR", "/Parameters/a"),
        (ending("Pass", Parameters={"a": {"b": "$$.State"}}), "NO_DOLLAR", "/Parameters/a/b"),
        (ending("Pass", Assign={"a": "States.Hash('a', 'MD5')"}), "NO_DOLLAR", "/Assign/a"),
        (task(ResultSelector={"a": "$['a']"}), "NO_DOLLAR", "/ResultSelector/a"),
        (task(Credentials={"RoleArn": "$.role"}), "NO_DOLLAR", "/Credentials/RoleArn"),
        (
            task(Catch=[{"ErrorEquals": ["E"], "Next": "Only", "Assign": {"a": "$.a"}}]),
            "NO_DOLLAR",
            "/Catch/0/Assign/a",
        ),
        (
            ending("Map", ItemProcessor=PROCESSOR),
            "NO_DOLLAR",
            "/ItemProcessor/States/Inner/Parameters/a",
        ),
        (
            ending("Parallel", Branches=[PROCESSOR]),
            "NO_DOLLAR",
            "/Branches/0/States/Inner/Parameters/a",
        ),
        (
            ending("Map", ItemBatcher={"MaxItemsPerBatch": 1, "BatchInput": {"a": "$.a"}}),
            "NO_DOLLAR",
            "/ItemBatcher/BatchInput/a",
        ),
        ({"Type": "Fail", "Cause": "$.cause"}, "NO_PATH", "/Cause"),
        ({"Type": "Choice", "Choices": [RULE]}, "NO_PATH", "/Choices/0/StringEquals"),
        (
            {"Type": "Choice", "Choices": [{"Not": RULE, "Next": "Other"}]},
            "NO_PATH",
            "/Choices/0/Not/StringEquals",
        ),
    ],
)
def test_a_path_or_function_that_nothing_evaluates_is_told_of(
    state: dict[str, Any], code: str, place: str
) -> None:
    assert told(state) == [(code, place)]


@pytest.mark.parametrize(
    "state",
    [
        ending("Pass", Parameters={"a.$": "$.a", "b": "$", "c": "$5.00", "d": "States.ALL"}),
        ending("Pass", Comment="$.a", InputPath="$.a", ResultPath="$.b", Result="costs $.5"),
        ending("Wait", SecondsPath="$.a"),
        {"Type": "Choice", "Choices": [{"Variable": "$.a", "StringEqualsPath": "$.b"}]},
        ending("Pass", QueryLanguage="JSONata", Output={"a": "$.a"}),
        task(Retry=[{"ErrorEquals": ["States.ALL"]}]),
    ],
)
def test_what_is_evaluated_or_is_no_path_is_not_told_of(state: dict[str, Any]) -> None:
    assert told(state) == []


def test_a_state_has_the_language_of_the_whole_unless_it_has_its_own() -> None:
    state = ending("Pass", Parameters={"a": "$.a"})
    assert told(state, QueryLanguage="JSONata") == []
    assert told({**state, "QueryLanguage": "JSONPath"}, QueryLanguage="JSONata") == [
        ("NO_DOLLAR", "/Parameters/a")
    ]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"States": []}', '{"States": {"A": [], "B": {"Branches": 7}}}'],
)
def test_of_what_is_no_definition_nothing_is_told(text: str) -> None:
    assert warnings_of(text) == []
