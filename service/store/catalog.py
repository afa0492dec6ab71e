"""The engine's `MachineCatalog` and `ExecutionCatalog` on Postgres: what the API shows and changes.

A machine is never taken out of its table: its executions outlive it, and so does what is shown of
them. The name of a deleted one may be taken again once none of its executions runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from service.asl import Status
from service.engine.catalog import (
    MACHINES_MAX,
    Created,
    ExecutionRecord,
    Machine,
    MachineChange,
    MachineType,
    NewMachine,
    Position,
    TooManyMachines,
)
from service.engine.ports import Key
from service.store.database import Database, Row

# Behind every execution's: the list begins with the latest.
_BEGINNING: Final = Position(datetime.max.replace(tzinfo=UTC), UUID(int=(1 << 128) - 1))


class MachineRows:
    """The engine's `MachineCatalog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> Machine | None:
        """Return a machine, a deleted one too; None for a name that never was one."""
        row = await self._database.first("machine", name)
        return None if row is None else _machine(row)

    async def create(self, new: NewMachine) -> Created:
        """Create a machine unless the name is taken; return the one that has it."""
        async with self._database.transaction() as session:
            count = await session.first("count_machines")
            assert count is not None
            await session.fetch("keep_definition", new.sha256, new.text)
            row = await session.first(
                "create_machine",
                new.name,
                new.sha256,
                new.type,
                new.role_arn,
                new.logging,
                new.is_traced,
            )
            if row is not None and count["machines"] >= MACHINES_MAX:
                raise TooManyMachines(f"there are {MACHINES_MAX} state machines already")
            standing = row or await session.first("machine", new.name)
        assert standing is not None, f"{new.name}: neither made nor there"
        return Created(_machine(standing), row is not None)

    async def update(self, name: str, change: MachineChange, revision: UUID) -> Machine | None:
        """Change a machine and return it; None when there is none that the API may change."""
        async with self._database.transaction() as session:
            if change.text is not None:
                await session.fetch("keep_definition", change.sha256, change.text)
            row = await session.first(
                "update_machine",
                name,
                change.sha256,
                change.role_arn,
                change.logging,
                change.is_traced,
                revision,
            )
        return None if row is None else _machine(row)

    async def delete(self, name: str) -> bool:
        """Mark a machine as deleted; False when there is none that the API may delete."""
        return await self._database.first("delete_machine", name) is not None

    async def page(self, after: str, limit: int) -> Sequence[Machine]:
        """Return at most `limit` machines by name, behind the name `after`."""
        return [_machine(row) for row in await self._database.fetch("page_machines", after, limit)]

    async def has_running(self, name: str) -> bool:
        """Tell whether an execution of the machine runs."""
        return await self._database.first("running_execution", name) is not None


class ExecutionRows:
    """The engine's `ExecutionCatalog`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def named(self, bucket: int, machine: str, name: str) -> ExecutionRecord | None:
        """Return an execution by its name."""
        row = await self._database.first("named_execution", bucket, name, machine)
        return None if row is None else _record(row)

    async def page(
        self,
        machine: str,
        status: Status | None,
        before: Position | None,
        limit: int,
        *,
        is_redriven: bool | None = None,
    ) -> Sequence[ExecutionRecord]:
        """Return at most `limit` executions of a machine, the latest first, without documents."""
        rows = await self._database.fetch(
            "page_executions", machine, *(before or _BEGINNING), status, is_redriven, limit
        )
        return [_record(row) for row in rows]

    async def history_page(
        self, key: Key, event_id: int, limit: int, *, backwards: bool
    ) -> Sequence[bytes]:
        """Return at most `limit` rows of the history, from the one that has the event."""
        name = "page_history_backwards" if backwards else "page_history"
        rows = await self._database.fetch(name, *key, event_id, limit)
        return [row["events"] for row in rows]


def _machine(row: Row) -> Machine:
    return Machine(
        name=row["name"],
        type=MachineType(row["type"]),
        sha256=row["current"],
        file=row["file"],
        role_arn=row["role_arn"],
        logging=row["logging"],
        is_traced=row["is_traced"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        is_deleted=row["deleted_at"] is not None,
    )


def _record(row: Row) -> ExecutionRecord:
    return ExecutionRecord(
        key=Key(row["bucket"], row["id"]),
        machine=row["machine"],
        name=row["name"],
        definition=row["definition"],
        status=Status(row["status"]),
        started_at=row["started_at"],
        stopped_at=row["stopped_at"],
        input=row["input"],
        output=row["output"],
        error=row["error"],
        cause=row["cause"],
        is_kept=row["is_kept"],
        redrive_count=row["redrive_count"],
        redriven_at=row["redriven_at"],
    )
