"""A story: who visits when, what else is started, and what goes wrong. All of it from one seed.

A story is a plain list, so that parts of it can be left out: whatever is left is a story, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.deterministic.faults import Fault, draw_fault
from tests.simulation.deterministic.flows import (
    HESITANT,
    PATIENT,
    SMALL,
    VERIFICATION,
    WAIT_SECONDS,
)

VISITORS_MAX: Final = 4
STARTS_MAX: Final = 2
FAULTS_MAX: Final = 7
BEGIN_WITHIN_SECONDS: Final = 2.0
ADDRESSES: Final = 5
STOPPED_SHARE: Final = 0.4
STOPPED_WITHIN: Final = 1.5
"""Seconds in which those executions are stopped that are redriven: most are under way then."""
NEVER: Final = -1.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who signs up, and perhaps opens the link so many seconds after its mail came."""

    number: int
    at: float
    address: int
    machine: str
    clicks_after: float = NEVER
    clicks: int = 1

    def __str__(self) -> str:
        if self.clicks_after == NEVER:
            opens = "never opens the link"
        else:
            times = "" if self.clicks == 1 else f" {self.clicks} times"
            opens = f"opens the link{times} {self.clicks_after:.3f} s after the mail"
        return (
            f"visitor {self.number} signs up with address {self.address} at {self.at:.3f} s "
            f"({self.machine}) and {opens}"
        )


@dataclass(frozen=True, slots=True)
class Start:
    """A client that starts an execution of a small machine, by a name of its choice.

    Some stop it so many seconds later, and redrive it until it succeeds.
    """

    number: int
    at: float
    machine: str
    stopped_after: float = NEVER

    def __str__(self) -> str:
        starts = f"client {self.number} starts {self.machine} at {self.at:.3f} s"
        if self.stopped_after == NEVER:
            return starts
        return f"{starts}, stops it {self.stopped_after:.3f} s later and redrives it"


@dataclass(frozen=True, slots=True)
class Story:
    """Everything of a run that its seed decides beforehand."""

    seed: int
    visitors: tuple[Visitor, ...]
    starts: tuple[Start, ...]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        parts = [*map(str, self.visitors), *map(str, self.starts), *map(str, self.faults)]
        return "\n".join(f"  {part}" for part in parts)


def story_of(seed: int) -> Story:
    """Return the story of a seed."""
    random = Random(f"story {seed}")
    visitors = tuple(_visitor(n, random) for n in range(random.randint(1, VISITORS_MAX)))
    redrives = Random(f"redrives of story {seed}")
    starts = tuple(_start(n, random, redrives) for n in range(random.randint(0, STARTS_MAX)))
    faults = tuple(draw_fault(random) for _ in range(random.randint(1, FAULTS_MAX)))
    return Story(seed, visitors, starts, faults)


def _visitor(number: int, random: Random) -> Visitor:
    at, address = random.uniform(0.0, BEGIN_WITHIN_SECONDS), random.randrange(ADDRESSES)
    clicks = 2 if random.random() < 0.2 else 1
    machine = random.choices((VERIFICATION, PATIENT, HESITANT), (6, 2, 2))[0]
    if machine == PATIENT:
        after = random.choice((random.uniform(0.0, 0.006), random.uniform(0.0, 2.0)))
        return Visitor(number, at, address, machine, after, clicks)
    drawn = random.random()
    if drawn < 0.25:
        after = NEVER
    elif drawn < 0.45:
        after = random.uniform(0.0, 0.006)  # while the mail's own answer is under way
    elif drawn < 0.85:
        after = WAIT_SECONDS + random.uniform(-0.02, 0.05)  # when the wait ends
    else:
        after = random.uniform(0.0, 1.3 * WAIT_SECONDS)
    return Visitor(number, at, address, machine, after, clicks)


def _start(number: int, random: Random, redrives: Random) -> Start:
    is_stopped, after = redrives.random() < STOPPED_SHARE, redrives.uniform(0.0, STOPPED_WITHIN)
    at, machine = random.uniform(0.0, BEGIN_WITHIN_SECONDS), random.choice(SMALL)
    return Start(number, at, machine, after if is_stopped else NEVER)
