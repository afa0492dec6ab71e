"""Executions as wholes: how they begin, go on, end, and what they do not react to."""

from __future__ import annotations

import copy
import json
from datetime import timedelta

import pytest

from service.asl import (
    HISTORY_EVENTS_MAX,
    WHOLE_SHARE,
    Execution,
    Poisoned,
    RunTask,
    SetTimer,
    Signalled,
    Started,
    StateMachine,
    Status,
    Stopped,
    TaskFailed,
    TaskHeartbeat,
    TaskSucceeded,
    TimerFired,
    compile_definition,
)
from service.asl.checkpoint import to_checkpoint
from service.asl.interpreter import HISTORY_CAUSE
from tests.asl.builders import NOON, Run, at, definition, ending, function, going, machine, task

FLOW = machine(
    Send=going("Task", "Rest", Resource=function("send"), ResultPath="$.sent"),
    Rest=going("Wait", "Decide", Seconds=1800),
    Decide={
        "Type": "Choice",
        "Choices": [{"Variable": "$.sent.ok", "BooleanEquals": True, "Next": "Done"}],
        "Default": "Lost",
    },
    Done={"Type": "Succeed"},
    Lost={"Type": "Fail", "Error": "Lost", "Cause": "nobody knows where"},
)


def resting(timeout_seconds: int) -> StateMachine:
    states = definition(Rest=ending("Wait", Seconds=60))
    return compile_definition(json.dumps(states | {"TimeoutSeconds": timeout_seconds}))


def test_states_that_wait_for_nothing_are_passed_in_one_step() -> None:
    run = Run(machine(A=going("Pass", "B"), B=going("Pass", "C"), C=ending("Pass")), {"n": 1})
    assert run.feed(Started()) == []
    assert run.outcome == ("SUCCEEDED", {"n": 1})
    assert run.links == [
        (1, 0, "ExecutionStarted"),
        (2, 0, "PassStateEntered"),
        (3, 2, "PassStateExited"),
        (4, 3, "PassStateEntered"),
        (5, 4, "PassStateExited"),
        (6, 5, "PassStateEntered"),
        (7, 6, "PassStateExited"),
        (8, 7, "ExecutionSucceeded"),
    ]


def test_a_flow_stops_wherever_it_must_wait_and_goes_on_with_the_event() -> None:
    run = Run(FLOW, {"id": 7})
    command = RunTask(3, 2, "Send", function("send"), {"id": 7})
    assert run.feed(Started()) == [command]
    assert (run.execution.open_tasks, run.execution.due_at) == ((command,), None)
    assert run.succeed({"ok": True}) == [SetTimer(at(1800))]
    assert (run.execution.open_tasks, run.execution.due_at) == ((), at(1800))
    assert run.feed(TimerFired(), after=1800) == []
    assert run.outcome == ("SUCCEEDED", {"id": 7, "sent": {"ok": True}})


def test_a_fail_state_gives_the_execution_its_error_and_cause() -> None:
    run = Run(FLOW)
    run.feed(Started())
    run.succeed({"ok": False})
    run.wake()
    assert run.outcome == ("FAILED", ["Lost", "nobody knows where"])
    assert run.links[-2:] == [(11, 10, "FailStateEntered"), (12, 11, "ExecutionFailed")]


