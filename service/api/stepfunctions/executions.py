"""Executions: start, stop, show, list, and what happened in them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn, Protocol
from uuid import UUID, uuid4

from service import documents
from service.api.stepfunctions import requests
from service.api.stepfunctions.faults import Fault, invalid_input, no_execution, no_machine
from service.api.stepfunctions.history import read_page
from service.api.stepfunctions.machines import shown_machine
from service.api.stepfunctions.names import check_name, execution_arn, machine_arn
from service.api.stepfunctions.pages import invalid_token, position_of, token_of
from service.api.stepfunctions.protocol import Action, Members
from service.asl import About, Execution, Json, StateMachine, Status
from service.asl.values import PAYLOAD_BYTES_MAX, exceeds
from service.engine.arns import Arns
from service.engine.catalog import (
    ExecutionCatalog,
    ExecutionRecord,
    Machine,
    MachineCatalog,
    MachineType,
    Position,
)
from service.engine.definitions import Definitions
from service.engine.express import Express
from service.engine.ids import name_bucket
from service.engine.ports import (
    BUCKETS,
    ExecutionAlreadyExists,
    ExecutionDoesNotExist,
    InvalidExecutionInput,
    Key,
    StateMachineDoesNotExist,
)

BILLED_MILLISECONDS: Final = 100
BILLED_MEGABYTES: Final = 64
"""Step Functions pricing: Express runs are billed in steps of these; here nobody bills, and the
least memory is what a recording shows.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Engine(Protocol):
    """What runs the executions of STANDARD machines."""

    def new_id(self, bucket: int) -> UUID:
        """Return a fresh id in this bucket."""
        ...

    async def start(self, machine: str, name: str, input: Json, *, key: Key) -> datetime:
        """Start an execution; return when it began, once it is stored."""
        ...

    async def stop(self, key: Key, error: str | None = None, cause: str | None = None) -> None:
        """Stop an execution. Raises ExecutionDoesNotExist when it does not run."""
        ...


