"""Names and ARNs of requests: what they must look like, and what they name."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from service.api.stepfunctions.faults import Fault
from service.engine.arns import Arns

# API reference, CreateStateMachine and StartExecution: what a name must not contain.
_UNFIT: Final = re.compile(
    r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)
_PARTS: Final = 6  # arn:partition:service:region:account:, and what it names
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+")


class MachineArn(NamedTuple):
    """The name in a state machine's ARN; None when the ARN is none that this service gives."""

    text: str
    name: str | None


class ExecutionArn(NamedTuple):
    """The names in an execution's ARN; None when the ARN is none that this service gives."""

    text: str
    machine: str | None
    name: str | None


def check_name(name: str) -> None:
    """Raise Fault InvalidName for a name with what is not allowed in one."""
    if _UNFIT.search(name):
        raise Fault("InvalidName", f"Invalid Name: '{name}'")


def check_role(arn: str) -> None:
    """Raise Fault InvalidArn for what is not the ARN of a role."""
    if not _ROLE.fullmatch(arn):
        raise Fault("InvalidArn", f"Invalid Role Arn: '{arn}'")


def machine_arn(text: str, arns: Arns) -> MachineArn:
    """Return what a state machine's ARN names. Raise Fault InvalidArn for any other text."""
    names = _names(text, "stateMachine")
    is_ours = len(names) == 1 and arns.machine(names[0]) == text
    return MachineArn(text, names[0] if is_ours else None)


def execution_arn(text: str, arns: Arns) -> ExecutionArn:
    """Return what the ARN of a stored execution names. Raise Fault InvalidArn for other text."""
    names = _names(text, "execution")
    if len(names) != 2 or arns.execution(*names) != text:
        return ExecutionArn(text, None, None)
    return ExecutionArn(text, *names)


def _names(text: str, kind: str) -> list[str]:
    """Return the names behind the resource type, of which there is at least one."""
    parts = text.split(":")
    if parts[0] != "arn" or len(parts) < _PARTS or parts[2] != "states":
        raise Fault("InvalidArn", f"Invalid Arn: 'Invalid ARN prefix: {text}'")
    resource = parts[_PARTS - 1 :]
    if resource[0] != kind:
        reason = f"Resource type not valid in this context: {resource[0]}"
        raise Fault("InvalidArn", f"Invalid Arn: '{reason}'")
    if len(resource) < 2 or not resource[1]:
        raise Fault("InvalidArn", f"Invalid Arn: 'The resource is missing: {text}'")
    return resource[1:]
