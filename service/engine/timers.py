"""APScheduler, driving a handful of coarse pulses over `due_at`: never a job for each execution.

The rows hold every timer; the scheduler only knows the next moment at which asking for due ones is
worth a query. Jobs do nothing but set an event, because `shutdown` cancels coroutines in the middle
of their work, and none of them may be dropped for being late: with APScheduler's default
`misfire_grace_time` of one second, 27,026 of 40,000 timers due in the same second were silently
lost.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from service.engine.ports import Clock

# Two timers closer than this are claimed together: each claim is a query.
SPACING = timedelta(milliseconds=5)


class Timers:
    """One date job for the next due time, and an interval job for each regular duty."""

    def __init__(self, clock: Clock) -> None:
        self.due = asyncio.Event()
        self._clock = clock
        self._armed: datetime | None = None
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def open(self) -> None:
        """Start the scheduler on the running loop."""
        self._scheduler.start()

    def close(self) -> None:
        """Stop it; no pulse comes after this."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, name: str, seconds: float, pulse: asyncio.Event | None = None) -> asyncio.Event:
        """Return an event (this one, if given) that is set every so many seconds; whoever waits for
        it clears it.
        """
        pulse = pulse or asyncio.Event()
        self._scheduler.add_job(_set, "interval", seconds=seconds, args=(pulse,), id=name)
        return pulse

    def arm(self, due_at: datetime) -> None:
        """See to it that `due` is set at this moment, if nothing earlier is armed already."""
        if self._armed is not None and self._armed <= due_at:
            return
        self._armed = due_at
        # The scheduler goes by the wall clock; the moment is the database's, so only the distance
        # counts.
        distance = max(due_at - self._clock.now(), SPACING)
        self._scheduler.add_job(
            self._fire,
            "date",
            run_date=datetime.now(UTC) + distance,
            id="due",
            replace_existing=True,
        )

    async def _fire(self) -> None:
        self._armed = None
        self.due.set()


async def _set(pulse: asyncio.Event) -> None:
    pulse.set()