@pytest.mark.parametrize(
    "event",
    [
        Started(),
        TimerFired(),
        TaskSucceeded(99, {}),
        TaskFailed(99, "Late"),
        TaskHeartbeat(99),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_that_names_nothing_open_changes_nothing(event: TaskSucceeded) -> None:
    run = Run(FLOW)
    run.feed(Started())
    before, noted = run.execution, list(run.history)
    assert run.feed(event) == []
    assert run.execution is before
    assert run.history == noted


@pytest.mark.parametrize(
    "event",
    [
        Started(),
        TaskSucceeded(3, {}),
        TaskFailed(3, "Late"),
        TaskHeartbeat(3),
        TimerFired(),
        Signalled(),
        Stopped("Late"),
        Poisoned("Late"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_ended_execution_ignores_every_event(event: Stopped) -> None:
    run = Run(machine(Only=task()))
    run.feed(Started())
    run.succeed("done")
    before = run.execution
    assert run.feed(event, after=1e6) == []
    assert run.execution is before


def test_an_answer_given_twice_counts_once() -> None:
    run = Run(FLOW)
    run.feed(Started())
    first = run.open_task.id
    run.succeed({"ok": True})
    noted = list(run.history)
    assert run.feed(TaskSucceeded(first, {"ok": False})) == []
    assert run.history == noted


def test_stopping_aborts_with_the_given_error() -> None:
    run = Run(FLOW)
    run.feed(Started())
    assert run.feed(Stopped("Recall", "wrong price")) == []
    assert run.outcome == ("ABORTED", ["Recall", "wrong price"])
    assert run.execution.open_tasks == ()
    assert run.execution.due_at is None
    assert run.links[-1] == (5, 0, "ExecutionAborted")
    (event,) = run.shown("ExecutionAborted")
    assert event["executionAbortedEventDetails"] == {"error": "Recall", "cause": "wrong price"}


def test_a_poisoned_execution_fails_with_the_given_error() -> None:
    run = Run(FLOW)
    run.feed(Started())
    run.feed(Poisoned("Worker.Died", "3 times"))
    assert run.outcome == ("FAILED", ["Worker.Died", "3 times"])


def test_error_and_cause_are_cut_to_what_the_service_keeps() -> None:
    run = Run(machine(Only=task()))
    run.feed(Started())
    run.fail("E" * 300, "c" * 40_000)
    assert run.outcome == ("FAILED", ["E" * 256, "c" * 32_768])


def test_the_machines_timeout_ends_the_execution() -> None:
    run = Run(resting(timeout_seconds=5))
    assert run.feed(Started()) == [SetTimer(at(60))]
    assert run.execution.due_at == at(5)
    assert run.feed(TimerFired(), after=4.999) == []
    assert run.execution.status is Status.RUNNING
    run.feed(TimerFired(), after=0.001)
    assert run.outcome == ("TIMED_OUT", [None, None])
    assert run.types[-1] == "ExecutionTimedOut"


def test_a_late_timer_lets_things_happen_in_the_order_in_which_they_were_due() -> None:
    run = Run(resting(timeout_seconds=61))
    run.feed(Started())
    run.feed(TimerFired(), after=3600)
    assert run.outcome == ("SUCCEEDED", {})


def test_the_history_limit_ends_an_endless_loop() -> None:
    run = Run(
        machine(
            Spin=going("Pass", "Again"),
            Again={
                "Type": "Choice",
                "Choices": [{"Variable": "$.stop", "IsPresent": True, "Next": "End"}],
                "Default": "Spin",
            },
            End={"Type": "Succeed"},
        ),
        share=WHOLE_SHARE,
    )
    run.feed(Started())
    assert run.outcome == ("FAILED", ["States.Runtime", HISTORY_CAUSE])
    assert [event.id for event in run.history] == list(range(1, HISTORY_EVENTS_MAX + 1))
    assert run.types[-1] == "ExecutionFailed"


def test_an_output_over_the_payload_limit_fails_the_state() -> None:
    run = Run(machine(Grow=ending("Pass", Parameters={"a.$": "$", "b.$": "$"})), "x" * 140_000)
    run.feed(Started())
    assert run.outcome == (
        "FAILED",
        [
            "States.DataLimitExceeded",
            "The state/task 'Grow' returned a result with a size exceeding "
            "the maximum number of bytes service limit.",
        ],
    )


def test_an_execution_given_to_advance_stays_as_it_was() -> None:
    run = Run(FLOW, {"id": 7})
    run.feed(Started())
    before = run.execution
    written = copy.deepcopy(to_checkpoint(before))
    run.succeed({"ok": True})
    assert to_checkpoint(before) == written


def test_a_new_execution_has_nothing_open() -> None:
    execution = Execution.new(Run(FLOW).execution.about)
    assert (execution.status, execution.due_at, execution.open_tasks) == (Status.RUNNING, None, ())
    assert (execution.is_signalled, execution.last_event_id) == (False, 0)


def test_time_scale_leaves_the_machines_timeout_alone() -> None:
    run = Run(resting(timeout_seconds=5), time_scale=0.01)
    assert run.feed(Started()) == [SetTimer(NOON + timedelta(seconds=0.6))]
    assert run.execution.times_out_at == at(5)
