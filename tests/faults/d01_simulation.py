"""D1: three replicas of the real engine in a simulated world, story after story, each from a seed.

Nothing is real but the engine: time is virtual, the database is a model with its transactions and
locks, the network between them delays, drops and doubles what it carries, and replicas are killed
and stopped between any two awaits (see `tests/simulation/deterministic`). A story has a handful of
visitors, executions and faults; after the last fault everything has to come to rest within a
bounded time.

What must hold: the ledger, in every story, and what the simulation alone can see: that nothing is
performed before its commit, nothing acknowledged before it, nobody alive taken for dead after an
outage that all had, nothing claimed that somebody has. A story in which it does not is made as
short as it can be, and told together with the command that plays it again.

The seeds are `seed`, `seed` + 1 and so on, over all cores.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from tests.faults.ledger import FAULTS, Counts
from tests.faults.run import Outcome, Run, Stage
from tests.simulation.deterministic.play import Play
from tests.simulation.deterministic.play import play as play_story
from tests.simulation.deterministic.shrink import shrink
from tests.simulation.deterministic.story import story_of

SEEDS_AT_ONCE: Final = 50
ALONE_MAX: Final = 100
"""Seeds that one process plays itself, since others take a second to start."""
TOLD_MAX: Final = 3
"""Failing seeds whose stories are made short and told; all are named."""


@dataclass(frozen=True)
class Size:
    """How many stories."""

    seeds: int


@dataclass
class Tally:
    """What some seeds came to."""

    failed: list[int] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, came: Play) -> None:
        """Count one story."""
        for (place, kind), times in came.struck.items():
            self.struck[kind] += times
            self.places[f"{place or 'at a moment'}: {kind}"] += times
        self.seen += came.seen
        self.seen["dup_mail"] += came.verdict.dup_mail
        if not came.verdict.held:
            self.failed.append(came.story.seed)
            self.wrong.update(came.verdict.wrong.keys())
            if len(self.stories) < TOLD_MAX:
                self.stories.append(tell(shrink(came)))

    def __iadd__(self, other: Tally) -> Tally:
        self.failed += other.failed
        self.stories += other.stories
        self.wrong += other.wrong
        self.struck += other.struck
        self.places += other.places
        self.seen += other.seen
        return self


def tell(came: Play) -> str:
    """Return a failing story in lines, and how to play its seed again."""
    seed = came.story.seed
    return (
        f"python -m tests.faults D1 --seed {seed} --seeds 1\nmade short:\n{came.story}\n"
        f"ends with:\n{came.verdict}"
    )


def play_seeds(first: int, count: int) -> Tally:
    """Play some seeds, one after another."""
    tally = Tally()
    for seed in range(first, first + count):
        tally.add(play_story(story_of(seed)))
    return tally


async def play(stage: Stage, size: Size) -> Outcome:
    """Play all stories."""
    tally = Tally()
    if size.seeds <= ALONE_MAX:
        tally = play_seeds(stage.seed, size.seeds)
    else:
        spawn = multiprocessing.get_context("spawn")
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as others:
            shares = [
                loop.run_in_executor(others, play_seeds, first, count)
                for first, count in _shares(stage.seed, size.seeds)
            ]
            for at, share in enumerate(asyncio.as_completed(shares), start=1):
                tally += await share
                if at % 20 == 0:
                    stage.tell(f"{at * SEEDS_AT_ONCE} seeds, {len(tally.failed)} failed")
    return _outcome(tally, size)


def _shares(first: int, seeds: int) -> Iterator[tuple[int, int]]:
    for at in range(0, seeds, SEEDS_AT_ONCE):
        yield first + at, min(SEEDS_AT_ONCE, seeds - at)


def _outcome(tally: Tally, size: Size) -> Outcome:
    seen = tally.seen
    counts = Counts(
        executions=seen["executions"],
        verified=seen["verified"],
        expired=seen["expired"],
        dup_mail=seen["dup_mail"],
        histories_replayed=seen["executions"],
    )
    for name, stories in tally.wrong.items():
        if name in FAULTS:
            setattr(counts, name, stories)
    failed = sorted(tally.failed)
    complaints = [f"seeds {failed}: {dict(tally.wrong)}"] if failed else []
    figures = {
        "failed_seeds": failed,
        "faults": sum(tally.struck.values()),
        "faults_by_kind": dict(sorted(tally.struck.items())),
        "seen": dict(sorted(tally.seen.items())),
    }
    success = 1.0 if size.seeds else 0.0
    return Outcome(counts, success, figures, [*complaints, *tally.stories[:TOLD_MAX]])


RUN: Final = Run(
    name="D1",
    title="three replicas in a simulated world, story after story",
    small=Size(seeds=60),
    full=Size(seeds=50_000),
    play=play,
)
