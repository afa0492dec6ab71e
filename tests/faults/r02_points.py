"""R2: a process dies at every yield point of every state of the verification flow.

A cell is a point and a place (see `launcher.py`). In each a victim serves a few visitors on a
database of the cell's own, and kills itself when it comes by for the n-th time; a normal replica is
started then, takes over once the lease has run out, and brings everything to its end.

The visitors take every way through the flow: some click at once, some not at all, and one signs up
twice with the same address, so that the second link that is followed meets a decided account. Where
the place is a task state that is claimed from rest, its first attempt fails (FAULT_FAIL_FIRST). A
cell after a rescue needs two deaths: one before the task of that state, and one of its rescuer.

What must hold, in every cell: the ledger; and that its victims died there. A cell whose point was
never passed proves nothing and is a complaint. IMPOSSIBLE has those that no run can reach.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.e2e.process import Replica
from tests.faults.cluster import open_cluster
from tests.faults.crowd import Guests
from tests.faults.launcher import FAIL_FIRST, KILL_AT, SIGNUP, VERIFY
from tests.faults.ledger import Counts
from tests.faults.run import Outcome, Run, Stage

MAILING: Final = ("SendVerificationEmail", "SendWelcomeEmail")
EFFECTS: Final = ("GetAccount", "DeleteUnverifiedAccount")
DECISIONS: Final = ("IsVerified", "WasVerifiedMeanwhile", "Verified", "Deleted")
WAIT: Final = "WaitForVerification"
STATES: Final = (*MAILING, *EFFECTS, *DECISIONS, WAIT)
POINTS: Final = (
    "after_claim", "after_rescue", "before_task", "after_250", "before_commit", "after_commit",
)  # fmt: skip
LAUNCHER: Final = (sys.executable, "-m", "tests.faults.launcher")
DEATH_SECONDS_MAX: Final = 60.0
"""For a victim to come by its point; the flow takes a few seconds to its end."""
LEASE_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 3.0


def impossible() -> dict[tuple[str, str], str]:
    """Return the cells that no run can reach, each with the reason."""
    reasons: dict[tuple[str, str], str] = {}
    at_once = "is left in the step that enters it: nobody claims an execution that stands there"
    for state in DECISIONS:
        reasons |= {(point, state): at_once for point in ("after_claim", "after_rescue")}
    for state in (*DECISIONS, WAIT):
        reasons["before_task", state] = "is no task"
    for state in (*EFFECTS, WAIT):
        reasons["after_rescue", state] = "has no owner: it rests, or is left in one transaction"
    for place in (*STATES, SIGNUP, VERIFY):
        if place not in MAILING:
            reasons["after_250", place] = "sends no mail"
    for point, place in itertools.product(("after_claim", "after_rescue"), (SIGNUP, VERIFY)):
        reasons[point, place] = "is an effect, not a state in which an execution could stand"
    return reasons


IMPOSSIBLE: Final = impossible()
CELLS: Final = tuple(
    cell for cell in itertools.product(POINTS, (*STATES, SIGNUP, VERIFY)) if cell not in IMPOSSIBLE
)


@dataclass(frozen=True)
class Size:
    """How much of it: `cells` 0 means all, each `rounds` times, so many of them `at_once`."""

    cells: int
    rounds: int
    at_once: int
    visitors: int


@dataclass(frozen=True)
class Cell:
    """A point of a place, and at which passing the victim dies."""

    point: str
    place: str
    nth: int

    def __str__(self) -> str:
        return f"{self.point} {self.place} ({self.nth})"

    def victims(self) -> list[dict[str, str]]:
        """Return the environments of those who are to die, one after the other."""
        if self.point == "after_rescue":
            before = {KILL_AT: f"before_task:{self.place}:{self.nth}"}
            return [before, {KILL_AT: f"after_rescue:{self.place}:1"}]
        environment = {KILL_AT: f"{self.point}:{self.place}:{self.nth}"}
        if self.point == "after_claim" and self.place != WAIT:
            environment[FAIL_FIRST] = self.place
        return [environment]


@dataclass(frozen=True)
class Result:
    """What a cell came to."""

    cell: Cell
    counts: Counts
    tried: int
    succeeded: int
    deaths: int
    complaints: list[str]


async def play(stage: Stage, size: Size) -> Outcome:
    """Play the cells, some at once, and add up what they came to."""
    cells = _chosen(stage, size)
    gate = asyncio.Semaphore(size.at_once)
    async with stage.server() as server:
        stages = [_stage(stage, n, server) for n in range(len(cells))]

        async def guarded(cell: Cell, own: Stage) -> Result:
            async with gate:
                result = await _play_cell(own, cell, size.visitors)
                stage.tell(f"{cell}: {result.counts.faults or result.complaints or 'held'}")
                return result

        results = await asyncio.gather(*map(guarded, cells, stages))
    return _outcome(results)


def _chosen(stage: Stage, size: Size) -> list[Cell]:
    chosen: Iterable[tuple[str, str]] = CELLS * size.rounds
    if size.cells:
        chosen = stage.random.sample(CELLS, size.cells)
    # Of every two visitors one verifies and one does not, so every place is passed this often.
    return [Cell(*cell, stage.random.randint(1, size.visitors // 2)) for cell in chosen]


def _stage(stage: Stage, n: int, server: str) -> Stage:
    folder = stage.folder / f"cell-{n}"
    folder.mkdir()
    return Stage(stage.random.getrandbits(32), folder, server)


async def _play_cell(stage: Stage, cell: Cell, visitors: int) -> Result:
    async with open_cluster(
        stage,
        replicas=0,
        wait_seconds=WAIT_SECONDS,
        LEASE_SECONDS=str(LEASE_SECONDS),
    ) as cluster:
        party = Party(cluster)
        complaints = []
        deaths = 0
        for n, victim in enumerate(cell.victims()):
            replica = cluster.new_replica(command=LAUNCHER, **victim)
            replica.spawn()
            if n == 0:
                party.come(visitors)
            died = await _dies(replica)
            deaths += died
            if not died:
                complaints.append("nobody came by")
                replica.kill()
        await cluster.add_replica()
        await party.over()
        counts = await cluster.count()
        complaints += [
            *party.failures,
            *(f"{name}: {who}" for name, who in counts.culprits.items()),
        ]
        told = [f"{cell}: {complaint}" for complaint in complaints]
        return Result(cell, counts, party.tried, party.succeeded, deaths, told)


async def _dies(replica: Replica) -> bool:
    """Tell whether a victim ends by SIGKILL, having learnt where it listens until then."""
    with suppress(AssertionError):  # it may die before that, of what it finds when it comes up
        await replica.answers()
    try:
        return await replica.ended(seconds=DEATH_SECONDS_MAX) == -signal.SIGKILL
    except AssertionError:
        return False


class Party(Guests):
    """A few visitors of one cell: every second one verifies at once, and one asks again."""

    def come(self, visitors: int) -> None:
        """Send so many in."""
        for n in range(visitors):
            self.begin(self._visit(n))

    async def _visit(self, n: int) -> None:
        email = f"visitor-{n}@example.org"
        signup = await self.sign_up(email)
        if n % 2 == 0:
            # Whoever takes longer than the wait, on a busy machine, comes too late; a cell that
            # somebody had to verify for would complain that nobody came by.
            await self.verify(signup, may_be_late=True)
        if n == 0:
            # The address is taken by now: this one's mail has no link, and it expires by itself.
            await self.sign_up(email, gets_link=False)


def _outcome(results: list[Result]) -> Outcome:
    total = Counts()
    for result in results:
        for name, value in result.counts.line().items():
            setattr(total, name, getattr(total, name) + value)
    figures = {
        "cells": len({(result.cell.point, result.cell.place) for result in results}),
        "cells_impossible": len(IMPOSSIBLE),
        "kills": sum(result.deaths for result in results),
    }
    success = sum(r.succeeded for r in results) / max(sum(r.tried for r in results), 1)
    return Outcome(total, success, figures, [c for result in results for c in result.complaints])


_FULL: Final = Size(cells=0, rounds=1, at_once=4, visitors=6)
_SMALL: Final = Size(cells=2, rounds=1, at_once=2, visitors=4)

RUN: Final = Run("R2", "kill -9 at every yield point of every state", _SMALL, _FULL, play)
