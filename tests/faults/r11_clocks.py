"""R11: the wall clock of a replica is an hour or a day ahead or behind, and is set while it runs.

Visitors sign up one after another, and most of them never verify, so that there is always somebody
whose wait is about to end. Again and again one replica's clock is set to one of OFFSETS, which sets
it back as often as forward. Real processes under libfaketime: only the wall clock is wrong.

What must hold: the ledger; nobody's wait ends early, nor later than a clock that is an hour off
would explain; and nobody takes a live replica for dead. Both ends of a wait are seen from outside:
the mail's arrival at the sink, before which it cannot have begun, and the row's end. The usual
lateness, before the first clock is set, stands in the line for comparison. That the clocks were
wrong is seen in the logs, whose lines bear the process's own time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from service.engine.rescuer import BEATS_PER_LEASE
from tests.e2e.process import Replica, until
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import Guests
from tests.faults.faketime import WallClock, library
from tests.faults.run import Outcome, Run, Stage, milliseconds, percentile

HOUR: Final = 3_600
OFFSETS: Final = (HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 0)
LATE_SECONDS_MAX: Final = 60.0
"""Far more than a busy machine needs, far less than the least offset."""
LEASE_SECONDS: Final = 10.0
SETTLING_SECONDS: Final = 2 * LEASE_SECONDS / BEATS_PER_LEASE
"""A replica's first heartbeat may be slow, and tells it the database's time as late as it is."""
LOOK_SECONDS: Final = 0.02
PAUSE_SECONDS_MIN: Final = 0.2
"""Less than a replica takes to look at its clock again."""
VISIT_SECONDS: Final = 0.05
VERIFYING_OF: Final = 5
SHOWING: Final = "mail_sent"
"""The event whose lines show a process's clock: there is always one soon."""
_ENDED: Final = "select id::text from executions where status <> 'RUNNING'"


@dataclass(frozen=True)
class Size:
    """How much of it: so many times a clock is set, each followed by a pause of at most this."""

    settings: int
    pause_seconds: float
    replicas: int
    wait_seconds: float


@dataclass
class Watch:
    """When each execution ended, as seen from outside."""

    cluster: Cluster
    ended_at: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Look until cancelled. An end is noted no earlier than it was."""
        async with self.cluster.connected() as database:
            while True:
                ended = await database.fetch(_ENDED)
                now = time.monotonic()
                for row in ended:
                    self.ended_at.setdefault(row["id"], now)
                await asyncio.sleep(LOOK_SECONDS)


class Stream(Guests):
    """Visitors, one after another, until it is enough."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.idle: set[str] = set()  # who never verifies

    async def keep_coming(self) -> None:
        """Send visitors in until cancelled."""
        for n in itertools.count():
            self.begin(self._visit(n))
            await asyncio.sleep(VISIT_SECONDS)

    async def _visit(self, n: int) -> None:
        signup = await self.sign_up(f"visitor-{n}@example.org")
        if n % VERIFYING_OF:
            self.idle.add(signup.id)
        else:
            await self.verify(signup, may_be_late=True)


async def play(stage: Stage, size: Size) -> Outcome:
    """Set clocks while visitors come, and compare when their waits ended."""
    clocks = [WallClock(stage.folder / f"clock-{n}") for n in range(size.replicas)]
    async with open_cluster(
        stage, replicas=0, wait_seconds=size.wait_seconds, LEASE_SECONDS=str(LEASE_SECONDS)
    ) as cluster:
        for clock in clocks:
            await cluster.add_replica(**clock.environment())
        await asyncio.sleep(SETTLING_SECONDS)
        crowd, watch = Stream(cluster), Watch(cluster)
        watching = asyncio.create_task(watch.run())
        coming = asyncio.create_task(crowd.keep_coming())
        await asyncio.sleep(size.wait_seconds + size.pause_seconds)
        began = time.monotonic()
        await _set_clocks(cluster, clocks, size)
        coming.cancel()
        await asyncio.wait([coming])
        await crowd.over()
        counts = await cluster.count()
        await asyncio.sleep(2 * LOOK_SECONDS)
        watching.cancel()
        await asyncio.wait([watching])
        lateness, problems = _lateness(cluster, crowd.idle, watch.ended_at, size.wait_seconds)
        complaints = [*crowd.failures, *problems]
        if cluster.rescued:
            complaints.append(f"{cluster.rescued} executions were taken from a live replica")
    usual = [late for at, late in lateness if at < began]
    shifted = [late for at, late in lateness if at >= began]
    if not shifted:
        complaints.append("nobody's wait was to end while a clock was wrong")
    figures = {
        "waits": len(lateness),
        "earliest_ms": milliseconds(min((late for _, late in lateness), default=None)),
        "usual_late_p99_ms": milliseconds(percentile(usual, 0.99)),
        "late_p50_ms": milliseconds(percentile(shifted, 0.5)),
        "late_p99_ms": milliseconds(percentile(shifted, 0.99)),
        "late_max_ms": milliseconds(max(shifted, default=None)),
    }
    return Outcome(counts, crowd.success, figures, complaints)


async def _set_clocks(cluster: Cluster, clocks: list[WallClock], size: Size) -> None:
    """Set one clock after the other; go on when the process has shown it, and a pause is over."""
    offsets: dict[WallClock, int] = {}
    for n in range(size.settings):
        clock = clocks[n % len(clocks)]
        others = [offset for offset in OFFSETS if offset != offsets.get(clock, 0)]
        offset = offsets[clock] = cluster.stage.random.choice(others)
        replica = cluster.replicas[n % len(clocks)]
        before = len(replica.events(SHOWING))
        clock.set_ahead(offset)
        await asyncio.sleep(cluster.stage.random.uniform(PAUSE_SECONDS_MIN, size.pause_seconds))
        await until(partial(_is_shown, offset, replica, before), f"a clock {offset:+d} s off")


def _is_shown(offset: int, replica: Replica, before: int) -> bool:
    """Tell whether a line of the log, after so many, is ahead of the true time by that much."""
    now = datetime.now(UTC)
    return any(
        round((datetime.fromisoformat(line["timestamp"]) - now).total_seconds() / HOUR) * HOUR
        == offset
        for line in replica.events(SHOWING)[before:]
    )


def _lateness(
    cluster: Cluster, idle: set[str], ended_at: dict[str, float], wait_seconds: float
) -> tuple[list[tuple[float, float]], list[str]]:
    """Return when each wait was to end and how late it did, and what is wrong with any."""
    lateness, problems = [], []
    for mail in cluster.sink.recorded():
        if mail.account in idle and mail.account in ended_at:
            late = ended_at[mail.account] - mail.at - wait_seconds
            lateness.append((mail.at + wait_seconds, late))
            if not 0 <= late <= LATE_SECONDS_MAX:
                problems.append(f"{mail.account} ended {late:+.3f} s from its time")
    return lateness, problems


def _missing() -> str | None:
    return None if library() else "libfaketime is not installed (Debian: libfaketime)"


_FULL: Final = Size(settings=50, pause_seconds=3.0, replicas=2, wait_seconds=5.0)
_SMALL: Final = Size(settings=4, pause_seconds=0.8, replicas=1, wait_seconds=1.5)

RUN: Final = Run(
    "R11", "a replica's wall clock is wrong, and set while it runs", _SMALL, _FULL, play,
    missing=_missing,
)  # fmt: skip
