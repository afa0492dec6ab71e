"""Whether an execution can be redriven, and if it cannot, why.

Source: API reference, DescribeExecution ("redriveStatus", "redriveStatusReason"). The reason for an
execution whose person was erased is this service's own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from service.api.stepfunctions.history import last_event_id
from service.api.stepfunctions.protocol import Members
from service.asl import Status
from service.asl.redrive import REDRIVABLE_EVENTS_MAX
from service.engine.arns import label_of, owner_machine
from service.engine.catalog import ExecutionCatalog, ExecutionRecord, MachineCatalog
from service.engine.redrive import OPEN_DAYS_MAX, REDRIVABLE_DAYS

BY_MAP_RUN: Final = "Execution is redriven by its map run"
"""Why a child of a Distributed Map is not redriven by itself."""

OVERTAKEN: Final = "Execution was redriven meanwhile"
"""Why one is not whose row says that it can be: another request came first, and it failed again."""


class Redrivable:
    """Judges executions by their rows, their machines and, where these do not tell, histories."""

    def __init__(self, machines: MachineCatalog, executions: ExecutionCatalog) -> None:
        self._machines = machines
        self._executions = executions

    async def status(self, record: ExecutionRecord, now: datetime) -> Members:
        """Return what DescribeExecution says of it. Raises Unavailable."""
        obstacle = await self.obstacle(record, now)
        if obstacle is not None:
            return {"redriveStatus": "NOT_REDRIVABLE", "redriveStatusReason": obstacle}
        is_child = label_of(record.machine) is not None
        return {"redriveStatus": "REDRIVABLE_BY_MAP_RUN" if is_child else "REDRIVABLE"}

    async def obstacle(self, record: ExecutionRecord, now: datetime) -> str | None:
        """Return why it cannot be redriven, be it by its map run; None if it can.

        Raises Unavailable.
        """
        if record.stopped_at is None or record.status is Status.SUCCEEDED:
            return f"Execution is {record.status.value} and cannot be redriven"
        if await self.is_machine_deleted(record):
            return "State machine is in DELETING status"
        if record.started_at <= now - timedelta(days=OPEN_DAYS_MAX):
            return "Execution has exceeded the max execution time"
        if record.stopped_at <= now - timedelta(days=REDRIVABLE_DAYS):
            return "Execution redrivable period exceeded"
        return None if record.is_kept else await self._what_is_missing(record)

    async def is_machine_deleted(self, record: ExecutionRecord) -> bool:
        """Tell whether nothing of the execution's machine is to run any more."""
        machine = await self._machines.get(owner_machine(record.machine))
        return machine is None or machine.is_deleted

    async def _what_is_missing(self, record: ExecutionRecord) -> str | None:
        events = await last_event_id(self._executions, record.key)
        if events > REDRIVABLE_EVENTS_MAX:
            return "Execution history event limit exceeded"
        if events:
            # A version that could not redrive has ended it.
            return "Execution was started before the launch of RedriveExecution"
        if label_of(record.machine) is not None:
            return None  # Express: its map run starts it again
        return "Execution was erased and cannot be redriven"
