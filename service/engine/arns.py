"""How names become ARNs; the region and account only form them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


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

    @property
    def role(self) -> str:
        return f"arn:aws:iam::{self.account_id}:role/countersign"
