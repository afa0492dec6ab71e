"""A step that has had its share stops short, and the next one goes on as it would have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.asl import (
    NO_SHARE,
    WHOLE_SHARE,
    Event,
    Execution,
    Json,
    Share,
    Signalled,
    Started,
    StateMachine,
    Status,
    Stopped,
    TaskSucceeded,
    TimerFired,
    compile_definition,
)
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from service.asl.share import STEP_EVENTS_MAX, WEIGHED_EVENTS
from tests.asl.builders import Run, at, definition, ending, going, machine, task
from tests.asl.test_properties import VALUES, definitions, pick_event

EVENTS_COMPARED_MAX = 300
COSTLY = "{% $sum([1..2000].($ * 2)) %}"
COSTLY_PATHS: Json = {"found.$": "$..*..*"}


def loop(**fields: Json) -> dict[str, Json]:
    """Return a definition whose first state, with these fields, leads back to itself for ever."""
    rule: Json = {"Variable": "$.stop", "IsPresent": True, "Next": "End"}
    return definition(
        Spin=going("Pass", "Again", **fields),
        Again={"Type": "Choice", "Choices": [rule], "Default": "Spin"},
        End={"Type": "Succeed"},
    )


def compiled(value: dict[str, Json]) -> StateMachine:
    return compile_definition(json.dumps(value))


SPIN = compiled(loop())


def restored(execution: Execution) -> Execution:
    """Return what a checkpoint makes of an execution."""
    checkpoint = json.loads(json.dumps(to_checkpoint(execution)))
    return from_checkpoint(checkpoint, execution.about)


def settle(run: Run) -> None:
    """Let everything happen that is due, each step of it from a checkpoint."""
    while (due_at := run.execution.due_at) is not None and due_at <= run.now:
        if len(run.history) > EVENTS_COMPARED_MAX and run.share != WHOLE_SHARE:
            return
        run.execution = restored(run.execution)
        run.feed(TimerFired())


@settings(max_examples=80)
@given(
    definitions(), VALUES, st.integers(0, 7), st.sampled_from([0, 1, 50, sys.maxsize]), st.data()
)
def test_steps_that_stop_short_come_to_the_same_history(
    text: str, input: Json, events: int, work: int, data: st.DataObject
) -> None:
    program = compile_definition(text)
    whole = Run(program, input, share=WHOLE_SHARE)
    short = Run(program, input, share=Share(events + 1, work + 1))
    event: Event = Started()
    seconds = 0.0
    for _ in range(8):
        for run in (whole, short):
            run.feed(event, after=seconds)
            settle(run)
        if len(short.history) > EVENTS_COMPARED_MAX:
            assert short.history == whole.history[: len(short.history)]
            return
        assert short.history == whole.history
        assert short.execution == whole.execution
        if whole.execution.status is not Status.RUNNING:
            return
        event, seconds = pick_event(data, whole.execution)


def test_a_step_ends_with_its_share_of_events_and_is_due_at_once() -> None:
    run = Run(SPIN)
    assert run.feed(Started(), after=3) == []
    assert len(run.history) == STEP_EVENTS_MAX
    assert (run.execution.status, run.execution.due_at) == (Status.RUNNING, at(3))


@pytest.mark.parametrize(
    "spun",
    [
        pytest.param(
            {"QueryLanguage": "JSONata", "Output": COSTLY},
            id="JSONata",
        ),
        pytest.param({"Parameters": COSTLY_PATHS, "ResultPath": None}, id="template"),
        pytest.param(
            {"Parameters": {"n.$": "States.ArrayLength($..*..*)"}, "ResultPath": None},
            id="intrinsic",
        ),
        pytest.param({"InputPath": "$..*..*", "ResultPath": None}, id="InputPath"),
    ],
)
def test_a_step_ends_with_its_share_of_work(spun: dict[str, Json]) -> None:
    run = Run(compiled(loop(**spun)), wide())
    run.feed(Started())
    once = Run(machine(Spin=ending("Pass", **spun)), wide(), share=Share(sys.maxsize, 1))
    once.feed(Started())
    assert once.outcome[0] == "SUCCEEDED"
    assert 10 < len(run.history) < STEP_EVENTS_MAX / 2
    assert run.execution.status is Status.RUNNING


def wide() -> Json:
    """Return an input in which `$..*..*` has some thousands of nodes to look at."""
    return {"items": [{"a": [n, n], "b": {"c": n}} for n in range(300)]}


def test_work_that_fails_counts_too() -> None:
    failing: dict[str, Json] = {
        "QueryLanguage": "JSONata",
        "Arguments": "{% $sum([1..2000].($ * 2)).nothing %}",
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Fail"}],
    }
    run = Run(machine(Fail=task(**failing)))
    run.feed(Started())
    assert run.types.count("EvaluationFailed") > 1
    assert len(run.history) < STEP_EVENTS_MAX / 2
    assert run.execution.halt is not None


def test_the_next_step_has_a_share_of_its_own() -> None:
    run = Run(SPIN)
    run.feed(Started())
    run.feed(TimerFired())
    assert len(run.history) == 2 * STEP_EVENTS_MAX


def test_a_checkpoint_tells_where_a_step_has_stopped_short_and_no_other() -> None:
    run = Run(SPIN, share=Share(4, sys.maxsize))
    run.feed(Started(), after=2)
    halted = to_checkpoint(run.execution)
    assert isinstance(halted, dict)
    assert halted["h"] == [int(at(2).timestamp()) * 1_000_000, [0, 3]]
    assert restored(run.execution) == run.execution
    whole = Run(machine(Only=task()))
    whole.feed(Started())
    assert "h" not in (to_checkpoint(whole.execution) or {})


def halted_beside_a_task() -> Run:
    """Return a run that has stopped short in one branch while another one's task is open."""
    branches: Json = [
        {"StartAt": "Call", "States": {"Call": task()}},
        {"StartAt": "Rest", "States": {"Rest": ending("Wait", Seconds=60)}},
        {"StartAt": "P0", "States": chain("P", 5)},
    ]
    run = Run(
        machine(Both={"Type": "Parallel", "Branches": branches, "End": True}),
        share=Share(9, sys.maxsize),
    )
    run.feed(Started())
    assert run.execution.halt is not None
    return run


