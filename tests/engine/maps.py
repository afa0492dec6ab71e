"""Distributed Maps to try, and how their runs and children stand."""

from __future__ import annotations

from collections import Counter
from typing import Any

from service.asl import ExecutionError, Json
from service.engine.ports import Task
from tests.engine.harness import definition
from tests.engine.small import Small

PASS: Json = {"Type": "Pass", "End": True}
EXCEEDED = "States.ExceedToleratedFailureThreshold"


def each(
    state: Json = PASS, type_: str = "STANDARD", name: str = "Item", **fields: Any
) -> dict[str, Any]:
    """Return a Distributed Map whose children are one state."""
    processor = {
        "StartAt": name,
        "States": {name: state},
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": type_},
    }
    return {"Type": "Map", "ItemProcessor": processor, "Label": "each", "End": True, **fields}


def only(state: Json) -> str:
    return definition("All", All=state)  # type: ignore[arg-type]


async def fail_the_odd(input: Json, task: Task) -> Json:
    assert isinstance(input, int)
    if input % 2:
        raise ExecutionError("Odd", str(input))
    return input


def statuses(s: Small) -> Counter[str]:
    """Return how the children stand."""
    rows = s.store.executions.values()
    return Counter(row.at.status.value for row in rows if "/" in row.machine)


def runs(s: Small) -> list[tuple[str, int | None]]:
    return [(row.status.value, row.items) for row in s.store.map_runs.rows.values()]
