"""Where a run of a state machine stands: what a checkpoint holds and `advance` takes further.

It grows with what is open, not with what is done: a frame for each line of control (the root, a
Parallel branch, a Map iteration), and in a frame only its place, the input of its state and what it
waits for. What is done is history, which is kept elsewhere. Moments are written as whole
microseconds since 1970, which is exact and short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from service.asl.commands import (
    BatchItems,
    Command,
    ReadItems,
    RunMap,
    RunTask,
    SetTimer,
    WriteResults,
)
from service.asl.query.scope import NO_VARIABLES
from service.asl.values import Json

ROOT_FRAME: Final = 0
ROOT_SCOPE: Final = ""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Status(StrEnum):
    """How an execution stands, in the words of the Step Functions API."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    ABORTED = "ABORTED"


class About(NamedTuple):
    """What stays the same for as long as an execution lives, and the context object tells of it."""

    arn: str
    name: str
    started_at: datetime
    input: Json
    role_arn: str
    machine_arn: str
    machine_name: str
    redrive_count: int = 0


class OpenTask(NamedTuple):
    """A task whose answer has not come. Either moment may pass first."""

    command: RunTask
    times_out_at: datetime | None = None
    heartbeat_due_at: datetime | None = None

    @property
    def due_at(self) -> datetime | None:
        """Return the moment at which the task is given up unless something comes before."""
        if self.times_out_at is None or self.heartbeat_due_at is None:
            return self.times_out_at or self.heartbeat_due_at
        return min(self.times_out_at, self.heartbeat_due_at)


class OpenWait(NamedTuple):
    """A Wait state that lasts until `due_at`, or until a signal."""

    due_at: datetime

    @property
    def command(self) -> Command:
        """Return the timer to ask for."""
        return SetTimer(self.due_at)


class Backoff(NamedTuple):
    """The pause before a state is tried again."""

    due_at: datetime

    @property
    def command(self) -> Command:
        """Return the timer to ask for."""
        return SetTimer(self.due_at)


class OpenMap(NamedTuple):
    """A Distributed Map whose children run. `arn` is that of the run once it has begun."""

    command: RunMap
    arn: str | None = None

    @property
    def due_at(self) -> None:
        """Return None: a map run has no time limit of its own."""
        return


