"""The table of docs/performance.md from the lines of several rounds: medians, and their spread.

`python -m benchmarks.table FILE ...` reads lines of JSON, those of `python -m benchmarks` and, for
the comparison, those of other engines: `{"peer": name, "version": text, "workflows_per_s": number,
"cpu_app_ms_per_wf": number, "cpu_pg_ms_per_wf": number}`. It prints the table, or with
`--page docs/performance.md` puts it there in place of the last one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.goals import GOALS, RATIOS, Goal, Line, Ratio, is_full

BEGIN: Final = "<!-- figures: written by python -m benchmarks.table -->"
END: Final = "<!-- end of figures -->"

HEAD: Final = ("| figure | goal | reached | spread | met | command |", "|---|---|---|---|---|---|")
PEERS_HEAD: Final = (
    "| engine | workflows/s | its CPU per workflow, ms | PostgreSQL's, ms |",
    "|---|---|---|---|",
)
COMMANDS: Final = {"signup": "http", "mails": "smtp", "idle_hundred": "idle"}
"""Where a line's name is not the name by which it is asked for."""


def read(paths: Sequence[str]) -> list[Line]:
    """Return the lines of JSON objects in files, other lines left out."""
    texts = [Path(path).read_text(encoding="utf-8") for path in paths]
    return [json.loads(line) for text in texts for line in text.splitlines() if line[:1] == "{"]


def rows(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a row for each figure that has a goal, in the order of the goals.

    Lines of a smaller scale tell whether something works, not how fast it is: they are left out.
    """
    full = [line for line in lines if is_full(line)]
    for name, goals in GOALS.items():
        named = [line for line in full if line.get("name") == name]
        for processes in sorted({line.get("processes", 1) for line in named} or {1}):
            these = [line for line in named if line.get("processes", 1) == processes]
            for goal in goals:
                figure = goal.figure + (f", {processes} processes" if processes > 1 else "")
                values = [value for line in these if (value := goal.value(line)) is not None]
                yield _row(figure, goal, values, COMMANDS.get(name, name))
    yield from _ratio_rows(full)


def _ratio_rows(lines: Sequence[Line]) -> Iterator[str]:
    """Yield how many times as fast as others the workflow is, both at their medians."""
    for ratio in RATIOS:
        theirs = [line["workflows_per_s"] for line in _of_peer(lines, ratio)]
        for name in ("inproc", "replicas"):
            rates = [line["workflows_per_s"] for line in lines if line.get("name") == name]
            values = [rate / median(theirs) for rate in rates] if theirs else []
            goal = Goal(f"{ratio.figure} ({name})", (), ">=", ratio.limit, "")
            yield _row(goal.figure, goal, values, name)


def _of_peer(lines: Sequence[Line], ratio: Ratio) -> list[Line]:
    return [line for line in lines if str(line.get("peer", "")).lower() == ratio.peer.lower()]


def _row(figure: str, goal: Goal, values: Sequence[float], command: str) -> str:
    if values:
        reached = f"{median(values):.4g} {goal.unit}".strip()
        spread = f"{min(values):.4g}-{max(values):.4g}" if len(values) > 1 else "one round"
        met = "yes" if goal.is_met(median(values)) else "no"
    else:
        reached, spread, met = "not measured", "", ""
    cells = (figure, goal.text, reached, spread, met, f"`python -m benchmarks {command}`")
    return f"| {' | '.join(cells)} |"


def peers(lines: Sequence[Line]) -> Iterator[str]:
    """Yield how fast each engine ran the workflow in process and what that cost, ours first."""
    engines = {"Countersign": "inproc", "Countersign, a process for each core": "replicas"}
    for title, name in engines.items():
        ours = [line for line in lines if line.get("name") == name]
        yield from _engine(title, ours, "cpu_{}_ms_per_workflow", ("service", "postgres"))
    for ratio in RATIOS:
        theirs = _of_peer(lines, ratio)
        title = " ".join((ratio.peer, *{str(line["version"]) for line in theirs}))
        yield from _engine(title, theirs, "cpu_{}_ms_per_wf", ("app", "pg"))


def _engine(title: str, lines: Sequence[Line], cpu: str, parts: tuple[str, str]) -> Iterator[str]:
    if lines:
        rates = [line["workflows_per_s"] for line in lines]
        costs = [median(line[cpu.format(part)] for line in lines) for part in parts]
        cells = (f"{median(rates):.4g}", *(f"{cost:.3g}" for cost in costs))
        yield f"| {' | '.join((title, *cells))} |"


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
    lines = read(asked.files)
    table = "\n".join((*HEAD, *rows(lines), "", *PEERS_HEAD, *peers(lines)))
    if asked.page is None:
        print(table)
    else:
        asked.page.write_text(put_into(asked.page.read_text(encoding="utf-8"), table), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
