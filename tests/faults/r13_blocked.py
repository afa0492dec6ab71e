"""R13: PostgreSQL is there and does not let the service work: locks, no connections, a held xmin.

Three parts, one after the other: a foreign session locks the table of executions; a crowd of others
takes every connection that the server has, after the service's own were ended; and a forgotten
transaction holds the xmin horizon, so that no dead row version of a table that changes all the time
can be cleared away.

What must hold: the ledger; no rescue, since no replica dies; that visitors are served again without
anybody's help; and in full, that under the held xmin as many executions end in a second as
`share_min` of those that ended before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Crowd
from tests.faults.postgres import Server, own_server
from tests.faults.run import Outcome, Run, Stage
from tests.faults.steady import Steady

CONNECTIONS: Final = 30
"""What the server has; two replicas need at most two thirds of it."""
POOL_SIZE: Final = 8
ON_THEIR_WAY_MAX: Final = 10
"""Answers that may still come when everything is blocked already."""
ENDED: Final = "select count(*) from executions where status <> 'RUNNING'"
TELL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Size:
    """How much of it. `share_min` 0: the machine's speed is not judged."""

    replicas: int
    lock_seconds: float
    seize_seconds: float
    calm_seconds: float
    hold_seconds: float
    measure_seconds: float
    share_min: float
    clients: int
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class Rates:
    """Executions that ended in a second, before the xmin was held and at the end of holding it."""

    before: float
    under: float

    @property
    def share(self) -> float:
        return self.under / self.before if self.before else 0.0


async def play(stage: Stage, size: Size) -> Outcome:
    """Lock, take every connection, hold the horizon, and count."""
    async with (
        own_server(settings={"max_connections": str(CONNECTIONS)}) as server,
        open_cluster(
            stage,
            replicas=size.replicas,
            wait_seconds=size.wait_seconds,
            database_url=server.url,
            LEASE_SECONDS=str(size.lease_seconds),
            DATABASE_POOL_SIZE=str(POOL_SIZE),
        ) as cluster,
    ):
        steady = Steady(cluster, size.wait_seconds)
        async with steady.visited(size.visitors_per_second):
            await asyncio.sleep(size.calm_seconds)
            served = [await _lock(cluster, steady, server, size.lock_seconds)]
            stage.tell(f"a lock of {size.lock_seconds:g} s is over")
            await asyncio.sleep(size.calm_seconds)
            served.append(await _seize(cluster, steady, server, size.seize_seconds))
            stage.tell(f"{size.seize_seconds:g} s without a connection are over")
        rates = await _hold(cluster, steady.crowd, server, size)
        return await steady.outcome(
            _complaints(served, rates, size.share_min),
            served_under_lock_and_seizure=served,
            served_after_lock_and_seizure_s=[round(gap, 2) for gap in steady.gaps],
            rate_before=round(rates.before, 1),
            rate_under_held_xmin=round(rates.under, 1),
            share=round(rates.share, 3),
        )


async def _lock(cluster: Cluster, steady: Steady, server: Server, seconds: float) -> int:
    """Lock the table that everything goes through; return how many were served in spite of it."""
    began = time.monotonic()
    async with _session(server) as foreign, foreign.transaction():
        await foreign.execute("lock table executions in access exclusive mode")
        before = len(cluster.ledger.acknowledged)
        await asyncio.sleep(seconds)
        served = len(cluster.ledger.acknowledged) - before
    await steady.see_through(began, since=time.monotonic())
    return served


async def _seize(cluster: Cluster, steady: Steady, server: Server, seconds: float) -> int:
    """End the service's connections and take all there are; return how many were served."""
    began = time.monotonic()
    async with AsyncExitStack() as seized:
        foreign = [await seized.enter_async_context(_session(server))]
        while await _end_others(foreign):
            with suppress(asyncpg.TooManyConnectionsError):
                while True:
                    foreign.append(await seized.enter_async_context(_session(server)))
        before = len(cluster.ledger.acknowledged)
        await asyncio.sleep(seconds)
        served = len(cluster.ledger.acknowledged) - before
    await steady.see_through(began, since=time.monotonic())
    return served


async def _end_others(foreign: list[asyncpg.Connection]) -> int:
    """End every connection that is not one of these; return how many there were."""
    ended = await foreign[0].fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where backend_type = 'client backend' and pid <> all($1)",
        [connection.get_server_pid() for connection in foreign],
    )
    return len(ended)


async def _hold(cluster: Cluster, crowd: Crowd, server: Server, size: Size) -> Rates:
    """Measure, hold the horizon for a while, and measure again at the end of it."""
    over = asyncio.Event()
    busy = [asyncio.create_task(_keep_visiting(crowd, over)) for _ in range(size.clients)]
    try:
        await asyncio.sleep(size.wait_seconds)  # until the first of them end
        before = await _rate(cluster, size.measure_seconds)
        cluster.stage.tell(f"{before:.0f} executions a second")
        async with _session(server) as forgotten:
            await forgotten.execute("begin isolation level repeatable read")
            await forgotten.fetchval("select count(*) from workers")
            held_at = time.monotonic()
            while (left := held_at + size.hold_seconds - time.monotonic()) > size.measure_seconds:
                seconds = min(TELL_SECONDS, left - size.measure_seconds)
                rate = await _rate(cluster, max(seconds, 0.1))
                cluster.stage.tell(f"{rate:.0f} under the held xmin, {left:.0f} s to go")
            under = await _rate(cluster, size.measure_seconds)
    finally:
        over.set()
    await asyncio.gather(*busy)
    return Rates(before, under)


async def _keep_visiting(crowd: Crowd, over: asyncio.Event) -> None:
    while not over.is_set():
        await crowd.visit()


async def _rate(cluster: Cluster, seconds: float) -> float:
    """Return how many executions end in a second."""
    began, ended_before = time.monotonic(), await cluster.look(ENDED)
    await asyncio.sleep(seconds)
    ended = await cluster.look(ENDED) - ended_before
    return float(ended / (time.monotonic() - began))


@asynccontextmanager
async def _session(server: Server) -> AsyncIterator[asyncpg.Connection]:
    """Yield a session that is none of the service's."""
    connection = await asyncpg.connect(server.url)
    try:
        yield connection
    finally:
        await connection.close()


def _complaints(served: list[int], rates: Rates, share_min: float) -> list[str]:
    found = []
    if max(served) > ON_THEIR_WAY_MAX:
        found.append("visitors were served by a database that was blocked")
    if rates.share < share_min:
        found.append(f"{rates.share:.0%} of the throughput under a held xmin")
    if not rates.under:
        found.append("nothing ended under a held xmin")
    return found


_FULL: Final = Size(
    replicas=2,
    lock_seconds=30.0,
    seize_seconds=15.0,
    calm_seconds=10.0,
    hold_seconds=600.0,
    measure_seconds=60.0,
    share_min=0.6,
    clients=100,
    visitors_per_second=20.0,
    lease_seconds=10.0,
    wait_seconds=5.0,
)
_SMALL: Final = Size(
    replicas=1,
    lock_seconds=1.0,
    seize_seconds=0.5,
    calm_seconds=0.3,
    hold_seconds=1.0,
    measure_seconds=0.5,
    share_min=0.0,
    clients=10,
    visitors_per_second=15.0,
    lease_seconds=5.0,
    wait_seconds=2.0,
)

RUN: Final = Run("R13", "locks, no connections left, a held xmin", _SMALL, _FULL, play)
