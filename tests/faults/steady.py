"""Visitors at a steady rate around a fault, how long it kept them out, and what must hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.e2e.process import until
from tests.faults.cluster import Cluster
from tests.faults.crowd import Crowd

COMEBACK_SECONDS_MAX: Final = 120.0
"""After which a service counts as not having come back by itself."""
VISITORS_MAX: Final = 250


@asynccontextmanager
async def steady(crowd: Crowd, per_second: float) -> AsyncIterator[None]:
    """Send in so many visitors a second while the block runs; end when each has every answer.

    Nobody comes while VISITORS_MAX are there: who is kept out insists, and all of an outage's
    visitors at once would keep both the service and this process from anything else.
    """

    async def send() -> None:
        while True:
            if crowd.present < VISITORS_MAX:
                crowd.send(0.0)
            await asyncio.sleep(1 / per_second)

    sender = asyncio.create_task(send())
    try:
        yield
    finally:
        sender.cancel()
    await crowd.over()


async def gap_seconds(cluster: Cluster, since: float) -> float:
    """Return how long after `since` a visitor is first answered again, once the fault is over.

    Called when the fault has ended: answers that were on their way at its beginning are long there.
    Returns after COMEBACK_SECONDS_MAX in any case.
    """
    acknowledged = cluster.ledger.acknowledged
    before = len(acknowledged)
    with suppress(AssertionError):  # is told among the complaints
        await until(
            lambda: len(acknowledged) > before, "an answer again", seconds=COMEBACK_SECONDS_MAX
        )
    return time.monotonic() - since


def complaints_of(cluster: Cluster, crowd: Crowd, gaps: Sequence[float]) -> list[str]:
    """Return what did not hold of visitors, of who stayed away, and of replicas that never died."""
    complaints = list(crowd.failures)
    if max(gaps, default=0.0) >= COMEBACK_SECONDS_MAX:
        complaints.append(f"no answer within {COMEBACK_SECONDS_MAX:g} s of a fault's end")
    if cluster.rescued:
        complaints.append(f"{cluster.rescued} executions were rescued from replicas that lived")
    return complaints
