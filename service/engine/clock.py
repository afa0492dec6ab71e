"""The database's clock, as this process knows it between two heartbeats.

Timers are written here and judged there, so a worker whose wall clock is an hour off would wake
everything an hour early or late. What counts is therefore the database's time, carried on by this
process's monotonic clock.

What the database says is older by the time it is heard, by an unknown part of what the answer took.
A clock that went by every answer would stand seconds behind after a slow one, and the waits that
begin then would end early by as much. So an answer only corrects what it contradicts.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class DatabaseClock:
    """A clock that never runs behind a moment the database has named."""

    def __init__(self) -> None:
        self._ahead_seconds = datetime.now(UTC).timestamp() - time.monotonic()

    def now(self) -> datetime:
        """Return the moment, aware and in UTC."""
        return datetime.fromtimestamp(self._ahead_seconds + time.monotonic(), UTC)

    def mark(self) -> float:
        """Return a mark of this moment, which `set` is given when the database was asked then."""
        return time.monotonic()

    def set(self, now: datetime, *, asked_at: float | None = None) -> None:
        """Take over the database's time: what a heartbeat answers, which was asked at this mark.

        Told without a mark, the time is taken as it is.
        """
        least = now.timestamp() - time.monotonic()
        most = least if asked_at is None else now.timestamp() - asked_at
        if not least <= self._ahead_seconds <= most:
            self._ahead_seconds = least

    def observe(self, now: datetime) -> None:
        """Catch up with a moment that the database has seen, so that no timer looks early."""
        if now > self.now():
            self.set(now)
