"""The items of a map run, read a slice at a time, as the inputs of its children."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from service.asl import Json
from service.asl.map_run import ChildInput, Inputs

READ_AT_ONCE: Final = 100
"""Items read from a file by one visit to a thread. So many wait in memory: at an item's limit some
100 MiB, and more items would hardly make a visit cheaper for each.
"""

COUNTED_AT_ONCE: Final = 10_000
"""Items that are only counted by one visit. Nothing cancels a thread, so no visit is long."""


async def count(source: Iterator[Json]) -> int:
    """Return how many items there are. Raise ExecutionError when they cannot be read."""
    total = 0
    while counted := await asyncio.to_thread(_count, source):
        total += counted
    return total


def _count(source: Iterator[Json]) -> int:
    return sum(1 for _ in islice(source, COUNTED_AT_ONCE))


class ItemFeed:
    """Inputs of children, in the order of the items."""

    def __init__(self, source: Iterator[Json], inputs: Inputs, *, is_blocking: bool) -> None:
        self.items = 0
        """How many items have been read."""
        self._source = source
        self._inputs = inputs
        self._is_blocking = is_blocking
        self._waiting: deque[Json] = deque()
        self._is_exhausted = False

    async def take(self, count: int) -> list[ChildInput]:
        """Return the inputs of the next children, at most so many; none when all were taken.

        Raise ExecutionError when items cannot be read, or no input be made of one.
        """
        made: list[ChildInput] = []
        while len(made) < count:
            if not self._waiting and not await self._read():
                made += self._inputs.rest()
                break
            made += self._inputs.from_items([self._waiting.popleft()])
        return made

    async def skip(self, items: int) -> None:
        """Leave out as many of the next items: a child has them already."""
        for _ in range(self._inputs.skip(items)):
            if not self._waiting and not await self._read():
                return
            self._waiting.popleft()

    async def _read(self) -> bool:
        """Read more items; False when there are none."""
        if self._is_exhausted:
            return False
        if self._is_blocking:
            read = await asyncio.to_thread(list, islice(self._source, READ_AT_ONCE))
        else:
            read = list(islice(self._source, READ_AT_ONCE))
        self._is_exhausted = len(read) < READ_AT_ONCE
        self._waiting += read
        self.items += len(read)
        return bool(read)