@dataclass(slots=True)
class OpenFork:
    """A Parallel or Map state whose branches are under way.

    `items` is what the branches are given: for Map the items themselves, for Parallel the one input
    that all share.
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
        )


Open: TypeAlias = OpenTask | OpenWait | Backoff | OpenMap | OpenFork


@dataclass(slots=True)
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
    last_event_id: int = 0
    entered_event_id: int = 0
    entered_at: datetime = _EPOCH
    retries: tuple[int, ...] = ()  # per Retrier of the current state
    open: Open | None = None
    # Never written to: a new one takes its place.
    variables: Mapping[str, Json] = field(default_factory=lambda: NO_VARIABLES)
    variable_bytes: int = 0  # of JSON text in those that the frame itself has set

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


class Halt(NamedTuple):
    """Where a step has stopped short: `at` is its moment, `ready` are the frames left to be tried.

    In their order, each with the event that its entry into its state is linked to, which is no
    longer at hand when the next step notes that the state could not be entered.
    """

    at: datetime
    ready: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Execution:
    """A run of a state machine between two events.

    Treat it as frozen: `advance` returns another one.
    """

    about: About
    status: Status = Status.RUNNING
    output: Json = None
    error: str | None = None
    cause: str | None = None
    last_event_id: int = 0
    times_out_at: datetime | None = None
    is_signalled: bool = False
    is_acknowledged: bool = False
    next_frame_id: int = ROOT_FRAME
    frames: dict[int, Frame] = field(default_factory=dict)
    halt: Halt | None = None
    _seen: tuple[tuple[RunTask, ...], datetime | None] | None = field(
        default=None, init=False, repr=False, compare=False
    )

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

    def has_begun(self, command: RunMap) -> bool:
        """Return whether the run of an open Distributed Map is known to be there."""
        opened = (f.open for f in self.frames.values() if isinstance(f.open, OpenMap))
        return any(run.command.id == command.id and run.arn is not None for run in opened)

    def to_json(self) -> Json:
        """Return what a checkpoint holds: JSON with short member names, without `about`."""
        out: dict[str, Json] = {"s": self.status.value, "e": self.last_event_id}
        out |= _present(
            o=self.output,
            r=self.error,
            c=self.cause,
            d=_micros(self.times_out_at),
            g=self.is_signalled or None,
            k=self.is_acknowledged or None,
            n=self.next_frame_id or None,
            h=_halt_to_json(self.halt),
        )
        if self.frames:
            out["f"] = [
                _frame_to_json(frame, variables_above(frame, self.frames))
                for frame in self.frames.values()
            ]
        return out

    @classmethod
    def from_json(cls, checkpoint: Json, about: About) -> Execution:
        """Return the execution that `to_json` wrote.

        Raise ValueError when `checkpoint` is nothing that `to_json` writes.
        """
        try:
            return _execution_from_json(checkpoint, about)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"the checkpoint is malformed: {error!r}") from error


def _execution_from_json(checkpoint: Any, about: About) -> Execution:
    frames: dict[int, Frame] = {}
    for value in checkpoint.get("f", ()):  # a frame comes after the one that forked it
        frame = _frame_from_json(value)
        above = variables_above(frame, frames)
        frame.variables = {**above, **value["y"]} if "y" in value else above
        frames[frame.id] = frame
    return Execution(
        about,
        Status(checkpoint["s"]),
        checkpoint.get("o"),
        checkpoint.get("r"),
        checkpoint.get("c"),
        checkpoint["e"],
        _moment(checkpoint.get("d")),
        bool(checkpoint.get("g")),
        bool(checkpoint.get("k")),
        checkpoint.get("n", ROOT_FRAME),
        frames,
        _halt_from_json(checkpoint.get("h")),
    )


def _halt_to_json(halt: Halt | None) -> Json:
    if halt is None:
        return None
    ready: list[Json] = [[frame, link] for frame, link in halt.ready]
    return [_micros(halt.at), *ready]


def _halt_from_json(value: Any) -> Halt | None:
    if value is None:
        return None
    micros, *ready = value
    return Halt(_EPOCH + micros * _MICROSECOND, tuple((frame, link) for frame, link in ready))


def own_variables(variables: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    """Return those of a frame's variables that it has set itself, not found in its parent's."""
    missing = object()
    return {n: value for n, value in variables.items() if above.get(n, missing) is not value}


def variables_above(frame: Frame, frames: Mapping[int, Frame]) -> Mapping[str, Json]:
    """Return the variables that a frame has found when it began."""
    return NO_VARIABLES if frame.parent is None else frames[frame.parent].variables


def _frame_to_json(frame: Frame, above: Mapping[str, Json]) -> Json:
    out: dict[str, Json] = {
        "i": frame.id,
        "s": frame.state,
        "v": frame.input,
        "l": frame.last_event_id,
        "e": frame.entered_event_id,
        "t": _micros(frame.entered_at),
    }
    if frame.parent is not None:
        out |= {"p": frame.parent, "w": frame.scope, "x": frame.index}
    if any(frame.retries):
        out["r"] = list(frame.retries)
    if frame.variables is not above:
        out |= {"y": own_variables(frame.variables, above), "z": frame.variable_bytes}
    match frame.open:
        case OpenTask() as task:
            out["T"] = _task_to_json(task, frame)
        case OpenWait(due_at):
            out["W"] = _micros(due_at)
        case Backoff(due_at):
            out["B"] = _micros(due_at)
        case OpenMap() as run:
            out["M"] = _map_to_json(run, frame)
        case OpenFork() as fork:
            out["F"] = _fork_to_json(fork)
    return out


def _frame_from_json(value: Any) -> Frame:
    frame = Frame(
        value["i"],
        value.get("p"),
        value.get("w", ROOT_SCOPE),
        value.get("x", 0),
        value["s"],
        value["v"],
        value["l"],
        value["e"],
        _EPOCH + value["t"] * _MICROSECOND,
        tuple(value.get("r", ())),
        variable_bytes=value.get("z", 0),
    )
    if "T" in value:
        frame.open = _task_from_json(value["T"], frame)
    elif "W" in value:
        frame.open = OpenWait(_EPOCH + value["W"] * _MICROSECOND)
    elif "B" in value:
        frame.open = Backoff(_EPOCH + value["B"] * _MICROSECOND)
    elif "M" in value:
        frame.open = _map_from_json(value["M"], frame)
    elif "F" in value:
        frame.open = _fork_from_json(value["F"])
    return frame


def _task_to_json(task: OpenTask, frame: Frame) -> Json:
    """Leave out what the frame holds as well; parameters are most often the state's very input."""
    command = task.command
    out: dict[str, Json] = {"i": command.id, "r": command.resource}
    if command.parameters is not frame.input:
        out["p"] = command.parameters
    return out | _present(
        a=command.attempt or None,
        t=command.timeout_seconds,
        h=command.heartbeat_seconds,
        d=_micros(task.times_out_at),
        b=_micros(task.heartbeat_due_at),
    )


