"""The database's clock, as this process knows it between two heartbeats.

Timers are written here and judged there, so a worker whose wall clock is an hour off would wake
everything an hour early or late. What counts is therefore the database's time, carried on by this
process's monotonic clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class DatabaseClock:
    """A clock that never runs behind a moment the database has named."""

    def __init__(self) -> None:
        self.set(datetime.now(UTC))

    def now(self) -> datetime:
        """Return the moment, aware and in UTC."""
        return datetime.fromtimestamp(self._ahead_seconds + time.monotonic(), UTC)

    def set(self, now: datetime) -> None:
        """Take over the database's time: what a heartbeat answers."""
        self._ahead_seconds = now.timestamp() - time.monotonic()

    def observe(self, now: datetime) -> None:
        """Catch up with a moment that the database has seen, so that no timer looks early."""
        if now > self.now():
            self.set(now)
