"""How much one step of an execution may do before it stops short, so that others need not wait.

The engine takes a step in one go on the event loop of everybody. A loop of states that wait for
nothing may walk through all of its history in one step, one expression may take as long as a
thousand states, and a thousand outputs may be 256 MB to store; so the events of a step are bounded,
and its work, which is what expressions cost and data weighs. Work is counted, not timed: the same
execution stops at the same place.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from service.asl.history import HISTORY_EVENTS_MAX

STEP_EVENTS_MAX: Final = 1_000  # 10 to 20 ms
STEP_WORK_MAX: Final = 100_000  # steps of an evaluation in JSONata, of about 0.2 µs: 20 ms
BYTES_PER_WORK: Final = 32  # of an event's data, which are written and packed in such a step's time
WEIGHED_EVENTS: Final = 31  # one event in so many is weighed; odd, as a loop is often of two states


@dataclass(frozen=True, slots=True)
class Share:
    """A step stops short of the next state when it has noted so many events or done such work."""

    events: int
    work: int


STEP_SHARE: Final = Share(STEP_EVENTS_MAX, STEP_WORK_MAX)
NO_SHARE: Final = Share(0, 0)
"""What has happened is taken in, and no state is tried."""

WHOLE_SHARE: Final = Share(HISTORY_EVENTS_MAX, sys.maxsize)
"""For who has nobody waiting: a step never stops short."""


class Work:
    """What one step has cost so far beside its events, in steps of an evaluation in JSONata."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = 0
