"""Small definitions, and a run that is driven by hand with a time of the test's choosing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from service.asl import (
    STEP_SHARE,
    About,
    Command,
    Event,
    Execution,
    HistoryEvent,
    InvalidDefinition,
    Json,
    Redriven,
    RunTask,
    Share,
    StateMachine,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
    render,
)
from service.asl.checkpoint import from_checkpoint, is_to_be_redriven, to_checkpoint

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
MACHINE_ARN = "arn:aws:states:eu-west-1:000000000000:stateMachine:orders"
INVOKE = "arn:aws:states:::lambda:invoke"

State = dict[str, Json]


def function(name: str) -> str:
    return f"arn:aws:lambda:eu-west-1:000000000000:function:{name}"


def task(name: str = "send", **fields: Json) -> State:
    return {"Type": "Task", "Resource": function(name), **({"End": True} | fields)}


def ending(type_: str, **fields: Json) -> State:
    return {"Type": type_, "End": True, **fields}


def going(type_: str, next_: str, **fields: Json) -> State:
    return {"Type": type_, "Next": next_, **fields}


def definition(**states: State) -> dict[str, Json]:
    """Return a definition that starts at the first of these states."""
    return {"StartAt": next(iter(states)), "States": dict(states)}


def machine(**states: State) -> StateMachine:
    return compile_definition(json.dumps(definition(**states)))


def problems(value: Json, *, is_express: bool = False) -> list[tuple[str, str, str]]:
    """Return what is wrong with a definition, as (code, pointer, message)."""
    try:
        compile_definition(json.dumps(value), is_express=is_express)
    except InvalidDefinition as error:
        return [(p.code, p.pointer, p.message) for p in error.problems]
    return []


class FixedRandom:
    """Random numbers that are always the same one."""

    def __init__(self, uniform: float = 0.25) -> None:
        self._uniform = uniform

    def bits(self, n: int) -> int:
        return 1

    def uniform(self) -> float:
        return self._uniform


class Run:
    """An execution and its time, and the share of each of its steps."""

    def __init__(
        self,
        machine: StateMachine,
        input: Json = None,
        *,
        time_scale: float = 1.0,
        share: Share = STEP_SHARE,
    ) -> None:
        about = About(
            arn="arn:aws:states:eu-west-1:000000000000:execution:orders:o-1",
            name="o-1",
            started_at=NOON,
            input={} if input is None else input,
            role_arn="arn:aws:iam::000000000000:role/flow",
            machine_arn=MACHINE_ARN,
            machine_name="orders",
        )
        self.machine = machine
        self.execution = Execution.new(about)
        self.now = NOON
        self.time_scale = time_scale
        self.share = share
        self.history: list[HistoryEvent] = []
        self.random = FixedRandom()

    def feed(self, event: Event, *, after: float = 0) -> list[Command]:
        """Return the commands that an event leads to, so many seconds after the last one."""
        self.now += timedelta(seconds=after)
        step = advance(
            self.machine,
            self.execution,
            event,
            self.now,
            self.random,
            time_scale=self.time_scale,
            share=self.share,
        )
        self.execution = step.execution
        self.history.extend(step.history)
        return list(step.commands)

    @property
    def open_task(self) -> RunTask:
        (command,) = self.execution.open_tasks
        return command

    def succeed(self, output: Json = None, *, acknowledges_signal: bool = False) -> list[Command]:
        """Return the commands that follow when the one open task answers."""
        return self.feed(TaskSucceeded(self.open_task.id, output, acknowledges_signal))

    def fail(self, error: str, cause: str | None = None) -> list[Command]:
        """Return the commands that follow when the one open task fails."""
        return self.feed(TaskFailed(self.open_task.id, error, cause))

    def redrive(self, *, after: float = 0) -> list[Command]:
        """Return the commands that a redrive leads to, from what the ended execution keeps."""
        about, now = self.execution.about, self.now + timedelta(seconds=after)
        about = about._replace(redrive_count=about.redrive_count + 1, redriven_at=now)
        document = json.loads(json.dumps(to_checkpoint(self.execution)))
        assert is_to_be_redriven(document, about)
        self.execution = from_checkpoint(document, about)
        return self.feed(Redriven(), after=after)

    def wake(self) -> list[Command]:
        """Return the commands that follow when time has come to the next due moment."""
        assert self.execution.due_at is not None
        return self.feed(
            TimerFired(), after=max(0.0, (self.execution.due_at - self.now).total_seconds())
        )

    @property
    def outcome(self) -> tuple[str, Json]:
        """Return the status and, after a failure, (error, cause), else the output."""
        execution = self.execution
        if execution.status in ("RUNNING", "SUCCEEDED"):
            return execution.status.value, execution.output
        return execution.status.value, [execution.error, execution.cause]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.history]

    @property
    def links(self) -> list[tuple[int, int, str]]:
        """Return the history as (id, previous id, type)."""
        return [(event.id, event.previous_event_id, event.type) for event in self.history]

    def shown(self, type_: str) -> list[dict[str, object]]:
        """Return the history events of a type as the API shows them."""
        return [render(event) for event in self.history if event.type == type_]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)
