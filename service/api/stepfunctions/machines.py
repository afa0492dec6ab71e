"""State machines: create, change, show, list, delete; and the check of a definition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from uuid import uuid4

from service import documents
from service.api.stepfunctions import requests
from service.api.stepfunctions.faults import Fault, location_of, no_machine, validation
from service.api.stepfunctions.names import check_name, check_role, machine_arn
from service.api.stepfunctions.pages import position_of, token_of
from service.api.stepfunctions.protocol import Action, Members
from service.asl import InvalidDefinition, Json, Problem, StateMachine, compile_definition
from service.asl.parser import warnings_of
from service.engine.arns import Arns
from service.engine.catalog import (
    Machine,
    MachineCatalog,
    MachineChange,
    MachineType,
    NewMachine,
)
from service.engine.definitions import Definitions

DIAGNOSTICS: Final = 100
NOTHING_TO_UPDATE: Final = (
    "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration "
    "must be specified"
)

Missing = Callable[[StateMachine], Sequence[Problem]]
"""Return a problem for each task of a definition that nothing performs."""


class Machines:
    """The actions on state machines."""

    def __init__(
        self, catalog: MachineCatalog, definitions: Definitions, missing: Missing, arns: Arns
    ) -> None:
        self._catalog = catalog
        self._definitions = definitions
        self._missing = missing
        self._arns = arns

    def actions(self) -> dict[str, Action]:
        """Return the actions by name."""
        return {
            "CreateStateMachine": self.create,
            "UpdateStateMachine": self.update,
            "DescribeStateMachine": self.describe,
            "ListStateMachines": self.list,
            "DeleteStateMachine": self.delete,
            "ValidateStateMachineDefinition": self.validate,
        }

    async def create(self, members: Members) -> Members:
        """Create a machine, or answer as before if exactly this one is there."""
        request = requests.read(requests.CreateStateMachine, members)
        check_name(request.name)
        check_role(request.role_arn)
        _refuse(request.unsupported())
        logging = _logging(request.logging_configuration)
        machine = await self._compiled(request.definition, request.type)
        new = NewMachine(
            request.name,
            MachineType(request.type),
            machine.text,
            machine.sha256,
            request.role_arn,
            logging,
            bool(request.tracing_configuration and request.tracing_configuration.enabled),
        )
        standing, is_new = await self._catalog.create(new)
        arn = self._arns.machine(request.name)
        if standing.is_deleted:
            raise Fault("StateMachineDeleting", f"State Machine Is Deleting: '{arn}'")
        if not is_new and not standing.is_made_like(new):
            raise Fault("StateMachineAlreadyExists", f"State Machine Already Exists: '{arn}'")
        if is_new:
            self._definitions.take(request.name, machine, request.role_arn)
        return {"stateMachineArn": arn, "creationDate": standing.created_at.timestamp()}

    async def update(self, members: Members) -> Members:
        """Change a machine. What runs goes on as it was started."""
        request = requests.read(requests.UpdateStateMachine, members)
        arn = machine_arn(request.state_machine_arn, self._arns)
        tracing = request.tracing_configuration
        changes = (request.definition, request.role_arn, request.logging_configuration, tracing)
        if all(change is None for change in changes):
            raise Fault("MissingRequiredParameter", NOTHING_TO_UPDATE)
        if request.role_arn is not None:
            check_role(request.role_arn)
        _refuse(request.unsupported())
        logging = _logging(request.logging_configuration)
        machine = None
        if request.definition is not None:
            changed = None if arn.name is None else await self._catalog.get(arn.name)
            type = MachineType.STANDARD if changed is None else changed.type
            machine = await self._compiled(request.definition, type)
        change = MachineChange(
            text=None if machine is None else machine.text,
            sha256=None if machine is None else machine.sha256,
            role_arn=request.role_arn,
            logging=logging,
            is_traced=None if tracing is None else tracing.enabled,
        )
        standing = await self._catalog.update(arn.name or "", change, uuid4())
        if standing is None:
            raise await self._unchangeable(arn.name, arn.text)
        await self._definitions.learn(standing.name, standing.sha256, standing.role_arn)
        return {
            "updateDate": standing.updated_at.timestamp(),
            "revisionId": str(standing.revision),
        }

    async def _unchangeable(self, name: str | None, arn: str) -> Fault:
        """Return why the API may not change a machine."""
        machine = None if name is None else await self._catalog.get(name)
        if machine is None or (machine.is_deleted and not await self._has_running(machine)):
            return no_machine(arn)
        if machine.is_deleted:
            return Fault("StateMachineDeleting", f"State Machine Is Deleting: '{arn}'")
        return Fault(
            "ConflictException",
            f"The state machine '{machine.name}' is published by the file '{machine.file}' in the "
            "service's workflows folder: change that file instead",
        )

    async def _has_running(self, machine: Machine) -> bool:
        return await self._catalog.has_running(machine.name)

    async def delete(self, members: Members) -> Members:
        """Delete a machine; one that is not there is no error. What runs goes on to its end."""
        request = requests.read(requests.OneMachine, members)
        arn = machine_arn(request.state_machine_arn, self._arns)
        if arn.name is None:
            return {}
        if await self._catalog.delete(arn.name):
            self._definitions.drop(arn.name)
            return {}
        machine = await self._catalog.get(arn.name)
        if machine is not None and not machine.is_deleted:
            raise await self._unchangeable(arn.name, arn.text)
        return {}

    async def describe(self, members: Members) -> Members:
        """Show a machine: DELETING while executions of a deleted one run."""
        request = requests.read(requests.OneMachine, members)
        arn = machine_arn(request.state_machine_arn, self._arns)
        machine = None if arn.name is None else await self._catalog.get(arn.name)
        if machine is None or (machine.is_deleted and not await self._has_running(machine)):
            raise no_machine(arn.text)
        definition = await self._definitions.pinned(machine.sha256)
        shown = shown_machine(machine, definition, self._arns, request.included_data)
        return shown | {
            "status": "DELETING" if machine.is_deleted else "ACTIVE",
            "type": machine.type.value,
            "creationDate": machine.created_at.timestamp(),
            **({} if machine.revision is None else {"revisionId": str(machine.revision)}),
        }

    async def list(self, members: Members) -> Members:
        """List machines by name, a page at a time."""
        request = requests.read(requests.ListStateMachines, members)
        after = position_of(request.next_token, "ListStateMachines") or ""
        size = request.max_results or requests.PAGE
        machines = await self._catalog.page(after, size + 1)
        answer: Members = {
            "stateMachines": [
                {
                    "stateMachineArn": self._arns.machine(machine.name),
                    "name": machine.name,
                    "type": machine.type.value,
                    "creationDate": machine.created_at.timestamp(),
                }
                for machine in machines[:size]
            ]
        }
        if len(machines) > size:
            answer["nextToken"] = token_of(machines[size - 1].name, "ListStateMachines")
        return answer

    async def validate(self, members: Members) -> Members:
        """Check a definition and tell all that is wrong with it."""
        request = requests.read(requests.ValidateDefinition, members)
        size = request.max_results or DIAGNOSTICS
        try:
            await self._compiled(request.definition, request.type)
        except InvalidDefinition as error:
            problems = error.problems
        else:
            problems = ()
        diagnostics = [_diagnostic(problem, "ERROR") for problem in problems]
        if request.severity == "WARNING":
            warnings = await asyncio.to_thread(warnings_of, request.definition)
            diagnostics += [_diagnostic(problem, "WARNING") for problem in warnings]
        return {
            "result": "FAIL" if problems else "OK",
            "diagnostics": diagnostics[:size],
            "truncated": len(diagnostics) > size,
        }

    async def _compiled(self, text: str, type: str) -> StateMachine:
        """Return the compiled definition. Raise InvalidDefinition with all that is wrong with it.

        In a thread: a definition of a megabyte would hold up everything else.
        """
        return await asyncio.to_thread(self._compile, text, type)

    def _compile(self, text: str, type: str) -> StateMachine:
        machine = compile_definition(text, is_express=type == MachineType.EXPRESS)
        problems = self._missing(machine)
        if problems:
            raise InvalidDefinition(problems)
        return machine


def shown_machine(
    machine: Machine, definition: StateMachine, arns: Arns, included: requests.IncludedData
) -> Members:
    """Return what both descriptions of a machine have in common.

    Observed: DescribeStateMachine always shows all three configurations.
    """
    logging = None if machine.logging is None else documents.loads(machine.logging)
    shown: Members = {
        "stateMachineArn": arns.machine(machine.name),
        "name": machine.name,
        "roleArn": machine.role_arn or arns.role,
        "loggingConfiguration": logging or {"level": "OFF", "includeExecutionData": False},
        "tracingConfiguration": {"enabled": machine.is_traced},
        "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
    }
    if included == "ALL_DATA":
        shown["definition"] = definition.text
        if definition.variable_references:
            shown["variableReferences"] = {
                state: [*names] for state, names in definition.variable_references.items()
            }
    return shown


def _refuse(constraints: Sequence[str]) -> None:
    if constraints:
        raise validation(*constraints)


def _logging(logging: requests.Logging | None) -> str | None:
    """Return the configuration as it is kept. Raise Fault for one that names no single destination.

    Observed: recordings of CreateStateMachine and UpdateStateMachine.
    """
    if logging is None:
        return None
    groups = [one.cloud_watch_logs_log_group for one in logging.destinations]
    if any(group is None or group.log_group_arn is None for group in groups):
        raise Fault(
            "InvalidLoggingConfiguration",
            "Invalid Logging Configuration: a destination names no log group.",
        )
    count = len(groups)
    if count > 1 or (count == 0 and logging.level != "OFF"):
        raise Fault(
            "InvalidLoggingConfiguration",
            "Invalid Logging Configuration: Must specify exactly one Log Destination.",
        )
    kept = logging.model_dump(by_alias=True, exclude_none=True)
    if not count:
        del kept["destinations"]
    return documents.dumps(kept).decode()


def _diagnostic(problem: Problem, severity: str) -> Json:
    """Return a problem as ValidateStateMachineDefinition tells it."""
    diagnostic: Members = {
        "severity": severity,
        "code": problem.code,
        "message": problem.message,
    }
    location = location_of(problem)
    if location is not None:
        diagnostic["location"] = location
    return diagnostic
