"""What goes wrong in a run: a list that follows from the seed, and that can be made shorter.

Most faults wait for a place: the n-th time that anybody gets there they strike. A place is a
message between two processes (a statement to the database, a mail, a visitor's request), and with
`STEP` simply the n-th step that any replica takes between two awaits. Others wait for a moment.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final

LEASE_SECONDS: Final = 2.0
FAULTS_END_AT: Final = 12.0
"""After this moment nothing more goes wrong, and everything has to come to rest."""

STEP: Final = "step"
TRANSACTION: Final = (
    "begin",
    "insert",
    "lock",
    "apply",
    "standing",
    "signal",
    "save",
    "commit",
    "rollback",
)
STATEMENTS: Final = (
    "next_due", "claim_due", "owned", "claim_owned", "seize", "quarantine", "bury", "heartbeat",
    "rescue", "let_go", "release", "sweep", "tidy", "contact", "redrive", "redriven_by",
)  # fmt: skip
EFFECTS: Final = ("mail", "function")
DATABASE: Final = (*TRANSACTION, *STATEMENTS)

# What can happen at a place.
KILL_BEFORE: Final = "killed before"  # the message was not sent
KILL_AFTER: Final = "killed after"  # it did its work, and nobody heard the answer
STOP_BEFORE: Final = "stopped before"
STOP_AFTER: Final = "stopped after"
DROP: Final = "dropped"  # it never arrives
LOSE: Final = "answer lost"
LATE: Final = "late"  # given up by its sender, it arrives all the same
SLOW: Final = "slow"
SLOW_ANSWER: Final = "answer slow"  # it did its work at once
REFUSE: Final = "lock refused"
TWICE: Final = "twice"
# What can happen at a moment.
KILL: Final = "kill"
STOP: Final = "stop"
TERMINATE: Final = "terminate"
PARTITION: Final = "partition"
OUTAGE: Final = "outage"
CLOCK: Final = "clock set"

AT_A_PLACE: Final = (
    KILL_BEFORE, KILL_AFTER, STOP_BEFORE, STOP_AFTER, DROP, LOSE, LATE, SLOW, SLOW_ANSWER, REFUSE,
    TWICE,
)  # fmt: skip
AT_A_MOMENT: Final = (KILL, STOP, TERMINATE, PARTITION, OUTAGE, CLOCK)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `seconds`: how long, how late, or what a clock is set by."""

    kind: str
    place: str = ""
    nth: int = 0
    at: float = 0.0
    replica: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.place == STEP:
            return f"at step {self.nth} of all replicas: {self.kind} {self._length()}".rstrip()
        if self.place:
            return f"{self.place} no. {self.nth}: {self.kind} {self._length()}".rstrip()
        whom = "" if self.kind == OUTAGE else f" replica {self.replica}"
        return f"at {self.at:.3f} s:{whom} {self.kind} {self._length()}".rstrip()

    @property
    def lasts(self) -> float:
        """How many seconds after it has struck it is over."""
        return 0.0 if self.kind == CLOCK else self.seconds

    def _length(self) -> str:
        return f"({self.seconds:.3f} s)" if self.seconds else ""


