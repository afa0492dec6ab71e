"""Ten million finished executions: what they do to a start and to a claim.

Two databases on one server, one of them empty but for what is measured, take turns, so that a noisy
machine is as noisy for both. A start is a batch of signups through the service, from the request
until all are stored; a claim is the statement by which a worker takes what is due. The histories of
the finished ones are left out: they lie in partitions of their own days, which neither touches.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from benchmarks.circumstances import circumstances, tell
from benchmarks.copies import FILL_SECONDS_MAX, copy_signup, filling
from benchmarks.database import BenchDatabase
from benchmarks.inproc import InprocTarget, open_inproc
from benchmarks.meter import Meter
from benchmarks.options import WAIT_SECONDS_SHIPPED, Options
from service.store import Database, PostgresStore

FINISHED: Final = 10_000_000
BATCH: Final = 200
"""Of signups at once, and of a claim: what a busy worker has."""

ROUNDS: Final = 30
WARM_UP_ROUNDS: Final = 5
"""Of which nothing is told: plans and caches come into use."""

DAYS: Final = 10
"""Over which the finished ones are spread: fewer than the retention, or they would be deleted."""

REST_SECONDS: Final = 0.3
POLL_SECONDS: Final = 0.05
TABLES: Final = ("executions", "accounts", "verified_addresses")


@dataclass(slots=True)
class Side:
    """One of the two databases, and the seconds of what was done on it."""

    database: BenchDatabase
    starts: list[float] = field(default_factory=list)
    claims: list[float] = field(default_factory=list)


async def run_growth(options: Options, server_url: str) -> dict[str, object]:
    """Return the line. Raises RuntimeError for a claim that finds too little."""
    finished = options.scaled(FINISHED, least=2)
    async with AsyncExitStack() as stack:
        empty, grown = [
            Side(await stack.enter_async_context(BenchDatabase(server_url))) for _ in range(2)
        ]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for side, rows in ((empty, 0), (grown, finished)):
            tell(f"growth: {rows} finished executions")
            await _prepare(side.database, options, folder, rows)
        size = await grown.database.connection.fetchval(
            "select pg_database_size(current_database())"
        )
        meter = Meter(empty.database)
        await meter.begin()
        tell("growth: claims")
        await _claims((empty, grown))
        tell("growth: starts")
        await _starts((empty, grown), options, folder)
        await meter.end()
        return {
            "name": "growth",
            "scale": options.scale,
            "finished": finished,
            "database_gb": round(size / 1e9, 2),
            "batch": BATCH,
            "start_ms": _medians(empty.starts, grown.starts),
            "start_ratio": _ratio(empty.starts, grown.starts),
            "claim_ms": _medians(empty.claims, grown.claims),
            "claim_ratio": _ratio(empty.claims, grown.claims),
            **meter.noise(),
            **circumstances(),
            "postgres": await empty.database.version(),
        }


def _medians(empty: list[float], grown: list[float]) -> dict[str, float]:
    return {
        "empty": round(1000 * statistics.median(empty), 2),
        "grown": round(1000 * statistics.median(grown), 2),
    }


def _ratio(empty: list[float], grown: list[float]) -> float:
    return round(statistics.median(grown) / statistics.median(empty), 2)


async def _prepare(database: BenchDatabase, options: Options, folder: Path, finished: int) -> None:
    """Fill a database with finished executions, half of them verified, and some that are due."""
    brief = replace(options, wait_seconds=1.0)
    async with open_inproc(brief, "none", database, folder) as (target, _):
        expired = await target.signup("expired@example.org")
        verified = await target.signup("verified@example.org")
        await target.verify(verified)
        while not await database.has_ended(expired):  # noqa: ASYNC110 - a row's state
            await asyncio.sleep(POLL_SECONDS)
    waiting = replace(options, wait_seconds=WAIT_SECONDS_SHIPPED)
    async with open_inproc(waiting, "none", database, folder) as (target, _):
        resting = await target.signup("resting@example.org")
        while not await database.rests(resting):  # noqa: ASYNC110 - a row's state
            await asyncio.sleep(POLL_SECONDS)
    connection = database.connection
    began = f"now() - interval '{DAYS} days' + n * interval '{DAYS * 86_400 / max(finished, 1)} s'"
    async with filling(connection, *TABLES):
        for template, numbers in (
            (expired, range(finished // 2)),
            (verified, range(finished // 2, finished)),
        ):
            await copy_signup(connection, template, numbers, began=began, tables=TABLES)
    due = range(finished, finished + BATCH * (ROUNDS + WARM_UP_ROUNDS))
    await copy_signup(connection, resting, due, began="now()", due_at="now()", tables=TABLES)
    await connection.execute("vacuum analyze", timeout=FILL_SECONDS_MAX)
    await connection.execute("checkpoint", timeout=FILL_SECONDS_MAX)


async def _claims(sides: tuple[Side, Side]) -> None:
    owner = uuid4()
    databases = [Database(side.database.url) for side in sides]
    for database in databases:
        await database.open()
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for side, database in zip(sides, databases, strict=True):
            began = time.perf_counter()
            claims, _ = await PostgresStore(database).claim_due(owner, BATCH)
            seconds = time.perf_counter() - began
            if len(claims) != BATCH:
                raise RuntimeError(f"{len(claims)} of {BATCH} were claimed")
            if number >= WARM_UP_ROUNDS:
                side.claims.append(seconds)
    for side, database in zip(sides, databases, strict=True):
        await database.close()
        await _forget(side.database, owner)


async def _forget(database: BenchDatabase, owner: UUID) -> None:
    """Delete what was claimed, or the service would take it over as a dead worker's."""
    await database.connection.execute("delete from executions where owner = $1", owner)


async def _starts(sides: tuple[Side, Side], options: Options, folder: Path) -> None:
    options = replace(options, wait_seconds=WAIT_SECONDS_SHIPPED)
    async with AsyncExitStack() as stack:
        targets: list[InprocTarget] = []
        for side in sides:
            opened = open_inproc(options, "none", side.database, folder)
            target, _ = await stack.enter_async_context(opened)
            targets.append(target)
        for number in range(WARM_UP_ROUNDS + ROUNDS):
            for side, target in zip(sides, targets, strict=True):
                began = time.perf_counter()
                emails = [f"visitor{number}.{n}@example.org" for n in range(BATCH)]
                await asyncio.gather(*map(target.signup, emails))
                if number >= WARM_UP_ROUNDS:
                    side.starts.append(time.perf_counter() - began)
                await asyncio.sleep(REST_SECONDS)  # what follows an answer is nobody else's
