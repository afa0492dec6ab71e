"""docs/simulate.md shows what is really printed, and tells of every member that a case can have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from service.cli import main
from service.simulation.cases import Case, Expectation, Result
from tests.docs.pages import ROOT, blocks, read, rows, section
from tests.docs.test_readme import _edited

PAGE = read("docs/simulate.md")
FLOW = read("workflows/verification.asl.json")


@pytest.fixture
def workflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder `workflows` of the current directory, with the flow and cases that ship."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    for name in ("verification.asl.json", "verification.cases.json"):
        (folder / name).write_text((ROOT / "workflows" / name).read_text())
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("heading", "before", "after", "code"),
    [
        ("## Play the cases", "", "", 0),
        ("## See an edit fail", '"BooleanEquals": true', '"BooleanEquals": false', 1),
    ],
)
def test_the_run_is_printed_as_shown(
    heading: str,
    before: str,
    after: str,
    code: int,
    workflows: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workflows / "verification.asl.json").write_text(FLOW.replace(before, after, 1))
    (transcript,) = blocks(section(PAGE, heading), "console")
    command, _, shown = transcript.partition("\n")
    assert main(command.removeprefix("$ countersign ").split()) == code
    parts = [re.escape(part) for part in shown.split("...\n")]
    assert re.fullmatch("(?:.*\n)*".join(parts), capsys.readouterr().out)


def test_the_cases_that_are_shown_hold_for_the_flow_that_the_readme_shows(
    workflows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workflows / "reminding.asl.json").write_text(_edited())
    (cases,) = blocks(section(PAGE, "## Write a case"), "json")
    (workflows / "reminding.cases.json").write_text(cases)
    assert main(["simulate", "workflows/reminding.asl.json"]) == 0
    assert capsys.readouterr().out.endswith("\n2 played: 2 ok (seed 1)\n")


def test_every_member_is_told_of_in_the_order_of_the_code() -> None:
    told = [cells[0].strip("`") for cells in rows(section(PAGE, "## Write a case"))]
    parts: tuple[type[BaseModel], ...] = (Case, Result, Expectation)
    assert told == [member for part in parts for member in part.model_fields]
