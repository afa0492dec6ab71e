"""Where a run of a state machine stands: what a checkpoint holds and `advance` takes further.

It grows with what is open, not with what is done: a frame for each line of control (the root, a
Parallel branch, a Map iteration), and in a frame only its place, the input of its state and what it
waits for. What is done is history, which is kept elsewhere. One that has ended has no frames; if it
did not succeed it keeps those it stood in, for a redrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from service.asl.commands import (
    Command,
    RunMap,
    RunTask,
    SetTimer,
)
from service.asl.query.scope import NO_VARIABLES
from service.asl.values import Json

ROOT_FRAME: Final = 0
ROOT_SCOPE: Final = ""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """How an execution stands, in the words of the Step Functions API."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


class About(NamedTuple):
    """What the context object tells of an execution: the same until it ends.

    `redrive_count` and `redriven_at` change when it is redriven.
    """

    arn: str
    name: str
    started_at: datetime
    input: Json
    role_arn: str
    machine_arn: str
    machine_name: str
    redrive_count: int = 0
    redriven_at: datetime | None = None


@dataclass(init=False, slots=True)
class OpenTask:
    """A task whose answer has not come. Either moment may pass first."""

    command: Final[RunTask]
    times_out_at: Final[datetime | None]
    heartbeat_due_at: Final[datetime | None]

    def __init__(
        self,
        command: RunTask,
        times_out_at: datetime | None = None,
        heartbeat_due_at: datetime | None = None,
    ) -> None:
        self.command = command
        self.times_out_at = times_out_at
        self.heartbeat_due_at = heartbeat_due_at

    @property
    def due_at(self) -> datetime | None:
        """Return the moment at which the task is given up unless something comes before."""
        if self.times_out_at is None or self.heartbeat_due_at is None:
            return self.times_out_at or self.heartbeat_due_at
        return min(self.times_out_at, self.heartbeat_due_at)


@dataclass(init=False, slots=True)
class OpenWait:
    """A Wait state that lasts until `due_at`, or until a signal."""

    due_at: Final[datetime]

    def __init__(self, due_at: datetime) -> None:
        self.due_at = due_at

    @property
    def command(self) -> Command:
        """Return the timer to ask for."""
        return SetTimer(self.due_at)


@dataclass(init=False, slots=True)
class Backoff:
    """The pause before a state is tried again."""

    due_at: Final[datetime]

    def __init__(self, due_at: datetime) -> None:
        self.due_at = due_at

    @property
    def command(self) -> Command:
        """Return the timer to ask for."""
        return SetTimer(self.due_at)


@dataclass(init=False, slots=True)
class OpenMap:
    """A Distributed Map whose children run. `arn` is that of the run once it has begun."""

    command: Final[RunMap]
    arn: Final[str | None]

    def __init__(self, command: RunMap, arn: str | None = None) -> None:
        self.command = command
        self.arn = arn

    @property
    def due_at(self) -> None:
        """Return None: a map run has no time limit of its own."""
        return


@dataclass(slots=True)
class OpenFork:
    """A Parallel or Map state whose branches are under way.

    `items` is what the branches are given: for Map the items themselves, for Parallel the one input
    that all share. `again` are those below `started` that a redrive has yet to start anew.
    """

    items: Json
    length: int
    concurrency: int
    is_map: bool
    failures_max: int | None = (
        None  # None: no tolerance was asked for, the first failure is the state's own
    )
    source: Json = None  # what a Map's ItemSelector is filled from
    started: int = 0
    running: int = 0
    failed: int = 0
    result_bytes: int = 0
    results: dict[int, Json] = field(default_factory=dict)
    again: tuple[int, ...] = ()

    due_at: None = field(default=None, init=False, repr=False)

    def copy(self) -> OpenFork:
        """Return a fork that can be changed without this one noticing."""
        return OpenFork(
            self.items,
            self.length,
            self.concurrency,
            self.is_map,
            self.failures_max,
            self.source,
            self.started,
            self.running,
            self.failed,
            self.result_bytes,
            self.results.copy(),
            self.again,
        )

    @property
    def next_index(self) -> int | None:
        """Return which branch is to be started next; None when all have been."""
        if self.again:
            return self.again[0]
        return self.started if self.started < self.length else None

    def start(self) -> None:
        """Take note that the branch `next_index` has been started."""
        if self.again:
            self.again = self.again[1:]
        else:
            self.started += 1
        self.running += 1


Open: TypeAlias = OpenTask | OpenWait | Backoff | OpenMap | OpenFork


@dataclass(init=False, slots=True)
class Frame:
    """One line of control.

    `index` is its number among its siblings: the branch, or the item of a Map. `variables` are all
    those in reach, its parent's with them: while it lives, its parent stands still and sets none.
    """

    id: int
    parent: int | None
    scope: str  # JSON pointer of the object whose States it walks through
    index: int
    state: str
    input: Json
    last_event_id: int
    entered_event_id: int
    entered_at: datetime
    retries: tuple[int, ...]  # per Retrier of the current state
    open: Open | None
    variables: Mapping[str, Json]  # never written to: a new one takes its place
    variable_bytes: int  # of JSON text in those that the frame itself has set

    def __init__(
        self,
        id: int,
        parent: int | None,
        scope: str,
        index: int,
        state: str,
        input: Json,
        last_event_id: int = 0,
        entered_event_id: int = 0,
        entered_at: datetime = EPOCH,
        retries: tuple[int, ...] = (),
        open: Open | None = None,
        variables: Mapping[str, Json] = NO_VARIABLES,
        variable_bytes: int = 0,
    ) -> None:
        self.id = id
        self.parent = parent
        self.scope = scope
        self.index = index
        self.state = state
        self.input = input
        self.last_event_id = last_event_id
        self.entered_event_id = entered_event_id
        self.entered_at = entered_at
        self.retries = retries
        self.open = open
        self.variables = variables
        self.variable_bytes = variable_bytes

    def copy(self) -> Frame:
        """Return a frame that can be changed without this one noticing."""
        return Frame(
            self.id,
            self.parent,
            self.scope,
            self.index,
            self.state,
            self.input,
            self.last_event_id,
            self.entered_event_id,
            self.entered_at,
            self.retries,
            self.open.copy() if isinstance(self.open, OpenFork) else self.open,
            self.variables,
            self.variable_bytes,
        )


