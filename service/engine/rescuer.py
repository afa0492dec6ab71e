"""Leases: this worker's own heartbeat, and the executions of those whose heartbeat has stopped.

One heartbeat row for each worker, by the database's clock, is the lease of everything it owns. A
worker that merely could not reach the database is not dead, though: when the database comes back
after an outage, every heartbeat in it is stale. So nobody rescues until a full lease has passed
since its own last failure (its start counts as one); by then every live worker has renewed its own.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from service import metrics
from service.engine.clock import DatabaseClock
from service.engine.dispatch import CONCURRENT_TASKS_MAX
from service.engine.ports import Beat, Store, Unavailable
from service.engine.worker import Worker

log = structlog.get_logger()

RESCUES_AT_ONCE: Final = 500
BEATS_PER_LEASE: Final = 5
# Of more than may have been performed at once most had not begun, and all would wait too long for
# one another in the lane: they are taken up side by side, and suspected when it happens again.
SUSPECTS_AT_ONCE: Final = CONCURRENT_TASKS_MAX


class Rescuer:
    """Renews the lease of one worker, and takes over from others."""

    def __init__(
        self, worker: Worker, store: Store, clock: DatabaseClock, lease_seconds: float
    ) -> None:
        self.is_alive = False
        self._worker = worker
        self._store = store
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._quiet_until = 0.0
        self._round_at = 0.0
        self._last_beat: datetime | None = None
        self._is_finishing = False

    @property
    def beat_seconds(self) -> float:
        """Return the time between two heartbeats."""
        return self._lease_seconds / BEATS_PER_LEASE

    async def open(self) -> None:
        """Take up the lease. Raises Unavailable."""
        self._be_quiet()
        await self._beat()

    def finish(self) -> None:
        """Take over nothing more; the lease is still renewed, for what is in flight."""
        self._is_finishing = True

    async def run(self, pulse: asyncio.Event) -> None:
        """Beat at every pulse until cancelled, and rescue at the regular ones.

        Pulses in between are hints that a signal was stored: the answer of the heartbeat has it.
        """
        while True:
            await pulse.wait()
            pulse.clear()
            try:
                began = asyncio.get_running_loop().time()
                beat = await self._beat()
                if not self._is_finishing and self._is_regular():
                    if beat.holds or self._worker.tenures:
                        await self._worker.reconcile()
                    if beat.others_hold and self._may_rescue(began):
                        await self._rescue()
            except Unavailable as error:
                log.warning("heartbeat_failed", reason=str(error))
                self._pause()
            except Exception:
                log.exception("heartbeat_failed")
                self._pause()

    def _may_rescue(self, began: float) -> bool:
        """Tell whether a heartbeat that is stale now means a worker that is lost.

        Not when this process was stopped since its own beat of a lease ago: what it missed may have
        been an outage. Its next beat notices that.
        """
        now = asyncio.get_running_loop().time()
        return now >= self._quiet_until and now - began < self._lease_seconds

    def _is_regular(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._round_at:
            return False
        self._round_at = now + self.beat_seconds / 2
        return True

    async def _beat(self) -> Beat:
        asked_at = self._clock.mark()
        beat = await self._store.heartbeat(self._worker.id, self._lease_seconds)
        is_first = self._last_beat is None  # till then the clock goes by the machine's
        self._clock.set(beat.now, asked_at=None if is_first else asked_at)
        lease = timedelta(seconds=self._lease_seconds)
        if self._last_beat is not None and beat.now - self._last_beat > lease:
            # This process was stopped, and perhaps all of them were: the others may be as late.
            self._be_quiet()
        self._last_beat = beat.now
        self.is_alive = True
        for key in beat.signalled:
            self._worker.nudge(key)
        return beat

    def _pause(self) -> None:
        self.is_alive = False
        self._be_quiet()

    def _be_quiet(self) -> None:
        self._quiet_until = asyncio.get_running_loop().time() + self._lease_seconds

    async def _rescue(self) -> None:
        while (room := min(self._worker.tenures.slots, RESCUES_AT_ONCE)) > 0:
            claims = await self._worker.tenures.still_standing(
                self._store.rescue(self._worker.id, self._lease_seconds, room)
            )
            if claims:
                metrics.RESCUES.inc(len(claims))
                log.warning("executions_rescued", count=len(claims))
                await self._worker.adopt(claims, are_suspects=len(claims) <= SUSPECTS_AT_ONCE)
            if len(claims) < room:
                return
