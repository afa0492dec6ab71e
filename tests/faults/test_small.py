"""Every fault run in small: seconds each, the same code and the same ledger as in full."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from tests.faults.run import Run, perform
from tests.faults.runs import RUNS

pytestmark = pytest.mark.e2e

EDITIONS = [(run, size) for run in RUNS for size in (run.small, *run.more)]


@pytest.mark.parametrize(("run", "size"), EDITIONS, ids=[run.name for run, _ in EDITIONS])
async def test_the_small_edition_holds(run: Run[Any], size: Any, database_url: str) -> None:
    if (missing := run.missing()) is not None:
        pytest.skip(missing)
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"seed {seed} (FAULTS_SEED={seed} repeats its choices)")
    line = await perform(run, size, seed=seed, edition="small", given_server=database_url)
    print(json.dumps(line))
    assert (line["verdict"], line["complaints"]) == ("held", [])
