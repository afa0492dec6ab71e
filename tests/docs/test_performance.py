"""docs/performance.md has every figure that has a goal, and the table is made as it says."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.goals import GOALS, RATIOS, judged
from benchmarks.table import COMMANDS, peers, put_into, rows
from tests.docs.pages import codes, read, section
from tests.docs.pages import rows as rows_of

PAGE = read("docs/performance.md")


def test_table_has_every_figure_with_its_goal() -> None:
    told = {tuple(cells[:2]) for cells in rows_of(section(PAGE, "## The figures"))}
    goals = {(goal.figure, goal.text) for goals in GOALS.values() for goal in goals}
    goals |= {(f"{ratio.figure} (inproc)", f">= {ratio.limit:g}") for ratio in RATIOS}
    assert goals - told == set()


def test_commands_of_the_table_exist() -> None:
    table = rows_of(section(PAGE, "## The figures"))
    commands = {codes(cells[-1])[0] for cells in table if codes(cells[-1])}
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


def test_line_of_a_smaller_scale_is_not_judged() -> None:
    line = {"name": "map", "scale": 0.01, "items_per_s": 1110.0}
    assert judged(line) == line
    assert judged({**line, "scale": 1.0})["goals"] != {}


def test_table_tells_the_median_and_the_spread_of_each_variant() -> None:
    lines = [
        {"name": "signup", "processes": processes, "share_of_limit": share}
        for processes, shares in ((1, (0.6, 0.4, 0.55)), (2, (0.1,)))
        for share in shares
    ]
    assert [row for row in rows(lines) if "signups over" in row] == [
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
    assert [row for row in rows(lines) if "Restate" in row] == [
        "| verification workflows in process, over those of Restate (inproc) | >= 12 | 12 "
        "| 9-15 | yes | `python -m benchmarks inproc` |",
        "| verification workflows in process, over those of Restate (replicas) | >= 12 "
        "| not measured |  |  | `python -m benchmarks replicas` |",
    ]


def test_table_leaves_out_what_was_measured_at_a_smaller_scale() -> None:
    lines = [{"name": "map", "scale": scale, "items_per_s": 1 / scale} for scale in (1.0, 0.01)]
    assert [row for row in rows(lines) if "Map" in row] == [
        "| Distributed Map of 10,000 items | >= 3000 /s | 1 /s | one round | no "
        "| `python -m benchmarks map` |"
    ]


def test_engines_are_told_beside_each_other() -> None:
    lines = [
        {
            "name": "inproc",
            "workflows_per_s": 1200.4,
            "cpu_service_ms_per_workflow": 0.251,
            "cpu_postgres_ms_per_workflow": 0.1,
        },
        *(
            {
                "peer": "dbos",
                "version": "3.4.0",
                "workflows_per_s": rate,
                "cpu_app_ms_per_wf": 16.5,
                "cpu_pg_ms_per_wf": 5.25,
            }
            for rate in (30.0, 35.0, 60.0)
        ),
    ]
    assert list(peers(lines)) == [
        "| Countersign | 1200 | 0.251 | 0.1 |",
        "| DBOS 3.4.0 | 35 | 16.5 | 5.25 |",
    ]


def test_table_takes_the_place_of_the_last_one() -> None:
    first = put_into(PAGE, "| first |")
    second = put_into(first, "| second |")
    assert "| first |" in first
    assert second == first.replace("| first |", "| second |")


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no"):
        put_into("# A page\n", "| a table |")
