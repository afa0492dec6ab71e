"""R16: SIGTERM of a replica under load, as every deployment sends it, and its restart.

A short pause with a volley of signups before its end, SIGTERM, the process's own end, a start. The
lease is half a minute, so that whatever had to be rescued instead of handed over would be seen.

What must hold: the ledger; the process ends by itself within ten seconds and with exit code 0; its
lease is gone and it owns nothing; nothing is rescued, what it gave back is claimed by others at
once; and no task is repeated: no mail comes twice, and no history has a task scheduled more often
than its state was entered.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from service.asl import HistoryEvent
from tests.e2e.process import Replica
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Crowd
from tests.faults.ledger import read_histories
from tests.faults.run import Outcome, Run, Stage, milliseconds, percentile

VOLLEY_SECONDS: Final = 0.1
PAUSE_SECONDS_MIN: Final = 0.2
PAUSE_SECONDS_MAX: Final = 1.0
EXIT_SECONDS_MAX: Final = 10.0
EXIT_SECONDS_WATCHED: Final = 60.0
LEASE_SECONDS: Final = 30.0
HANDED_OVER_SECONDS_MAX: Final = LEASE_SECONDS / 2
"""A busy machine takes its time, a rescue would take the lease at least."""
LOOK_SECONDS: Final = 0.02
TELL_EVERY: Final = 10

_LEFT: Final = """
select (select count(*) from executions where owner = $1)
    + (select count(*) from workers where id = $1)
"""
_DUE: Final = "select count(*) from executions where due_at <= $1"


@dataclass(frozen=True)
class Size:
    """How much of it."""

    replicas: int
    terms: int
    signups: int
    wait_seconds: float


@dataclass
class Endings:
    """How the processes ended, and what they left behind."""

    exits: list[float] = field(default_factory=list)
    handovers: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    left: int = 0

    def complaints(self) -> list[str]:
        """Return what did not hold."""
        found = []
        if set(self.codes) != {0}:
            found.append(f"exit codes {dict(self.codes)}")
        if max(self.exits) > EXIT_SECONDS_MAX:
            found.append(f"an exit took {max(self.exits):.1f} s")
        if max(self.handovers) > HANDED_OVER_SECONDS_MAX:
            found.append(f"others took over after {max(self.handovers):.1f} s")
        if self.left:
            found.append(f"{self.left} executions or leases were kept by the dead")
        return found


async def play(stage: Stage, size: Size) -> Outcome:
    """Stop and start in good order, count, and look for whatever happened twice."""
    async with open_cluster(
        stage,
        replicas=size.replicas,
        wait_seconds=size.wait_seconds,
        LEASE_SECONDS=str(LEASE_SECONDS),
    ) as cluster:
        crowd, endings = Crowd(cluster, size.wait_seconds), Endings()
        for n in range(size.terms):
            moment = stage.random.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
            crowd.send_around(moment, size.signups // size.terms, VOLLEY_SECONDS)
            await asyncio.sleep(moment)
            victim = stage.random.choice(cluster.replicas)
            await _end(cluster, victim, endings)
            await cluster.start(victim)
            if (n + 1) % TELL_EVERY == 0:
                stage.tell(f"{n + 1} ends, {len(cluster.ledger.acknowledged)} signups")
        await crowd.over()
        counts = await cluster.count()
        async with cluster.connected() as database:
            histories = await read_histories(database)
        repeated = sum(map(_repeated_tasks, histories.values()))
        complaints = [*crowd.failures, *endings.complaints()]
        if repeated:
            complaints.append(f"{repeated} tasks were scheduled again")
        if cluster.rescued:
            complaints.append(f"{cluster.rescued} executions had to be rescued")
        figures = {
            "acknowledged": len(cluster.ledger.acknowledged),
            "exit_codes": {str(code): times for code, times in endings.codes.items()},
            "exit_max_ms": milliseconds(max(endings.exits)),
            "handover_p99_ms": milliseconds(percentile(endings.handovers, 0.99)),
            "rescued": cluster.rescued,
            "tasks_repeated": repeated,
        }
        return Outcome(counts, crowd.success, figures, complaints)


async def _end(cluster: Cluster, replica: Replica, endings: Endings) -> None:
    """Ask a replica to end and note how it does, and how soon others have what it gave back."""
    began = time.monotonic()
    replica.send(signal.SIGTERM)
    endings.codes[await replica.ended(seconds=EXIT_SECONDS_WATCHED)] += 1
    ended = time.monotonic()
    endings.exits.append(ended - began)
    async with cluster.connected() as database:
        endings.left += await database.fetchval(_LEFT, cluster.leases[replica])
        moment = await database.fetchval("select clock_timestamp()")
        while await database.fetchval(_DUE, moment):
            if time.monotonic() - ended > EXIT_SECONDS_WATCHED:
                break
            await asyncio.sleep(LOOK_SECONDS)
    endings.handovers.append(time.monotonic() - ended)


def _repeated_tasks(events: list[HistoryEvent]) -> int:
    """Return how many tasks were scheduled beyond one for each time that a Task was entered."""
    types = Counter(event.type for event in events)
    scheduled = sum(times for type_, times in types.items() if type_.endswith("Scheduled"))
    return max(0, scheduled - types["TaskStateEntered"])


_FULL: Final = Size(replicas=3, terms=100, signups=10_000, wait_seconds=10.0)
_SMALL: Final = Size(replicas=2, terms=3, signups=150, wait_seconds=2.0)

RUN: Final = Run("R16", "SIGTERM of a replica under load, and its restart", _SMALL, _FULL, play)
