"""Every case in `cases/` is played by `advance` and must come out as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.driver import Play

CASES = [
    case
    for path in sorted((Path(__file__).parent / "cases").glob("*.json"))
    for case in json.loads(path.read_text("utf-8"))
]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_comes_out_as_it_says(case: dict[str, Any]) -> None:
    assert Play(case).to_the_end() == case["expect"]


def test_cases_have_names_of_their_own() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) > 0
