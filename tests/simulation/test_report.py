"""What is told of a case: what was not as expected, and the visits of its states."""

from __future__ import annotations

from typing import Any

import pytest

from service.simulation import failures_of, render, run
from service.simulation.trace import visits_of
from tests.simulation.plays import chain, function, played


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ({"path": ["A"]}, 'path: expected ["A"]\n           got ["A","B"]'),
        ({"status": "SUCCEEDED"}, 'status: expected "SUCCEEDED"\n             got "FAILED"'),
        ({"output": {}}, "output: expected {}\n             got null"),
        ({"error": None}, 'error: expected null\n            got "E"'),
        ({"cause": "?"}, 'cause: expected "?"\n            got "C"'),
        ({"seconds": 60.5}, "seconds: expected 60.5\n              got 60"),
        ({"seconds": [61, 70]}, "seconds: expected [61, 70]\n              got 60"),
    ],
)
def test_what_is_not_as_expected_is_told_with_what_came(expect: dict[str, Any], told: str) -> None:
    definition = chain(
        A={"Type": "Wait", "Seconds": 60}, B={"Type": "Fail", "Error": "E", "Cause": "C"}
    )
    assert failures_of(played(definition, expect=expect)) == [told]
    good = {"path": ["A", "B"], "status": "FAILED", "error": "E", "cause": "C", "seconds": [0, 60]}
    assert failures_of(played(definition, expect=good)) == []


def test_an_expected_output_is_compared_as_json() -> None:
    definition = chain(A={"Type": "Pass", "Result": {"n": 1, "is": True}})
    assert failures_of(played(definition, expect={"output": {"is": True, "n": 1.0}})) == []
    assert failures_of(played(definition, expect={"output": {"is": 1, "n": 1}})) != []


def test_a_visit_is_shown_with_what_it_made_of_its_input_and_how_its_tries_failed() -> None:
    retry = [{"ErrorEquals": ["E"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 9}]
    definition = chain(
        A={"Resource": function("f"), "Retry": retry, "ResultPath": "$.a"},
        B={"Type": "Pass", "Parameters": {"text": "x" * 30}},
        C={"Resource": function("f"), "TimeoutSeconds": 3},
    )
    results = {"f": [*[{"error": "E", "cause": "a\nb"}] * 5, {"output": 1}, {"seconds": 9.5}]}
    results["f"][-1]["output"] = 2
    assert render(played(definition, input={}, results=results)).splitlines() == [
        "ran  case: FAILED with States.Timeout after 00:00:08",
        '     00:00:00  A  {} → {"a":1}, 00:00:05 later',
        r"     00:00:00  A  failed: E: a\nb",
        r"     00:00:01  A  failed: E: a\nb",
        r"     00:00:02  A  failed: E: a\nb",
        r"     00:00:04  A  failed 2 times more, at last: E: a\nb",
        '     00:00:05  B  … → {"text":"xxxxxxxxxxxxxxxxxxx…"}',
        "     00:00:05  C  …",
        "     00:00:08  C  failed: States.Timeout",
    ]


def test_iterations_that_overlap_are_each_shown_with_their_own_output() -> None:
    task = {"Resource": function("f"), "ResultPath": "$.f"}
    inner = chain(Task=task, Wait={"Type": "Wait", "SecondsPath": "$.n"})
    definition = chain(Map={"Type": "Map", "ItemProcessor": inner})
    items = [{"n": 3}, {"n": 1}]
    one = played(definition, input=items, results={"f": [{"output": 1}, {"output": 2}]})
    outputs = [{"n": 3, "f": 1}, {"n": 1, "f": 2}]
    times = [(v.state, (v.left_at or run.START) - v.entered_at) for v in visits_of(one.events)]
    shown = [(v.state, v.input, v.output) for v in visits_of(one.events)]
    tasks = [("Task", item, output) for item, output in zip(items, outputs, strict=True)]
    waits = [("Wait", output, output) for output in outputs]
    assert sorted(shown, key=str) == sorted([("Map", items, outputs), *tasks, *waits], key=str)
    seconds = sorted((state, taken.total_seconds()) for state, taken in times)
    assert seconds == [("Map", 3), ("Task", 0), ("Task", 0), ("Wait", 1), ("Wait", 3)]


def test_the_variables_that_a_state_sets_are_shown() -> None:
    definition = chain(A={"Type": "Pass", "Assign": {"n": 1, "from.$": "$.x"}}, B={"Type": "Pass"})
    assert render(played(definition, input={"x": "y"})).splitlines()[1:] == [
        '     00:00:00  A  {"x":"y"} → the same, variables {"n":1,"from":"y"}',
        "     00:00:00  B  … → the same",
    ]


def test_what_is_long_is_shown_cut_short() -> None:
    visits = chain(**{f"S{n}": {"Type": "Pass"} for n in range(250)})
    value = {"a": [*range(20)], "b": {"c": {"d": {"e": {"f": 1}}}}, "g": "x" * 100}
    lines = render(played(visits, input=value)).splitlines()
    assert lines[-1].split("  ")[-1] == "(and 50 more)"
    assert len(lines) == 202
    assert lines[1].endswith(
        '  {"a":[0,1,2,3,4,5,6,7,"…"],"b":{"c":{"d":{"e":"…"}}},"g":"xxxxxxxxxxxxxxxxxxx…"}'
        " → the same"
    )


def test_a_fork_that_was_tried_again_is_one_visit_and_its_branches_are_several() -> None:
    branches = [chain(A={"Resource": function("f")}), chain(B={"Type": "Wait", "Seconds": 5})]
    retry = [{"ErrorEquals": ["E"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    fork = {"Type": "Parallel", "Branches": branches, "Retry": retry, "ResultPath": "$.p"}
    one = played(
        chain(Fork=fork), input={}, results={"f": [{"error": "E", "seconds": 2}, {"output": 1}]}
    )
    assert render(one).splitlines() == [
        "ran  case: SUCCEEDED after 00:00:08",
        '     00:00:00  Fork  {} → {"p":[1,{}]}, 00:00:08 later',
        "     00:00:00  A     {}",
        "     00:00:00  B     {}",
        "     00:00:02  A     failed: E",
        "     00:00:03  A     {} → 1",
        "     00:00:03  B     {} → the same, 00:00:05 later",
    ]
