"""Statements are found by name in files that a person can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store.queries import Queries, all_queries


def test_blocks_are_found_by_name_without_their_comments(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text(
        "-- What this file is.\n\n-- name: first\n-- Why.\nselect 1\n-- because\nfrom t\n\n"
        "-- name: second.lock\nselect '-- not a comment';\n"
    )
    queries = Queries.load(tmp_path)
    assert {name: queries.text(name) for name in queries} == {
        "first": "select 1\nfrom t",
        "second.lock": "select '-- not a comment';",
    }
    assert "first" in queries
    assert "third" not in queries


def test_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no_such"):
        all_queries().text("no_such")


def test_name_in_two_files_is_refused(tmp_path: Path) -> None:
    for file in ("a.sql", "b.sql"):
        (tmp_path / file).write_text("-- name: same\nselect 1\n")
    with pytest.raises(ValueError, match=r"b\.sql: same is there twice"):
        Queries.load(tmp_path)


def test_name_without_a_statement_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- name: empty\n-- nothing\n-- name: next\nselect 1\n")
    with pytest.raises(ValueError, match=r"a\.sql: empty has no statement"):
        Queries.load(tmp_path)
