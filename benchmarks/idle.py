"""What a service costs its database while nobody signs up: one replica of it, and a hundred.

Counted by the database itself: a statement outside of a transaction is a transaction of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import uvloop

from benchmarks.circumstances import circumstances, cores, tell
from benchmarks.database import BenchDatabase
from benchmarks.mails import service_with
from benchmarks.meter import Meter
from benchmarks.options import Mail, Options, service_environment
from benchmarks.processes import module_process
from service.config import load_config
from service.log import configure

REPLICAS: Final = 100
SECONDS: Final = 30.0
"""Of the counting: each regular duty comes several times, but for those of every ten minutes."""

SETTLE_SECONDS: Final = 15.0
"""After the last one is ready: PostgreSQL counts what an idle connection did up to 10 s late, and
neither what the replicas did to get ready nor what the meter has asked is theirs while idle.
"""

POOL_SIZE: Final = 4


async def idle_lines(
    options: Options, server_url: str, _mail: Mail
) -> AsyncIterator[dict[str, object]]:
    """Yield a line for one replica and one for a hundred."""
    yield await _line("idle", 1, options, server_url)
    yield await _line("idle_hundred", options.scaled(REPLICAS, least=2), options, server_url)


async def _line(name: str, replicas: int, options: Options, server_url: str) -> dict[str, object]:
    async with BenchDatabase(server_url) as database, AsyncExitStack() as stack:
        # Sorted into a few processes: so many interpreters would be the load.
        processes = 1 if replicas == 1 else cores()
        shares = [len(range(n, replicas, processes)) for n in range(processes)]
        pids = [await stack.enter_async_context(_process(share, database)) for share in shares]
        meter = Meter(database, pids)
        await meter.begin()
        await asyncio.sleep(SETTLE_SECONDS)
        tell(f"{name}: {replicas} replicas for {SECONDS:g} s")
        before = await database.transactions()
        await asyncio.sleep(SECONDS)
        transactions = await database.transactions() - before
        await meter.end()
        connections = await database.connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
        )
        return {
            "name": name,
            "scale": options.scale,
            "replicas": replicas,
            "transactions_per_s": round(transactions / SECONDS, 2),
            "transactions_per_s_and_replica": round(transactions / SECONDS / replicas, 2),
            "connections": connections - 1,
            **meter.noise(),
            **circumstances(),
            "postgres": await database.version(),
        }


@asynccontextmanager
async def _process(replicas: int, database: BenchDatabase) -> AsyncIterator[int]:
    """Yield the pid of a process with so many replicas, all of them ready."""
    async with module_process("benchmarks.idle", str(replicas), database.url) as (process, _):
        yield process.pid


async def _serve(replicas: int, database_url: str) -> None:
    """Open so many services, say so on stdout, and do nothing more."""
    environment = service_environment(Options(), database_url=database_url, smtp_port=0)
    environment |= {"DATABASE_POOL_SIZE": str(POOL_SIZE), "LOG_LEVEL": "error"}
    config = load_config(environment)
    configure(config.log_format, config.log_level)
    services = [service_with(config, "none") for _ in range(replicas)]
    for service in services:
        await service.open()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
