"""The cases that ship with the default flow: all hold, and no branch or mistake escapes them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from service.asl import compile_definition
from service.cli import main
from service.simulation import failures_of, names_of, play, read_cases
from service.tasks.handlers import BUILT_IN
from service.tasks.simulated import SimulatedAccount
from tests.simulation.plays import CASES, FLOW


def test_every_case_of_the_shipped_flow_comes_out_as_expected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", str(FLOW)]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [case["name"] for case in json.loads(CASES.read_text())["cases"]]
    headings = [line.partition(": ")[0] for line in lines if line.startswith("ok ")]
    assert headings == [f"ok   {name}" for name in named]
    assert lines[-1] == f"{len(named)} played: {len(named)} ok (seed 1)"


def test_the_shipped_cases_take_every_branch_of_the_shipped_flow() -> None:
    machine = compile_definition(FLOW.read_text())
    taken = set()
    for case in read_cases(CASES, names_of(machine, BUILT_IN)):
        path = play(machine, case, SimulatedAccount(), 1).path
        taken |= {*pairwise(path)}
    branches = set()
    for name, state in json.loads(FLOW.read_text())["States"].items():
        ways = [state, *state.get("Choices", ()), *state.get("Catch", ())]
        branches |= {(name, way["Next"]) for way in ways if "Next" in way}
        branches |= {(name, state["Default"])} if "Default" in state else set()
    assert taken == branches


@pytest.mark.parametrize("seed", range(5))
def test_the_shipped_expectations_hold_whatever_the_jitter(seed: int) -> None:
    machine = compile_definition(FLOW.read_text())
    for case in read_cases(CASES, names_of(machine, BUILT_IN)):
        assert failures_of(play(machine, case, SimulatedAccount(), seed)) == []


def edited(folder: Path, before: str, after: str) -> Path:
    """Return a copy of the shipped flow with one edit, and of its cases beside it."""
    text = FLOW.read_text()
    assert text.count(before) == 1
    file = folder / FLOW.name
    file.write_text(text.replace(before, after))
    (folder / CASES.name).write_text(CASES.read_text())
    return file


@pytest.mark.parametrize(
    ("before", "after", "failing", "told"),
    [
        (
            '"Default": "DeleteUnverifiedAccount"',
            '"Default": "SendWelcomeEmail"',
            [
                "verified between the check and the delete",
                "never verified",
                "verified too late",
                "mail server comes back",
            ],
            '"IsVerified","SendWelcomeEmail","Verified"]',
        ),
        ('"Seconds": 1800', '"Seconds": 1801', None, "seconds: expected 1800\n"),
        ('"BooleanEquals": true', '"BooleanEquals": false', None, "path: expected ["),
        ('["MailRefused"]', '["MailRejected"]', [], "10 ok"),  # States.ALL catches it as well
    ],
)
def test_a_case_fails_on_an_edit_that_takes_another_course(
    before: str,
    after: str,
    failing: list[str] | None,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["simulate", str(edited(tmp_path, before, after))])
    shown = capsys.readouterr().out
    failed = [line[5:].partition(": ")[0] for line in shown.splitlines() if line[:4] == "FAIL"]
    assert code == (0 if failing == [] else 1)
    assert told in shown
    assert failed if failing is None else failed == failing


def test_an_invalid_file_is_told_as_validate_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(edited(tmp_path, '"StartAt": "SendVerificationEmail"', '"StartAt": "Send"'))
    assert main(["validate", file]) == 1
    problems = capsys.readouterr().out
    assert (main(["simulate", file]), capsys.readouterr().out) == (1, problems)
    assert problems.startswith(f"{file}:3:")
