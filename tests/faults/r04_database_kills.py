"""R4: kill -9 of PostgreSQL's postmaster, and its recovery, under signups and verifications.

The next start waits until the last backend of the killed server is gone. fsync is on, so what was
answered is there after the recovery; a commit whose answer was lost is found again by reading.

What must hold: the ledger, and that two replicas which never died take nothing from one another.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Crowd
from tests.faults.postgres import Server, own_server
from tests.faults.run import Outcome, Run, Stage, milliseconds, percentile
from tests.faults.steady import complaints_of, gap_seconds, steady

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
        crowd = Crowd(cluster, size.wait_seconds)
        gaps = []
        async with steady(crowd, size.visitors_per_second):
            for n, pause in enumerate(pauses, start=1):
                await asyncio.sleep(pause)
                gaps.append(await _kill(cluster, server))
                if n % TELL_EVERY == 0:
                    stage.tell(f"{n} kills, {len(cluster.ledger.acknowledged)} signups")
        return await _outcome(cluster, crowd, gaps)


async def _kill(cluster: Cluster, server: Server) -> float:
    """Kill and recover the server; return for how long nobody was answered."""
    killed_at = time.monotonic()
    await server.kill()
    await server.start()
    gap = await gap_seconds(cluster, killed_at)
    cluster.ledger.note_fault(killed_at)
    return gap


async def _outcome(cluster: Cluster, crowd: Crowd, gaps: list[float]) -> Outcome:
    counts = await cluster.count()
    complaints = complaints_of(cluster, crowd, gaps)
    lost = len(cluster.logged("database_lost"))
    if not lost:
        complaints.append("void: no kill met a transaction")
    figures = {
        "acknowledged": len(cluster.ledger.acknowledged),
        "transactions_cut": lost,
        "rescued": cluster.rescued,
        "gap_p50_ms": milliseconds(percentile(gaps, 0.5)),
        "gap_max_ms": milliseconds(max(gaps)),
    }
    return Outcome(counts, crowd.success, figures, complaints)


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
