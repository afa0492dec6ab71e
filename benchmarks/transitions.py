"""What the language itself costs: µs for each transition by `advance`, and for compiling a state.

In this process, without a database, a handler or a checkpoint. A round plays one execution of a
hundred transitions of one kind to its end, on a definition that was compiled once. Told is the
median of all rounds, and as the noise the quartiles below and above it.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import quantiles
from typing import Final

from benchmarks.circumstances import circumstances
from benchmarks.options import Mail, Options
from service.asl import (
    About,
    Event,
    Execution,
    Json,
    RunTask,
    SetTimer,
    Started,
    StateMachine,
    Status,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
)

LANGUAGES: Final = ("JSONPath", "JSONata")
TRANSITIONS: Final = 100
"""Of one round: a chain of so many states, iterations of one Map, branches of one Parallel."""

SECONDS_EACH: Final = 1.0
"""For one figure, after the rounds that warm up."""

ROUNDS_MIN: Final = 30
WARM_UP_ROUNDS: Final = 10

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
INPUT: Final[dict[str, Json]] = {"n": 7, "account": {"id": "0a1b", "status": "pending"}}
ITEMS: Final[list[Json]] = [{"n": n} for n in range(TRANSITIONS)]

# What Pass and Task make of their input has its shape again, so that each of a chain does the same.
_FIELDS: Final[dict[str, dict[str, Json]]] = {
    "JSONPath": {"n.$": "$.n", "account.$": "$.account"},
    "JSONata": {"n": "{% $states.input.n %}", "account": "{% $states.input.account %}"},
}
_RULES: Final[dict[str, list[dict[str, Json]]]] = {
    "JSONPath": [
        {"Variable": "$.account.status", "StringEquals": "verified"},
        {"Variable": "$.n", "NumericGreaterThan": 5},
    ],
    "JSONata": [
        {"Condition": "{% $states.input.account.status = 'verified' %}"},
        {"Condition": "{% $states.input.n > 5 %}"},
    ],
}
_SELECTORS: Final[dict[str, dict[str, Json]]] = {
    "JSONPath": {"ItemsPath": "$.items", "ItemSelector": {"item.$": "$$.Map.Item.Value"}},
    "JSONata": {
        "Items": "{% $states.input.items %}",
        "ItemSelector": {"item": "{% $states.context.Map.Item.Value %}"},
    },
}


class Steady:
    """Random numbers that are always the same."""

    def bits(self, n: int) -> int:
        return 1 << (n - 1)

    def uniform(self) -> float:
        return 0.5


def definitions(language: str) -> dict[str, str]:
    """Return the definition for each kind of transition in a query language."""
    is_path, fields = language == "JSONPath", _FIELDS[language]
    call: dict[str, Json] = {
        "Resource": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "Parameters" if is_path else "Arguments": fields,
    }
    states: dict[str, Callable[[int], dict[str, Json]]] = {
        "Pass": lambda n: {
            "Type": "Pass",
            "Parameters" if is_path else "Output": fields,
            "Next": f"S{n}",
        },
        "Choice": lambda n: {
            "Type": "Choice",
            "Choices": [{**rule, "Next": f"S{n}"} for rule in _RULES[language]],
        },
        "Task": lambda n: {"Type": "Task", **call, "Next": f"S{n}"},
        "Wait": lambda n: {"Type": "Wait", "Seconds": 60, "Next": f"S{n}"},
    }
    texts = {
        kind: _definition(language, {f"S{n}": state(n + 1) for n in range(TRANSITIONS)})
        for kind, state in states.items()
    }
    texts["Map iteration"] = _definition(
        language,
        {"S0": {"Type": "Map", **_SELECTORS[language], "ItemProcessor": _scope("I"), "Next": "S1"}},
    )
    branches: list[Json] = [_scope(f"B{n}") for n in range(TRANSITIONS)]
    texts["Parallel branch"] = _definition(
        language, {"S0": {"Type": "Parallel", "Branches": branches, "Next": "S1"}}
    )
    return texts


def _definition(language: str, states: dict[str, Json]) -> str:
    every: dict[str, Json] = {**states, f"S{len(states)}": {"Type": "Succeed"}}
    return json.dumps({"QueryLanguage": language, "StartAt": "S0", "States": every})


def _scope(name: str) -> dict[str, Json]:
    """Return the definition of a branch or iteration, which is one state."""
    return {"StartAt": name, "States": {name: {"Type": "Pass", "End": True}}}


def play(machine: StateMachine, about: About) -> Execution:
    """Return the execution as it ended, its tasks echoing and its timers firing on time."""
    now, random = START, Steady()
    events: list[Event] = [Started()]
    execution = Execution.new(about)
    while events:
        step = advance(machine, execution, events.pop(), now, random)
        execution = step.execution
        for command in step.commands:
            if isinstance(command, RunTask):
                events.append(TaskSucceeded(command.id, command.parameters))
            elif isinstance(command, SetTimer):
                now = command.due_at
                events.append(TimerFired())
    return execution


async def transition_lines(
    _options: Options, _server_url: str, _mail: Mail
) -> AsyncIterator[dict[str, object]]:
    """Yield the figures of each kind of transition in each language, and of compiling one state.

    Raises RuntimeError when an execution does not succeed.
    """
    small, long = _about(INPUT), _about({"items": ITEMS})
    for language in LANGUAGES:
        texts = definitions(language)
        for kind, text in texts.items():
            machine, about = compile_definition(text), long if "Map" in kind else small
            ended = play(machine, about)
            if ended.status is not Status.SUCCEEDED:
                raise RuntimeError(f"{kind} in {language}: {ended.error}: {ended.cause}")
            yield _line(kind, language, partial(play, machine, about))
        yield _line("compiling", language, partial(compile_definition, texts["Task"]))


def _line(kind: str, language: str, once: Callable[[], object]) -> dict[str, object]:
    micros = _measure(once)
    low, middle, high = (round(quartile, 2) for quartile in quantiles(micros, n=4))
    return {
        "name": "transitions",
        "kind": kind,
        "language": language,
        "us": middle,
        "us_quartiles": [low, high],
        "rounds": len(micros),
        **circumstances(),
    }


def _measure(once: Callable[[], object]) -> list[float]:
    """Return what a hundredth of each round took, in µs."""
    for _ in range(WARM_UP_ROUNDS):
        once()
    gc.collect()
    micros: list[float] = []
    ends_at = time.perf_counter() + SECONDS_EACH
    while len(micros) < ROUNDS_MIN or time.perf_counter() < ends_at:
        began = time.perf_counter_ns()
        once()
        micros.append((time.perf_counter_ns() - began) / 1000 / TRANSITIONS)
    return micros


def _about(input: Json) -> About:
    arn = "arn:aws:states:us-east-1:000000000000"
    return About(
        arn=f"{arn}:execution:bench:run",
        name="run",
        started_at=START - timedelta(seconds=1),
        input=input,
        role_arn="arn:aws:iam::000000000000:role/bench",
        machine_arn=f"{arn}:stateMachine:bench",
        machine_name="bench",
    )
