"""What the Step Functions API keeps and reads beside the engine's own work: machines with all that
was said of them, executions as they stand, histories by the page.

`store` satisfies `MachineCatalog` and `ExecutionCatalog` structurally. Every method raises
`Unavailable` when the database does not answer, `Rejected` for text that it cannot hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from service.asl import Status
from service.engine.ports import Key

MACHINES_MAX: Final = 10_000
"""Step Functions guide, "Service quotas": state machines of an account. Every replica knows all."""


class MachineType(StrEnum):
    """How a machine's executions run: stored at every step, or in memory alone."""

    STANDARD = "STANDARD"
    EXPRESS = "EXPRESS"


@dataclass(frozen=True, slots=True)
class Machine:
    """A state machine. `file` publishes it; without one it was made through the API."""

    name: str
    type: MachineType
    sha256: bytes
    file: str | None
    role_arn: str | None
    logging: str | None  # JSON; None: the default
    is_traced: bool
    revision: UUID | None
    created_at: datetime
    updated_at: datetime
    is_deleted: bool

    def is_made_like(self, other: NewMachine) -> bool:
        """Tell whether creating `other` would repeat what made this one.

        API reference, CreateStateMachine: another role makes no difference.
        """
        return (self.type, self.sha256, self.logging, self.is_traced) == (
            other.type,
            other.sha256,
            other.logging,
            other.is_traced,
        )


@dataclass(frozen=True, slots=True)
class NewMachine:
    """A state machine to create."""

    name: str
    type: MachineType
    text: str
    sha256: bytes
    role_arn: str
    logging: str | None
    is_traced: bool


@dataclass(frozen=True, slots=True)
class MachineChange:
    """What to change of a machine; None leaves it as it is."""

    text: str | None = None
    sha256: bytes | None = None
    role_arn: str | None = None
    logging: str | None = None
    is_traced: bool | None = None


class Created(NamedTuple):
    """The machine that has the name now, and whether this call made it."""

    machine: Machine
    is_new: bool


class TooManyMachines(Exception):
    """There are MACHINES_MAX machines already."""


class MachineCatalog(Protocol):
    """The machines. A deleted one keeps its row for the executions that it had."""

    async def get(self, name: str) -> Machine | None:
        """Return a machine, a deleted one too; None for a name that never was one."""
        ...

    async def create(self, new: NewMachine) -> Created:
        """Create a machine unless the name is taken: by one that is not deleted, or that still has
        executions. Raises TooManyMachines.
        """
        ...

    async def update(self, name: str, change: MachineChange, revision: UUID) -> Machine | None:
        """Change a machine and return it; None when there is none that the API may change.

        It gets the revision unless it has one and nothing changes.
        """
        ...

    async def delete(self, name: str) -> bool:
        """Mark a machine as deleted; False when there is none that the API may delete."""
        ...

    async def page(self, after: str, limit: int) -> Sequence[Machine]:
        """Return at most `limit` machines by name, behind the name `after`, none deleted."""
        ...

    async def has_running(self, name: str) -> bool:
        """Tell whether an execution of the machine runs."""
        ...


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """An execution as its row has it. The documents are JSON texts.

    `is_kept`: its row tells where it stands, or stood when it ended.
    """

    key: Key
    machine: str
    name: str
    definition: bytes
    status: Status
    started_at: datetime
    stopped_at: datetime | None
    input: str
    output: str | None
    error: str | None
    cause: str | None
    is_kept: bool
    redrive_count: int = 0
    redriven_at: datetime | None = None


class Position(NamedTuple):
    """Where an execution stands in the list of its machine's."""

    started_at: datetime
    id: UUID


class ExecutionCatalog(Protocol):
    """The executions that are stored: those of STANDARD machines."""

    async def named(self, bucket: int, machine: str, name: str) -> ExecutionRecord | None:
        """Return an execution by its name."""
        ...

    async def page(
        self,
        machine: str,
        status: Status | None,
        before: Position | None,
        limit: int,
        *,
        is_redriven: bool | None = None,
    ) -> Sequence[ExecutionRecord]:
        """Return at most `limit` executions of a machine that come behind `before`, the latest
        first, without their documents; only those that were redriven, or were not, if told so.
        """
        ...

    async def history_page(
        self, key: Key, event_id: int, limit: int, *, backwards: bool
    ) -> Sequence[bytes]:
        """Return at most `limit` rows of the history, as they were compressed.

        The first is the one that has the event `event_id`; then come later ones in order, or with
        `backwards` earlier ones, the latest first.
        """
        ...
