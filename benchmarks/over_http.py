"""Signups and whole workflows over HTTP, as shares of what the same machine could at most."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.circumstances import cores, tell
from benchmarks.counters import rate
from benchmarks.database import BenchDatabase
from benchmarks.http import open_http
from benchmarks.limit import open_limit
from benchmarks.load import Load
from benchmarks.meter import Meter
from benchmarks.options import WAIT_SECONDS_SHIPPED, Mail, Options
from benchmarks.run import Opener, milliseconds, run, told

NO_LIMIT: Final = 1_000_000_000
LEAD_SECONDS: Final = 1.0
"""At the begin of a load that are not counted: connections, plans and caches come into use."""


async def http_lines(
    options: Options, server_url: str, mail: Mail
) -> AsyncIterator[dict[str, object]]:
    """Yield the limit, signups and whole workflows, by one process and by one for each core.

    Raises RuntimeError when the service answers anything but what it should.
    """
    for processes in (1, cores()):
        these = replace(options, processes=processes)
        limit = await _signups("limit", open_limit, these, server_url, "none")
        yield limit
        signups = await _signups("signup", open_http, these, server_url, mail)
        yield {**signups, **_share(signups["signups_per_s"], limit)}
        whole = await run("http", open_http, these, server_url, mail)
        yield {**whole, **_share(whole["workflows_per_s"], limit)}


def _share(per_second: float, limit: Mapping[str, Any]) -> dict[str, object]:
    limit_per_second = limit["signups_per_s"]
    return {
        "limit_per_s": limit_per_second,
        "share_of_limit": round(per_second / limit_per_second, 3),
    }


async def _signups(
    name: str, opener: Opener, options: Options, server_url: str, mail: Mail
) -> dict[str, Any]:
    """Return the figures of signups alone, none of which wakes up while others sign up."""
    unending = replace(options, wait_seconds=WAIT_SECONDS_SHIPPED, in_flight_max=NO_LIMIT)
    async with BenchDatabase(server_url) as database:
        with tempfile.TemporaryDirectory() as folder:
            async with opener(unending, mail, database, Path(folder)) as (target, pids):
                load = Load(target, unending, verifies=False)
                await load.warm_up()
                tell(f"{name}: {options.processes} processes, {options.clients} clients")
                meter = Meter(database, pids)
                await meter.begin()
                found = await load.closed_loop()
                await meter.end()
        return {
            "name": name,
            "processes": options.processes,
            "mail": mail,
            "signups": len(found.answers),
            "signups_per_s": round(rate(found.begun, LEAD_SECONDS, options.seconds), 1),
            "ack_ms": milliseconds(found.answers),
            **meter.figures(len(found.answers)),
            "lost": len(load.ledger.acknowledged) - await _stored(name, database),
            **told(unending),
            "postgres": await database.version(),
        }


async def _stored(name: str, database: BenchDatabase) -> int:
    table = "signups" if name == "limit" else "accounts"
    count: int = await database.connection.fetchval(f"select count(*) from {table}")  # noqa: S608
    return count
