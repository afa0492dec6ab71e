"""What a checkpoint holds: an execution as JSON, with short member names and without its `about`.

Of that only the number of redrives is there: `is_to_be_redriven` tells by it whether the execution
has yet to hear of the last one.

Whatever has its default is left out, and so is what stands there already: a task's parameters are
most often its state's very input. Moments are whole microseconds since 1970, exact and short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from service.asl.commands import BatchItems, ReadItems, RunMap, RunTask, WriteResults
from service.asl.execution import (
    EPOCH,
    NO_FRAMES,
    ROOT_FRAME,
    ROOT_SCOPE,
    About,
    Backoff,
    Execution,
    Frame,
    Halt,
    OpenFork,
    OpenMap,
    OpenTask,
    OpenWait,
    Status,
    own_variables,
    variables_above,
)
from service.asl.values import Json

_MICROSECOND: Final = timedelta(microseconds=1)


def to_checkpoint(execution: Execution) -> Json:
    """Return what a checkpoint of an execution holds."""
    out: dict[str, Json] = {"s": execution.status.value, "e": execution.last_event_id}
    out |= _present(
        o=execution.output,
        r=execution.error,
        c=execution.cause,
        d=_micros(execution.times_out_at),
        g=execution.is_signalled or None,
        k=execution.is_acknowledged or None,
        n=execution.next_frame_id or None,
        h=_halt_to_json(execution.halt),
        q=execution.about.redrive_count or None,
    )
    frames = execution.frames or execution.remains
    if frames:
        out["f"] = [
            _frame_to_json(frame, variables_above(frame, frames)) for frame in frames.values()
        ]
    return out


def is_to_be_redriven(checkpoint: Json, about: About) -> bool:
    """Return whether the execution has been redriven since this checkpoint was written.

    Raise ValueError when `checkpoint` is nothing that `to_checkpoint` writes.
    """
    redrives = checkpoint.get("q", 0) if isinstance(checkpoint, dict) else None
    if not isinstance(redrives, int):
        raise ValueError("the checkpoint is malformed: it tells of no redrives")
    return redrives < about.redrive_count


def from_checkpoint(checkpoint: Json, about: About) -> Execution:
    """Return the execution that `to_checkpoint` wrote.

    Raise ValueError when `checkpoint` is nothing that it writes.
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
    status = Status(checkpoint["s"])
    is_running = status is Status.RUNNING
    return Execution(
        about,
        status,
        checkpoint.get("o"),
        checkpoint.get("r"),
        checkpoint.get("c"),
        checkpoint["e"],
        _moment(checkpoint.get("d")),
        bool(checkpoint.get("g")),
        bool(checkpoint.get("k")),
        checkpoint.get("n", ROOT_FRAME),
        frames if is_running else None,
        _halt_from_json(checkpoint.get("h")),
        NO_FRAMES if is_running else frames,
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
    return Halt(EPOCH + micros * _MICROSECOND, tuple((frame, link) for frame, link in ready))


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
        EPOCH + value["t"] * _MICROSECOND,
        tuple(value.get("r", ())),
        variable_bytes=value.get("z", 0),
    )
    if "T" in value:
        frame.open = _task_from_json(value["T"], frame)
    elif "W" in value:
        frame.open = OpenWait(EPOCH + value["W"] * _MICROSECOND)
    elif "B" in value:
        frame.open = Backoff(EPOCH + value["B"] * _MICROSECOND)
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
        q=command.redrives or None,
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
        value.get("q", 0),
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
        m=fork.failures_max,
        u=fork.source,
        f=fork.failed or None,
        b=fork.result_bytes or None,
        a=list(fork.again) or None,
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
        tuple(value.get("a", ())),
    )


def _present(**members: Json) -> dict[str, Json]:
    return dict(_without_none(members))


def _without_none(members: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    return ((name, value) for name, value in members.items() if value is not None)


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // _MICROSECOND


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + micros * _MICROSECOND
