"""What the worker asks of whoever performs Distributed Maps, and is told nothing more about."""

from __future__ import annotations

from typing import Final, Protocol

from service.asl import Execution, RunMap, Status
from service.engine.ports import Key
from service.engine.turn import Tenure


class MapPerformer(Protocol):
    """Performs Distributed Maps; the worker tells it what becomes of executions."""

    async def perform(self, tenure: Tenure, command: RunMap) -> None:
        """Have a map's children run, and deliver what comes of it. Cancelled, it leaves them be."""

    def heard(self, child: Key, status: Status) -> None:
        """Take note that a child execution has ended, in this process."""

    def settled(self, tenure: Tenure, after: Execution) -> None:
        """Take note of a step: what it no longer waits for is stopped."""

    async def tidy_after(self, tenure: Tenure) -> None:
        """Stop what an execution, taken up from its row, no longer waits for."""


class _NoMapRuns:
    """For a worker by itself, whose executions have no Distributed Map."""

    async def perform(self, tenure: Tenure, command: RunMap) -> None:
        raise LookupError(f"{command.state}: this worker performs no Distributed Map")

    def heard(self, child: Key, status: Status) -> None: ...

    def settled(self, tenure: Tenure, after: Execution) -> None: ...

    async def tidy_after(self, tenure: Tenure) -> None: ...


NO_MAP_RUNS: Final[MapPerformer] = _NoMapRuns()