NO_FRAMES: Final[Mapping[int, Frame]] = MappingProxyType({})


class Halt(NamedTuple):
    """Where a step has stopped short: `at` is its moment, `ready` are the frames left to be tried.

    In their order, each with the event that its entry into its state is linked to, which is no
    longer at hand when the next step notes that the state could not be entered.
    """

    at: datetime
    ready: tuple[tuple[int, int], ...]


@dataclass(init=False, slots=True)
class Execution:
    """A run of a state machine between two events.

    Treat it as frozen: `advance` returns another one.
    """

    about: About
    status: Status
    output: Json
    error: str | None
    cause: str | None
    last_event_id: int
    times_out_at: datetime | None
    is_signalled: bool
    is_acknowledged: bool
    next_frame_id: int
    frames: dict[int, Frame]
    halt: Halt | None
    remains: Mapping[int, Frame]  # the frames of one that has ended, see `redrive.left_behind`
    _seen: tuple[tuple[RunTask, ...], datetime | None] | None = field(repr=False, compare=False)

    def __init__(
        self,
        about: About,
        status: Status = Status.RUNNING,
        output: Json = None,
        error: str | None = None,
        cause: str | None = None,
        last_event_id: int = 0,
        times_out_at: datetime | None = None,
        is_signalled: bool = False,
        is_acknowledged: bool = False,
        next_frame_id: int = ROOT_FRAME,
        frames: dict[int, Frame] | None = None,
        halt: Halt | None = None,
        remains: Mapping[int, Frame] = NO_FRAMES,
    ) -> None:
        self.about = about
        self.status = status
        self.output = output
        self.error = error
        self.cause = cause
        self.last_event_id = last_event_id
        self.times_out_at = times_out_at
        self.is_signalled = is_signalled
        self.is_acknowledged = is_acknowledged
        self.next_frame_id = next_frame_id
        self.frames = {} if frames is None else frames
        self.halt = halt
        self.remains = remains
        self._seen = None

    @classmethod
    def new(cls, about: About) -> Execution:
        """Return an execution to which nothing has happened yet; its first event is Started."""
        return cls(about)

    def copy(self) -> Execution:
        """Return an execution whose fields and set of frames can be changed; frames are shared."""
        return Execution(
            self.about,
            self.status,
            self.output,
            self.error,
            self.cause,
            self.last_event_id,
            self.times_out_at,
            self.is_signalled,
            self.is_acknowledged,
            self.next_frame_id,
            self.frames.copy(),
            self.halt,
            self.remains,
        )

    @property
    def due_at(self) -> datetime | None:
        """Return the earliest moment at which TimerFired is to be delivered, or None."""
        return self._outlook()[1]

    @property
    def open_tasks(self) -> tuple[RunTask, ...]:
        """Return the tasks whose answer has not come; after a crash they are performed again."""
        return self._outlook()[0]

    def _outlook(self) -> tuple[tuple[RunTask, ...], datetime | None]:
        """Return what is open and what is due, looked for once: the engine asks again and again."""
        if self._seen is not None:
            return self._seen
        tasks, earliest = [], self.times_out_at
        if self.halt is not None:
            earliest = self.halt.at if earliest is None else min(earliest, self.halt.at)
        for frame in self.frames.values():
            if frame.open is None:
                continue
            if isinstance(frame.open, OpenTask):
                tasks.append(frame.open.command)
            due_at = frame.open.due_at
            if due_at is not None and (earliest is None or due_at < earliest):
                earliest = due_at
        self._seen = tuple(tasks), earliest
        return self._seen

    @property
    def open_maps(self) -> tuple[RunMap, ...]:
        """Return the Distributed Maps whose run has not ended; resumed after a crash."""
        return tuple(f.open.command for f in self.frames.values() if isinstance(f.open, OpenMap))

    @property
    def remaining_maps(self) -> tuple[RunMap, ...]:
        """Return the Distributed Maps of an execution that has ended whose run a redrive goes on
        with.
        """
        return tuple(f.open.command for f in self.remains.values() if isinstance(f.open, OpenMap))

    def has_begun(self, command: RunMap) -> bool:
        """Return whether the run of an open Distributed Map is known to be there."""
        opened = (f.open for f in self.frames.values() if isinstance(f.open, OpenMap))
        return any(run.command.id == command.id and run.arn is not None for run in opened)


def own_variables(variables: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    """Return those of a frame's variables that it has set itself, not found in its parent's."""
    missing = object()
    return {n: value for n, value in variables.items() if above.get(n, missing) is not value}


def variables_above(frame: Frame, frames: Mapping[int, Frame]) -> Mapping[str, Json]:
    """Return the variables that a frame has found when it began."""
    return NO_VARIABLES if frame.parent is None else frames[frame.parent].variables
