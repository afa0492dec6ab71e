"""The Amazon States Language: definitions in, commands and history out, with no IO of its own."""

from service.asl.commands import Command, RunMap, RunTask, SetTimer
from service.asl.errors import (
    HEARTBEAT_TIMEOUT,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
    ExecutionError,
    InvalidDefinition,
    Problem,
    TextProblem,
)
from service.asl.events import (
    Event,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    Poisoned,
    Redriven,
    Signalled,
    Started,
    Stopped,
    TaskFailed,
    TaskHeartbeat,
    TaskSucceeded,
    TimerFired,
)
from service.asl.execution import About, Execution, Status
from service.asl.history import HISTORY_EVENTS_MAX, HistoryEvent, render
from service.asl.interpreter import Step, advance
from service.asl.parser import StateMachine, TaskReference, compile_definition
from service.asl.share import NO_SHARE, STEP_SHARE, WHOLE_SHARE, Share
from service.asl.values import Json, Random

__all__ = [
    "HEARTBEAT_TIMEOUT",
    "HISTORY_EVENTS_MAX",
    "NO_SHARE",
    "RUNTIME",
    "STEP_SHARE",
    "TASK_FAILED",
    "TIMEOUT",
    "WHOLE_SHARE",
    "About",
    "Command",
    "Event",
    "Execution",
    "ExecutionError",
    "HistoryEvent",
    "InvalidDefinition",
    "Json",
    "MapRunBegan",
    "MapRunFailed",
    "MapRunSucceeded",
    "Poisoned",
    "Problem",
    "Random",
    "Redriven",
    "RunMap",
    "RunTask",
    "SetTimer",
    "Share",
    "Signalled",
    "Started",
    "StateMachine",
    "Status",
    "Step",
    "Stopped",
    "TaskFailed",
    "TaskHeartbeat",
    "TaskReference",
    "TaskSucceeded",
    "TextProblem",
    "TimerFired",
    "advance",
    "compile_definition",
    "render",
]
