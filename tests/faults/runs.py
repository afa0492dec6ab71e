"""The table of all fault runs, in the order of their names."""

from __future__ import annotations

from typing import Any, Final

from tests.faults import (
    r01_kills,
    r02_points,
    r03_stops,
    r10_mail,
    r11_clocks,
    r14_poison,
    r15_changes,
    r16_terms,
    r17_million,
)
from tests.faults.run import Run

RUNS: Final[tuple[Run[Any], ...]] = (
    r01_kills.RUN,
    r02_points.RUN,
    r03_stops.RUN,
    r10_mail.RUN,
    r11_clocks.RUN,
    r14_poison.RUN,
    r15_changes.RUN,
    r16_terms.RUN,
    r17_million.RUN,
)


def run_named(name: str) -> Run[Any]:
    """Return the run of this name; raise LookupError when there is none."""
    for run in RUNS:
        if run.name == name.upper():
            return run
    raise LookupError(f"{name!r} is none of {', '.join(run.name for run in RUNS)}")
