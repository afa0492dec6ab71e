"""R5: PostgreSQL restarts all the time, and is once away for longer than a lease.

It is down for 0 to 2 seconds, by a fast shutdown, by an immediate one or by a kill. In the middle
comes an outage of one and a half leases, while the mail server holds every mail, so that both
replicas have executions in their hands whose leases are stale when the database is back. No replica
ever dies, so whatever is rescued then is taken from the living.

What must hold: the ledger, no rescue, and something in both hands at the long outage.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Final

from tests.e2e.process import until
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.postgres import Server, own_server
from tests.faults.run import Outcome, Run, Stage
from tests.faults.steady import Steady

WAYS: Final = ("fast", "immediate", "kill")
LEASES_OUT: Final = 1.5
"""How long the long outage lasts, and how long wrong rescues are then waited for."""
HELD_MIN: Final = 5
"""Mails in flight before the long outage begins."""
TELL_EVERY: Final = 10
_OWNERS: Final = "select count(distinct owner) from executions"


@dataclass(frozen=True)
class Size:
    """How much of it. `span_seconds` are those of the restarts, without the long outage."""

    span_seconds: float
    pause_seconds_min: float
    pause_seconds_max: float
    down_seconds_max: float
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class Restart:
    """One of them: after which pause, how, and for how long down."""

    pause: float
    way: str
    down: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Restart, stay away once, restart on, and count."""
    plan = _plan(stage.random, size)
    async with (
        own_server() as server,
        open_cluster(
            stage,
            replicas=2,
            wait_seconds=size.wait_seconds,
            database_url=server.url,
            LEASE_SECONDS=str(size.lease_seconds),
        ) as cluster,
    ):
        steady, held = Steady(cluster, size.wait_seconds), 0
        async with steady.visited(size.visitors_per_second):
            for n, restart in enumerate(plan, start=1):
                await asyncio.sleep(restart.pause)
                async with steady.fault():
                    await _restart(server, restart.way, restart.down)
                if n == (len(plan) + 1) // 2:
                    held = await _stay_away(cluster, steady, server, size.lease_seconds)
                if n % TELL_EVERY == 0:
                    stage.tell(f"{n} of {len(plan)} restarts")
        return await steady.outcome(restarts=len(plan), held_at_long_outage=held)


def _plan(choice: random.Random, size: Size) -> list[Restart]:
    plan: list[Restart] = []
    seconds = 0.0
    while seconds < size.span_seconds:
        pause = choice.uniform(size.pause_seconds_min, size.pause_seconds_max)
        down = choice.uniform(0.0, size.down_seconds_max)
        plan.append(Restart(pause, choice.choice(WAYS), down))
        seconds += pause + down
    return plan


async def _restart(server: Server, way: str, down: float) -> None:
    if way == "kill":
        await server.kill()
    else:
        await server.stop("fast" if way == "fast" else "immediate")
    await asyncio.sleep(down)
    await server.start()


async def _stay_away(cluster: Cluster, steady: Steady, server: Server, lease_seconds: float) -> int:
    """Be down for longer than a lease, and see it through; return how many mails were in flight."""
    cluster.sink.hold()
    try:
        await until(lambda: cluster.sink.held >= HELD_MIN, "mails in flight")
        await until(lambda: _have_all_something(cluster), "something in each one's hands")
        held = cluster.sink.held
        async with steady.fault():
            await _restart(server, "kill", LEASES_OUT * lease_seconds)
        await asyncio.sleep(LEASES_OUT * lease_seconds)
    finally:
        cluster.sink.release()
    return held


async def _have_all_something(cluster: Cluster) -> bool:
    return bool(await cluster.look(_OWNERS) == len(cluster.replicas))


_FULL: Final = Size(
    span_seconds=3_600.0,
    pause_seconds_min=5.0,
    pause_seconds_max=40.0,
    down_seconds_max=2.0,
    visitors_per_second=20.0,
    lease_seconds=10.0,
    wait_seconds=20.0,
)
_SMALL: Final = Size(
    span_seconds=1.0,
    pause_seconds_min=0.5,
    pause_seconds_max=1.0,
    down_seconds_max=0.5,
    visitors_per_second=15.0,
    lease_seconds=1.5,
    wait_seconds=6.0,
)

RUN: Final = Run(
    "R5", "PostgreSQL restarts again and again, once away beyond a lease", _SMALL, _FULL, play
)
