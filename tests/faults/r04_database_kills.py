"""R4: kill -9 of PostgreSQL's postmaster, and its recovery, under signups and verifications.

The next start waits until the last backend of the killed server is gone. fsync is on, so what was
answered is there after the recovery; a commit whose answer was lost is found again by reading.

What must hold: the ledger, and that two replicas which never died take nothing from one another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from tests.faults.cluster import open_cluster
from tests.faults.postgres import own_server
from tests.faults.run import Outcome, Run, Stage
from tests.faults.steady import Steady

TELL_EVERY: Final = 5


@dataclass(frozen=True)
class Size:
    """How much of it."""

    kills: int
    pause_seconds_min: float
    pause_seconds_max: float
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Kill, recover, count, and say how long visitors were kept out."""
    pauses = [
        stage.random.uniform(size.pause_seconds_min, size.pause_seconds_max)
        for _ in range(size.kills)
    ]
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
        steady = Steady(cluster, size.wait_seconds)
        async with steady.visited(size.visitors_per_second):
            for n, pause in enumerate(pauses, start=1):
                await asyncio.sleep(pause)
                async with steady.fault():
                    await server.kill()
                    await server.start()
                if n % TELL_EVERY == 0:
                    stage.tell(f"{n} kills, {len(cluster.ledger.acknowledged)} signups")
        complaints = [] if steady.transactions_cut else ["no kill met a transaction"]
        return await steady.outcome(complaints)


_FULL: Final = Size(
    kills=30,
    pause_seconds_min=2.0,
    pause_seconds_max=12.0,
    visitors_per_second=20.0,
    lease_seconds=10.0,
    wait_seconds=10.0,
)
_SMALL: Final = Size(
    kills=2,
    pause_seconds_min=0.5,
    pause_seconds_max=1.0,
    visitors_per_second=15.0,
    lease_seconds=5.0,
    wait_seconds=4.0,
)

RUN: Final = Run("R4", "kill -9 of PostgreSQL, and its recovery", _SMALL, _FULL, play)
