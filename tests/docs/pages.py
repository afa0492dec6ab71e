"""The project's documents, taken apart for the tests that hold them to the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda page: page.as_posix()
)

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"`([^`]+)`")


def read(name: str) -> str:
    """Return the text of a page, named by its path from the top folder."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, until the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, heads and rules left out."""
    lines = text.splitlines()
    table = [
        line
        for number, line in enumerate(lines)
        if line.startswith("|") and not _is_head(lines, number) and not line.startswith("|---")
    ]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def codes(text: str) -> list[str]:
    """Return what stands between backquotes."""
    return _CODE.findall(text)


def headings(text: str) -> Iterator[str]:
    """Yield the anchors of a page's headings, as they are made from their text."""
    outside = _FENCE.sub("", text)
    for title in re.findall(r"^#+ (.+)$", outside, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _is_head(lines: list[str], number: int) -> bool:
    return number + 1 < len(lines) and lines[number + 1].startswith("|---")
