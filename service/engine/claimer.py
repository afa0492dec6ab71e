"""The claimer: brings executions whose time has come into this worker's memory.

It claims at the next due time that it knows of, and the answer brings the one after that. It asks
for that time once a second, since another replica may have put an earlier one there: an idle
service costs one index look-up a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from service import metrics
from service.engine.ports import Claim, Clock, Pulses, Store, Unavailable
from service.engine.worker import Worker

log = structlog.get_logger()

CLAIMS_AT_ONCE: Final = 500
POLL_SECONDS: Final = 1.0
POLL: Final = timedelta(seconds=POLL_SECONDS)


class Claimer:
    """Claims what is due, never more than there is room for."""

    def __init__(self, worker: Worker, store: Store, timers: Pulses, clock: Clock) -> None:
        self._worker = worker
        self._tenures = worker.tenures
        self._store = store
        self._timers = timers
        self._clock = clock
        self._next_due: datetime | None = None  # as far as it is known
        self._asked_at = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """Claim whenever something is due until cancelled."""
        while True:
            await self._timers.due.wait()
            self._timers.due.clear()
            try:
                await self._claim()
            except Unavailable as error:
                log.warning("claim_failed", reason=str(error))
            except Exception:
                log.exception("claim_failed")

    async def _claim(self) -> None:
        if self._next_due is not None and self._next_due > self._clock.now():
            self._next_due = None  # an earlier one may have come up
        while True:
            if self._next_due is None:
                self._asked_at = self._clock.now()
                self._next_due = await self._store.next_due()
            if self._next_due is None:
                return
            if self._next_due > self._clock.now():
                self._timers.arm(self._next_due)
                return
            while (limit := min(self._tenures.slots, CLAIMS_AT_ONCE)) <= 0:
                await self._tenures.has_room.wait()
            self._next_due = None
            claims = await self._tenures.still_standing(self._claim_due(limit))
            metrics.CLAIMS.inc(len(claims))
            await self._worker.adopt(claims)
            if not claims:
                return  # whoever locked them has them

    async def _claim_due(self, limit: int) -> Sequence[Claim]:
        """Claim, and keep the next due time unless it is to be asked for again."""
        claims, next_due = await self._store.claim_due(self._worker.id, limit)
        # However much is claimed, it is asked once a second: by the time of that look the store
        # judges where to begin.
        if self._clock.now() - self._asked_at < POLL:
            self._next_due = next_due
        return claims
