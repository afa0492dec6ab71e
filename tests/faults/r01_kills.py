"""R1: kill -9 of one replica of three, again and again, under signups and verifications.

A pause of 0.2 to 2 seconds, a kill, a start; once the replica answers, the next pause begins, so
that at any time two of three are there. Half of a pause's signups come in the last tenth of a
second before the kill, which meets some that are not answered and some that are not committed; the
others come at any time, also while the replica starts.

What must hold: the ledger; and in full, that the 99th percentile of takeovers is below the lease
and a second. A takeover is measured in the database: from the kill until no running execution is
owned by the dead one's lease any more. Kills that met nothing in flight have none and are counted
apart. The lone process of the tests has nobody to take over but itself: its lives must at times
outlast its lease, before which it rescues nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tests.e2e.process import Replica
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Crowd
from tests.faults.run import Outcome, Run, Stage, milliseconds, percentile

VOLLEY_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.02
TAKEOVER_SECONDS_MAX: Final = 60.0
"""After which a takeover is waited for no longer, and counts as having taken so long."""
TELL_EVERY: Final = 10

_OWNED: Final = "select count(*) from executions where owner = $1 and status = 'RUNNING'"


@dataclass(frozen=True)
class Size:
    """How much of it. `takeover_seconds_max` 0: the machine's speed is not judged."""

    replicas: int
    kills: int
    signups: int
    lease_seconds: float
    pause_seconds_min: float
    pause_seconds_max: float
    wait_seconds: float
    takeover_seconds_max: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Kill and start, count, and say how fast others took over."""
    async with open_cluster(
        stage,
        replicas=size.replicas,
        wait_seconds=size.wait_seconds,
        LEASE_SECONDS=str(size.lease_seconds),
    ) as cluster:
        crowd = Crowd(cluster, size.wait_seconds)
        watches = []
        for n in range(size.kills):
            share = size.signups * (n + 1) // size.kills - size.signups * n // size.kills
            moment = stage.random.uniform(size.pause_seconds_min, size.pause_seconds_max)
            crowd.send_around(moment, share, VOLLEY_SECONDS)
            await asyncio.sleep(moment)
            victim = stage.random.choice(cluster.replicas)
            watches.append(asyncio.create_task(_kill(cluster, victim, size.lease_seconds)))
            await asyncio.sleep(0)  # in which it is killed
            await cluster.start(victim)
            if (n + 1) % TELL_EVERY == 0:
                stage.tell(f"{n + 1} kills, {len(cluster.ledger.acknowledged)} signups")
        takeovers = [seconds for seconds in await asyncio.gather(*watches) if seconds is not None]
        await crowd.over()
        return await _outcome(cluster, crowd, size, takeovers)


async def _kill(cluster: Cluster, victim: Replica, lease_seconds: float) -> float | None:
    """Kill a replica; return how long it owned anything after that, None if it owned nothing."""
    dead = cluster.leases[victim]
    victim.kill()
    killed_at = time.monotonic()
    return await _owned_until(cluster, dead, killed_at, lease_seconds)


async def _owned_until(
    cluster: Cluster, dead: UUID, since: float, lease_seconds: float
) -> float | None:
    """Return the seconds until nothing is owned by a dead worker's lease.

    A commit that the dead one has sent may still come, so none owned counts from when nobody could
    have taken it over yet.
    """
    seconds = None
    async with cluster.connected() as database:
        while True:
            owned = await database.fetchval(_OWNED, dead)
            now = time.monotonic() - since
            if owned or now > TAKEOVER_SECONDS_MAX:
                seconds = now
            if now > TAKEOVER_SECONDS_MAX or (not owned and now > lease_seconds / 2):
                return seconds
            await asyncio.sleep(LOOK_SECONDS)


async def _outcome(cluster: Cluster, crowd: Crowd, size: Size, takeovers: list[float]) -> Outcome:
    counts = await cluster.count()
    slowest = percentile(takeovers, 0.99)
    complaints = list(crowd.failures)
    if not cluster.rescued:
        complaints.append("no kill met anything in flight")
    if size.takeover_seconds_max and slowest is not None and slowest > size.takeover_seconds_max:
        complaints.append(f"takeover p99 {slowest:.2f} s is over {size.takeover_seconds_max:g} s")
    figures = {
        "acknowledged": len(cluster.ledger.acknowledged),
        "rescued": cluster.rescued,
        "kills_in_flight": len(takeovers),
        "takeover_p50_ms": milliseconds(percentile(takeovers, 0.5)),
        "takeover_p99_ms": milliseconds(slowest),
        "takeover_max_ms": milliseconds(max(takeovers, default=None)),
    }
    return Outcome(counts, crowd.success, figures, complaints)


_FULL: Final = Size(
    replicas=3,
    kills=300,
    signups=20_000,
    lease_seconds=2.0,
    pause_seconds_min=0.2,
    pause_seconds_max=2.0,
    wait_seconds=10.0,
    takeover_seconds_max=3.0,
)
_SMALL: Final = Size(
    replicas=2,
    kills=6,
    signups=100,
    lease_seconds=1.5,
    pause_seconds_min=0.0,
    pause_seconds_max=1.0,
    wait_seconds=6.0,
    takeover_seconds_max=0.0,
)
# Dead for most of the time on a slow machine: the wait must be longer than several restarts, or
# whoever clicks promptly comes too late, and the run is void.
_LONE: Final = Size(
    replicas=1,
    kills=10,
    signups=100,
    lease_seconds=0.5,
    pause_seconds_min=0.0,
    pause_seconds_max=1.0,
    wait_seconds=12.0,
    takeover_seconds_max=0.0,
)

RUN: Final = Run(
    "R1", "kill -9 of one replica of three, and its restart", _SMALL, _FULL, play, more=(_LONE,)
)