def _task_from_json(value: Any, frame: Frame) -> OpenTask:
    command = RunTask(
        value["i"],
        frame.entered_event_id,
        frame.state,
        value["r"],
        value.get("p", frame.input),
        value.get("a", 0),
        value.get("t"),
        value.get("h"),
    )
    return OpenTask(command, _moment(value.get("d")), _moment(value.get("b")))


def _map_to_json(run: OpenMap, frame: Frame) -> Json:
    """Leave out what the frame holds as well, as of a task; there are items or a reader."""
    command = run.command
    is_input = command.reader is None and command.items is frame.input
    parts = (command.reader, command.batcher, command.writer)
    reader, batcher, writer = (None if part is None else part._asdict() for part in parts)
    out: dict[str, Json] = {"i": command.id, "l": command.label, "c": command.concurrency}
    return out | _present(
        a=run.arn,
        v=None if is_input else command.items,
        t=command.tolerated_count,
        p=command.tolerated_percentage,
        x=command.is_express or None,
        r=reader,
        b=batcher,
        w=writer,
    )


def _map_from_json(value: Any, frame: Frame) -> OpenMap:
    command = RunMap(
        value["i"],
        frame.entered_event_id,
        frame.entered_at,
        frame.state,
        value["l"],
        value.get("v", None if "r" in value else frame.input),
        value["c"],
        value.get("t"),
        value.get("p"),
        bool(value.get("x")),
        ReadItems(**value["r"]) if "r" in value else None,
        BatchItems(**value["b"]) if "b" in value else None,
        WriteResults(**value["w"]) if "w" in value else None,
    )
    return OpenMap(command, value.get("a"))


def _fork_to_json(fork: OpenFork) -> Json:
    out: dict[str, Json] = {
        "v": fork.items,
        "n": fork.length,
        "c": fork.concurrency,
        "k": fork.is_map,
        "s": fork.started,
        "r": fork.running,
        "o": [[index, result] for index, result in fork.results.items()],
    }
    return out | _present(
        m=fork.failures_max, u=fork.source, f=fork.failed or None, b=fork.result_bytes or None
    )


def _fork_from_json(value: Any) -> OpenFork:
    return OpenFork(
        value["v"],
        value["n"],
        value["c"],
        value["k"],
        value.get("m"),
        value.get("u"),
        value["s"],
        value["r"],
        value.get("f", 0),
        value.get("b", 0),
        dict(value["o"]),
    )


def _present(**members: Json) -> dict[str, Json]:
    return dict(_without_none(members))


def _without_none(members: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    return ((name, value) for name, value in members.items() if value is not None)


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + micros * _MICROSECOND
