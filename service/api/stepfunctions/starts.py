"""Starting executions: by StartExecution, by StartSyncExecution, and by a task of another one."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID, uuid4

from service import documents
from service.api.stepfunctions import requests
from service.api.stepfunctions.faults import (
    Fault,
    fault_of,
    invalid_input,
    no_machine,
    wrong_type,
)
from service.api.stepfunctions.members import data, present
from service.api.stepfunctions.names import check_name, machine_arn
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
)
from service.engine.definitions import Definitions
from service.engine.express import Express
from service.engine.ids import derived_id, name_bucket
from service.engine.ports import (
    BUCKETS,
    ExecutionAlreadyExists,
    InvalidExecutionInput,
    Key,
    Overloaded,
    StateMachineDoesNotExist,
    Task,
    Unavailable,
)
from service.tasks import StartRefused

BILLED_MILLISECONDS: Final = 100
BILLED_MEGABYTES: Final = 64
"""Step Functions pricing: Express runs are billed in steps of these; here nobody bills, and the
least memory is what a recording shows.
"""


class Starter(Protocol):
    """What runs the executions of STANDARD machines."""

    def new_id(self, bucket: int) -> UUID:
        """Return a fresh id in this bucket."""
        ...

    async def start(self, machine: str, name: str, input: Json, *, key: Key) -> datetime:
        """Start an execution; return when it began, once it is stored."""
        ...


class Starts:
    """The actions that start an execution."""

    def __init__(
        self,
        engine: Starter,
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
        return {"StartExecution": self.start, "StartSyncExecution": self.start_sync}

    async def start(self, members: Members) -> Members:
        """Start an execution; the same name and input as one that runs gives that one."""
        return await self._start(requests.read(requests.StartExecution, members))

    async def start_by_task(self, members: Members, task: Task) -> Members:
        """Start an execution for a task: one for each entry of its state, however often the task
        is performed. Without a name it is named by that entry.

        An EXPRESS one is started again with every repeat. Raises StartRefused with what
        StartExecution would answer, Overloaded, Unavailable.
        """
        try:
            request = requests.read(requests.StartExecution, members)
            if answer := await self._answered_before(request, task):
                return answer
            answer = await self._start(request, task)
            # Its row knows when it began, should a repeat at the same moment have been the first.
            return await self._answered_before(request, task) or answer
        except (Overloaded, Unavailable):
            raise
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            raise StartRefused(fault.code, fault.message, fault.status) from error

    async def _start(self, request: requests.StartExecution, task: Task | None = None) -> Members:
        machine, definition = await self._startable(request)
        input = _input(request.input)
        name, key = self._key(machine.name, request.name, task)
        if machine.type is MachineType.EXPRESS:
            about = self._about(machine, name, input)
            self._express.begin(definition, about)
            return {"executionArn": about.arn, "startDate": about.started_at.timestamp()}
        started_at = await self._start_standard(machine.name, name, input, key)
        return self._started(machine.name, name, started_at)

    async def _answered_before(
        self, request: requests.StartExecution, task: Task
    ) -> Members | None:
        """Return the answer that this very task was given when it was performed before, if it was:
        whatever has become of the execution, and of its machine, since.
        """
        machine = machine_arn(request.state_machine_arn, self._arns).name
        if machine is None:
            return None
        name, key = self._key(machine, request.name, task)
        record = await self._named(machine, name)
        if record is None or record.key != key:
            return None
        return self._started(machine, name, record.started_at)

    def _started(self, machine: str, name: str, at: datetime) -> Members:
        return {"executionArn": self._arns.execution(machine, name), "startDate": at.timestamp()}

    def _key(self, machine: str, name: str | None, task: Task | None) -> tuple[str, Key]:
        """Return name and key of a new execution: for a task those of its state's entry, by which a
        repeat knows its own work again.
        """
        if task is None:
            bucket = secrets.randbelow(BUCKETS) if name is None else name_bucket(machine, name)
            id = self._engine.new_id(bucket)
            return name or str(id), Key(bucket, id)
        name = name or str(task.idempotency_key)
        bucket = name_bucket(machine, name)
        seed = f"{task.idempotency_key}\n{machine}\n{name}"
        return name, Key(bucket, derived_id(task.execution.id, seed, bucket))

    async def _start_standard(self, machine: str, name: str, input: Json, key: Key) -> datetime:
        try:
            return await self._engine.start(machine, name, input, key=key)
        except ExecutionAlreadyExists:
            return await self._started_before(machine, name, input, key)
        except InvalidExecutionInput as error:
            raise invalid_input(str(error)) from None
        except StateMachineDoesNotExist:
            raise no_machine(self._arns.machine(machine)) from None

    async def _started_before(self, machine: str, name: str, input: Json, key: Key) -> datetime:
        """Return when the execution of this name began, if it is this very one, or runs and has
        this very input.

        Raises Unavailable while it is being stored, for a repeat that comes at the same moment.
        """
        record = await self._named(machine, name)
        if record is None:
            raise Unavailable(f"the execution {name!r} is being stored")
        is_same = record.input == documents.dumps(input).decode()
        if record.key != key and not (is_same and record.status is Status.RUNNING):
            arn = self._arns.execution(machine, name)
            raise Fault("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
        return record.started_at

    async def _named(self, machine: str, name: str) -> ExecutionRecord | None:
        return await self._executions.named(name_bucket(machine, name), machine, name)

    async def start_sync(self, members: Members) -> Members:
        """Run an execution of an EXPRESS machine to its end, and answer how it ended."""
        request = requests.read(requests.StartSyncExecution, members)
        machine, definition = await self._startable(request)
        if machine.type is not MachineType.EXPRESS:
            raise wrong_type()
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
            **present(
                error=execution.error, cause=execution.cause, traceHeader=request.trace_header
            ),
            **data("input", request.input, request.included_data),
            **data("output", output, request.included_data),
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


def _input(text: str) -> Json:
    try:
        return documents.loads(text, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise invalid_input(str(error)) from None
