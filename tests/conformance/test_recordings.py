"""Recordings of Step Functions itself are answered alike by a service that runs as a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.recordings import (
    AREAS,
    HISTORIES_SHARE_MIN,
    MISSED_HISTORIES,
    free_port,
    replay,
)
from tests.e2e.process import Replica, base_environment

FOLDER = os.environ.get("CONFORMANCE_DIR")


@pytest.fixture
def lambda_port() -> int:
    return free_port()


@pytest.fixture
def replica(fresh_database: str, lambda_port: int, tmp_path: Path) -> Iterator[Replica]:
    """Yield a service, not started, that calls functions at the port; it is killed in the end."""
    environment = base_environment(
        DATABASE_URL=fresh_database,
        SMTP_URL="smtp://127.0.0.1:1?tls=none",  # no case sends a mail
        SECRET_KEY="a-secret-of-the-conformance-test-only",
        MIGRATE="on",
        HOST="127.0.0.1",
        PORT="0",
        OPS_PORT="0",
        LAMBDA_ENDPOINT=f"http://127.0.0.1:{lambda_port}",
        LOG_LEVEL="info",
    )
    replica = Replica(environment, tmp_path / "replica.log")
    try:
        yield replica
    finally:
        replica.kill()


@pytest.mark.e2e
@pytest.mark.skipif(not FOLDER, reason="CONFORMANCE_DIR names no folder of recordings")
async def test_every_outcome_and_all_but_the_named_histories_are_the_recorded_ones(
    replica: Replica, lambda_port: int, tmp_path: Path
) -> None:
    assert FOLDER is not None
    await replica.start()

    results = await replay(Path(FOLDER), replica.ops, lambda_port, tmp_path)

    assert {result["area"] for result in results} == set(AREAS)
    assert {r["id"]: r.get("why") for r in results if not r["outcome"]} == {}
    histories = {r["id"]: r for r in results if r["history"] is not None}
    missed = {id: r.get("why_history") for id, r in histories.items() if not r["history"]}
    assert missed == {id: missed.get(id, "is as recorded by now") for id in MISSED_HISTORIES}
    assert 1 - len(missed) / len(histories) >= HISTORIES_SHARE_MIN
    assert replica.events("execution_broken") == []
