"""A Distributed Map played in virtual time: its children one by one, as if side by side.

No files are read or written: what an ItemReader reads is told by the case, and where a
ResultWriter would write is made up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime
from itertools import chain
from typing import Final

from service.asl import (
    About,
    Event,
    Execution,
    ExecutionError,
    Json,
    MapRunFailed,
    MapRunSucceeded,
    RunMap,
    Status,
)
from service.asl.errors import EXCEED_TOLERATED_FAILURE_THRESHOLD, RUNTIME
from service.asl.interpreter import TOLERANCE_CAUSE
from service.asl.map_run import Inputs, Tally

_ARN: Final = "arn:aws:states:us-east-1:000000000000"
RUN: Final = "00000000-0000-7000-8000-000000000000"

PlayChild = Callable[[Json, datetime], tuple[Execution, datetime]]
"""Play a child with this input from a moment on; return how it ended, and when."""


def run_arn(about: About, label: str) -> str:
    """Return the ARN of a run that an execution asks for."""
    return f"{_ARN}:mapRun:{_machine_of(about, label)}:{RUN}"


def child_of(about: About, label: str, number: int, input: Json, moment: datetime) -> About:
    """Return what the context object tells of a child, beside what it tells of its parent."""
    machine, name = _machine_of(about, label), f"{RUN}-{number}"
    return about._replace(
        arn=f"{_ARN}:execution:{machine}:{name}",
        name=name,
        started_at=moment,
        input=input,
        machine_arn=f"{_ARN}:stateMachine:{machine}",
        machine_name=machine,
    )


def _machine_of(about: About, label: str) -> str:
    return f"{about.machine_name.partition('/')[0]}/{label}"


def run_map(
    command: RunMap,
    arn: str,
    inputs: Inputs,
    items: Json,
    now: datetime,
    play_child: PlayChild,
) -> tuple[Event, datetime]:
    """Return what the map's frame waits for, and when it comes."""
    assert isinstance(items, list), items
    tally = Tally(command.tolerated_count, command.tolerated_percentage, len(items))
    # When each of the children that may be under way at once is over, and so another can begin.
    free = [now] * max(1, min(command.concurrency, len(items)))
    results: list[Json] = []
    ended_at = now
    try:
        for child in chain(inputs.from_items(items), inputs.rest()):
            execution, moment = play_child(child.value, heapq.heappop(free))
            heapq.heappush(free, moment)
            ended_at = max(ended_at, moment)
            tally.note(execution.status, child.items)
            if tally.is_exceeded:
                error = EXCEED_TOLERATED_FAILURE_THRESHOLD
                return MapRunFailed(command.id, error, TOLERANCE_CAUSE), moment
            if execution.status is Status.SUCCEEDED:
                results.append(execution.output)
    except ExecutionError as error:
        return MapRunFailed(command.id, error.error or RUNTIME, error.cause), ended_at
    return MapRunSucceeded(command.id, _output(command, arn, results)), ended_at


def _output(command: RunMap, arn: str, results: list[Json]) -> Json:
    writer = command.writer
    if writer is not None and writer.parameters is not None:
        prefix = writer.parameters.get("Prefix")
        folder = f"{str(prefix).strip('/')}/{RUN}" if prefix else RUN
        details: Json = {
            "Bucket": writer.parameters["Bucket"],
            "Key": f"{folder}/manifest.json",
        }
        return {"MapRunArn": arn, "ResultWriterDetails": details}
    if writer is not None and writer.transformation == "FLATTEN":
        flat: list[Json] = []
        for result in results:
            flat += result if isinstance(result, list) else [result]
        return flat
    return results
