"""APScheduler, driving a handful of coarse pulses over `due_at`: never a job for each execution.

The rows hold every timer; the scheduler only knows the next moment at which asking for due ones is
worth a query. Jobs do nothing but set an event, because `shutdown` cancels coroutines in the middle
of their work, and none of them may be dropped for being late: with APScheduler's default
`misfire_grace_time` of one second, 27,026 of 40,000 timers due in the same second were silently
lost.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from service.engine.ports import Clock

# Two timers closer than this are claimed together: each claim is a query.
SPACING: Final = timedelta(milliseconds=5)
# Whoever waits longer than this is looked at again in between, which is one cheap question.
AHEAD_MAX: Final = timedelta(days=1)
WATCH_SECONDS: Final = 1.0
SET_BACK_SECONDS: Final = 0.1


class Timers:
    """One date job for the next due time, and an interval job for each regular duty."""

    def __init__(self, clock: Clock) -> None:
        self.due = asyncio.Event()
        self._clock = clock
        self._armed: datetime | None = None
        self._longest: dict[str, timedelta] = {}  # what may lie before a job, by its id
        self._ahead = _wall_clock_ahead()
        self._watch: asyncio.TimerHandle | None = None
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def open(self) -> None:
        """Start the scheduler on the running loop."""
        self._scheduler.start()
        self._watch_wall_clock()

    def close(self) -> None:
        """Stop it; no pulse comes after this."""
        if self._watch is not None:
            self._watch.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, name: str, seconds: float, pulse: asyncio.Event | None = None) -> asyncio.Event:
        """Return an event (this one, if given) that is set every so many seconds; whoever waits for
        it clears it.
        """
        pulse = pulse or asyncio.Event()
        self._longest[name] = timedelta(seconds=seconds)
        self._scheduler.add_job(_set, "interval", seconds=seconds, args=(pulse,), id=name)
        return pulse

    def arm(self, due_at: datetime) -> None:
        """See to it that `due` is set at this moment, if nothing earlier is armed already."""
        if self._armed is not None and self._armed <= due_at:
            return
        self._armed = due_at
        # The scheduler goes by the wall clock; the moment is the database's, so only the distance
        # counts. A far one is cut, or the end of the calendar would lie beyond the end of time.
        distance = min(max(due_at - self._clock.now(), SPACING), AHEAD_MAX)
        self._longest["due"] = distance
        self._scheduler.add_job(
            self._fire,
            "date",
            run_date=datetime.now(UTC) + distance,
            id="due",
            replace_existing=True,
        )

    def _watch_wall_clock(self) -> None:
        """Let jobs run at once that the wall clock keeps back since it was set.

        The scheduler goes by it: an hour back would keep the heartbeat, and every timer, for that
        hour. A clock that was wrong only since the last look shows no longer; what it leaves behind
        is a job too far away, or a scheduler that sleeps too long.
        """
        ahead, now = _wall_clock_ahead(), datetime.now(UTC)
        was_set_back = ahead < self._ahead - SET_BACK_SECONDS
        for job in self._scheduler.get_jobs():
            if was_set_back or job.next_run_time - now > self._longest[job.id]:
                job.modify(next_run_time=now)
        self._scheduler.wakeup()
        self._ahead = ahead
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(WATCH_SECONDS, self._watch_wall_clock)

    async def _fire(self) -> None:
        self._armed = None
        self.due.set()


def _wall_clock_ahead() -> float:
    """Return by how many seconds the wall clock is ahead of the one that nobody sets."""
    return time.time() - time.monotonic()


async def _set(pulse: asyncio.Event) -> None:
    pulse.set()
