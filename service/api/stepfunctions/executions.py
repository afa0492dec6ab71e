"""Executions that were started: stop, redrive, show, list, and what happened in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn, Protocol
from uuid import UUID

from service.api.stepfunctions import requests
from service.api.stepfunctions.faults import (
    Fault,
    no_execution,
    no_machine,
    not_redrivable,
    wrong_type,
)
from service.api.stepfunctions.history import read_page
from service.api.stepfunctions.machines import shown_machine
from service.api.stepfunctions.members import data, present
from service.api.stepfunctions.names import execution_arn, machine_arn
from service.api.stepfunctions.pages import invalid_token, position_of, token_of
from service.api.stepfunctions.protocol import Action, Members
from service.api.stepfunctions.redrives import BY_MAP_RUN, OVERTAKEN, Redrivable
from service.asl import Status
from service.engine.arns import Arns, label_of, owner_machine
from service.engine.catalog import (
    ExecutionCatalog,
    ExecutionRecord,
    MachineCatalog,
    MachineType,
    Position,
)
from service.engine.definitions import Definitions
from service.engine.ids import name_bucket, run_of
from service.engine.ports import ExecutionDoesNotExist, ExecutionNotRedrivable, Key

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Controls(Protocol):
    """What runs the executions of STANDARD machines."""

    async def stop(self, key: Key, error: str | None = None, cause: str | None = None) -> None:
        """Stop an execution. Raises ExecutionDoesNotExist when it does not run."""
        ...

    async def redrive(self, key: Key, token: str | None = None) -> datetime:
        """Have an execution go on that did not succeed; return when it was redriven.

        Raises ExecutionNotRedrivable.
        """
        ...


class Executions:
    """The actions on executions that were started."""

    def __init__(
        self,
        engine: Controls,
        machines: MachineCatalog,
        executions: ExecutionCatalog,
        definitions: Definitions,
        arns: Arns,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._machines = machines
        self._executions = executions
        self._redrivable = Redrivable(machines, executions)
        self._definitions = definitions
        self._arns = arns
        self._now = now

    def actions(self) -> dict[str, Action]:
        """Return the actions by name."""
        return {
            "StopExecution": self.stop,
            "RedriveExecution": self.redrive,
            "DescribeExecution": self.describe,
            "DescribeStateMachineForExecution": self.describe_machine,
            "ListExecutions": self.list,
            "GetExecutionHistory": self.history,
        }

    async def stop(self, members: Members) -> Members:
        """Stop an execution; one that has ended stays as it is."""
        request = requests.read(requests.StopExecution, members)
        record = await self._record(request.execution_arn)
        if record.status is Status.RUNNING:
            with suppress(ExecutionDoesNotExist):  # it has ended meanwhile
                await self._engine.stop(record.key, request.error, request.cause)
            record = await self._record(request.execution_arn)
        return {"stopDate": (record.stopped_at or self._now()).timestamp()}

    async def redrive(self, members: Members) -> Members:
        """Have an execution go on that did not succeed; the same request gives the same answer."""
        request = requests.read(requests.RedriveExecution, members)
        record = await self._record(request.execution_arn)
        if label_of(record.machine) is not None:
            raise not_redrivable(await self._obstacle(record, BY_MAP_RUN))
        if await self._redrivable.is_machine_deleted(record):
            raise not_redrivable(await self._obstacle(record))
        try:
            redriven_at = await self._engine.redrive(record.key, request.client_token)
        except ExecutionNotRedrivable:
            record = await self._record(request.execution_arn)
            raise not_redrivable(await self._obstacle(record)) from None
        return {"redriveDate": redriven_at.timestamp()}

    async def _obstacle(self, record: ExecutionRecord, otherwise: str = OVERTAKEN) -> str:
        """Return why an execution is not redriven; `otherwise`: its row does not tell."""
        return await self._redrivable.obstacle(record, self._now()) or otherwise

    async def describe(self, members: Members) -> Members:
        """Show an execution as it stands."""
        request = requests.read(requests.OneExecution, members)
        record = await self._record(request.execution_arn)
        return {
            **self._listed(record),
            **data("input", record.input, request.included_data),
            **data("output", record.output, request.included_data),
            **present(error=record.error, cause=record.cause),
            **await self._redrivable.status(record, self._now()),
            **self._map_run(record),
        }

    async def describe_machine(self, members: Members) -> Members:
        """Show the machine of an execution, with the definition that it was started on."""
        request = requests.read(requests.OneExecution, members)
        record = await self._record(request.execution_arn)
        machine = await self._machines.get(owner_machine(record.machine))
        assert machine is not None, f"{record.machine}: rows of machines stay"
        definition = await self._definitions.pinned(record.definition)
        shown = shown_machine(machine, definition, self._arns, request.included_data)
        label = label_of(record.machine)
        if label is not None:
            shown |= {"stateMachineArn": self._arns.machine(record.machine), "label": label}
            shown |= self._map_run(record)
        shown["updateDate"] = machine.updated_at.timestamp()
        if machine.revision is not None and machine.sha256 == record.definition:
            shown["revisionId"] = str(machine.revision)
        return shown

    async def list(self, members: Members) -> Members:
        """List a machine's executions, the latest first, a page at a time."""
        request = requests.read(requests.ListExecutions, members)
        machine = await self._listable(request)
        if request.status_filter == "PENDING_REDRIVE":
            return {"executions": []}
        status = None if request.status_filter is None else Status(request.status_filter)
        redriven = request.redrive_filter
        binding = ("ListExecutions", machine, str(status), str(redriven))
        before = _position(position_of(request.next_token, *binding))
        size = request.max_results or requests.PAGE
        records = await self._executions.page(
            machine,
            status,
            before,
            size + 1,
            is_redriven=None if redriven is None else redriven == "REDRIVEN",
        )
        answer: Members = {"executions": [self._listed(record) for record in records[:size]]}
        if len(records) > size:
            last = records[size - 1]
            micros = (last.started_at - _EPOCH) // _MICROSECOND
            answer["nextToken"] = token_of(f"{micros} {last.key.id}", *binding)
        return answer

    async def _listable(self, request: requests.ListExecutions) -> str:
        """Return the name of the machine whose executions are asked for."""
        if request.state_machine_arn is None:
            if request.map_run_arn is None:
                raise Fault(
                    "ValidationException", "Must specify stateMachineArn or mapRunArn, one of them"
                )
            raise Fault("ResourceNotFound", f"Resource not found: '{request.map_run_arn}'")
        arn = machine_arn(request.state_machine_arn, self._arns)
        machine = None if arn.name is None else await self._machines.get(arn.name)
        if machine is None or (
            machine.is_deleted and not await self._machines.has_running(machine.name)
        ):
            raise no_machine(arn.text)
        if machine.type is MachineType.EXPRESS:
            raise wrong_type()
        return machine.name

    async def history(self, members: Members) -> Members:
        """Show what happened in an execution, a page at a time."""
        request = requests.read(requests.GetExecutionHistory, members)
        record = await self._record(request.execution_arn)
        binding = ("GetExecutionHistory", str(record.key.id), str(request.reverse_order))
        page = await read_page(
            self._executions,
            record.key,
            _event_id(position_of(request.next_token, *binding)),
            size=request.max_results,
            backwards=request.reverse_order,
            with_data=request.include_execution_data,
        )
        answer: Members = {"events": page.events}
        if page.next_event_id is not None:
            answer["nextToken"] = token_of(str(page.next_event_id), *binding)
        return answer

    async def _record(self, text: str) -> ExecutionRecord:
        arn = execution_arn(text, self._arns)
        if arn.machine is None or arn.name is None:
            raise no_execution(text)
        bucket = name_bucket(arn.machine, arn.name)
        record = await self._executions.named(bucket, arn.machine, arn.name)
        if record is None:
            raise no_execution(text)
        return record

    def _map_run(self, record: ExecutionRecord) -> Members:
        """Return the ARN of the map run that an execution is a child of, if it is one."""
        if label_of(record.machine) is None:
            return {}
        return {"mapRunArn": self._arns.map_run(record.machine, run_of(record.key).id)}

    def _listed(self, record: ExecutionRecord) -> Members:
        """Return what a list shows of an execution."""
        shown: Members = {
            "executionArn": self._arns.execution(record.machine, record.name),
            "stateMachineArn": self._arns.machine(record.machine),
            "name": record.name,
            "status": record.status.value,
            "startDate": record.started_at.timestamp(),
            "redriveCount": record.redrive_count,
        }
        if record.stopped_at is not None:
            shown["stopDate"] = record.stopped_at.timestamp()
        if record.redriven_at is not None:
            shown["redriveDate"] = record.redriven_at.timestamp()
        return shown


def _position(text: str | None) -> Position | None:
    if text is None:
        return None
    try:
        micros, id = text.split(" ")
        return Position(_EPOCH + int(micros) * _MICROSECOND, UUID(id))
    except (ValueError, OverflowError):
        _raise_invalid_token()


def _event_id(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > len(str(2**31)) - 1:
        _raise_invalid_token()
    return int(text)


def _raise_invalid_token() -> NoReturn:
    raise invalid_token() from None
