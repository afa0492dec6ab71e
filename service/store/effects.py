"""Rows into columns: how many rows become the parameters of one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from service.engine.ports import Effect


def columns_of(rows: Iterable[Iterable[object]], *, width: int = 0) -> list[Sequence[object]]:
    """Return the columns of some rows; `width` empty ones when there is no row."""
    columns: list[Sequence[object]] = list(zip(*rows, strict=True))
    return columns or [()] * width


def grouped(effects: Sequence[Effect]) -> Iterator[tuple[str, list[Sequence[object]]]]:
    """Yield for each query its name and parameters: the ordinals, then a column for each member.

    They come in the order of their names, so that every batch locks in the same order.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for ordinal, effect in enumerate(effects):
        members[effect.query].append(ordinal)
    for name in sorted(members):
        ordinals = members[name]
        yield name, [ordinals, *columns_of(effects[ordinal].row for ordinal in ordinals)]
