"""Plays a case: a definition run to its end in virtual time, its functions answering as told.

A case is a JSON object:

- `id`, `about`: its name, and the behaviour that it shows
- `definition`, `input`: what is run
- `functions`: for each function that is called, its answers in turn, the last one from then on:
  `{"return": value}`, `{"raise": [error, cause]}`, `{"echo": true}`, `{"silent": true}` (never
  answers); with `"seconds"` the answer takes that long
- `maps`: likewise for each Distributed Map, by its state, what its runs come to
- `signals`: the seconds after the start at which a signal comes
- `expect`: `status`; `output`, or `error` and `cause`; `seconds` from start to end; `events`, as
  GetExecutionHistory shows them, without their times
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from service.asl import (
    About,
    Event,
    Execution,
    HistoryEvent,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    RunMap,
    RunTask,
    Signalled,
    Started,
    Status,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
    render,
)
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from service.asl.states.task import function_name_of

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
EVENTS_MAX = 1_000


class HalfRandom:
    """Random numbers that are always in the middle."""

    def bits(self, n: int) -> int:
        return 1 << (n - 1)

    def uniform(self) -> float:
        return 0.5


class Play:
    """One case being played."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.machine = compile_definition(json.dumps(case["definition"]))
        machine_arn = "arn:aws:states:eu-west-1:000000000000:stateMachine:case"
        about = About(
            arn="arn:aws:states:eu-west-1:000000000000:execution:case:run",
            name="run",
            started_at=START,
            input=case["input"],
            role_arn="arn:aws:iam::000000000000:role/case",
            machine_arn=machine_arn,
            machine_name="case",
        )
        self.execution = Execution.new(about)
        self.now = START
        self.history: list[HistoryEvent] = []
        self._answers = {name: iter_last(a) for name, a in case.get("functions", {}).items()}
        self._runs = {name: iter_last(a) for name, a in case.get("maps", {}).items()}
        self._ahead: list[tuple[datetime, int, Event]] = []
        self._order = count()
        for seconds in case.get("signals", ()):
            self._plan(seconds, Signalled())

    def to_the_end(self) -> dict[str, Any]:
        """Return what came of it, shaped as a case's `expect`."""
        self._feed(Started())
        for _ in range(EVENTS_MAX):
            if self.execution.status is not Status.RUNNING:
                break
            self._feed(self._next())
        execution = self.execution
        came: dict[str, Any] = {"status": execution.status.value}
        if execution.status is Status.SUCCEEDED:
            came["output"] = execution.output
        else:
            came |= {"error": execution.error, "cause": execution.cause}
        came["seconds"] = (self.now - START).total_seconds()
        came["events"] = [without_time(render(event)) for event in self.history]
        return came

    def _feed(self, event: Event) -> None:
        """Take one step, by way of a checkpoint, as the engine would after a crash."""
        checkpoint = json.loads(json.dumps(to_checkpoint(self.execution)))
        execution = from_checkpoint(checkpoint, self.execution.about)
        step = advance(self.machine, execution, event, self.now, HalfRandom())
        self.execution = step.execution
        self.history.extend(step.history)
        for command in step.commands:
            if isinstance(command, RunTask):
                self._call(command)
            elif isinstance(command, RunMap):
                self._run_map(command)

    def _run_map(self, command: RunMap) -> None:
        answer = next(self._runs[command.state])
        run = f"arn:aws:states:eu-west-1:000000000000:mapRun:case/{command.label}:run"
        self._plan(0, MapRunBegan(command.id, run))
        if "return" in answer:
            end: Event = MapRunSucceeded(command.id, answer["return"])
        else:
            end = MapRunFailed(command.id, *answer["raise"])
        self._plan(answer.get("seconds", 0), end)

    def _call(self, command: RunTask) -> None:
        reference = next(t for t in self.machine.tasks if t.resource == command.resource)
        parameters = command.parameters
        name = reference.function_name
        if name is None:
            assert isinstance(parameters, dict), parameters
            name = function_name_of(str(parameters["FunctionName"]))
        answer = next(self._answers[name])
        seconds = answer.get("seconds", 0)
        if "return" in answer:
            self._plan(seconds, TaskSucceeded(command.id, answer["return"]))
        elif "echo" in answer:
            self._plan(seconds, TaskSucceeded(command.id, parameters))
        elif "raise" in answer:
            self._plan(seconds, TaskFailed(command.id, *answer["raise"]))

    def _plan(self, seconds: float, event: Event) -> None:
        moment = self.now + timedelta(seconds=seconds)
        heapq.heappush(self._ahead, (moment, next(self._order), event))

    def _next(self) -> Event:
        """Return the next event and set the clock to its moment."""
        due_at = self.execution.due_at
        if self._ahead and (due_at is None or self._ahead[0][0] <= due_at):
            moment, _, event = heapq.heappop(self._ahead)
        else:
            assert due_at is not None, "nothing will ever happen"
            moment, event = due_at, TimerFired()
        self.now = max(self.now, moment)
        return event


def iter_last(values: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the values in turn, and the last one for ever."""
    yield from values
    while True:
        yield values[-1]


def without_time(event: dict[str, Any]) -> dict[str, Any]:
    """Return a shown event as a case holds it."""
    return {name: value for name, value in event.items() if name != "timestamp"}
