"""History events as they are stored and shown."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from service.asl import HistoryEvent, Json, Started, render
from service.asl.history import details_member, stored
from tests.asl.builders import NOON, Run, ending, machine


def test_payloads_are_shown_as_text_and_times_as_epoch_seconds() -> None:
    moment = NOON + timedelta(milliseconds=250)
    event = HistoryEvent(3, 2, moment, "PassStateExited", {"name": "A", "output": {"é": [1, "x"]}})
    assert render(event) == {
        "timestamp": 1767355200.25,
        "type": "PassStateExited",
        "id": 3,
        "previousEventId": 2,
        "stateExitedEventDetails": {
            "name": "A",
            "output": '{"é":[1,"x"]}',
            "outputDetails": {"truncated": False},
        },
    }


@pytest.mark.parametrize(
    ("type_", "member"),
    [
        ("ExecutionStarted", "executionStartedEventDetails"),
        ("TaskStateEntered", "stateEnteredEventDetails"),
        ("MapStateExited", "stateExitedEventDetails"),
        ("LambdaFunctionTimedOut", "lambdaFunctionTimedOutEventDetails"),
        ("MapIterationStarted", "mapIterationStartedEventDetails"),
    ],
)
def test_details_are_named_after_the_type(type_: str, member: str) -> None:
    assert details_member(type_) == member


def test_an_event_without_details_shows_none() -> None:
    assert set(render(HistoryEvent(4, 3, NOON, "LambdaFunctionStarted"))) == {
        "timestamp",
        "type",
        "id",
        "previousEventId",
    }


def test_events_read_back_as_they_were_written() -> None:
    run = Run(machine(Only=ending("Pass")), {"a": None})
    run.feed(Started())
    bare = HistoryEvent(9, 8, NOON + timedelta(microseconds=1), "MapStateSucceeded")
    events = [*run.history, bare]
    read = [HistoryEvent.from_json(event) for event in json.loads(json.dumps(stored(events)))]
    assert read == events


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        [1, 2, 3],
        ["1", 0, "2026-01-01", "T", None],
        [1, 0, 0, "T", None],
        [1, 0, "2026-01-01", "T", "d"],
    ],
)
def test_a_malformed_event_is_refused(value: Json) -> None:
    with pytest.raises(ValueError, match="malformed"):
        HistoryEvent.from_json(value)
