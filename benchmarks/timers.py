"""A million signups that wait: the memory they take, how soon a process is back, how late it is.

The waiting rows are copies of one that the service has written. Then, in a process of its own: from
its start to the first wake-up; a thousand wake-ups a second; and forty thousand due within one
second, of which none may be lost. How late a wake-up is, is told by the moment at which its
workflow ended, so everything is in it that happens until then but the commit.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import psutil  # type: ignore[import-untyped]

from benchmarks.circumstances import circumstances, tell
from benchmarks.copies import FILL_SECONDS_MAX, copy_signup, filling
from benchmarks.counters import STALL
from benchmarks.database import BenchDatabase
from benchmarks.http import HttpTarget
from benchmarks.inproc import open_inproc
from benchmarks.load import percentile
from benchmarks.meter import Meter
from benchmarks.options import HOST, WAIT_SECONDS_SHIPPED, Options, service_environment
from benchmarks.processes import service_process
from benchmarks.run import milliseconds
from benchmarks.wire import Connection

WAITING: Final = 1_000_000
PACED: Final = 10_000
PACED_PER_SECOND: Final = 1_000
BURST: Final = 40_000

TABLES: Final = ("executions", "accounts", "history")
AHEAD_SECONDS: Final = 3.0
"""From the insertion of rows that fall due to the first of them, at least."""
INSERTED_PER_SECOND: Final = 5_000
PATIENCE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 0.5
"""At the counters of a service at work: each look costs it some 2 ms."""
MEGABYTE: Final = 1_000_000

DUE: Final = """
create unlogged table due as
select bucket, id, due_at from executions where due_at between $1 and $2
"""
LATE: Final = """
select extract(epoch from e.stopped_at - d.due_at)::float8 as late
from due as d
cross join lateral (
    select status, stopped_at
    from executions
    where bucket = d.bucket and id = d.id
    limit 1
) as e
where e.status = 'SUCCEEDED'
"""
"""A probe for each row: statistics of a minute ago know of nothing that has succeeded."""


async def run_timers(options: Options, server_url: str) -> dict[str, object]:
    """Return the line, `lost` being wake-ups that did not happen."""
    options = replace(options, wait_seconds=WAIT_SECONDS_SHIPPED)
    async with BenchDatabase(server_url) as database:
        with tempfile.TemporaryDirectory() as folder:
            template = await _template(options, database, Path(folder))
            waiting = options.scaled(WAITING)
            paced_count, burst_count = options.scaled(PACED), options.scaled(BURST)
            tell(f"timers: {waiting} waiting signups")
            await _fill(database, template, waiting)
            environment = service_environment(options, database_url=database.url, smtp_port=0)
            overdue = await _make_overdue(database, template, waiting)
            began = time.perf_counter()
            async with service_process("none", environment, Path(folder) / "log") as service:
                ready_seconds = time.perf_counter() - began
                while not await database.has_ended(overdue):  # noqa: ASYNC110 - a row's state
                    await asyncio.sleep(POLL_SECONDS)
                restart_seconds = time.perf_counter() - began
                process = psutil.Process(service.pid)
                rss = process.memory_info().rss
                ops = await Connection.open(HOST, service.ops_port)
                target = HttpTarget([service.public_port], [ops])
                await target.counters()  # what came before counts no longer
                meter = Meter(database, [service.pid])
                await meter.begin()
                wakes = _WakeUps(database, target, template, waiting + 1)
                tell(f"timers: {PACED_PER_SECOND} wake-ups a second")
                paced = await wakes.due(paced_count, PACED_PER_SECOND)
                stalls = [(await target.counters())[STALL]]
                tell(f"timers: {burst_count} due in one second")
                burst = await wakes.due(burst_count, burst_count)
                stalls.append((await target.counters())[STALL])
                await meter.end()
                peak = _peak_rss(service.pid)
        lost = paced_count - len(paced), burst_count - len(burst)
        return {
            "name": "timers",
            "scale": options.scale,
            "waiting": waiting,
            "rss_mb": round(rss / MEGABYTE, 1),
            "rss_peak_mb": round(peak / MEGABYTE, 1),
            "ready_seconds": round(ready_seconds, 2),
            "restart_seconds": round(restart_seconds, 2),
            "late_ms": milliseconds(paced),
            "burst": {
                "due": burst_count,
                "lost": lost[1],
                "late_seconds_p50": round(percentile(burst, 0.5), 2),
                "late_seconds_max": round(max(burst), 2),
            },
            "stall_ms_max": round(1000 * max(stalls), 1),
            "stall_ms": {"paced": round(1000 * stalls[0], 1), "burst": round(1000 * stalls[1], 1)},
            **meter.noise(),
            "lost": sum(lost),
            **circumstances(),
            "postgres": await database.version(),
        }


async def _template(options: Options, database: BenchDatabase, folder: Path) -> UUID:
    """Return the id of a signup that the service has brought to rest, in a migrated database."""
    async with open_inproc(options, "none", database, folder) as (target, _):
        id = await target.signup("visitor@example.org")
        while not await database.rests(id):  # noqa: ASYNC110 - a row's state
            await asyncio.sleep(POLL_SECONDS)
    return id


async def _fill(database: BenchDatabase, template: UUID, waiting: int) -> None:
    connection = database.connection
    step = WAIT_SECONDS_SHIPPED / waiting
    async with filling(connection, *TABLES):
        await copy_signup(
            connection,
            template,
            range(waiting),
            began="now()",
            due_at=f"now() + interval '{WAIT_SECONDS_SHIPPED} s' + n * interval '{step:.9f} s'",
            tables=TABLES,
        )
    await connection.execute("vacuum analyze", timeout=FILL_SECONDS_MAX)


async def _make_overdue(database: BenchDatabase, template: UUID, number: int) -> UUID:
    """Return the id of one more signup, whose time has come: the first wake-up of a restart."""
    await copy_signup(
        database.connection,
        template,
        range(number, number + 1),
        began="now()",
        due_at="now()",
        tables=TABLES,
    )
    id: UUID = await database.connection.fetchval("select id from executions where due_at <= now()")
    return id


class _WakeUps:
    """Signups that fall due while the service runs."""

    def __init__(
        self, database: BenchDatabase, target: HttpTarget, template: UUID, next_number: int
    ) -> None:
        self._database = database
        self._target = target
        self._template = template
        self._next = next_number

    async def due(self, count: int, per_second: int) -> list[float]:
        """Return by how many seconds each of so many was late that has ended in the end."""
        connection = self._database.connection
        first_at: datetime = await connection.fetchval("select clock_timestamp()")
        first_at += timedelta(seconds=AHEAD_SECONDS + count / INSERTED_PER_SECOND)
        first, self._next = self._next, self._next + count
        await copy_signup(
            connection,
            self._template,
            range(first, first + count),
            began="now()",
            due_at=f"'{first_at.isoformat()}'::timestamptz"
            f" + (n - {first}) * interval '{1 / per_second:.9f} s'",
            tables=TABLES,
        )
        last_at = first_at + timedelta(seconds=count / per_second)
        await connection.execute("drop table if exists due")
        text = DUE.replace("$1", f"'{first_at.isoformat()}'")
        await connection.execute(text.replace("$2", f"'{last_at.isoformat()}'"))
        await self._until_ended(count)
        return [row["late"] for row in await connection.fetch(LATE, timeout=PATIENCE_SECONDS)]

    async def _until_ended(self, count: int) -> None:
        """Return when so many more have ended, or nothing ends any more."""
        before = last = await self._target.ended()
        changed_at = time.perf_counter()
        while last - before < count and time.perf_counter() - changed_at < PATIENCE_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            ended = await self._target.ended()
            if ended != last:
                last, changed_at = ended, time.perf_counter()


def _peak_rss(pid: int) -> float:
    """Return the most memory that a process has had, in bytes; what it has now, off Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float(psutil.Process(pid).memory_info().rss)
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)
