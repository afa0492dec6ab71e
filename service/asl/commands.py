"""What an execution asks for: performed after the commit that holds it, again after a crash."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypeAlias

from service.asl.values import Json


class RunTask(NamedTuple):
    """Have a handler do something. The frame waits for TaskSucceeded or TaskFailed with this id.

    `id` is the id of the history event that scheduled this attempt: unique within the execution,
    new with each retry. `entered_event_id` is the id of the TaskStateEntered event: the same for
    retries and repeats, different for loops and iterations; the idempotency key derives from it.
    `attempt` counts from 0.
    """

    id: int
    entered_event_id: int
    state: str
    resource: str
    parameters: Json
    attempt: int = 0
    timeout_seconds: int | None = None
    heartbeat_seconds: int | None = None


class SetTimer(NamedTuple):
    """Deliver TimerFired at this moment, or at once when it is past."""

    due_at: datetime


Command: TypeAlias = RunTask | SetTimer