class Executions:
    """The actions on executions."""

    def __init__(
        self,
        engine: Engine,
        express: Express,
        machines: MachineCatalog,
        executions: ExecutionCatalog,
        definitions: Definitions,
        arns: Arns,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._express = express
        self._machines = machines
        self._executions = executions
        self._definitions = definitions
        self._arns = arns
        self._now = now

    def actions(self) -> dict[str, Action]:
        """Return the actions by name."""
        return {
            "StartExecution": self.start,
            "StartSyncExecution": self.start_sync,
            "StopExecution": self.stop,
            "DescribeExecution": self.describe,
            "DescribeStateMachineForExecution": self.describe_machine,
            "ListExecutions": self.list,
            "GetExecutionHistory": self.history,
        }

    # Starting

    async def start(self, members: Members) -> Members:
        """Start an execution; the same name and input as one that runs gives that one."""
        request = requests.read(requests.StartExecution, members)
        machine, definition = await self._startable(request)
        input = _input(request.input)
        if machine.type is MachineType.EXPRESS:
            about = self._about(machine, request.name or str(uuid4()), input)
            self._express.begin(definition, about)
            return {"executionArn": about.arn, "startDate": about.started_at.timestamp()}
        return await self._start_standard(machine, request.name, input)

    async def _start_standard(self, machine: Machine, name: str | None, input: Json) -> Members:
        bucket = secrets.randbelow(BUCKETS) if name is None else name_bucket(machine.name, name)
        id = self._engine.new_id(bucket)
        name = name or str(id)
        arn = self._arns.execution(machine.name, name)
        try:
            started_at = await self._engine.start(machine.name, name, input, key=Key(bucket, id))
        except ExecutionAlreadyExists:
            started_at = await self._started_before(machine.name, name, input, arn)
        except InvalidExecutionInput as error:
            raise invalid_input(str(error)) from None
        except StateMachineDoesNotExist:
            raise no_machine(self._arns.machine(machine.name)) from None
        return {"executionArn": arn, "startDate": started_at.timestamp()}

    async def _started_before(self, machine: str, name: str, input: Json, arn: str) -> datetime:
        """Return when the execution of this name began, if it runs and has this very input."""
        record = await self._executions.named(name_bucket(machine, name), machine, name)
        is_same = record is not None and record.input == documents.dumps(input).decode()
        if record is None or not is_same or record.status is not Status.RUNNING:
            raise Fault("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
        return record.started_at

    async def start_sync(self, members: Members) -> Members:
        """Run an execution of an EXPRESS machine to its end, and answer how it ended."""
        request = requests.read(requests.StartSyncExecution, members)
        machine, definition = await self._startable(request)
        if machine.type is not MachineType.EXPRESS:
            raise _wrong_type()
        about = self._about(machine, request.name or str(uuid4()), _input(request.input))
        execution = await self._express.run(definition, about)
        return self._ended(execution, request)

    def _ended(self, execution: Execution, request: requests.StartSyncExecution) -> Members:
        about, stopped_at = execution.about, self._now()
        milliseconds = (stopped_at - about.started_at) / timedelta(milliseconds=1)
        billed = max(math.ceil(milliseconds / BILLED_MILLISECONDS), 1) * BILLED_MILLISECONDS
        output = None
        if execution.status is Status.SUCCEEDED:
            output = documents.dumps(execution.output).decode()
        return {
            "executionArn": about.arn,
            "stateMachineArn": about.machine_arn,
            "name": about.name,
            "startDate": about.started_at.timestamp(),
            "stopDate": stopped_at.timestamp(),
            "status": execution.status.value,
            "billingDetails": {
                "billedDurationInMilliseconds": billed,
                "billedMemoryUsedInMB": BILLED_MEGABYTES,
            },
            **_present(
                error=execution.error, cause=execution.cause, traceHeader=request.trace_header
            ),
            **_data("input", request.input, request.included_data),
            **_data("output", output, request.included_data),
        }

    async def _startable(self, request: requests.StartExecution) -> tuple[Machine, StateMachine]:
        """Return the machine to start and its definition."""
        arn = machine_arn(request.state_machine_arn, self._arns)
        if request.name is not None:
            check_name(request.name)
        machine = None if arn.name is None else await self._machines.get(arn.name)
        if machine is None:
            raise no_machine(arn.text)
        if machine.is_deleted:
            if await self._machines.has_running(machine.name):
                raise Fault("StateMachineDeleting", f"State Machine Is Deleting: '{arn.text}'")
            raise no_machine(arn.text)
        definition = await self._definitions.learn(machine.name, machine.sha256, machine.role_arn)
        return machine, definition

    def _about(self, machine: Machine, name: str, input: Json) -> About:
        if exceeds(input):
            raise invalid_input(f"the input is larger than {PAYLOAD_BYTES_MAX} bytes")
        return About(
            arn=self._arns.express(machine.name, name, uuid4()),
            name=name,
            started_at=self._now(),
            input=input,
            role_arn=machine.role_arn or self._arns.role,
            machine_arn=self._arns.machine(machine.name),
            machine_name=machine.name,
        )

    # What was started

    async def stop(self, members: Members) -> Members:
        """Stop an execution; one that has ended stays as it is."""
        request = requests.read(requests.StopExecution, members)
        record = await self._record(request.execution_arn)
        if record.status is Status.RUNNING:
            with suppress(ExecutionDoesNotExist):  # it has ended meanwhile
                await self._engine.stop(record.key, request.error, request.cause)
            record = await self._record(request.execution_arn)
        return {"stopDate": (record.stopped_at or self._now()).timestamp()}

    async def describe(self, members: Members) -> Members:
        """Show an execution as it stands."""
        request = requests.read(requests.OneExecution, members)
        record = await self._record(request.execution_arn)
        return {
            **self._listed(record),
            **_data("input", record.input, request.included_data),
            **_data("output", record.output, request.included_data),
            **_present(error=record.error, cause=record.cause),
            **_redrive(record.status),
        }

    async def describe_machine(self, members: Members) -> Members:
        """Show the machine of an execution, with the definition that it was started on."""
        request = requests.read(requests.OneExecution, members)
        record = await self._record(request.execution_arn)
        machine = await self._machines.get(record.machine)
        assert machine is not None, f"{record.machine}: rows of machines stay"
        definition = await self._definitions.pinned(record.definition)
        shown = shown_machine(machine, definition, self._arns, request.included_data)
        shown["updateDate"] = machine.updated_at.timestamp()
        if machine.revision is not None and machine.sha256 == record.definition:
            shown["revisionId"] = str(machine.revision)
        return shown

    async def list(self, members: Members) -> Members:
        """List a machine's executions, the latest first, a page at a time."""
        request = requests.read(requests.ListExecutions, members)
        machine = await self._listable(request)
        if request.status_filter == "PENDING_REDRIVE" or request.redrive_filter == "REDRIVEN":
            return {"executions": []}
        status = None if request.status_filter is None else Status(request.status_filter)
        binding = ("ListExecutions", machine, str(status))
        before = _position(position_of(request.next_token, *binding))
        size = request.max_results or requests.PAGE
        records = await self._executions.page(machine, status, before, size + 1)
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
        if machine is None or machine.is_deleted:
            raise no_machine(arn.text)
        if machine.type is MachineType.EXPRESS:
            raise _wrong_type()
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

    def _listed(self, record: ExecutionRecord) -> Members:
        """Return what a list shows of an execution."""
        shown: Members = {
            "executionArn": self._arns.execution(record.machine, record.name),
            "stateMachineArn": self._arns.machine(record.machine),
            "name": record.name,
            "status": record.status.value,
            "startDate": record.started_at.timestamp(),
            "redriveCount": 0,
        }
        if record.stopped_at is not None:
            shown["stopDate"] = record.stopped_at.timestamp()
        return shown


def _input(text: str) -> Json:
    try:
        return documents.loads(text, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise invalid_input(str(error)) from None


def _wrong_type() -> Fault:
    return Fault(
        "StateMachineTypeNotSupported",
        "This operation is not supported by this type of state machine",
    )


def _present(**members: str | None) -> Members:
    return {name: value for name, value in members.items() if value is not None}


def _data(name: str, text: str | None, included: requests.IncludedData) -> Members:
    """Return a document and its details; without a document neither."""
    if text is None:
        return {}
    if included == "METADATA_ONLY":
        return {f"{name}Details": {"included": False}}
    return {name: text, f"{name}Details": {"included": True}}


def _redrive(status: Status) -> Members:
    """Return whether the service would redrive an execution of this status.

    Observed: recordings of DescribeExecution; API reference, "redriveStatusReason".
    """
    if status in (Status.RUNNING, Status.SUCCEEDED):
        reason = f"Execution is {status.value} and cannot be redriven"
        return {"redriveStatus": "NOT_REDRIVABLE", "redriveStatusReason": reason}
    return {"redriveStatus": "REDRIVABLE"}


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