class Schedule:
    """The faults of a run that have not struck yet, and a count of those that have."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.at_moments = [fault for fault in faults if not fault.place]
        self.struck: Counter[tuple[str, str]] = Counter()
        self._waiting: dict[str, dict[int, Fault]] = {}
        for fault in faults:
            if fault.place:
                self._waiting.setdefault(fault.place, {}).setdefault(fault.nth, fault)
        self._seen: Counter[str] = Counter()
        self.is_over = False

    @property
    def awaits_steps(self) -> bool:
        return STEP in self._waiting

    def strike(self, place: str) -> Fault | None:
        """Return what goes wrong this time."""
        waiting = self._waiting.get(place)
        if waiting is None or self.is_over:
            return None
        self._seen[place] += 1
        fault = waiting.pop(self._seen[place], None)
        if fault is not None:
            self.struck[fault.place, fault.kind] += 1
        return fault


def draw_fault(random: Random) -> Fault:
    """Return a fault drawn by chance."""
    drawn = random.random()
    if drawn < 0.20:
        return _at_a_moment(random)
    if drawn < 0.30:
        kind = random.choice((KILL_BEFORE, KILL_BEFORE, STOP_BEFORE))
        return Fault(kind, STEP, int(10 ** random.uniform(1, 2.9)), seconds=_seconds(kind, random))
    place = random.choices(*_PLACES)[0]
    kinds = _kinds_at(place)
    kind = random.choices(kinds, [_OFTEN.get(kind, 1) for kind in kinds])[0]
    return Fault(kind, place, _nth(place, random), seconds=_seconds(kind, random))


_PLACES: Final = tuple(
    zip(
        *{
            "commit": 20, "save": 5, "lock": 6, "insert": 4, "apply": 5, "standing": 4, "signal": 2,
            "begin": 3, "rollback": 1, "claim_due": 6, "next_due": 2, "heartbeat": 4, "rescue": 5,
            "owned": 2, "claim_owned": 2, "quarantine": 2, "release": 1, "contact": 3, "mail": 16,
            "function": 8, "hint": 3, "http": 5, "seize": 6, "redrive": 3, "redriven_by": 1,
        }.items(),
        strict=True,
    )
)  # fmt: skip
_OFTEN: Final = {LOSE: 2, KILL_AFTER: 2, STOP_AFTER: 2}
_FEW: Final = (
    "rescue",
    "quarantine",
    "claim_owned",
    "release",
    "rollback",
    "standing",
    "signal",
    "insert",
    "seize",
    "redrive",
    "redriven_by",
)


def _kinds_at(place: str) -> tuple[str, ...]:
    if place == "hint":
        return (DROP, SLOW, TWICE)
    if place == "http":
        return (DROP, LOSE, LATE, SLOW, TWICE)
    if place in EFFECTS:
        return tuple(kind for kind in AT_A_PLACE if kind != REFUSE)
    never = {TWICE} if place not in ("begin", "rollback") else {TWICE, REFUSE}
    return tuple(kind for kind in AT_A_PLACE if kind not in never)


def _nth(place: str, random: Random) -> int:
    if place in _FEW:
        return 1 + int(random.expovariate(1 / 2))
    return 1 + int(random.expovariate(1 / (4 if place in EFFECTS else 7)))


def _seconds(kind: str, random: Random) -> float:
    if kind in (STOP_BEFORE, STOP_AFTER, STOP):
        return (
            random.choice((0.3, 1.2, 2.0, 2.2, 4.0, 6.0)) * LEASE_SECONDS * random.uniform(0.9, 1.1)
        )
    if kind == LATE:
        return random.choice((0.005, 0.05, 0.3, 1.0, 3.0)) * random.uniform(0.5, 1.5)
    if kind in (SLOW, SLOW_ANSWER):
        return random.choice((0.01, 0.1, 0.5, 2.5, 5.0)) * random.uniform(0.5, 1.5)
    if kind == DROP:  # until its sender notices
        return random.choice((0.0, 0.0, 0.5, 5.0))
    return 0.0


def _at_a_moment(random: Random) -> Fault:
    kind = random.choices(AT_A_MOMENT, (1, 1, 1, 1, 2, 1))[0]
    at, replica = random.uniform(0.05, 5.0), random.randrange(3)
    seconds = _seconds(kind, random)
    if kind in (PARTITION, OUTAGE):
        seconds = random.choice((0.1, 1.0, 3.0, 4.0)) * random.uniform(0.5, 1.5)
    if kind == CLOCK:
        seconds = random.choice((-86_400.0, -3_600.0, -1.0, 1.0, 3_600.0, 86_400.0))
    return Fault(kind, at=at, replica=replica, seconds=seconds)
