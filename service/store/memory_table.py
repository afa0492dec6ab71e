"""Dictionaries that can take back what a failed transaction did to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Journal:
    """What the present transaction has replaced, in order; nothing is written down outside one."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] | None = None

    def note(self, undo: Callable[[], object]) -> None:
        """Keep how to take back a change."""
        if self._undo is not None:
            self._undo.append(undo)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Take back every change of the block when it raises."""
        undo = self._undo = []
        try:
            yield
        except BaseException:
            self._undo = None
            for step in reversed(undo):
                step()
            raise
        finally:
            self._undo = None


class Table(MutableMapping[K, V]):
    """A dictionary with a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rows: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        return self._rows[key]

    def __setitem__(self, key: K, row: V) -> None:
        if key in self._rows:
            before = self._rows[key]
            self._journal.note(lambda: self._rows.__setitem__(key, before))
        else:
            self._journal.note(lambda: self._rows.pop(key))
        self._rows[key] = row

    def __delitem__(self, key: K) -> None:
        before = self._rows.pop(key)
        self._journal.note(lambda: self._rows.__setitem__(key, before))

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
