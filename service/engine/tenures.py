"""The executions in this process's memory: which, how many more, and which have just left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Final

from service.engine.ids import run_of
from service.engine.ports import Claim, Key
from service.engine.turn import Tenure

TENURES_MAX: Final = 10_000


class Tenures:
    """At most `limit` executions, one tenure each."""

    def __init__(self, limit: int, reserved: Callable[[], int]) -> None:
        """Hold none yet. `reserved` tells how many places are kept for what is still to come in."""
        self.limit = limit
        self.has_room = asyncio.Event()
        self.is_empty = asyncio.Event()
        self._reserved = reserved
        self._held: dict[Key, Tenure] = {}
        # For each question under way: what has left memory since, and in which epoch.
        self._departures: list[dict[Key, int]] = []
        self._takings: Counter[Key] = Counter()
        self.note_room()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Tenure]:
        """Go through all that are held now, whatever leaves meanwhile."""
        return iter(list(self._held.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    @property
    def keys(self) -> Set[Key]:
        """Return the keys of all, which change as they do."""
        return self._held.keys()

    @property
    def slots(self) -> int:
        """Return how many more executions may be claimed now."""
        return self.limit - len(self._held) - self._reserved()

    def get(self, key: Key) -> Tenure | None:
        """Return the tenure of an execution; None when it is not in memory."""
        return self._held.get(key)

    def holds(self, tenure: Tenure) -> bool:
        """Tell whether this is an execution's present tenure, and not one that is over."""
        return self._held.get(tenure.key) is tenure

    def add(self, tenure: Tenure) -> None:
        """Take in an execution that is not in memory."""
        self._held[tenure.key] = tenure
        self.note_room()

    def replace(self, tenure: Tenure) -> None:
        """Take in an execution, with what waits in the inbox of its tenure before."""
        former = self._held.get(tenure.key)
        if former is not None:
            tenure.inbox += former.inbox
            self.forget(former)
        self.add(tenure)

    def forget(self, tenure: Tenure) -> None:
        """Let an execution leave memory; whatever is still performed for it is cancelled."""
        if self.holds(tenure):
            del self._held[tenure.key]
            for left in self._departures:
                left[tenure.key] = tenure.epoch
        tenure.end()
        self.note_room()

    async def still_standing(self, asked: Awaitable[Sequence[Claim]]) -> Sequence[Claim]:
        """Return those claims of the store's answer that still stand when it arrives.

        While it is under way another answer may bring the same row into memory, where it goes on
        and leaves again. Taken up from the older one, it would be performed twice.
        """
        left: dict[Key, int] = {}
        self._departures.append(left)
        try:
            claims = await asked
        finally:
            self._departures = [other for other in self._departures if other is not left]
        return [claim for claim in claims if claim.epoch >= left.get(claim.key, 0)]

    @contextmanager
    def taking(self, key: Key) -> Iterator[None]:
        """Note that an execution, or what runs of a Map Run's children, is being taken from whoever
        has it, to let something happen to it here.

        Once that is committed its row says that it is held here. Taken up from the row before the
        answer has come, it would perform once more what it is about to be kept from.
        """
        self._takings[key] += 1
        try:
            yield
        finally:
            self._takings[key] -= 1
            if not self._takings[key]:
                del self._takings[key]

    def is_being_taken(self, key: Key) -> bool:
        """Tell whether a `taking` of this execution, or of its Map Run's children, is under way."""
        return key in self._takings or run_of(key) in self._takings

    def note_room(self) -> None:
        """Tell whoever waits for room, or for nothing to be left."""
        _set(self.is_empty, not self._held)
        _set(self.has_room, self.slots > 0)


def _set(event: asyncio.Event, is_so: bool) -> None:
    if is_so:
        event.set()
    else:
        event.clear()
