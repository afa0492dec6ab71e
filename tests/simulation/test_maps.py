"""Distributed Maps are played in virtual time, their children as if side by side."""

from __future__ import annotations

import json
from typing import Any

from service.asl import compile_definition
from service.simulation.run import names_of
from tests.simulation.plays import came, function, played


def each(state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a definition of one Distributed Map whose children are one state."""
    processor = {
        "StartAt": "Item",
        "States": {"Item": {**state, "End": True}},
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
    }
    only = {"Type": "Map", "ItemProcessor": processor, "Label": "l", "End": True, **fields}
    return {"StartAt": "Each", "States": {"Each": only}}


WAIT = {"Type": "Wait", "Seconds": 10}
TASK = {"Type": "Task", "Resource": function("f")}
READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket": "b", "Key": "k"},
}


def test_children_go_on_at_once_and_the_path_shows_the_map_alone() -> None:
    one = played(each(WAIT), input=[1, 2, 3])
    assert came(one) == ("SUCCEEDED", [1, 2, 3], 10)
    assert one.path == ["Each"]


def test_children_wait_for_each_other_as_max_concurrency_says() -> None:
    assert came(played(each(WAIT, MaxConcurrency=2), input=[1, 2, 3]))[2] == 20


def test_answers_are_given_to_the_children_in_order() -> None:
    answers = [{"output": "a", "seconds": 5}, {"output": "b"}]
    one = played(each(TASK), input=[1, 2, 3], results={"f": answers})
    assert came(one) == ("SUCCEEDED", ["a", "b", "b"], 5)


def test_a_child_that_fails_fails_the_run_at_that_moment() -> None:
    answers = [{"output": 1, "seconds": 9}, {"error": "No", "seconds": 4}]
    one = played(each(TASK), input=[1, 2], results={"f": answers})
    assert came(one) == ("FAILED", "States.ExceedToleratedFailureThreshold", 4)
    tolerant = played(each(TASK, ToleratedFailureCount=1), input=[1, 2], results={"f": answers})
    assert came(tolerant) == ("SUCCEEDED", [1], 9)


def test_items_that_are_read_are_told_by_the_case() -> None:
    definition = each({"Type": "Pass"}, ItemReader=READER)
    assert came(played(definition, results={"Each": [{"output": [7]}]})) == ("SUCCEEDED", [7], 0)
    assert played(definition).problem == (
        "state 'Each' reads its items, and nothing tells which: add results for 'Each', "
        "whose output is an array"
    )
    odd = played(definition, results={"Each": [{"output": 7}]})
    assert odd.problem == "the items told for the state 'Each' are no array"


def test_reading_may_take_its_time_or_fail() -> None:
    definition = each(WAIT, ItemReader=READER)
    slow = played(definition, results={"Each": [{"output": [7], "seconds": 5}]})
    assert came(slow) == ("SUCCEEDED", [7], 15)
    broken = [{"error": "States.ItemReaderFailed", "cause": "torn", "seconds": 2}]
    one = played(definition, results={"Each": broken})
    assert came(one) == ("FAILED", "States.ItemReaderFailed", 2)


def test_results_can_be_told_for_maps_that_read_their_items_and_for_no_others() -> None:
    reading = compile_definition(json.dumps(each({"Type": "Pass"}, ItemReader=READER)))
    assert names_of(reading, []) == {"Each"}
    assert names_of(compile_definition(json.dumps(each({"Type": "Pass"}))), []) == set()


def test_where_results_would_go_is_made_up() -> None:
    writer = {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": {"Bucket": "b", "Prefix": "p"},
    }
    run = "00000000-0000-7000-8000-000000000000"
    assert came(played(each({"Type": "Pass"}, ResultWriter=writer), input=[1]))[1] == {
        "MapRunArn": f"arn:aws:states:us-east-1:000000000000:mapRun:simulated/l:{run}",
        "ResultWriterDetails": {"Bucket": "b", "Key": f"p/{run}/manifest.json"},
    }
    flat = {"WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSON"}}
    assert came(played(each({"Type": "Pass"}, ResultWriter=flat), input=[[1], 2]))[1] == [1, 2]


def test_a_child_that_cannot_be_played_is_the_problem_of_the_case() -> None:
    problem = played(each(TASK), input=[1]).problem
    assert problem is not None
    assert problem.startswith("state 'Item' calls the function 'f'")


def test_maps_within_children_are_played_as_well() -> None:
    inner = each({"Type": "Pass"}, Label="inner")["States"]["Each"]
    inner["ItemProcessor"] = {
        **inner["ItemProcessor"],
        "StartAt": "Innermost",
        "States": {"Innermost": {"Type": "Wait", "Seconds": 3, "End": True}},
    }
    assert came(played(each(inner), input=[[1, 2], [3]])) == ("SUCCEEDED", [[1, 2], [3]], 3)
