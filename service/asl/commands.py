"""What an execution asks for: performed after the commit that holds it, again after a crash.

The commands that nearly every step makes have their constructors written out, here as with the
other values of the language: those that a dataclass or a named tuple brings are never compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from service.asl.values import Json


@dataclass(init=False, slots=True)
class RunTask:
    """Have a handler do something. The frame waits for TaskSucceeded or TaskFailed with this id.

    `id` is the id of the history event that scheduled this attempt: unique within the execution,
    new with each retry. `entered_event_id` is the id of the TaskStateEntered event: the same for
    retries and repeats, different for loops and iterations; the idempotency key derives from it.
    `attempt` counts from 0.
    """

    id: Final[int]
    entered_event_id: Final[int]
    state: Final[str]
    resource: Final[str]
    parameters: Final[Json]
    attempt: Final[int]
    timeout_seconds: Final[int | None]
    heartbeat_seconds: Final[int | None]

    def __init__(
        self,
        id: int,
        entered_event_id: int,
        state: str,
        resource: str,
        parameters: Json,
        attempt: int = 0,
        timeout_seconds: int | None = None,
        heartbeat_seconds: int | None = None,
    ) -> None:
        self.id = id
        self.entered_event_id = entered_event_id
        self.state = state
        self.resource = resource
        self.parameters = parameters
        self.attempt = attempt
        self.timeout_seconds = timeout_seconds
        self.heartbeat_seconds = heartbeat_seconds


@dataclass(init=False, slots=True)
class SetTimer:
    """Deliver TimerFired at this moment, or at once when it is past."""

    due_at: Final[datetime]

    def __init__(self, due_at: datetime) -> None:
        self.due_at = due_at


class ReadItems(NamedTuple):
    """What an ItemReader asks for: `resource` is the last part of its ARN, the rest as evaluated.

    `config` is ReaderConfig by its own member names, MaxItems being a number.
    """

    resource: str
    parameters: dict[str, Json]
    config: dict[str, Json]


class BatchItems(NamedTuple):
    """What an ItemBatcher asks for: so many items, in so many bytes of JSON, for one child."""

    items_max: int | None
    bytes_max: int
    shared: Json = None  # BatchInput


class WriteResults(NamedTuple):
    """What a ResultWriter asks for. `parameters` None: the results are the state's own output."""

    parameters: dict[str, Json] | None
    transformation: str  # NONE, COMPACT or FLATTEN
    is_lines: bool  # OutputType JSONL


class RunMap(NamedTuple):
    """Have a Distributed Map's items processed by child executions.

    The frame waits for MapRunBegan and then MapRunSucceeded or MapRunFailed with this id, which is
    the id of the MapStateStarted event: new with each retry. `items` is None when they are read.
    Without any tolerance the first failure is the run's. `redrives` counts how often the run went
    on after it had ended, under the same id.
    """

    id: int
    entered_event_id: int
    entered_at: datetime
    state: str
    label: str
    items: list[Json] | None
    concurrency: int
    tolerated_count: int | None = None
    tolerated_percentage: float | None = None
    is_express: bool = False
    reader: ReadItems | None = None
    batcher: BatchItems | None = None
    writer: WriteResults | None = None
    redrives: int = 0


Command: TypeAlias = RunTask | SetTimer | RunMap
