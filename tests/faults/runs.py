"""The table of all fault runs, in the order of their names."""

from __future__ import annotations

from typing import Any, Final

from tests.faults import (
    d01_simulation,
    m01_mutants,
    r01_kills,
    r02_points,
    r03_stops,
    r04_database_kills,
    r05_restarts,
    r06_failover,
    r09_network,
    r10_mail,
    r11_clocks,
    r12_full_disk,
    r13_blocked,
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
    r04_database_kills.RUN,
    r05_restarts.RUN,
    r06_failover.RUN,
    r09_network.RUN,
    r10_mail.RUN,
    r11_clocks.RUN,
    r12_full_disk.RUN,
    r13_blocked.RUN,
    r14_poison.RUN,
    r15_changes.RUN,
    r16_terms.RUN,
    r17_million.RUN,
    d01_simulation.RUN,
    m01_mutants.RUN,
)


def run_named(name: str) -> Run[Any]:
    """Return the run of this name; raise LookupError when there is none."""
    for run in RUNS:
        if run.name == name.upper():
            return run
    raise LookupError(f"{name!r} is none of {', '.join(run.name for run in RUNS)}")
