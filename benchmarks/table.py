"""The table of docs/performance.md from the lines of several rounds: medians, and their spread.

`python -m benchmarks.table FILE ...` reads lines of JSON, those of `python -m benchmarks` and, for
the comparison, those of other engines: `{"peer": name, "workflows_per_s": number}`. It prints the
table, or with `--page docs/performance.md` puts it there in place of the last one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.goals import GOALS, RATIOS, Line

BEGIN: Final = "<!-- figures: written by python -m benchmarks.table -->"
END: Final = "<!-- end of figures -->"

HEAD: Final = ("| figure | goal | reached | spread | met | command |", "|---|---|---|---|---|---|")
COMMANDS: Final = {"signup": "http", "mails": "smtp", "idle_hundred": "idle"}
"""Where a line's name is not the name by which it is asked for."""


def read(paths: Sequence[str]) -> list[Line]:
    """Return the lines of JSON objects in files, other lines left out."""
    texts = [Path(path).read_text(encoding="utf-8") for path in paths]
    return [json.loads(line) for text in texts for line in text.splitlines() if line[:1] == "{"]


def rows(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a row for each figure that has a goal and was measured, in the order of the goals."""
    for name, goals in GOALS.items():
        variants = sorted({line.get("processes", 1) for line in lines if line.get("name") == name})
        for processes in variants:
            these = [
                line
                for line in lines
                if line.get("name") == name and line.get("processes", 1) == processes
            ]
            for goal in goals:
                values = [value for line in these if (value := goal.value(line)) is not None]
                if values:
                    figure = goal.figure + (f", {processes} processes" if processes > 1 else "")
                    is_met = goal.is_met(median(values))
                    command = f"`python -m benchmarks {COMMANDS.get(name, name)}`"
                    yield _row(figure, goal.text, values, goal.unit, is_met, command)
    yield from _ratio_rows(lines)


def _ratio_rows(lines: Sequence[Line]) -> Iterator[str]:
    """Yield how many times as fast as others the workflow is, both at their medians."""
    ours = {
        name: [line["workflows_per_s"] for line in lines if line.get("name") == name]
        for name in ("inproc", "replicas")
    }
    for ratio in RATIOS:
        theirs = [
            line["workflows_per_s"]
            for line in lines
            if str(line.get("peer", "")).lower() == ratio.peer.lower()
        ]
        for name, rates in ours.items():
            if rates and theirs:
                values = [rate / median(theirs) for rate in rates]
                is_met = median(values) >= ratio.limit
                figure = f"{ratio.figure} ({name})"
                command = f"`python -m benchmarks {name}`"
                yield _row(figure, f">= {ratio.limit:g}", values, "", is_met, command)


def _row(
    figure: str, goal: str, values: Sequence[float], unit: str, is_met: bool, command: str
) -> str:
    reached = f"{median(values):.4g} {unit}".strip()
    spread = f"{min(values):.4g}-{max(values):.4g}" if len(values) > 1 else "one round"
    cells = (figure, goal, reached, spread, "yes" if is_met else "no", command)
    return f"| {' | '.join(cells)} |"


def put_into(page: str, table: str) -> str:
    """Return the page with this table between its marks. Raises ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def main() -> int:
    """Print the table or put it into a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args()
    table = "\n".join((*HEAD, *rows(read(asked.files))))
    if asked.page is None:
        print(table)
    else:
        asked.page.write_text(put_into(asked.page.read_text(encoding="utf-8"), table), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
