"""Checkpoints: written and read back, an execution is the same one."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from service.asl import Execution, Json, Signalled, Started, TaskHeartbeat
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from tests.asl.builders import NOON, Run, definition, ending, going, machine, task

FLOW = machine(
    All={
        "Type": "Parallel",
        "Next": "Last",
        "Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 3}],
        "Branches": [
            definition(A=task(TimeoutSeconds=90, HeartbeatSeconds=10)),
            definition(B=ending("Wait", Timestamp="2026-01-02T12:00:00.123456789Z")),
            definition(
                C={
                    "Type": "Map",
                    "ItemsPath": "$.items",
                    "ItemSelector": {"item.$": "$$.Map.Item.Value"},
                    "MaxConcurrency": 1,
                    "ToleratedFailureCount": 1,
                    "ItemProcessor": definition(
                        D=going("Pass", "E"), E=task(Retry=[{"ErrorEquals": ["E"]}])
                    ),
                    "End": True,
                }
            ),
        ],
    },
    Last=ending("Wait", Seconds=1),
)


def written_and_read(execution: Execution) -> Execution:
    return from_checkpoint(json.loads(json.dumps(to_checkpoint(execution))), execution.about)


def busy() -> Run:
    """Return a run with every kind of thing open."""
    run = Run(FLOW, {"items": [1, None, "é"], "big": 10**30})
    run.feed(Started())
    outer, _ = run.execution.open_tasks
    run.feed(TaskHeartbeat(outer.id), after=0.000_001)
    return run


def test_an_execution_reads_back_as_it_was_written() -> None:
    run = busy()
    assert written_and_read(run.execution) == run.execution


@pytest.mark.parametrize("stage", ["new", "signalled", "backoff", "succeeded", "failed"])
def test_every_stage_reads_back_as_it_was_written(stage: str) -> None:
    run = Run(machine(Only=task(Retry=[{"ErrorEquals": ["E"]}])))
    if stage != "new":
        run.feed(Started())
    match stage:
        case "signalled":
            run.feed(Signalled())
        case "backoff":
            run.fail("E")
        case "succeeded":
            run.succeed({"out": [1, 2]})
        case "failed":
            run.fail("F", "why")
    assert written_and_read(run.execution) == run.execution


def test_moments_are_written_to_the_microsecond() -> None:
    run = busy()
    restored = written_and_read(run.execution)
    assert restored.due_at == run.execution.due_at == NOON + timedelta(microseconds=123_456)


def test_a_checkpoint_is_small_and_holds_the_input_once() -> None:
    run = Run(machine(Only=task()), {"payload": "x" * 1_000})
    run.feed(Started())
    assert len(json.dumps(to_checkpoint(run.execution))) < 1_300


def test_a_checkpoint_of_an_ended_execution_holds_its_outcome_only() -> None:
    run = Run(machine(Only=task()))
    run.feed(Started())
    run.succeed("done")
    assert to_checkpoint(run.execution) == {"s": "SUCCEEDED", "e": 7, "o": "done", "n": 1}


@pytest.mark.parametrize(
    "checkpoint",
    [
        None,
        [],
        {},
        {"s": "NO", "e": 1},
        {"s": "RUNNING", "e": 1, "f": [{"i": 0}]},
        {"s": "RUNNING", "e": 1, "f": 3},
        {"s": "RUNNING", "e": 1, "d": 10**30},
    ],
)
def test_a_malformed_checkpoint_is_refused(checkpoint: Json) -> None:
    with pytest.raises(ValueError, match=r"checkpoint|Status"):
        from_checkpoint(checkpoint, Run(FLOW).execution.about)
