"""Where in the index of timers a look begins: at its very front, unless that has become slow.

Claims take from the front of that index and leave a dead entry each, which PostgreSQL clears away
once nobody can see it any more. A transaction that somebody forgot keeps them all: every look then
wades through all that was claimed since (60,000 of them: 25 ms instead of 0.3), and looking is all
that is done. So after a whole look that was slow the next ones begin shortly before what it found,
and the next whole one, which also finds what was since made due in the past, waits twenty times as
long as that one took.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
CHEAP_SECONDS: Final = 0.005
"""A look that takes no longer is followed by another whole one."""
PAUSE_FACTOR: Final = 20
MARGIN: Final = timedelta(seconds=5)
"""How long after the moment it is set for a timer may become visible: clocks, and slow commits."""


class Front:
    """What one process knows of the front."""

    def __init__(self) -> None:
        self.since = BEGINNING
        self._whole_at = float("-inf")

    def begin(self, at: float) -> bool:
        """Begin a look at timers from `since` on; tell whether it is a whole one."""
        if at >= self._whole_at:
            self.since = BEGINNING
        return self.since == BEGINNING

    def end(self, began: float, at: float, earliest: datetime | None, now: datetime) -> None:
        """End a whole look, which found `earliest`, if anything, at the database's `now`.

        `began` and `at` are of the clock that `begin` goes by, in seconds.
        """
        if at - began > CHEAP_SECONDS:
            self.since = min(earliest or now, now) - MARGIN
            self._whole_at = at + PAUSE_FACTOR * (at - began)
