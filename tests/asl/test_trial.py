"""A state tried on its own: what it shares with the same state in an execution, and its bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.asl import Json, StateMachine
from service.asl.errors import DATA_LIMIT_EXCEEDED
from service.asl.events import Started
from service.asl.parser import TRIAL_STATE, compile_trial
from service.asl.states.task import Task
from service.asl.trial import (
    ITERATIONS_TRIED_MAX,
    Conditions,
    Ending,
    Trial,
    find_state,
    task_alone,
)
from service.asl.values import PAYLOAD_BYTES_MAX
from tests.asl.builders import NOON, FixedRandom, Run, ending, function, machine, task

INNER = {"StartAt": "Inner", "States": {"Inner": {"Type": "Pass", "End": True}}}
INPUT: Json = {"a": {"b": 1}, "list": [1, 2, 3], "at": "2026-01-02T12:00:10Z"}


def _compiled(state: dict[str, Any]) -> StateMachine:
    return compile_trial(json.dumps(state), is_state=True)


def _begun(state: dict[str, Any], input: Json) -> Trial:
    compiled = _compiled(state)
    tried = find_state(compiled, TRIAL_STATE)
    assert tried is not None
    about = Run(compiled, input).execution.about
    trial = Trial(compiled, tried, Conditions(about=about), NOON, FixedRandom())
    trial.begin()
    return trial


@pytest.mark.parametrize(
    "state",
    [
        ending("Pass", InputPath="$.a", Parameters={"c.$": "$.b"}, ResultPath="$.r"),
        ending("Pass", Result=[1], ResultPath="$.a.c", OutputPath="$.a"),
        ending("Pass", QueryLanguage="JSONata", Output="{% $sum($states.input.list) %}"),
        ending("Pass", Parameters={"id.$": "States.UUID()"}),
        ending("Wait", TimestampPath="$.at", OutputPath="$.a"),
        {"Type": "Succeed", "OutputPath": "$.list[1:]"},
    ],
)
def test_state_makes_the_output_that_it_makes_in_an_execution(state: dict[str, Any]) -> None:
    run = Run(machine(First=state), INPUT)
    run.feed(Started())
    if run.execution.due_at is not None:
        run.wake()
    outcome = _begun(state, INPUT).outcome()
    assert (outcome.ending, outcome.output) == run.outcome


def test_task_asks_for_the_command_that_it_asks_for_in_an_execution() -> None:
    state = task(InputPath="$.a", Parameters={"c.$": "$.b"}, TimeoutSeconds=9, HeartbeatSeconds=3)
    run = Run(machine(StateName=state), INPUT)
    run.feed(Started())
    assert _begun(state, INPUT).command == run.open_task


def test_task_alone_is_the_same_call_with_its_input_for_parameters() -> None:
    state = task(InputPath="$.a", Parameters={"c.$": "$.b"}, ResultPath="$.r", TimeoutSeconds=9)
    command = _begun(state, INPUT).command
    assert command is not None
    compiled = _compiled(state)
    tried = find_state(compiled, TRIAL_STATE)
    assert isinstance(tried, Task)
    run = Run(task_alone(compiled, tried, command), command.parameters)
    run.feed(Started())
    assert run.open_task == command
    run.succeed([1])
    assert run.outcome == ("SUCCEEDED", [1])


def test_machine_is_not_changed_by_a_trial() -> None:
    compiled = _compiled(ending("Pass", Parameters={"c": 1}))
    tried = find_state(compiled, TRIAL_STATE)
    assert tried is not None
    about = Run(compiled, INPUT).execution.about
    for _ in range(2):
        trial = Trial(compiled, tried, Conditions(about=about), NOON, FixedRandom())
        trial.begin()
        assert trial.outcome().data["afterParameters"] == {"c": 1}
    assert find_state(compiled, TRIAL_STATE) is tried


def test_inputs_are_made_of_so_many_iterations_and_no_more() -> None:
    state = ending("Map", ItemProcessor=INNER, ItemSelector={"i.$": "$$.Map.Item.Index"})
    trial = _begun(state, [0] * (ITERATIONS_TRIED_MAX + 1))
    assert trial.iterations == ITERATIONS_TRIED_MAX + 1
    made = trial.outcome().data["afterItemSelector"]
    assert isinstance(made, list)
    assert made[-1] == {"i": ITERATIONS_TRIED_MAX - 1}


def test_input_of_an_iteration_over_the_limit_fails_the_map() -> None:
    text = "x" * (PAYLOAD_BYTES_MAX // 2)
    state = ending("Map", ItemsPath="$.v", ItemProcessor=INNER)
    state["ItemSelector"] = {"one.$": "$.t", "two.$": "$.t"}
    outcome = _begun(state, {"v": [1], "t": text}).outcome()
    assert outcome.ending is Ending.FAILED
    assert outcome.failure is not None
    assert outcome.failure.error == DATA_LIMIT_EXCEEDED


def test_result_over_the_limit_fails_the_task() -> None:
    trial = _begun(task(), INPUT)
    trial.succeed("x" * PAYLOAD_BYTES_MAX)
    outcome = trial.outcome()
    assert outcome.failure is not None
    assert outcome.failure.error == DATA_LIMIT_EXCEEDED
    assert outcome.failure.cause == (
        f"The state/task '{function('send')}' returned a result with a size exceeding "
        "the maximum number of bytes service limit."
    )


def test_variable_over_the_limit_fails_the_state() -> None:
    state = ending("Pass", Assign={"big.$": "$.t", "twice.$": "$.t"})
    outcome = _begun(state, {"t": "x" * (PAYLOAD_BYTES_MAX // 2)}).outcome()
    assert outcome.failure is not None
    assert (outcome.failure.error, outcome.variables) == (DATA_LIMIT_EXCEEDED, {})
