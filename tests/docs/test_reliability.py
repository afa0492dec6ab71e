"""The page on reliability names the runs and the counts that there are, and their sizes."""

from __future__ import annotations

import pytest

from tests.docs.pages import read, rows, section
from tests.faults import r01_kills, r03_stops, r15_changes, r16_terms, r17_million
from tests.faults.ledger import FAULTS, Counts
from tests.faults.runs import RUNS

PAGE = "docs/reliability.md"


def table() -> dict[str, list[str]]:
    """Return the rows of the table of runs, by the run's name."""
    return {cells[0]: cells for cells in rows(section(read(PAGE), "## The runs"))}


def test_every_run_stands_in_the_table() -> None:
    assert {run.name for run in RUNS} - table().keys() == set()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("R1", f"{r01_kills.RUN.full.kills} kills, {r01_kills.RUN.full.signups:,} signups"),
        ("R3", f"{r03_stops.RUN.full.stops} stops, {r03_stops.RUN.full.signups:,} signups"),
        ("R15", f"{r15_changes.RUN.full.signups:,} signups"),
        ("R16", f"{r16_terms.RUN.full.terms} ends, {r16_terms.RUN.full.signups:,} signups"),
        ("R17", f"{r17_million.RUN.full.waiting:,}"),
    ],
)
def test_the_table_says_how_much_is_done_in_full(name: str, size: str) -> None:
    assert table()[name][2] == size


def test_every_count_that_must_be_nought_is_explained() -> None:
    told = section(read(PAGE), "## The ledger")
    assert {name for name in (*FAULTS, "dup_mail") if f"`{name}`" not in told} == set()
    assert set(FAULTS) <= vars(Counts()).keys()
