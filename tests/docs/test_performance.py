"""docs/performance.md has every figure that has a goal, and the table is made as it says."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.goals import GOALS, RATIOS, judged
from benchmarks.table import COMMANDS, put_into, rows
from tests.docs.pages import codes, read, section
from tests.docs.pages import rows as rows_of

PAGE = read("docs/performance.md")


def test_table_has_every_figure_with_its_goal() -> None:
    told = {(cells[0], cells[1]) for cells in rows_of(section(PAGE, "## The figures"))}
    goals = {(goal.figure, goal.text) for goals in GOALS.values() for goal in goals}
    goals |= {(f"{ratio.figure} (inproc)", f">= {ratio.limit:g}") for ratio in RATIOS}
    assert goals - told == set()


def test_commands_of_the_table_exist() -> None:
    commands = {codes(cells[-1])[0] for cells in rows_of(section(PAGE, "## The figures"))}
    assert commands <= {f"python -m benchmarks {name}" for name in NAMES}


def test_every_line_that_has_goals_comes_of_a_command() -> None:
    assert {COMMANDS.get(name, name) for name in GOALS} <= set(NAMES)


def test_line_says_of_each_goal_what_was_reached() -> None:
    line = {"name": "wal", "wal_bytes_per_workflow": 7001, "write_transactions_per_workflow": 0.2}
    assert judged(line) == {
        **line,
        "goals": {
            "WAL per workflow": {"goal": "<= 7000 B", "reached": 7001.0, "is_met": False},
            "write transactions per workflow": {"goal": "<= 0.2", "reached": 0.2, "is_met": True},
        },
    }


def test_figure_that_could_not_be_told_meets_nothing() -> None:
    unknown = {"goal": ">= 2000 /s", "reached": None, "is_met": None}
    assert judged({"name": "smtp"})["goals"] == {"workflows with real SMTP": unknown}


def test_line_without_goals_stays_as_it_is() -> None:
    assert judged({"name": "limit", "signups_per_s": 1}) == {"name": "limit", "signups_per_s": 1}


def test_table_tells_the_median_and_the_spread_of_each_variant() -> None:
    lines = [
        {"name": "signup", "processes": processes, "share_of_limit": share}
        for processes, shares in ((1, (0.6, 0.4, 0.55)), (2, (0.1,)))
        for share in shares
    ]
    assert list(rows(lines)) == [
        "| signups over HTTP, of the limit | >= 0.5 | 0.55 | 0.4-0.6 | yes "
        "| `python -m benchmarks http` |",
        "| signups over HTTP, of the limit, 2 processes | >= 0.5 | 0.1 | one round | no "
        "| `python -m benchmarks http` |",
    ]


def test_table_compares_medians_with_those_of_peers() -> None:
    lines = [
        *({"name": "inproc", "workflows_per_s": rate} for rate in (900.0, 1200.0, 1500.0)),
        *({"peer": "restate", "workflows_per_s": rate} for rate in (50.0, 100.0, 400.0)),
    ]
    assert list(rows(lines)) == [
        "| verification workflows in process, over those of Restate (inproc) | >= 12 | 12 "
        "| 9-15 | yes | `python -m benchmarks inproc` |"
    ]


def test_table_takes_the_place_of_the_last_one() -> None:
    first = put_into(PAGE, "| first |")
    second = put_into(first, "| second |")
    assert "| first |" in first
    assert second == first.replace("| first |", "| second |")


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no"):
        put_into("# A page\n", "| a table |")