def chain(prefix: str, length: int) -> dict[str, Json]:
    last = length - 1
    states = {f"{prefix}{n}": going("Pass", f"{prefix}{n + 1}") for n in range(last)}
    return {**states, f"{prefix}{last}": ending("Pass")}


def answered(run: Run) -> Event:
    return TaskSucceeded(run.open_task.id, 1)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(answered, id="answer"),
        pytest.param(lambda run: TimerFired(), id="timer"),
        pytest.param(lambda run: Signalled(), id="signal"),
        pytest.param(lambda run: TaskSucceeded(1, None), id="stale"),
    ],
)
def test_any_event_goes_on_with_what_was_left_over(event: Callable[[Run], Event]) -> None:
    run = halted_beside_a_task()
    exited = run.types.count("PassStateExited")
    run.feed(event(run))
    assert run.types.count("PassStateExited") > exited


def test_without_a_share_an_event_is_taken_in_and_nothing_is_tried() -> None:
    run = halted_beside_a_task()
    run.share, before = NO_SHARE, len(run.history)
    run.feed(answered(run))
    assert run.types[before:] == ["LambdaFunctionSucceeded", "TaskStateExited"]
    run.feed(Signalled())
    assert run.types[before + 2 :] == ["WaitStateExited"]
    assert run.execution.halt is not None
    kept = run.execution
    assert run.feed(TimerFired()) == []
    assert run.execution is kept


