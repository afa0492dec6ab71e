"""Choice states: each of the 39 operators, the connectives, and what happens when nothing holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl import Json, Started
from service.asl.states.choice import OPERATORS, string_matches, wildcard_parts
from tests.asl.builders import Run, machine

EARLY, LATE = "2026-01-02T12:00:00Z", "2026-01-02T12:00:00.5Z"

# operator, literal, value that it holds for, value that it does not hold for
TABLE: list[tuple[str, Json, Json, Json]] = [
    ("StringEquals", "b", "b", "a"),
    ("StringLessThan", "b", "a", "b"),
    ("StringGreaterThan", "b", "c", "b"),
    ("StringLessThanEquals", "b", "b", "c"),
    ("StringGreaterThanEquals", "b", "b", "a"),
    ("NumericEquals", 2, 2.0, 3),
    ("NumericLessThan", 2, 1.5, 2),
    ("NumericGreaterThan", 2, 3, 2.0),
    ("NumericLessThanEquals", 2.5, 2, 3),
    ("NumericGreaterThanEquals", 2, 2, 1),
    ("BooleanEquals", True, True, False),
    ("BooleanEquals", False, False, True),
    ("TimestampEquals", EARLY, "2026-01-02T13:00:00.000+01:00", LATE),
    ("TimestampLessThan", LATE, EARLY, LATE),
    ("TimestampGreaterThan", EARLY, LATE, EARLY),
    ("TimestampLessThanEquals", EARLY, EARLY, LATE),
    ("TimestampGreaterThanEquals", LATE, LATE, EARLY),
]
OTHER_TYPES: list[Json] = [None, {}, [], ""]


def chosen(rule: dict[str, Json], input: Json) -> Json:
    """Return whether the rule holds, or the error and cause of the execution."""
    run = Run(
        machine(
            Only={"Type": "Choice", "Choices": [rule | {"Next": "Yes"}], "Default": "No"},
            Yes={"Type": "Pass", "Result": True, "End": True},
            No={"Type": "Pass", "Result": False, "End": True},
        ),
        input,
    )
    run.feed(Started())
    return run.outcome[1]


def test_there_are_39_operators() -> None:
    assert len(set(OPERATORS)) == 39


@pytest.mark.parametrize(("name", "literal", "good", "bad"), TABLE)
def test_a_comparison_holds_by_its_order(name: str, literal: Json, good: Json, bad: Json) -> None:
    rule: dict[str, Json] = {"Variable": "$.v", name: literal}
    assert chosen(rule, {"v": good}) is True
    assert chosen(rule, {"v": bad}) is False


@pytest.mark.parametrize(("name", "literal", "good", "bad"), TABLE)
def test_the_path_form_compares_with_another_value(
    name: str, literal: Json, good: Json, bad: Json
) -> None:
    rule: dict[str, Json] = {"Variable": "$.v", f"{name}Path": "$.other"}
    assert chosen(rule, {"v": good, "other": literal}) is True
    assert chosen(rule, {"v": bad, "other": literal}) is False


@pytest.mark.parametrize(("name", "literal", "good", "bad"), TABLE)
def test_values_of_another_type_never_compare(
    name: str, literal: Json, good: Json, bad: Json
) -> None:
    rule: dict[str, Json] = {"Variable": "$.v", name: literal}
    others = [v for v in OTHER_TYPES if not (name.startswith("StringLess") and v == "")]
    assert [chosen(rule, {"v": value}) for value in others] == [False] * len(others)


def test_a_boolean_is_no_number() -> None:
    assert chosen({"Variable": "$.v", "NumericEquals": 1}, {"v": True}) is False
    assert chosen({"Variable": "$.v", "BooleanEqualsPath": "$.w"}, {"v": True, "w": 1}) is False


def test_strings_are_ordered_by_utf_16_code_units() -> None:
    rule: dict[str, Json] = {"Variable": "$.v", "StringLessThan": "\uffee"}
    assert chosen(rule, {"v": "\U0001f600"}) is True  # D83D DE00 before FFEE


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("IsNull", None, 0),
        ("IsNumeric", 1.5, True),
        ("IsString", "", None),
        ("IsBoolean", False, 0),
        ("IsTimestamp", EARLY, "2026-01-02"),
    ],
)
@pytest.mark.parametrize("expected", [True, False])
def test_a_type_test_holds_by_the_type(name: str, good: Json, bad: Json, expected: bool) -> None:
    rule: dict[str, Json] = {"Variable": "$.v", name: expected}
    assert chosen(rule, {"v": good}) is expected
    assert chosen(rule, {"v": bad}) is not expected


@pytest.mark.parametrize("expected", [True, False])
def test_is_present_asks_whether_anything_is_there(expected: bool) -> None:
    rule: dict[str, Json] = {"Variable": "$.v", "IsPresent": expected}
    assert chosen(rule, {"v": None}) is expected
    assert chosen(rule, {}) is not expected


@pytest.mark.parametrize(
    "rule",
    [{"Variable": "$.v", "IsNull": True}, {"Variable": "$.there", "StringEqualsPath": "$.v"}],
)
def test_a_path_that_selects_nothing_is_an_error(rule: dict[str, Json]) -> None:
    assert chosen(rule, {"there": "x"}) == [
        "States.Runtime",
        "An error occurred while executing the state 'Only' (entered at the event id #2). "
        "Invalid path '$.v': The choice state's condition path references an invalid value.",
    ]


def test_connectives_look_no_further_than_they_must() -> None:
    yes: Json = {"Variable": "$.v", "NumericEquals": 1}
    no: Json = {"Variable": "$.v", "NumericEquals": 2}
    failing: Json = {"Variable": "$.missing", "NumericEquals": 2}
    assert chosen({"And": [yes, yes]}, {"v": 1}) is True
    assert chosen({"And": [no, failing]}, {"v": 1}) is False
    assert chosen({"Or": [yes, failing]}, {"v": 1}) is True
    assert chosen({"Or": [no, no]}, {"v": 1}) is False
    assert chosen({"Not": no}, {"v": 1}) is True
    assert chosen({"Not": {"And": [yes, {"Or": [no, {"Not": yes}]}]}}, {"v": 1}) is True


def test_the_first_rule_that_holds_decides() -> None:
    run = Run(
        machine(
            Only={
                "Type": "Choice",
                "InputPath": "$.in",
                "OutputPath": "$.v",
                "Choices": [
                    {"Variable": "$.v", "NumericGreaterThan": 9, "Next": "A"},
                    {"Variable": "$.v", "NumericGreaterThan": 5, "Next": "B"},
                    {"Variable": "$.v", "NumericGreaterThan": 1, "Next": "A"},
                ],
            },
            A={"Type": "Fail"},
            B={"Type": "Succeed"},
        ),
        {"in": {"v": 7}},
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", 7)


def test_without_default_a_choice_that_nothing_matches_fails() -> None:
    rule: Json = {"Variable": "$.v", "IsNull": True, "Next": "End"}
    run = Run(
        machine(Only={"Type": "Choice", "Choices": [rule]}, End={"Type": "Succeed"}), {"v": 1}
    )
    run.feed(Started())
    assert run.outcome == (
        "FAILED",
        [
            "States.NoChoiceMatched",
            "An error occurred while executing the state 'Only' (entered at the event id #2). "
            "Failed to transition out of the state. The state does not point to a next state.",
        ],
    )


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        ("*.log", "a.log", True),
        ("*.log", "a.log.gz", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        (r"\\*", "\\x", True),
    ],
)
def test_string_matches_knows_the_star(pattern: str, text: str, holds: bool) -> None:
    assert chosen({"Variable": "$", "StringMatches": pattern}, text) is holds


def test_string_matches_needs_a_string() -> None:
    assert chosen({"Variable": "$", "StringMatches": "*"}, 5) is False


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_string_matches_agrees_with_a_slow_and_simple_matcher(pattern: str, text: str) -> None:
    def simple(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return any(simple(p[1:], t[i:]) for i in range(len(t) + 1))
        return bool(t) and p[0] == t[0] and simple(p[1:], t[1:])

    assert string_matches(text, wildcard_parts(pattern)) is simple(pattern, text)
