"""What a checkpoint holds: an execution as JSON, with short member names and without its `about`.

Of that only the number of redrives is there: `is_to_be_redriven` tells by it whether the execution
has yet to hear of the last one.

Whatever has its default is left out, and so is what stands there already: a task's parameters are
most often its state's very input. Moments are whole microseconds since 1970, exact and short.
"""

from __future__ import annotations

from collections.abc import Mapping
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
_SECOND_MICROS: Final = 1_000_000
_DAY_SECONDS: Final = 86_400


def to_checkpoint(execution: Execution) -> Json:
    """Return what a checkpoint of an execution holds."""
    out: dict[str, Json] = {"s": execution.status.value, "e": execution.last_event_id}
    if execution.output is not None:
        out["o"] = execution.output
    if execution.error is not None:
        out["r"] = execution.error
    if execution.cause is not None:
        out["c"] = execution.cause
    if execution.times_out_at is not None:
        out["d"] = _micros(execution.times_out_at)
    if execution.is_signalled:
        out["g"] = True
    if execution.is_acknowledged:
        out["k"] = True
    if execution.next_frame_id != ROOT_FRAME:
        out["n"] = execution.next_frame_id
    if execution.halt is not None:
        out["h"] = _halt_to_json(execution.halt)
    if execution.about.redrive_count:
        out["q"] = execution.about.redrive_count
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
    stored: Any = checkpoint
    try:
        return _execution_from_json(stored, about)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"the checkpoint is malformed: {error!r}") from error


def _execution_from_json(checkpoint: dict[str, Any], about: About) -> Execution:
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


def _halt_to_json(halt: Halt) -> Json:
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
    if frame.retries and any(frame.retries):
        out["r"] = list(frame.retries)
    if frame.variables is not above:
        out |= {"y": own_variables(frame.variables, above), "z": frame.variable_bytes}
    match frame.open:
        case OpenTask() as task:
            out["T"] = _task_to_json(task, frame)
        case OpenWait() as wait:
            out["W"] = _micros(wait.due_at)
        case Backoff() as backoff:
            out["B"] = _micros(backoff.due_at)
        case OpenMap() as run:
            out["M"] = _map_to_json(run, frame)
        case OpenFork() as fork:
            out["F"] = _fork_to_json(fork)
    return out


def _frame_from_json(value: dict[str, Any]) -> Frame:
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
    if command.attempt:
        out["a"] = command.attempt
    if command.timeout_seconds is not None:
        out["t"] = command.timeout_seconds
    if command.heartbeat_seconds is not None:
        out["h"] = command.heartbeat_seconds
    if task.times_out_at is not None:
        out["d"] = _micros(task.times_out_at)
    if task.heartbeat_due_at is not None:
        out["b"] = _micros(task.heartbeat_due_at)
    return out


def _task_from_json(value: dict[str, Any], frame: Frame) -> OpenTask:
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


def _map_from_json(value: dict[str, Any], frame: Frame) -> OpenMap:
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


def _fork_from_json(value: dict[str, Any]) -> OpenFork:
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
    return {name: value for name, value in members.items() if value is not None}


def _micros(moment: datetime) -> int:
    # Dividing by a microsecond is slower: it is done in integers of any size.
    since = moment - EPOCH
    return (since.days * _DAY_SECONDS + since.seconds) * _SECOND_MICROS + since.microseconds


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + micros * _MICROSECOND
