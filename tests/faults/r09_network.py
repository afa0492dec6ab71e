"""R9: the network between service and PostgreSQL resets, swallows, delays, and cuts at a commit.

All replicas reach the database through one proxy (`proxy.py`). A cut at a commit is the worst of
them: the server has got it, takes it, and the answer goes nowhere, so that the service has to find
out by reading. There are two kinds, COMMIT and the statement that is a transaction of its own. The
long ones among what is swallowed outlast the service's patience with a statement, the others do
not. The next cut waits until somebody was answered.

What must hold: the ledger; no rescue, since no replica dies; and commits of both kinds that were
cut off from their answer and took place: without them the run has not met what it is for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final, get_args

from service.store.database import COMMAND_SECONDS
from tests.faults.cluster import open_cluster
from tests.faults.postgres import own_server
from tests.faults.proxy import Proxy
from tests.faults.run import Outcome, Run, Stage
from tests.faults.steady import Steady
from tests.faults.wire import CommittedBy

KINDS: Final = {"commit": 25, "statement": 20, "reset": 25, "swallow": 15, "delay": 15}
"""How many of a hundred cuts are of which kind."""
COMMIT_SECONDS_MAX: Final = 10.0
"""In which there is a commit of either kind, under load."""
LONG_SECONDS: Final = COMMAND_SECONDS + 2.0
TELL_EVERY: Final = 50


@dataclass(frozen=True)
class Size:
    """How much of it. `long_cuts` of the cuts swallow for LONG_SECONDS."""

    replicas: int
    cuts: int
    long_cuts: int
    pause_seconds_max: float
    cut_seconds_max: float
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class Cut:
    """One of them: after which pause, which kind, and, if that has one, for how long."""

    pause: float
    kind: str
    seconds: float


async def play(stage: Stage, size: Size) -> Outcome:
    """Cut, again and again, and count."""
    plan = _plan(stage.random, size)
    made: Counter[str] = Counter()
    async with (
        own_server() as server,
        Proxy(server.port) as proxy,
        open_cluster(
            stage,
            replicas=size.replicas,
            wait_seconds=size.wait_seconds,
            database_url=server.url,
            DATABASE_URL=proxy.url,
            LEASE_SECONDS=str(size.lease_seconds),
        ) as cluster,
    ):
        steady = Steady(cluster, size.wait_seconds)
        async with steady.visited(size.visitors_per_second):
            for n, cut in enumerate(plan, start=1):
                await asyncio.sleep(cut.pause)
                async with steady.fault():
                    made[cut.kind] += await _cut(proxy, cut)
                if n % TELL_EVERY == 0:
                    stage.tell(f"{n} cuts, {len(cluster.ledger.acknowledged)} signups")
        return await steady.outcome(
            [
                f"no {by} that took place was cut off from its answer"
                for by in get_args(CommittedBy)
                if not proxy.committed[by]
            ],
            **{f"{kind}_cuts": made[kind] for kind in KINDS},
            committed_unanswered=proxy.committed["commit"],
            statements_committed_unanswered=proxy.committed["statement"],
        )


def _plan(choice: random.Random, size: Size) -> list[Cut]:
    # Dealt out and not drawn: twelve that are drawn would often leave a kind out.
    hundred = list(Counter(KINDS).elements())
    short_cuts = size.cuts - size.long_cuts
    kinds = [hundred[n * len(hundred) // short_cuts] for n in range(short_cuts)]
    cuts = [(kind, choice.uniform(0.0, size.cut_seconds_max)) for kind in kinds]
    cuts += [("swallow", LONG_SECONDS)] * size.long_cuts
    choice.shuffle(cuts)
    return [Cut(choice.uniform(0.0, size.pause_seconds_max), *cut) for cut in cuts]


async def _cut(proxy: Proxy, cut: Cut) -> bool:
    """Make one cut; return whether it met anything."""
    match cut.kind:
        case "commit" | "statement" as by:
            return await proxy.cut_at_commit(by, COMMIT_SECONDS_MAX)
        case "reset":
            return proxy.reset() > 0
        case "swallow":
            return await proxy.swallow(cut.seconds) > 0
    await proxy.delay(cut.seconds)
    return True


_FULL: Final = Size(
    replicas=2,
    cuts=500,
    long_cuts=5,
    pause_seconds_max=0.6,
    cut_seconds_max=1.0,
    visitors_per_second=20.0,
    lease_seconds=30.0,
    wait_seconds=20.0,
)
_SMALL: Final = Size(
    replicas=1,
    cuts=12,
    long_cuts=0,
    pause_seconds_max=0.2,
    cut_seconds_max=0.3,
    visitors_per_second=15.0,
    lease_seconds=10.0,
    wait_seconds=3.0,
)

RUN: Final = Run(
    "R9", "a network that resets, swallows, delays, and cuts at a commit", _SMALL, _FULL, play
)
