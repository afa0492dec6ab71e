"""The engine's `MapRunStore` on Postgres: runs, and their children as a range of the primary key.

Why a range is enough. A child's id is its run's with the child's number in the last bits, and both
are in the bucket of the execution that the map belongs to. So the rows of one run stand side by
side in the index that every execution has anyway, in the order of the items; and a child that is
started again after a crash meets its own row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from service.asl import Status
from service.engine.map_ports import Child, NewMapRun, Wanted
from service.engine.ports import Key
from service.store.database import Database
from service.store.effects import columns_of


class MapRunRows:
    """The engine's `MapRunStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, run: NewMapRun) -> None:
        """Insert a run unless it is there."""
        await self._database.fetch(
            "begin_map_run",
            *run.key,
            run.execution,
            run.command_id,
            run.machine,
            run.label,
            run.max_concurrency,
            run.tolerated_failure_count,
            run.tolerated_failure_percentage,
            run.started_at,
        )

    async def redrive(self, run: Key, redrives: int) -> datetime:
        """Have a run go on for the nth time, unless it does already; return since when."""
        await self._database.fetch("redrive_map_run", *run, redrives)
        row = await self._database.first("map_run_redriven_at", *run)
        assert row is not None, f"{run}: a run that was begun"
        redriven_at: datetime = row["redriven_at"]
        return redriven_at

    async def forget(self, keys: Sequence[Key]) -> None:
        """Delete children that have ended without success: they are started again."""
        if keys:
            await self._database.fetch("forget_children", *columns_of(keys))

    async def status(self, run: Key) -> Status | None:
        """Return how a run stands; None when it is not there."""
        row = await self._database.first("map_run_status", *run)
        return None if row is None else Status(row["status"])

    async def end(self, run: Key, status: Status, items: int | None, owner: UUID) -> bool:
        """Note how a run ended; False when it had ended, or its execution is not `owner`'s."""
        return await self._database.first("end_map_run", *run, status, items, owner) is not None

    async def abort(self, run: Wanted) -> bool:
        """Note that nobody waits for a run any more; False when it has ended or was redriven."""
        return await self._database.first("abort_map_run", *run.key, run.redrives) is not None

    async def stopped(self, run: Key) -> None:
        """Note that the children of a run that is ABORTED have been stopped."""
        await self._database.fetch("map_run_stopped", *run)

    async def children(self, bucket: int, first: UUID, last: UUID, limit: int) -> Sequence[Child]:
        """Return at most `limit` executions whose ids are in this range, in order."""
        rows = await self._database.fetch("map_run_children", bucket, first, last, limit)
        return [
            Child(
                row["id"],
                row["name"],
                Status(row["status"]),
                row["started_at"],
                row["stopped_at"],
                row["input"],
                row["output"],
                row["error"],
                row["cause"],
                row["redrive_count"],
            )
            for row in rows
        ]

    async def ended(self, keys: Sequence[Key]) -> Mapping[Key, Status]:
        """Return how those of some executions ended that have ended."""
        if not keys:
            return {}
        rows = await self._database.fetch("ended_children", *columns_of(keys))
        return {Key(row["bucket"], row["id"]): Status(row["status"]) for row in rows}

    async def of(self, execution: Key, owner: UUID) -> Mapping[int, Wanted]:
        """Return the runs under way of an execution that is `owner`'s, by their commands' ids."""
        rows = await self._database.fetch("map_runs_of", *execution, owner)
        return {
            row["command_id"]: Wanted(Key(execution.bucket, row["id"]), row["redrive_count"])
            for row in rows
        }

    async def forsaken(self, limit: int) -> Sequence[Wanted]:
        """Return at most `limit` runs to be stopped: their execution is over, or they are ABORTED
        and their children not all stopped.
        """
        rows = await self._database.fetch("forsaken_map_runs", limit)
        return [Wanted(Key(row["bucket"], row["id"]), row["redrive_count"]) for row in rows]

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` runs that ended longer ago than this; return how many."""
        return len(await self._database.fetch("delete_map_runs", retention_days, limit))
