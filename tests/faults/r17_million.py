"""R17: a million executions wait, and all their waits end within the same minute.

The tables are filled with them while no replica runs (`prefill.py`); then the replicas start, and
the minute comes. Two cores wake some thousand a second, so most are late by arithmetic: what is
asked is that memory does not grow with the backlog, that the service answers all the while, and
that nothing is lost.

What must hold: the ledger (with one history of so many replayed in full), every execution at its
end, and in full a resident size of each replica below `rss_mb_max`. Lateness is from the moment a
wait ended to the deletion of its account, both by the database's clock. The process's stalls are
measured from outside, as the time that the liveness probe takes to answer; and `verify_ms` is how
long a visitor waits who follows a link in the midst of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final, NamedTuple

import aiohttp
import psutil  # type: ignore[import-untyped]

from tests.e2e.process import Replica, until
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.crowd import verdict_of
from tests.faults.prefill import fill, read_rows
from tests.faults.run import Outcome, Run, Stage, milliseconds, percentile

FILLED_PER_SECOND: Final = 3_000
"""What a slow machine fills in. If it is slower still, the first waits end before the replicas are
there, and their lateness tells.
"""
START_SECONDS: Final = 5.0
BEGIN_SECONDS_MAX: Final = 60.0
VISITS_MAX: Final = 30
SAMPLE_SECONDS: Final = 0.25
TELL_SECONDS: Final = 30.0
MEGABYTE: Final = 1_000_000

_AT_REST: Final = "select due_at is not null and owner is null from executions where id = $1"
_HAVE_BEGUN: Final = "select exists (select from executions where status = 'SUCCEEDED')"
_LATENESS: Final = """
select percentile_disc(array[0.5, 0.99, 1.0]) within group (
    order by extract(epoch from a.decided_at - e.started_at)::double precision - $1
)
from accounts as a join executions as e using (bucket, id)
where a.status = 'expired'
"""


@dataclass(frozen=True)
class Size:
    """How much of it. `rss_mb_max` 0: a small run says nothing about memory."""

    replicas: int
    waiting: int
    spread_seconds: float
    replayed_one_of: int
    rss_mb_max: int


@dataclass
class Watch:
    """What was seen of the replicas while they worked: sizes in bytes, answers in seconds."""

    sizes: list[int] = field(default_factory=list)  # of the largest replica, one a sample
    answers: list[float] = field(default_factory=list)

    def growth(self) -> float:
        """Return the last quarter's median size over the second quarter's."""
        quarter = max(1, len(self.sizes) // 4)
        second, last = self.sizes[quarter : 2 * quarter] or self.sizes, self.sizes[-quarter:]
        return round(median(last) / median(second), 3)


class Waits(NamedTuple):
    """When the first of the waits ends, and how long after its execution's start each does."""

    first_due: datetime
    seconds: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Fill, let them all wake, and count."""
    async with open_cluster(stage, replicas=size.replicas) as cluster:
        signup = await cluster.visitors.sign_up(cluster.replicas[0], "first@example.org")
        cluster.ledger.acknowledged[signup.id] = signup
        await until(lambda: cluster.look(_AT_REST, signup.id), "the first one's wait")
        for replica in cluster.replicas:
            replica.kill()
        waits = await _fill(cluster, signup.id, size)
        ahead = _seconds_ahead(size) + BEGIN_SECONDS_MAX
        started = time.monotonic()
        for replica in cluster.replicas:
            await cluster.start(replica)
        start_seconds = (time.monotonic() - started) / size.replicas
        async with _watched(cluster) as watch:
            await until(lambda: cluster.look(_HAVE_BEGUN), "the first wait's end", seconds=ahead)
            verify_seconds, woken_seconds = await asyncio.gather(
                _verify(cluster, signup.id), _woken(cluster, waits.first_due)
            )
        counts = await cluster.count(one_of=size.replayed_one_of)
        async with cluster.connected() as database:
            late = await database.fetchval(_LATENESS, waits.seconds)
        complaints = _complaints(size, counts.expired, watch)
        figures = {
            "start_ms": milliseconds(start_seconds),
            "woken_per_s": round(size.waiting / woken_seconds, 1),
            **_lateness(late),
            "rss_start_mb": round(watch.sizes[0] / MEGABYTE, 1),
            "rss_max_mb": round(max(watch.sizes) / MEGABYTE, 1),
            "rss_growth": watch.growth(),
            "verify_ms": milliseconds(verify_seconds),
            "answer_p99_ms": milliseconds(percentile(watch.answers, 0.99)),
            "answer_max_ms": milliseconds(max(watch.answers)),
        }
        return Outcome(counts, counts.expired / size.waiting, figures, complaints)


def _seconds_ahead(size: Size) -> float:
    """Return when the first wait shall end, from the beginning of the filling."""
    return size.waiting / FILLED_PER_SECOND + START_SECONDS * size.replicas


async def _fill(cluster: Cluster, id: str, size: Size) -> Waits:
    """Fill the tables with copies of a signup."""
    async with cluster.connected() as database:
        original = await read_rows(database, id)
        first_due = await database.fetchval(
            "select clock_timestamp() + make_interval(secs => $1)", _seconds_ahead(size)
        )
        spread = timedelta(seconds=size.spread_seconds)
        began = time.monotonic()
        await fill(database, original, size.waiting, first_due, spread)
    cluster.stage.tell(f"{size.waiting} filled in, in {time.monotonic() - began:.0f} s")
    execution = original.execution
    wait = execution["due_at"] - execution["started_at"]
    return Waits(first_due, wait.total_seconds())


async def _verify(cluster: Cluster, id: str) -> float:
    """Follow the first one's link, whose own half hour is not waited for; return how long that took
    in the midst of all the others.
    """
    token = (await cluster.sink.link(id)).token
    began = time.monotonic()
    for _ in range(VISITS_MAX):
        with suppress(AssertionError):  # not answered within a visitor's patience: who comes again
            answer = await cluster.visitors.insist(
                cluster.replicas, "/verify", {"token": token}, choice=cluster.stage.random
            )
            cluster.ledger.verdicts[id] = verdict_of(answer)
            break
    return time.monotonic() - began


async def _woken(cluster: Cluster, first_due: datetime) -> float:
    """Return the seconds from the first wait's end to the last account's decision."""
    await cluster.come_to_rest()
    last = await cluster.look("select max(decided_at) from accounts")
    return max(1.0, float((last - first_due).total_seconds()))


def _lateness(late: list[float] | None) -> dict[str, float | None]:
    p50, p99, most = late or (None, None, None)
    return {
        "late_p50_s": None if p50 is None else round(p50, 2),
        "late_p99_s": None if p99 is None else round(p99, 2),
        "late_max_s": None if most is None else round(most, 2),
    }


def _complaints(size: Size, expired: int, watch: Watch) -> list[str]:
    found = []
    if expired != size.waiting:
        found.append(f"{expired} of {size.waiting} ended as they should")
    largest = max(watch.sizes) / MEGABYTE
    if size.rss_mb_max and largest > size.rss_mb_max:
        found.append(f"a replica grew to {largest:.0f} MB")
    return found


@asynccontextmanager
async def _watched(cluster: Cluster) -> AsyncIterator[Watch]:
    """Look at the replicas again and again, until the block ends."""
    watch = Watch()
    tasks = [
        asyncio.create_task(coroutine)
        for coroutine in (
            _sizes(cluster, watch),
            _tell(cluster),
            *(_answers(cluster, replica, watch) for replica in cluster.replicas),
        )
    ]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sizes(cluster: Cluster, watch: Watch) -> None:
    processes: list[Any] = [psutil.Process(replica.pid) for replica in cluster.replicas]
    while True:
        watch.sizes.append(max(process.memory_info().rss for process in processes))
        await asyncio.sleep(SAMPLE_SECONDS)


async def _answers(cluster: Cluster, replica: Replica, watch: Watch) -> None:
    while True:
        began = time.monotonic()
        with suppress(aiohttp.ClientError, TimeoutError):  # its time counts all the same
            await cluster.visitors.ask(f"{replica.ops}/health/live")
        watch.answers.append(time.monotonic() - began)
        await asyncio.sleep(SAMPLE_SECONDS)


async def _tell(cluster: Cluster) -> None:
    while True:
        await asyncio.sleep(TELL_SECONDS)
        with suppress(aiohttp.ClientError, TimeoutError):
            cluster.stage.tell(f"{await cluster.metric('countersign_claims_total'):.0f} woken")


_FULL: Final = Size(
    replicas=2, waiting=1_000_000, spread_seconds=60.0, replayed_one_of=20, rss_mb_max=250
)
_SMALL: Final = Size(replicas=1, waiting=2_000, spread_seconds=2.0, replayed_one_of=4, rss_mb_max=0)

RUN: Final = Run("R17", "a million executions whose waits end within a minute", _SMALL, _FULL, play)
