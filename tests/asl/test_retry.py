"""Retry and Catch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl import Json, RunTask, SetTimer, Started, TimerFired
from service.asl.retry import MAX_DELAY_SECONDS_MAX, Failure, Retrier, matches
from tests.asl.builders import FixedRandom, Run, at, ending, function, going, machine, task

ANY: Json = {"ErrorEquals": ["States.ALL"]}


def retried(*retriers: Json, time_scale: float = 1.0, **fields: Json) -> Run:
    run = Run(machine(Send=task(Retry=list(retriers), **fields)), time_scale=time_scale)
    run.feed(Started())
    return run


def test_failed_task_waits_for_its_backoff() -> None:
    run = retried({"ErrorEquals": ["E"], "IntervalSeconds": 2, "BackoffRate": 3})
    assert run.fail("E") == [SetTimer(at(2))]
    assert (run.execution.open_tasks, run.execution.due_at) == ((), at(2))
    assert run.feed(TimerFired(), after=1) == []
    assert run.feed(TimerFired(), after=1) == [RunTask(6, 2, "Send", function("send"), {}, 1)]
    assert run.fail("E") == [SetTimer(at(8))]


def test_retries_end_after_max_attempts_and_the_last_failure_counts() -> None:
    run = retried({"ErrorEquals": ["E"], "MaxAttempts": 2})
    for cause in ("1", "2"):
        run.fail("E", cause)
        run.wake()
    run.fail("E", "3")
    assert run.outcome == ("FAILED", ["E", "3"])
    assert run.types.count("LambdaFunctionScheduled") == 3
    assert run.types.count("TaskStateEntered") == 1


def test_without_numbers_a_retrier_tries_three_times_and_doubles_a_second() -> None:
    run = retried(ANY)
    waits = []
    for _ in range(3):
        (timer,) = run.fail("E")
        assert isinstance(timer, SetTimer)
        waits.append((timer.due_at - run.now).total_seconds())
        run.wake()
    assert waits == [1, 2, 4]
    assert run.fail("E") == []


def test_each_retrier_counts_for_itself() -> None:
    run = retried(
        {"ErrorEquals": ["A"], "MaxAttempts": 1},
        {"ErrorEquals": ["B"], "MaxAttempts": 1, "IntervalSeconds": 5},
    )
    assert run.fail("A") == [SetTimer(at(1))]
    run.wake()
    assert run.fail("B") == [SetTimer(at(6))]
    run.wake()
    run.fail("A")
    assert run.outcome == ("FAILED", ["A", None])


def test_only_the_first_retrier_that_matches_is_asked() -> None:
    run = retried({"ErrorEquals": ["A"], "MaxAttempts": 0}, ANY)
    run.fail("A")
    assert run.outcome == ("FAILED", ["A", None])


def test_max_delay_bounds_the_backoff() -> None:
    run = retried({**ANY, "IntervalSeconds": 4, "BackoffRate": 10, "MaxDelaySeconds": 9})
    assert run.fail("E") == [SetTimer(at(4))]
    run.wake()
    assert run.fail("E") == [SetTimer(at(13))]


def test_full_jitter_draws_between_nothing_and_the_delay() -> None:
    run = retried({**ANY, "IntervalSeconds": 10, "JitterStrategy": "FULL"})
    assert run.fail("E") == [SetTimer(at(2.5))]  # the random number here is always 0.25


def test_time_scale_shortens_backoffs() -> None:
    run = retried({**ANY, "IntervalSeconds": 10}, time_scale=0.1)
    assert run.fail("E") == [SetTimer(at(1))]


def test_the_context_object_counts_retries() -> None:
    run = retried(ANY, Parameters={"n.$": "$$.State.RetryCount"})
    seen = [run.open_task.parameters]
    for _ in range(2):
        run.fail("E")
        run.wake()
        seen.append(run.open_task.parameters)
    assert seen == [{"n": 0}, {"n": 1}, {"n": 2}]


@given(
    interval=st.integers(1, 99_999_999),
    rate=st.floats(1, 1_000_000),
    maximum=st.none() | st.integers(1, MAX_DELAY_SECONDS_MAX),
    attempt=st.integers(0, 99_999_999),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_over_its_limit(
    interval: int, rate: float, maximum: int | None, attempt: int, uniform: float
) -> None:
    limit = maximum or MAX_DELAY_SECONDS_MAX
    plain = Retrier(frozenset(), interval, 3, rate, maximum)
    jittered = Retrier(frozenset(), interval, 3, rate, maximum, has_full_jitter=True)
    random = FixedRandom(uniform)
    assert 0 < plain.delay_seconds(attempt, random) <= limit
    assert jittered.delay_seconds(attempt, random) == plain.delay_seconds(attempt, random) * uniform


@pytest.mark.parametrize(
    ("names", "failure", "matched"),
    [
        (["E"], Failure("E", None), True),
        (["E"], Failure("F", None), False),
        (["E"], Failure(None, None), False),
        (["States.ALL"], Failure("E", None), True),
        (["States.ALL"], Failure(None, None), True),
        (["States.ALL"], Failure("States.Timeout", None), True),
        (["States.ALL"], Failure("States.Runtime", None), False),
        (["States.ALL"], Failure("States.DataLimitExceeded", None), False),
        (["States.ALL"], Failure("States.DataLimitExceeded", None, by_task=True), True),
        (["States.Runtime"], Failure("States.Runtime", None), True),
        (["States.TaskFailed"], Failure("E", None), True),
        (["States.TaskFailed"], Failure("States.Timeout", None), False),
        (["States.TaskFailed"], Failure("States.Runtime", None), False),
        (["States.Timeout"], Failure("States.HeartbeatTimeout", None), True),
        (["States.HeartbeatTimeout"], Failure("States.Timeout", None), False),
        (["States.BranchFailed"], Failure("E", None), False),
        (["States.BranchFailed"], Failure("E", None, in_branch=True), True),
        (["States.BranchFailed"], Failure("States.Runtime", None, in_branch=True), False),
    ],
)
def test_error_equals_matches(names: list[str], failure: Failure, matched: bool) -> None:
    assert matches(frozenset(names), failure) is matched


def caught(input: Json, *, task_fields: dict[str, Json] | None = None, **catcher: Json) -> Run:
    run = Run(
        machine(
            Send=going(
                "Task",
                "Good",
                Resource=function("send"),
                Catch=[{"ErrorEquals": ["E"], "Next": "Caught"} | catcher],
                **(task_fields or {}),
            ),
            Good={"Type": "Succeed"},
            Caught=ending("Pass"),
        ),
        input,
    )
    run.feed(Started())
    return run


@pytest.mark.parametrize(
    ("catcher", "output"),
    [
        ({}, {"Error": "E", "Cause": "c"}),
        ({"ResultPath": "$.failure"}, {"id": 7, "failure": {"Error": "E", "Cause": "c"}}),
        ({"ResultPath": None}, {"id": 7}),
    ],
)
def test_a_catcher_hands_on_the_error_output(catcher: dict[str, Json], output: Json) -> None:
    run = caught({"id": 7}, **catcher)
    run.fail("E", "c")
    assert run.outcome == ("SUCCEEDED", output)
    assert run.links[4:6] == [(5, 4, "LambdaFunctionFailed"), (6, 5, "TaskStateExited")]


def test_a_cause_that_is_not_known_is_handed_on_as_an_empty_text() -> None:
    run = caught({})
    run.fail("E")
    assert run.outcome == ("SUCCEEDED", {"Error": "E", "Cause": ""})


def test_the_states_own_paths_do_not_touch_the_error_output() -> None:
    run = caught({"id": 7}, task_fields={"ResultPath": "$.r", "OutputPath": None})
    run.fail("E", "c")
    assert run.outcome == ("SUCCEEDED", {"Error": "E", "Cause": "c"})


def test_what_no_catcher_matches_fails_the_execution() -> None:
    run = caught({})
    run.fail("Other", "c")
    assert run.outcome == ("FAILED", ["Other", "c"])


def test_retry_comes_before_catch() -> None:
    run = caught({}, task_fields={"Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 1}]})
    assert run.fail("E") == [SetTimer(at(1))]
    run.wake()
    run.fail("E", "twice")
    assert run.outcome == ("SUCCEEDED", {"Error": "E", "Cause": "twice"})


def test_states_all_catches_an_answer_over_the_limit_but_no_parameters_over_it() -> None:
    run = caught({}, ErrorEquals=["States.ALL"])
    run.succeed("x" * 262_143)
    assert (run.outcome[0], run.types.count("LambdaFunctionFailed")) == ("SUCCEEDED", 1)
    doubled: Json = {"a.$": "$", "b.$": "$"}
    run = caught("x" * 140_000, task_fields={"Parameters": doubled}, ErrorEquals=["States.ALL"])
    status, (error, _) = run.outcome
    assert (status, error) == ("FAILED", "States.DataLimitExceeded")


def test_an_error_in_the_states_own_data_flow_can_be_caught_by_name() -> None:
    run = caught(
        [1], task_fields={"ResultPath": "$.a"}, ErrorEquals=["States.ResultPathMatchFailure"]
    )
    run.succeed({})
    status, output = run.outcome
    assert (status, output["Error"]) == ("SUCCEEDED", "States.ResultPathMatchFailure")


def test_a_catcher_without_place_for_the_error_output_fails_the_execution() -> None:
    run = caught([1], ResultPath="$.failure")
    run.fail("E")
    status, (error, _) = run.outcome
    assert (status, error) == ("FAILED", "States.ResultPathMatchFailure")
