"""Visitors at a steady rate around faults of the database, and how long each kept them out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.e2e.process import until
from tests.faults.cluster import Cluster
from tests.faults.crowd import Crowd
from tests.faults.run import Outcome, milliseconds, percentile

COMEBACK_SECONDS_MAX: Final = 120.0
"""After which a service counts as not having come back by itself."""
VISITORS_MAX: Final = 250


class Steady:
    """A cluster whose replicas all live on, its visitors, and the gaps that they saw.

    A gap is the time for which nobody was answered, in seconds.
    """

    def __init__(self, cluster: Cluster, wait_seconds: float) -> None:
        self.crowd = Crowd(cluster, wait_seconds)
        self.gaps: list[float] = []
        self._cluster = cluster

    @asynccontextmanager
    async def visited(self, per_second: float) -> AsyncIterator[None]:
        """Send in so many visitors a second while the block runs; end when each has every answer.

        Nobody comes while VISITORS_MAX are there: who is kept out insists, and all of an outage's
        visitors at once would keep both the service and this process from anything else.
        """

        async def send() -> None:
            while True:
                if self.crowd.present < VISITORS_MAX:
                    self.crowd.send(0.0)
                await asyncio.sleep(1 / per_second)

        sender = asyncio.create_task(send())
        try:
            yield
        finally:
            sender.cancel()
        await self.crowd.over()

    @asynccontextmanager
    async def fault(self) -> AsyncIterator[None]:
        """Break something in the block, and mend it; end when a visitor is answered again."""
        began = time.monotonic()
        yield
        await self.see_through(began, since=began)

    async def see_through(self, began: float, *, since: float) -> None:
        """Return when a visitor is answered again after a fault that began then and is over.

        Answers that were on their way at its beginning are long there. The gap counts from `since`.
        Returns after COMEBACK_SECONDS_MAX in any case.
        """
        acknowledged = self._cluster.ledger.acknowledged
        before = len(acknowledged)
        with suppress(AssertionError):  # is told among the complaints
            await until(
                lambda: len(acknowledged) > before, "an answer again", seconds=COMEBACK_SECONDS_MAX
            )
        self.gaps.append(time.monotonic() - since)
        self._cluster.ledger.note_fault(began)

    async def outcome(self, complaints: Sequence[str] = (), **figures: object) -> Outcome:
        """Count, and return what the run came to: with what did not hold of any run like this."""
        cluster = self._cluster
        counts = await cluster.count()
        found = [*self.crowd.failures, *complaints]
        if max(self.gaps) >= COMEBACK_SECONDS_MAX:
            found.append(f"nobody was answered for {COMEBACK_SECONDS_MAX:g} s")
        if cluster.rescued:
            found.append(f"{cluster.rescued} executions were rescued from replicas that lived")
        shared = {
            "acknowledged": len(cluster.ledger.acknowledged),
            "transactions_cut": self.transactions_cut,
            "rescued": cluster.rescued,
            "gap_p50_ms": milliseconds(percentile(self.gaps, 0.5)),
            "gap_max_ms": milliseconds(max(self.gaps)),
        }
        return Outcome(counts, self.crowd.success, {**shared, **figures}, found)

    @property
    def transactions_cut(self) -> int:
        """Return how many transactions the replicas lost with their connection, by their logs."""
        return len(self._cluster.logged("database_lost"))
