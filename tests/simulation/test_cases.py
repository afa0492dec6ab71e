"""Cases files and arguments: what is refused, and what holds where a case says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.asl import Json
from service.cli import main
from service.simulation import SIGNUP_INPUT, BadCases, read_cases
from tests.simulation.plays import FLOW, chain, function


@pytest.mark.parametrize(
    ("cases", "problem"),
    [
        ([], "the file: []: Input should be a valid dictionary"),
        ({"cases": []}, "cases: []: List should have at least 1 item"),
        ({"cases": [{}]}, "cases[0].name: is required"),
        ({"cases": [{"name": "a"}] * 2}, "two cases are named 'a'"),
        ({"cases": [{"name": "a", "verifed_at": 1}]}, "cases[0].verifed_at: 1: there is no such"),
        ({"cases": [{"name": "a", "verified_at": -1}]}, "cases[0].verified_at: -1: Input should"),
        ({"cases": [{"name": "a", "verified_at": 10**400}]}, "cases[0].verified_at: 1000"),
        ({"cases": [{"name": "a", "expect": {}}]}, "cases[0].expect: {}: tells nothing"),
        (
            {"cases": [{"name": "a", "expect": {"status": "DONE"}}]},
            "cases[0].expect.status: \"DONE\": Input should be 'SUCCEEDED', 'FAILED' or",
        ),
        (
            {"cases": [{"name": "a", "expect": {"seconds": [2, 1]}}]},
            "cases[0].expect.seconds: [2,1]: has the larger number first",
        ),
        (
            {"cases": [{"name": "a", "expect": {"seconds": True}}]},
            "cases[0].expect.seconds: true: is neither a number of seconds nor an array",
        ),
        (
            {"cases": [{"name": "a", "results": {"A": []}}]},
            "cases[0].results.A: []: List should have at least 1 item",
        ),
        (
            {"cases": [{"name": "a"}], "results": {"A": [{"output": 1, "error": "E"}]}},
            'results.A[0]: {"output":1,"error":"E"}: has both output and error',
        ),
        (
            {"cases": [{"name": "a", "results": {"A": [{"cause": "C"}]}}]},
            'cases[0].results.A[0]: {"cause":"C"}: has a cause without an error',
        ),
        (
            {"cases": [{"name": "a", "results": {"B": [{}]}}]},
            "cases[0].results.B: neither a Task state of the definition nor a function that it "
            "calls or that ships; those are: A, delete_unverified_account, f, get_account",
        ),
        ({"cases": [{"name": "a", "input": "x" * 262_144}]}, 'cases[0].input: "xxxx'),
    ],
)
def test_a_bad_cases_file_is_wrong_usage_and_told_by_place_value_and_rule(
    cases: Json, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.asl.json").write_text(json.dumps(chain(A={"Resource": function("f")})))
    (tmp_path / "f.cases.json").write_text(json.dumps(cases))
    assert main(["simulate", str(tmp_path / "f.asl.json")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"countersign: {tmp_path / 'f.cases.json'} is wrong:"
    assert [line for line in told[1:] if problem in line], told
    assert max(map(len, told)) < 400


def test_a_cases_file_is_bounded_and_so_is_what_is_told_of_it(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"
    file.write_bytes(b" " * 1_048_577)
    with pytest.raises(BadCases, match="larger than 1048576 bytes"):
        read_cases(file, frozenset())
    file.write_text('{"cases": [')
    with pytest.raises(BadCases, match="not JSON: "):
        read_cases(file, frozenset())
    file.write_text(json.dumps({"cases": [{}] * 30}))
    with pytest.raises(BadCases) as raised:
        read_cases(file, frozenset())
    assert (len(raised.value.problems), raised.value.problems[-1]) == (21, "and 10 more")


def test_an_input_is_that_of_one_run_or_of_the_cases_without_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.asl.json"
    file.write_text(json.dumps(chain(A={"Type": "Pass"})))

    def inputs(*arguments: str) -> list[Json]:
        assert main(["simulate", str(file), *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [json.loads(line.split()[2]) for line in lines if "→" in line]

    assert inputs() == [{**SIGNUP_INPUT, "account_id": "01970000-0000-7000-…"}]
    assert inputs("--input", "[1]") == [[1]]
    cases = {"cases": [{"name": "a"}, {"name": "b", "input": None}]}
    (tmp_path / "f.cases.json").write_text(json.dumps(cases))
    assert inputs()[1:] == [None]
    assert inputs("--input", "[1]") == [[1]]
    assert inputs("--input", "[1]", "--cases", str(tmp_path / "f.cases.json")) == [[1], None]
    (tmp_path / "f.cases.json").write_text(json.dumps({**cases, "input": 2}))
    assert inputs() == [2, None]


@pytest.mark.parametrize("argument", ["{", '"' + "x" * 262_144 + '"', "1e400"])
def test_an_input_that_no_execution_can_have_is_wrong_usage(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["simulate", str(FLOW), "--input", argument])
    assert raised.value.code == 2
    assert "argument --input: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nowhere.json"], [str(FLOW), "--cases", "nowhere.json"]])
def test_a_file_that_is_not_there_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    assert capsys.readouterr().err == "countersign: nowhere.json: No such file or directory\n"
