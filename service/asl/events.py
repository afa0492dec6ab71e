"""What can happen to an execution: the only things that enter `advance`.

A task's event names the command it answers by that command's id. An answer to a command that is no
longer open (its task timed out, its branch was given up, it was performed twice after a crash)
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from service.asl.values import Json


@dataclass(frozen=True, slots=True)
class Started:
    """The execution begins."""


@dataclass(init=False, slots=True)
class TaskSucceeded:
    """A handler answered. `acknowledges_signal`: what it says already tells what a signal would."""

    command_id: Final[int]
    output: Final[Json]
    acknowledges_signal: Final[bool]

    def __init__(self, command_id: int, output: Json, acknowledges_signal: bool = False) -> None:
        self.command_id = command_id
        self.output = output
        self.acknowledges_signal = acknowledges_signal


@dataclass(init=False, slots=True)
class TaskFailed:
    """A handler failed, or there is none."""

    command_id: Final[int]
    error: Final[str]
    cause: Final[str | None]

    def __init__(self, command_id: int, error: str, cause: str | None = None) -> None:
        self.command_id = command_id
        self.error = error
        self.cause = cause


@dataclass(frozen=True, slots=True)
class TaskHeartbeat:
    """A handler is alive: its heartbeat timeout starts again."""

    command_id: int


@dataclass(frozen=True, slots=True)
class MapRunBegan:
    """A Distributed Map's run is there, under this ARN."""

    command_id: int
    arn: str


@dataclass(frozen=True, slots=True)
class MapRunSucceeded:
    """A Distributed Map's children have ended, and not too many of them failed."""

    command_id: int
    output: Json


@dataclass(frozen=True, slots=True)
class MapRunFailed:
    """A Distributed Map's run failed: too many children did, or its items or results."""

    command_id: int
    error: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Time has passed: whatever of this execution is due at `now` happens, and nothing else."""


@dataclass(frozen=True, slots=True)
class Signalled:
    """The one extension to ASL: ends every Wait open at this moment.

    If none is open it is remembered and ends the next one, unless a task has meanwhile acknowledged
    it.
    """


@dataclass(frozen=True, slots=True)
class Stopped:
    """Somebody stops the execution (StopExecution)."""

    error: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Poisoned:
    """The execution took its worker down too often: it ends as FAILED (the engine's quarantine)."""

    error: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    """An execution that has ended goes on (RedriveExecution); how often it has, `about` tells."""


Event: TypeAlias = (
    Started
    | TaskSucceeded
    | TaskFailed
    | TaskHeartbeat
    | MapRunBegan
    | MapRunSucceeded
    | MapRunFailed
    | TimerFired
    | Signalled
    | Stopped
    | Poisoned
    | Redriven
)
