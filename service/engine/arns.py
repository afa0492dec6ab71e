"""How names become ARNs; the region and account only form them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


def child_machine(machine: str, label: str) -> str:
    """Return the name of the machine that the children of a Distributed Map run on.

    Labels are unique in a definition, so a map within a child names it beside the outermost.
    """
    return f"{owner_machine(machine)}/{label}"


def owner_machine(machine: str) -> str:
    """Return the machine whose definition a machine's executions walk through: it or its owner."""
    return machine.partition("/")[0]


def label_of(machine: str) -> str | None:
    """Return the label of the Distributed Map whose children run on a machine; None for others."""
    return machine.partition("/")[2] or None


@dataclass(frozen=True, slots=True)
class Arns:
    """The ARNs of one region and account."""

    region: str = "us-east-1"
    account_id: str = "000000000000"

    def machine(self, name: str) -> str:
        return f"arn:aws:states:{self.region}:{self.account_id}:stateMachine:{name}"

    def execution(self, machine: str, name: str) -> str:
        return f"arn:aws:states:{self.region}:{self.account_id}:execution:{machine}:{name}"

    def express(self, machine: str, name: str, run: UUID) -> str:
        """Return the ARN of one run on an EXPRESS machine, where names may repeat."""
        return f"arn:aws:states:{self.region}:{self.account_id}:express:{machine}:{name}:{run}"

    def map_run(self, machine: str, run: UUID) -> str:
        """Return the ARN of a map run by the machine of its children, `<machine>/<label>`."""
        return f"arn:aws:states:{self.region}:{self.account_id}:mapRun:{machine}:{run}"

    @property
    def role(self) -> str:
        return f"arn:aws:iam::{self.account_id}:role/countersign"
