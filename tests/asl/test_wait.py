"""Wait states, and the signal that ends them."""

from __future__ import annotations

import pytest

from service.asl import Json, SetTimer, Signalled, Started, TimerFired
from tests.asl.builders import NOON, Run, at, ending, going, machine, task


def entered(input: Json = None, *, time_scale: float = 1.0, **fields: Json) -> Run:
    run = Run(machine(Rest=ending("Wait", **fields)), input, time_scale=time_scale)
    run.feed(Started())
    return run


@pytest.mark.parametrize(
    ("fields", "input"),
    [
        ({"Seconds": 90}, {}),
        ({"SecondsPath": "$.s"}, {"s": 90}),
        ({"Timestamp": "2026-01-02T12:01:30Z"}, {}),
        ({"TimestampPath": "$.t"}, {"t": "2026-01-02T13:01:30.000+01:00"}),
        ({"SecondsPath": "$.s", "InputPath": "$.in"}, {"in": {"s": 90}}),
    ],
)
def test_each_form_of_wait_names_the_moment(fields: dict[str, Json], input: Json) -> None:
    run = entered(input, **fields)
    assert run.execution.due_at == at(90)
    assert run.feed(TimerFired(), after=89) == []
    assert run.outcome == ("RUNNING", None)
    run.feed(TimerFired(), after=1)
    expected = input["in"] if isinstance(input, dict) and "in" in input else input
    assert run.outcome == ("SUCCEEDED", expected)
    assert run.links[1:4] == [
        (2, 0, "WaitStateEntered"),
        (3, 2, "WaitStateExited"),
        (4, 3, "ExecutionSucceeded"),
    ]


def test_wait_with_past_timestamp_is_due_at_once() -> None:
    run = Run(machine(Rest=ending("Wait", Timestamp="2001-01-01T00:00:00Z")))
    assert run.feed(Started()) == [SetTimer(NOON)]
    run.feed(TimerFired())
    assert run.outcome == ("SUCCEEDED", {})


@pytest.mark.parametrize(
    ("fields", "input", "cause"),
    [
        (
            {"SecondsPath": "$.s"},
            {},
            "The SecondsPath parameter does not reference an input value: $.s",
        ),
        (
            {"SecondsPath": "$.s"},
            {"s": True},
            "The SecondsPath parameter cannot be parsed as a long value: $.s == true",
        ),
        (
            {"SecondsPath": "$.s"},
            {"s": -2},
            "The SecondsPath parameter references a negative value: $.s == -2",
        ),
        ({"SecondsPath": "$.s"}, {"s": 100_000_000}, "Wait state delay is too long."),
        (
            {"TimestampPath": "$.t"},
            {"t": 5},
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset "
            "date-time format string: $.t == 5",
        ),
        (
            {"TimestampPath": "$.t"},
            {"t": "noon"},
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset "
            "date-time format string: $.t == noon",
        ),
        ({"TimestampPath": "$.t"}, {"t": "2094-01-21T15:14:08Z"}, "Wait state delay is too long."),
    ],
)
def test_a_wait_that_cannot_be_is_an_error(
    fields: dict[str, Json], input: Json, cause: str
) -> None:
    prefix = "An error occurred while executing the state 'Rest' (entered at the event id #2). "
    assert entered(input, **fields).outcome == ("FAILED", ["States.Runtime", prefix + cause])


def test_the_longest_wait_is_what_fits_into_32_bits_of_seconds() -> None:
    run = entered({"t": "2094-01-20T15:14:07Z"}, TimestampPath="$.t")
    assert run.execution.due_at == at(2**31 - 1)


def test_time_scale_shortens_seconds_but_no_timestamps() -> None:
    assert entered(time_scale=0.1, Seconds=90).execution.due_at == at(9)
    scaled = entered(time_scale=0.1, Timestamp="2026-01-02T12:01:30Z")
    assert scaled.execution.due_at == at(90)


TWO_WAITS = machine(
    First=going("Wait", "Look", Seconds=100),
    Look=going("Task", "Second", **{k: v for k, v in task().items() if k == "Resource"}),
    Second=ending("Wait", Seconds=100),
)


def test_a_signal_ends_the_wait_that_is_open() -> None:
    run = Run(TWO_WAITS)
    run.feed(Started())
    run.feed(Signalled(), after=1)
    assert (run.open_task.state, run.execution.is_signalled) == ("Look", False)
    assert run.succeed({}) == [SetTimer(at(101))]


def test_a_signal_without_open_wait_ends_the_next_one_at_once() -> None:
    run = Run(TWO_WAITS)
    run.feed(Started())
    run.wake()
    run.feed(Signalled())
    assert run.execution.is_signalled
    assert run.succeed({}) == []
    assert run.outcome == ("SUCCEEDED", {})
    assert run.types[-3:] == ["WaitStateEntered", "WaitStateExited", "ExecutionSucceeded"]


def test_a_remembered_signal_ends_one_wait_only() -> None:
    run = Run(
        machine(
            Look=going("Task", "First", Resource=task()["Resource"]),
            First=going("Wait", "Second", Seconds=100),
            Second=ending("Wait", Seconds=200),
        )
    )
    run.feed(Started())
    run.feed(Signalled())
    assert run.succeed({}) == [SetTimer(at(200))]


def test_a_task_that_has_seen_the_signal_uses_it_up() -> None:
    run = Run(TWO_WAITS)
    run.feed(Started())
    run.wake()
    run.feed(Signalled())
    assert run.succeed({}, acknowledges_signal=True) == [SetTimer(at(200))]
    assert not run.execution.is_signalled


def test_after_an_acknowledgement_a_signal_is_not_remembered_any_more() -> None:
    run = Run(
        machine(
            Look=going("Task", "Work", Resource=task()["Resource"]),
            Work=going("Task", "Rest", Resource=task()["Resource"]),
            Rest=ending("Wait", Seconds=100),
        )
    )
    run.feed(Started())
    run.succeed({}, acknowledges_signal=True)
    before = run.execution
    assert run.feed(Signalled()) == []
    assert run.execution is before
    assert run.succeed({}) == [SetTimer(at(100))]


def test_after_an_acknowledgement_a_signal_still_ends_an_open_wait() -> None:
    run = Run(TWO_WAITS)
    run.feed(Started())
    run.wake()
    run.succeed({}, acknowledges_signal=True)
    run.feed(Signalled())
    assert run.outcome == ("SUCCEEDED", {})


def test_a_signal_ends_every_open_wait_but_no_backoff() -> None:
    run = Run(
        machine(
            All={
                "Type": "Parallel",
                "End": True,
                "Branches": [
                    {"StartAt": "A", "States": {"A": ending("Wait", Seconds=50)}},
                    {"StartAt": "B", "States": {"B": ending("Wait", Seconds=60)}},
                    {
                        "StartAt": "C",
                        "States": {"C": task(Retry=[{"ErrorEquals": ["E"], "IntervalSeconds": 7}])},
                    },
                ],
            }
        )
    )
    run.feed(Started())
    run.fail("E")
    run.feed(Signalled())
    assert run.types.count("WaitStateExited") == 2
    assert (run.execution.due_at, run.execution.open_tasks) == (at(7), ())
