"""An execution played again from its history: what happened to it, fed through `advance` anew.

A history tells what came from outside by what follows from it: a task's answer stands there itself,
a timer or a signal shows in the exit from a Wait or in a task that is scheduled again; a redrive
has an event of its own, and finds what a checkpoint of the end before it holds. Fed in at
the time of the event that it led to, it must lead to the same events with the same data, and to
the status and output that the execution's row has.

What a history does not hold is chosen so that it does not matter: a backoff's jitter is nought, so
that the pause is over by the time that the history says it was; a step is never cut short. Two
kinds cannot be judged by it: random intrinsics, and a Distributed Map, whose result is not in its
history. `replay` says of the latter that it is no matter for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.asl import (
    WHOLE_SHARE,
    About,
    Event,
    Execution,
    HistoryEvent,
    Json,
    Poisoned,
    Redriven,
    Signalled,
    Started,
    StateMachine,
    Status,
    Stopped,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
)
from service.asl.checkpoint import from_checkpoint, to_checkpoint

_MAP_RUN: Final = "MapRunStarted"


class NoJitter:
    """Random numbers that make every jitter nought."""

    def bits(self, n: int) -> int:
        return 0

    def uniform(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Ending:
    """How an execution stands by its row."""

    status: str
    output: Json
    error: str | None
    cause: str | None


def replay(
    machine: StateMachine,
    about: About,
    events: Sequence[HistoryEvent],
    ending: Ending,
    time_scale: float = 1.0,
) -> str | None:
    """Return what the history or the row has that the replay has not; None when they agree."""
    if not events:
        return "no history"
    if any(event.type == _MAP_RUN for event in events):
        return None
    player = _Player(machine, Execution.new(about), events, time_scale)
    problem = player.to_the_end()
    if problem is not None:
        return problem
    played = player.execution
    came = Ending(played.status.value, played.output, played.error, played.cause)
    if played.status is Status.RUNNING:
        came = Ending(played.status.value, None, None, None)
    return None if came == ending else f"ends as {came}, its row says {ending}"


class _Player:
    def __init__(
        self,
        machine: StateMachine,
        execution: Execution,
        events: Sequence[HistoryEvent],
        time_scale: float,
    ) -> None:
        self.execution = execution
        self._machine = machine
        self._events = events
        self._time_scale = time_scale
        self._by_id = {event.id: event for event in events}
        self._done = 0

    def to_the_end(self) -> str | None:
        """Feed in what happened; return the first difference."""
        problem = self._feed(Started(), self._events[0].timestamp)
        while problem is None and self._done < len(self._events):
            event = self._events[self._done]
            cause = self._cause_of(event)
            before = self._done
            problem = self._feed(cause, event.timestamp)
            if problem is None and self._done == before:
                problem = f"event {event.id} ({event.type}) does not follow from {cause}"
        return problem

    def _feed(self, event: Event, now: datetime) -> str | None:
        step = advance(
            self._machine,
            self.execution,
            event,
            now,
            NoJitter(),
            time_scale=self._time_scale,
            share=WHOLE_SHARE,
        )
        self.execution = step.execution
        for played in step.history:
            if self._done == len(self._events):
                return f"event {played.id} ({played.type}) is missing"
            kept = self._events[self._done]
            if not _is_same(played, kept):
                return f"event {kept.id} is {kept}, not {played}"
            self._done += 1
        return None

    def _cause_of(self, event: HistoryEvent) -> Event:
        """Return what from outside led to an event, at its time."""
        details = event.details or {}
        error, cause = details.get("error"), details.get("cause")
        texts = (
            error if isinstance(error, str) else None,
            cause if isinstance(cause, str) else None,
        )
        match event.type:
            case "ExecutionRedriven":
                self._hear_of_redrive(event.timestamp)
                return Redriven()
            case "ExecutionAborted":
                return Stopped(*texts)
            case "ExecutionFailed":
                return Poisoned(texts[0] or "", texts[1])
            case "LambdaFunctionSucceeded" | "TaskSucceeded" | "ActivitySucceeded":
                return TaskSucceeded(self._command_of(event), details.get("output"))
        if event.type.endswith(("Failed", "TimedOut")) and event.type != "ExecutionTimedOut":
            return TaskFailed(self._command_of(event), texts[0] or "", texts[1])
        due_at = self.execution.due_at
        return TimerFired() if due_at is not None and due_at <= event.timestamp else Signalled()

    def _hear_of_redrive(self, at: datetime) -> None:
        about = self.execution.about
        about = about._replace(redrive_count=about.redrive_count + 1, redriven_at=at)
        self.execution = from_checkpoint(to_checkpoint(self.execution), about)

    def _command_of(self, event: HistoryEvent) -> int:
        """Return the id of the command that an answer is to: its chain leads to the scheduling."""
        before: HistoryEvent | None = event
        while before is not None and not before.type.endswith("Scheduled"):
            before = self._by_id.get(before.previous_event_id)
        return 0 if before is None else before.id


def _is_same(played: HistoryEvent, kept: HistoryEvent) -> bool:
    """Compare all but the time: a step that was cut short has more moments than its replay."""
    return (played.id, played.previous_event_id, played.type, played.details) == (
        kept.id,
        kept.previous_event_id,
        kept.type,
        kept.details,
    )
