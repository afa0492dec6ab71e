"""Redriving: from where an execution goes on that did not succeed, and what its history tells.

Source: Step Functions guide, "Restarting state machine executions with redrive", "Redriving Map
Runs".
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.asl import (
    HISTORY_EVENTS_MAX,
    Event,
    Json,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    Poisoned,
    Redriven,
    RunMap,
    RunTask,
    SetTimer,
    Signalled,
    Started,
    Stopped,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    compile_definition,
)
from service.asl.checkpoint import from_checkpoint, is_to_be_redriven, to_checkpoint
from service.asl.interpreter import MAP_RUN_REDRIVES_MAX
from service.asl.redrive import REDRIVABLE_EVENTS_MAX
from service.asl.values import PAYLOAD_BYTES_MAX
from tests.asl.builders import (
    NOON,
    Run,
    State,
    at,
    definition,
    ending,
    function,
    going,
    machine,
    task,
)

ARN = "arn:aws:states:eu-west-1:000000000000:mapRun:orders/each:run"


def started(input: Json = None, **states: State) -> Run:
    run = Run(machine(**states), input)
    run.feed(Started())
    return run


def answer(run: Run, name: str, event: type[TaskSucceeded | TaskFailed], told: Any) -> None:
    """Let the one open task of a function succeed with an output or fail with an error."""
    (command,) = (c for c in run.execution.open_tasks if c.resource == function(name))
    run.feed(event(command.id, told))


def opened(run: Run) -> list[str]:
    return sorted(command.resource.rpartition(":")[2] for command in run.execution.open_tasks)


def since(run: Run, events: int) -> list[tuple[int, int, str]]:
    return run.links[events:]


# ---------------------------------------------------------------- one state after another


def test_failed_task_is_scheduled_again_with_its_input_and_is_not_entered_again() -> None:
    run = started({"n": 1}, First=going("Pass", "Then", Result={"n": 2}), Then=task("then"))
    run.fail("E", "c")
    before = len(run.history)

    (command,) = run.redrive(after=60)

    assert isinstance(command, RunTask)
    assert (command.resource, command.parameters, command.entered_event_id) == (
        function("then"),
        {"n": 2},
        4,
    )
    assert since(run, before) == [
        (9, 8, "ExecutionRedriven"),
        (10, 9, "LambdaFunctionScheduled"),
        (11, 10, "LambdaFunctionStarted"),
    ]
    assert run.history[before].details == {"redriveCount": 1}
    assert run.history[before].timestamp == at(60)
    assert run.outcome == ("RUNNING", None)
    run.succeed("well")
    assert run.outcome == ("SUCCEEDED", "well")
    assert run.execution.remains == {}


def test_execution_is_redriven_as_often_as_it_fails() -> None:
    run = started(Do=task())
    for _ in range(3):
        run.fail("E")
        run.redrive()
    redriven = [e.details for e in run.history if e.type == "ExecutionRedriven"]
    assert redriven == [{"redriveCount": 1}, {"redriveCount": 2}, {"redriveCount": 3}]
    assert [event.id for event in run.history] == list(range(1, len(run.history) + 1))


def test_retries_begin_anew() -> None:
    retry: Json = [{"ErrorEquals": ["E"], "MaxAttempts": 1, "IntervalSeconds": 5}]
    run = started(Do=task(Retry=retry))
    run.fail("E")
    run.wake()
    assert run.open_task.attempt == 1
    run.fail("E")
    assert run.outcome[0] == "FAILED"
    (command,) = run.redrive()
    assert isinstance(command, RunTask)
    assert command.attempt == 0
    assert run.fail("E") == [SetTimer(at(10))]


def test_state_that_was_in_its_backoff_is_tried_at_once() -> None:
    run = started(Do=task(Retry=[{"ErrorEquals": ["E"], "IntervalSeconds": 500}]))
    run.fail("E")
    run.feed(Stopped())
    (command,) = run.redrive()
    assert isinstance(command, RunTask)


@pytest.mark.parametrize("event", [Stopped("S", "why"), Poisoned("P", "why")])
def test_task_that_was_open_when_the_execution_was_ended_is_scheduled_again(event: Event) -> None:
    run = started(Do=task(TimeoutSeconds=60))
    first = run.open_task
    run.feed(event)
    run.redrive(after=10)
    assert run.open_task.id != first.id
    assert run.execution.due_at == at(70)
    run.feed(TaskSucceeded(first.id, "late"))
    assert run.outcome == ("RUNNING", None)


def test_time_of_the_execution_begins_anew() -> None:
    text = json.dumps(definition(Do=task()) | {"TimeoutSeconds": 30})
    run = Run(compile_definition(text))
    run.feed(Started())
    run.wake()
    assert run.outcome == ("TIMED_OUT", [None, None])
    run.redrive(after=100)
    assert run.execution.due_at == at(160)
    run.wake()
    assert run.outcome[0] == "TIMED_OUT"


def test_wait_for_seconds_waits_for_all_of_them_again() -> None:
    run = started(Rest=ending("Wait", Seconds=30))
    run.feed(Stopped(), after=20)
    assert run.redrive(after=100) == [SetTimer(at(150))]


def test_wait_for_a_moment_that_has_passed_is_over() -> None:
    run = started(Rest=ending("Wait", Timestamp="2026-01-02T12:00:30Z"))
    run.feed(Stopped())
    run.redrive(after=60)
    run.wake()
    assert run.outcome == ("SUCCEEDED", {})
    assert run.now == at(60)


def test_signal_ends_the_wait_of_a_redriven_execution() -> None:
    run = started(Rest=ending("Wait", Seconds=30))
    run.feed(Stopped())
    run.feed(Signalled())
    run.redrive()
    assert run.outcome == ("RUNNING", None)
    run.feed(Signalled())
    assert run.outcome == ("SUCCEEDED", {})


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"Type": "Fail", "Error": "E", "Cause": "c"}, "E"),
        ({"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "Z"}]}, ""),
        (ending("Pass", Parameters={"a.$": "$.b"}), ""),
        (ending("Pass", QueryLanguage="JSONata", Output="{% $error('no') %}"), ""),
    ],
)
def test_state_that_fails_by_itself_is_tried_again_and_fails_again(
    state: State, error: str
) -> None:
    others: dict[str, State] = {"Z": {"Type": "Succeed"}} if "Choices" in state else {}
    run = started({"n": 2}, Here=state, **others)
    before, count = run.outcome, len(run.history)
    assert before[0] == "FAILED"
    run.redrive()
    assert run.outcome[0] == "FAILED"
    assert run.types[count] == "ExecutionRedriven"
    assert run.types[-1] == "ExecutionFailed"
    assert not any(type_.endswith("Entered") for type_ in run.types[count:])
    if error:
        assert run.outcome == before


def test_choice_is_made_again_by_the_new_count() -> None:
    choice: State = {
        "Type": "Choice",
        "Choices": [{"Variable": "$$.Execution.RedriveCount", "NumericEquals": 1, "Next": "Done"}],
    }
    run = started(Which=choice, Done={"Type": "Succeed"})
    assert run.outcome[0] == "FAILED"
    run.redrive()
    assert run.outcome == ("SUCCEEDED", {})


def test_context_object_tells_of_the_redrive() -> None:
    seen = {"count.$": "$$.Execution.RedriveCount", "time.$": "$$.Execution.RedriveTime"}
    run = started(
        Do=going("Task", "Tell", Resource=function("send")), Tell=ending("Pass", Parameters=seen)
    )
    run.fail("E")
    run.redrive(after=5)
    run.succeed()
    assert run.outcome == ("SUCCEEDED", {"count": 1, "time": "2026-01-02T12:00:05.000Z"})


def test_there_is_no_time_of_a_redrive_before_the_first() -> None:
    run = started(Tell=ending("Pass", Parameters={"time.$": "$$.Execution.RedriveTime"}))
    assert run.outcome[0] == "FAILED"


def test_variables_are_what_they_were() -> None:
    run = started(
        Set=going("Pass", "Do", Assign={"x": 1}),
        Do=going("Task", "Tell", Resource=function("send")),
        Tell=ending("Pass", Parameters={"x.$": "$x"}),
    )
    run.fail("E")
    run.redrive()
    run.succeed()
    assert run.outcome == ("SUCCEEDED", {"x": 1})


def test_state_whose_catcher_failed_is_tried_again() -> None:
    run = started(
        Do=task(
            QueryLanguage="JSONata",
            Catch=[{"ErrorEquals": ["E"], "Output": "{% $error('no') %}", "Next": "Z"}],
        ),
        Z={"Type": "Succeed"},
    )
    run.fail("E")
    assert run.outcome[0] == "FAILED"
    run.redrive()
    run.succeed(7)
    assert run.outcome == ("SUCCEEDED", 7)


def test_failure_that_was_caught_is_not_redriven() -> None:
    run = started(
        Both=going(
            "Parallel",
            "Unused",
            Branches=[definition(A=task("a")), definition(B=task("b"))],
            Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Mend"}],
        ),
        Mend=task("mend"),
        Unused={"Type": "Succeed"},
    )
    answer(run, "a", TaskFailed, "E")
    answer(run, "mend", TaskFailed, "F")
    run.redrive()
    assert opened(run) == ["mend"]


def test_execution_that_stopped_short_goes_on_with_what_it_had_not_tried() -> None:
    choice: State = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "Done"}],
        "Default": "Again",
    }
    run = started({"n": 2}, Again=going("Pass", "Which"), Which=choice, Done={"Type": "Succeed"})
    assert run.execution.halt is not None
    run.feed(Stopped())
    count = len(run.history)
    run.redrive()
    assert run.execution.halt is not None
    assert run.types[count : count + 2] == ["ExecutionRedriven", "ChoiceStateExited"]
    assert len({event.id for event in run.history}) == len(run.history)


# ---------------------------------------------------------------- Parallel


def parallel(**fields: Json) -> State:
    branches: Json = [
        definition(A=task("a")),
        definition(B=going("Task", "B2", Resource=function("b")), B2=task("b2")),
        definition(C=task("c")),
    ]
    return ending("Parallel", Branches=branches, **fields)


def test_only_branches_that_failed_or_were_given_up_run_again() -> None:
    run = started(Both=parallel())
    answer(run, "a", TaskSucceeded, "a1")
    answer(run, "b", TaskSucceeded, "b1")
    answer(run, "b2", TaskFailed, "E")
    assert run.outcome == ("FAILED", ["E", None])
    count = len(run.history)

    run.redrive()

    assert opened(run) == ["b2", "c"]
    assert run.types[count:] == [
        "ExecutionRedriven",
        "LambdaFunctionScheduled",
        "LambdaFunctionStarted",
        "LambdaFunctionScheduled",
        "LambdaFunctionStarted",
    ]
    answer(run, "c", TaskSucceeded, "c1")
    answer(run, "b2", TaskSucceeded, "b3")
    assert run.outcome == ("SUCCEEDED", ["a1", "b3", "c1"])
    assert run.types[-3:] == ["ParallelStateSucceeded", "ParallelStateExited", "ExecutionSucceeded"]


def test_branches_within_branches_keep_their_results() -> None:
    inner = ending("Parallel", Branches=[definition(X=task("x")), definition(Y=task("y"))])
    run = started(Outer=ending("Parallel", Branches=[definition(I=inner), definition(Z=task("z"))]))
    answer(run, "x", TaskSucceeded, 1)
    answer(run, "y", TaskFailed, "E")
    run.redrive()
    assert opened(run) == ["y", "z"]
    answer(run, "y", TaskFailed, "E")
    run.redrive()
    answer(run, "z", TaskSucceeded, 3)
    answer(run, "y", TaskSucceeded, 2)
    assert run.outcome == ("SUCCEEDED", [[1, 2], 3])


def test_parallel_that_is_retried_when_it_fails_is_redriven_by_its_last_try() -> None:
    run = started(Both=parallel(Retry=[{"ErrorEquals": ["E"], "MaxAttempts": 1}]))
    answer(run, "a", TaskSucceeded, "a1")
    answer(run, "b", TaskFailed, "E")
    run.wake()
    answer(run, "c", TaskSucceeded, "c2")
    answer(run, "b", TaskFailed, "E")
    assert run.outcome[0] == "FAILED"
    run.redrive()
    assert opened(run) == ["a", "b"]
    answer(run, "b", TaskFailed, "E")
    assert run.execution.due_at is not None  # its Retry begins anew as well


def test_results_that_cannot_be_used_are_kept_and_refused_again() -> None:
    run = started(Both=parallel(ResultSelector={"x.$": "$[7]"}))
    for name in ("a", "b", "b2", "c"):
        answer(run, name, TaskSucceeded, name)
    assert run.outcome[0] == "FAILED"
    count = len(run.history)
    run.redrive()
    assert run.outcome[0] == "FAILED"
    assert run.types[count : count + 2] == ["ExecutionRedriven", "ParallelStateSucceeded"]


def test_parallel_with_too_much_data_is_run_again_as_a_whole() -> None:
    run = started(Both=parallel())
    answer(run, "a", TaskSucceeded, "x" * (PAYLOAD_BYTES_MAX - 10))
    answer(run, "c", TaskSucceeded, "more than is left")
    assert run.execution.error == "States.DataLimitExceeded"
    run.redrive()
    assert opened(run) == ["a", "b", "c"]
    assert "ParallelStateStarted" in run.types[run.types.index("ExecutionRedriven") :]


def test_branch_with_too_much_data_leaves_the_others_their_results() -> None:
    run = started(Both=parallel())
    answer(run, "a", TaskSucceeded, "a1")
    answer(run, "c", TaskSucceeded, "x" * (PAYLOAD_BYTES_MAX + 1))
    assert run.outcome[0] == "FAILED"
    run.redrive()
    assert opened(run) == ["b", "c"]


def test_time_limit_of_an_execution_leaves_results_of_branches() -> None:
    text = json.dumps(definition(Both=parallel()) | {"TimeoutSeconds": 30})
    run = Run(compile_definition(text))
    run.feed(Started())
    answer(run, "a", TaskSucceeded, 1)
    run.wake()
    run.redrive()
    assert opened(run) == ["b", "c"]


# ---------------------------------------------------------------- Map


def mapped(items: list[Json], **fields: Json) -> Run:
    processor = definition(Item=task("each"))
    return started(items, Each=ending("Map", ItemProcessor=processor, **fields))


def item(run: Run, index: int, event: type[TaskSucceeded | TaskFailed], told: Any) -> None:
    """Let the iteration with this item succeed or fail."""
    (command,) = (c for c in run.execution.open_tasks if c.parameters == index)
    run.feed(event(command.id, told))


def items(run: Run) -> list[Json]:
    return [command.parameters for command in run.execution.open_tasks]


def test_only_iterations_that_failed_or_were_given_up_run_again() -> None:
    run = mapped([0, 1, 2, 3], MaxConcurrency=2)
    item(run, 0, TaskSucceeded, "a")
    item(run, 2, TaskFailed, "E")
    assert run.outcome == ("FAILED", ["E", None])
    run.redrive()
    assert items(run) == [1, 2]
    item(run, 1, TaskSucceeded, "b")
    assert items(run) == [2, 3]
    item(run, 3, TaskSucceeded, "d")
    item(run, 2, TaskSucceeded, "c")
    assert run.outcome == ("SUCCEEDED", ["a", "b", "c", "d"])
    started_ = [e.details for e in run.history if e.type == "MapIterationStarted"]
    assert started_ == [{"name": "Each", "index": n} for n in range(4)]


def test_iterations_whose_failure_was_tolerated_begin_anew_as_the_concurrency_allows() -> None:
    run = mapped([0, 1, 2, 3, 4], MaxConcurrency=1, ToleratedFailureCount=2)
    item(run, 0, TaskFailed, "E")
    item(run, 1, TaskSucceeded, "b")
    item(run, 2, TaskFailed, "E")
    item(run, 3, TaskFailed, "E")
    assert run.execution.error == "States.ExceedToleratedFailureThreshold"
    run.redrive()
    for n in (3, 0, 2, 4):
        assert items(run) == [n]
        item(run, n, TaskSucceeded, n)
    assert run.outcome == ("SUCCEEDED", [0, "b", 2, 3, 4])


def test_tolerance_begins_anew() -> None:
    run = mapped([0, 1, 2], ToleratedFailureCount=1)
    item(run, 0, TaskFailed, "E")
    item(run, 1, TaskFailed, "E")
    assert run.outcome[0] == "FAILED"
    run.redrive()
    item(run, 1, TaskFailed, "E")
    assert run.outcome[0] == "RUNNING"
    item(run, 2, TaskSucceeded, 2)
    item(run, 0, TaskSucceeded, 0)
    assert run.outcome == ("SUCCEEDED", [0, 2])


def test_iterations_are_left_to_a_second_redrive_with_those_that_wait_to_begin_anew() -> None:
    run = mapped([0, 1, 2], MaxConcurrency=1, ToleratedFailureCount=1)
    item(run, 0, TaskFailed, "E")
    item(run, 1, TaskFailed, "E")
    run.redrive()
    run.feed(Stopped())
    run.redrive()
    for n in (1, 0, 2):
        item(run, n, TaskSucceeded, n)
    assert run.outcome == ("SUCCEEDED", [0, 1, 2])


# ---------------------------------------------------------------- Distributed Map


def distributed(*, has_begun: bool = True) -> Run:
    processor = definition(Item=ending("Pass")) | {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    }
    run = started([1, 2], Each=ending("Map", ItemProcessor=processor, Label="each"))
    if has_begun:
        run.feed(MapRunBegan(only(run).id, ARN))
    return run


def only(run: Run) -> RunMap:
    (command,) = run.execution.open_maps
    return command


@pytest.mark.parametrize("end", ["failed", "stopped"])
def test_map_run_goes_on_as_the_same(end: str) -> None:
    run = distributed()
    before = only(run)
    if end == "failed":
        run.feed(MapRunFailed(before.id, "E", "c"))
    else:
        run.feed(Stopped())
    assert run.execution.open_maps == ()
    count = len(run.history)
    (command,) = run.redrive()
    assert command == before._replace(redrives=1)
    assert since(run, count) == [
        (count + 1, count, "ExecutionRedriven"),
        (count + 2, count + 1, "MapRunRedriven"),
    ]
    assert run.history[-1].details == {"mapRunArn": ARN, "redriveCount": 1}
    run.feed(MapRunSucceeded(only(run).id, ["a", "b"]))
    assert run.outcome == ("SUCCEEDED", ["a", "b"])


def test_map_run_that_never_began_is_begun() -> None:
    run = distributed(has_begun=False)
    first = only(run)
    run.feed(Stopped())
    run.redrive()
    assert only(run).id != first.id
    assert only(run).redrives == 0


def test_map_run_with_too_much_data_is_run_again_as_a_whole() -> None:
    run = distributed()
    first = only(run)
    run.feed(MapRunFailed(first.id, "States.DataLimitExceeded", None))
    run.redrive()
    assert (only(run).id != first.id, only(run).redrives) == (True, 0)


def test_map_run_is_redriven_a_thousand_times_at_most() -> None:
    run = distributed()
    for _ in range(MAP_RUN_REDRIVES_MAX):
        run.feed(MapRunFailed(only(run).id, "E"))
        run.redrive()
    run.feed(MapRunFailed(only(run).id, "E"))
    run.redrive()
    assert run.outcome == (
        "FAILED",
        ["States.Runtime", "The map run has been redriven 1000 times."],
    )


# ---------------------------------------------------------------- what is kept


def test_success_keeps_nothing() -> None:
    run = started(Do=ending("Pass"))
    assert (run.execution.frames, run.execution.remains) == ({}, {})


def test_ended_execution_waits_for_nothing() -> None:
    run = started(Both=parallel())
    run.feed(Stopped())
    execution = run.execution
    assert (execution.frames, execution.due_at, execution.open_tasks) == ({}, None, ())
    assert [frame.state for frame in execution.remains.values()] == ["Both", "A", "B", "C"]


@pytest.mark.parametrize(
    ("event", "is_redriven"),
    [(Started(), False), (TimerFired(), False), (Stopped(), False), (Redriven(), True)],
)
def test_ended_execution_hears_of_nothing_but_a_redrive(event: Event, is_redriven: bool) -> None:
    run = started(Do=task())
    run.fail("E")
    count = len(run.history)
    run.feed(event)
    assert (len(run.history) > count) is is_redriven


def test_checkpoint_of_one_that_has_ended_holds_all_that_a_redrive_needs() -> None:
    run = started(Both=parallel())
    answer(run, "b", TaskFailed, "E")
    document = json.loads(json.dumps(to_checkpoint(run.execution)))
    assert from_checkpoint(document, run.execution.about) == run.execution


def test_checkpoint_tells_whether_the_redrive_was_heard_of() -> None:
    run = started(Do=task())
    about = run.execution.about
    document = to_checkpoint(run.execution)
    assert not is_to_be_redriven(document, about)
    assert is_to_be_redriven(document, about._replace(redrive_count=1))
    run.fail("E")
    run.redrive()
    assert not is_to_be_redriven(to_checkpoint(run.execution), run.execution.about)


@pytest.mark.parametrize("document", [None, [], "x", {"q": "1"}])
def test_no_checkpoint_tells_of_no_redrive(document: Json) -> None:
    run = started(Do=task())
    with pytest.raises(ValueError, match="malformed"):
        is_to_be_redriven(document, run.execution.about)


def test_execution_that_ended_unread_is_redriven_from_where_it_stood() -> None:
    """The engine's `bury` leaves the checkpoint of a running execution."""
    run = started(Both=parallel())
    answer(run, "a", TaskSucceeded, "a1")
    assert run.execution.status == "RUNNING"
    count = run.history[-1].id
    run.redrive()
    assert opened(run) == ["b", "c"]
    assert run.history[-5].id == count + 1


def test_history_that_has_no_room_for_more_keeps_nothing() -> None:
    assert REDRIVABLE_EVENTS_MAX == HISTORY_EVENTS_MAX - 2
    for last, is_kept in ((REDRIVABLE_EVENTS_MAX, True), (REDRIVABLE_EVENTS_MAX + 1, False)):
        run = started(Do=task())
        run.execution.last_event_id = last - 1
        run.feed(Stopped())
        assert run.history[-1].id == last
        assert bool(run.execution.remains) is is_kept
        if is_kept:
            run.redrive()
            assert (run.outcome[0], run.history[-1].id) == ("FAILED", HISTORY_EVENTS_MAX)


def test_times_are_those_of_the_redrive() -> None:
    run = started(Do=task())
    run.fail("E")
    run.redrive(after=7)
    assert {event.timestamp for event in run.history} == {NOON, at(7)}
