"""The named statements of `sql/queries`, which is all the SQL that the service runs.

A file holds blocks, each begun by a line `-- name: claim_due`. Lines that are only a comment
document a block (or, before the first one, the file) and are not sent to the database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from service.resources import resource_path

_NAME: Final = re.compile(r"^-- name: ([a-z_.]+)$", re.MULTILINE)
_COMMENT: Final = re.compile(r"^\s*--.*\n?", re.MULTILINE)


class Queries:
    """Statements by name. A name that is there twice, or has no statement, is a ValueError."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    @classmethod
    def load(cls, folder: Path) -> Queries:
        """Return the statements of all `*.sql` files in a folder."""
        texts: dict[str, str] = {}
        for path in sorted(folder.glob("*.sql")):
            for name, text in _blocks(path.read_text(encoding="utf-8")):
                if name in texts:
                    raise ValueError(f"{path.name}: {name} is there twice")
                if not text:
                    raise ValueError(f"{path.name}: {name} has no statement")
                texts[name] = text
        return cls(texts)

    def text(self, name: str) -> str:
        """Return a statement's text. Raises KeyError."""
        return self._texts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)


@cache
def all_queries() -> Queries:
    """Return the service's own statements, read once."""
    return Queries.load(resource_path("sql") / "queries")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    _, *pieces = _NAME.split(text)
    for name, block in zip(pieces[::2], pieces[1::2], strict=True):
        yield name, _COMMENT.sub("", block).strip()
