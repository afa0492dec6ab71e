"""R6: the primary is killed, its synchronous standby promoted, and the service follows by its URL.

The service has a `DATABASE_URL` of both hosts with `target_session_attrs=read-write`. After each
failover the former primary is made anew as the standby of the new one, and the next kill waits
until commits wait for it again. So what was answered is on both, and a commit of which nothing is
known may be on both, on one, or on none.

What must hold: the ledger; no rescue, since no replica dies; and the gap that visitors see is told.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from tests.faults.cluster import open_cluster
from tests.faults.postgres import own_pair
from tests.faults.run import Outcome, Run, Stage
from tests.faults.steady import Steady

TELL_EVERY: Final = 5


@dataclass(frozen=True)
class Size:
    """How much of it."""

    failovers: int
    pause_seconds_min: float
    pause_seconds_max: float
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Fail over, make a new standby, again, and count."""
    pauses = [
        stage.random.uniform(size.pause_seconds_min, size.pause_seconds_max)
        for _ in range(size.failovers)
    ]
    async with (
        own_pair() as pair,
        open_cluster(
            stage,
            replicas=2,
            wait_seconds=size.wait_seconds,
            database_url=pair.url,
            LEASE_SECONDS=str(size.lease_seconds),
        ) as cluster,
    ):
        steady = Steady(cluster, size.wait_seconds)
        async with steady.visited(size.visitors_per_second):
            for n, pause in enumerate(pauses, start=1):
                await asyncio.sleep(pause)
                async with steady.fault():
                    await pair.fail_over()
                if n < size.failovers:
                    await pair.rebuild()
                if n % TELL_EVERY == 0:
                    stage.tell(f"{n} failovers, {len(cluster.ledger.acknowledged)} signups")
        complaints = [] if steady.transactions_cut else ["no failover met a transaction"]
        return await steady.outcome(complaints)


_FULL: Final = Size(
    failovers=20,
    pause_seconds_min=4.0,
    pause_seconds_max=12.0,
    visitors_per_second=20.0,
    lease_seconds=10.0,
    wait_seconds=10.0,
)
_SMALL: Final = Size(
    failovers=2,
    pause_seconds_min=0.3,
    pause_seconds_max=0.8,
    visitors_per_second=15.0,
    lease_seconds=5.0,
    wait_seconds=4.0,
)

RUN: Final = Run("R6", "the primary killed, its synchronous standby promoted", _SMALL, _FULL, play)
