"""Committers side by side, each for its share of the buckets.

While one waits for the database another works, and what belongs together never meets itself: an
execution, its account and whoever signals it have one bucket, so one committer.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from service.engine.batch import Concerns, Outcomes
from service.engine.committer import Committer
from service.engine.ports import Store
from service.engine.turn import Turn, Unit

# Two keep one core and a database busy; a third one makes the batches smaller and nothing faster.
LANES: Final = 2


class Lanes:
    """What the engine commits by: as one `Committer`, but for the order of different buckets."""

    def __init__(self, store: Store, owner: UUID, outcomes: Outcomes) -> None:
        self.committers = [
            Committer(store, owner, outcomes, concerns=_share(lane)) for lane in range(LANES)
        ]

    @property
    def is_down(self) -> bool:
        """Tell whether the last transaction of any lane found no database."""
        return any(committer.is_down for committer in self.committers)

    def submit(self, unit: Unit) -> None:
        """Queue a unit for the next batch of its bucket's lane."""
        self.committers[_bucket(unit) % LANES].submit(unit)

    def admit(self) -> None:
        """Raise Overloaded or Unavailable when a caller had better come back later."""
        for committer in self.committers:
            committer.admit()

    async def drained(self) -> None:
        """Return when everything submitted so far is committed or has failed."""
        for committer in self.committers:
            await committer.drained()

    def close(self) -> None:
        """Answer whoever still waits: nothing is committed any more. `run` has ended."""
        for committer in self.committers:
            committer.close()

    async def run(self) -> None:
        """Commit batch after batch until cancelled."""
        lanes = [asyncio.ensure_future(committer.run()) for committer in self.committers]
        try:
            # Not a TaskGroup, which passes on the first cancellation only: a lane that swallowed it
            # (see `Engine._end`) would never end.
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()


def _bucket(unit: Unit) -> int:
    if isinstance(unit, Turn):
        return unit.tenure.key.bucket
    bucket = unit.effect.row[0]  # with which every row begins
    assert isinstance(bucket, int), unit.effect.query
    return bucket


def _share(lane: int) -> Concerns:
    return lambda key: key.bucket % LANES == lane