def test_a_failed_entry_is_linked_to_what_came_before_it_also_after_a_stop() -> None:
    failing = ending("Pass", QueryLanguage="JSONata", Output="{% $error('no') %}")
    links = []
    for share in (WHOLE_SHARE, Share(2, sys.maxsize), Share(4, sys.maxsize)):
        run = Run(machine(First=going("Pass", "Fails"), Fails=failing), share=share)
        run.feed(Started())
        settle(run)
        assert run.execution.status is Status.FAILED
        links.append(run.links)
    assert links[0][4] == (5, 3, "EvaluationFailed")
    assert links == [links[0]] * 3


def test_a_stop_ends_what_has_stopped_short() -> None:
    run = Run(SPIN)
    run.feed(Started())
    run.feed(Stopped("Halt"))
    assert run.outcome == ("ABORTED", ["Halt", None])
    assert (run.execution.due_at, run.execution.halt) == (None, None)


def test_a_loop_times_out_though_it_never_waits() -> None:
    run = Run(compiled(loop() | {"TimeoutSeconds": 5}))
    run.feed(Started())
    run.feed(TimerFired(), after=4)
    assert run.execution.status is Status.RUNNING
    run.feed(TimerFired(), after=1)
    assert run.outcome == ("TIMED_OUT", [None, None])


def test_the_given_execution_stays_as_it_is_when_a_step_goes_on_from_a_halt() -> None:
    run = Run(SPIN)
    run.feed(Started())
    halted, before = run.execution, to_checkpoint(run.execution)
    run.feed(TimerFired())
    assert to_checkpoint(halted) == before
    assert run.execution is not halted


def test_timers_that_are_due_together_are_shared_out_too() -> None:
    """Each wait's Output takes a part of the share; all together are too much for a step."""
    wait: dict[str, Json] = {"QueryLanguage": "JSONata", "Seconds": 5, "Output": COSTLY}
    rest: Json = {"StartAt": "Rest", "States": {"Rest": ending("Wait", **wait)}}
    fork = {"Type": "Map", "ItemProcessor": rest, "End": True}
    run = Run(machine(Each=fork), list(range(30)))
    run.feed(Started())
    steps = 0
    while run.execution.due_at is not None:
        steps += 1
        run.wake()
        run.execution = restored(run.execution) if steps < 3 else run.execution
    assert run.outcome == ("SUCCEEDED", [4_002_000] * 30)
    assert steps > 2


def test_a_step_that_has_only_left_over_what_was_given_up_is_not_due_for_ever() -> None:
    fails = going("Pass", "End", QueryLanguage="JSONata", Output="{% $states.input.missing %}")
    branches = [
        definition(Fails=fails, End={"Type": "Succeed"}),
        definition(GivenUp=ending("Pass")),
    ]
    retry: Json = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 5}]
    parallel = ending("Parallel", Branches=branches, Retry=retry)
    run = Run(compiled(definition(Both=parallel)), share=Share(1, sys.maxsize))
    for event in (Started(), TimerFired(), TimerFired(), TimerFired()):
        run.feed(event)
    assert [event.type for event in run.history][-1] == "EvaluationFailed"
    assert run.execution.halt is None
    assert run.execution.due_at == run.now + timedelta(seconds=5)


def test_a_time_limit_ends_an_execution_whose_timers_are_due_later() -> None:
    rests: Json = [
        {"StartAt": f"R{n}", "States": {f"R{n}": ending("Wait", Seconds=n)}} for n in (6, 7, 8)
    ]
    both = {"Type": "Parallel", "Branches": rests, "End": True}
    run = Run(compiled(definition(Both=both) | {"TimeoutSeconds": 5}))
    run.feed(Started())
    run.feed(TimerFired(), after=60)
    assert run.outcome == ("TIMED_OUT", [None, None])
    assert (run.execution.due_at, run.execution.halt) == (None, None)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="passed on"),
        pytest.param({"Parameters": {"text.$": "States.Format('{}', $.text)"}}, id="made anew"),
    ],
)
def test_a_step_ends_with_its_share_of_data(fields: dict[str, Json]) -> None:
    run = Run(compiled(loop(**fields)), {"text": "x" * 120_000})
    run.feed(Started())
    assert run.execution.halt is not None
    assert len(run.history) <= WEIGHED_EVENTS + 3
