"""Visitors at a steady rate around a fault, how long it kept them out, and what must hold of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.faults.cluster import Cluster
from tests.faults.crowd import Crowd

COMEBACK_SECONDS_MAX: Final = 120.0
"""After which a service counts as not having come back by itself."""
POLL_SECONDS: Final = 0.005


@asynccontextmanager
async def steady(crowd: Crowd, per_second: float) -> AsyncIterator[None]:
    """Send in so many visitors a second while the block runs; end when each has every answer."""

    async def send() -> None:
        while True:
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
    before, ended_at = len(acknowledged), time.monotonic()
    while len(acknowledged) == before and time.monotonic() < ended_at + COMEBACK_SECONDS_MAX:
        await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - since


def complaints_of(cluster: Cluster, crowd: Crowd, gaps: Sequence[float]) -> list[str]:
    """Return what did not hold of visitors, of who stayed away, and of replicas that never died."""
    complaints = list(crowd.failures)
    if max(gaps, default=0.0) >= COMEBACK_SECONDS_MAX:
        complaints.append(f"no answer within {COMEBACK_SECONDS_MAX:g} s of a fault's end")
    if cluster.rescued:
        complaints.append(f"{cluster.rescued} executions were rescued from replicas that lived")
    return complaints
