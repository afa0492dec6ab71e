"""R3: SIGSTOP of a replica for twice its lease, then SIGCONT: it wakes up in a world gone on.

Of four replicas two may stand still at a time; each of the others is stopped after a short while of
work, with a volley of signups just before. The lease of a stopped one runs out, others take over
what it held and go on; when it wakes it still believes in what it has in memory, and whatever it
writes must be refused by the epoch: a fenced write. A transaction that it had open stands still
with it, locks included.

What must hold: the ledger, and that fenced writes were seen, without which nothing was shown.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import Final

from tests.e2e.process import Replica
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Crowd
from tests.faults.run import Outcome, Run, Stage

VOLLEY_SECONDS: Final = 0.1
LEASES_STOPPED: Final = 2.0
WORK_SECONDS_MIN: Final = 0.5
WORK_SECONDS_MAX: Final = 2.0
TELL_EVERY: Final = 10


@dataclass(frozen=True)
class Size:
    """How much of it; `stopped_max` replicas stand still at the same time."""

    replicas: int
    stopped_max: int
    stops: int
    signups: int
    lease_seconds: float
    wait_seconds: float


class Stops:
    """The stops that are left to be made, and what the replicas make of them."""

    def __init__(self, cluster: Cluster, crowd: Crowd, size: Size) -> None:
        self._cluster = cluster
        self._crowd = crowd
        self._size = size
        self._left = size.stops
        self._room = asyncio.Semaphore(size.stopped_max)

    async def torment(self, replica: Replica) -> None:
        """Stop one replica again and again, for as long as stops are left."""
        size, stage = self._size, self._cluster.stage
        while True:
            async with self._room:
                if self._left <= 0:
                    return
                self._left -= 1
                moment = stage.random.uniform(WORK_SECONDS_MIN, WORK_SECONDS_MAX)
                self._crowd.send_around(moment, size.signups // size.stops, VOLLEY_SECONDS)
                await asyncio.sleep(moment - VOLLEY_SECONDS)
                await self._stop(replica)
            if self._left % TELL_EVERY == 0:
                stage.tell(f"{self._left} stops left")

    async def _stop(self, replica: Replica) -> None:
        """Stop a replica that has mails under way: the answers to them wait for it to wake."""
        sink = self._cluster.sink
        sink.hold()
        await asyncio.sleep(VOLLEY_SECONDS)
        replica.send(signal.SIGSTOP)
        sink.release()
        try:
            await asyncio.sleep(LEASES_STOPPED * self._size.lease_seconds)
        finally:
            replica.send(signal.SIGCONT)


async def play(stage: Stage, size: Size) -> Outcome:
    """Stop and wake replicas, count, and say how many writes were fenced."""
    async with open_cluster(
        stage,
        replicas=size.replicas,
        wait_seconds=size.wait_seconds,
        LEASE_SECONDS=str(size.lease_seconds),
    ) as cluster:
        crowd = Crowd(cluster, size.wait_seconds)
        stops = Stops(cluster, crowd, size)
        await asyncio.gather(*map(stops.torment, cluster.replicas))
        await crowd.over()
        counts = await cluster.count()
        fenced = await cluster.metric("countersign_fenced_writes_total")
        complaints = list(crowd.failures)
        if not fenced:
            complaints.append("no write was fenced: no stop met anything in flight")
        figures = {
            "acknowledged": len(cluster.ledger.acknowledged),
            "rescued": cluster.rescued,
            "fenced_writes": fenced,
        }
        return Outcome(counts, crowd.success, figures, complaints)


_FULL: Final = Size(
    replicas=4, stopped_max=2, stops=100, signups=10_000, lease_seconds=2.0, wait_seconds=15.0
)
_SMALL: Final = Size(
    replicas=2, stopped_max=1, stops=2, signups=120, lease_seconds=0.7, wait_seconds=3.0
)

RUN: Final = Run(
    "R3", "SIGSTOP of a replica for twice its lease, then SIGCONT", _SMALL, _FULL, play
)
