"""Replays recordings of the real service against one replica, by the runner that lies beside them.

CONFORMANCE_DIR names the folder: files of cases by area, and `run.py`, which calls any endpoint by
boto3, plays the functions that the cases call, and writes a report. What it plays is a copy, in
which dates that were days ahead of the recording lie as many days ahead of the replay.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

AREAS: Final = (
    "arguments",
    "assign",
    "base",
    "choice",
    "comments",
    "context",
    "credentials",
    "errors",
    "intrinsics",
    "jsonata",
    "lambda",
    "logs",
    "map",
    "output",
    "parallel",
    "query_language",
    "scenarios",
    "test_state",
    "timeouts",
    "validation",
    "variable_references",
)

MISSED_HISTORIES: Final = frozenset({"assign-46146660", "assign-99a9cc09", "parallel-dbb7f70b"})
"""The cases whose history differs from the recorded one: docs/asl-support.md says why."""

DAYS_AHEAD: Final[Mapping[str, Mapping[str, int]]] = {"base-fe3cca43": {"start_at": 24_856}}
"""How many days ahead of its start a case's dates were, by their names in the input, where the
answer depends on it: from 2026-11-23T10:12:03Z on, the file's is less than 2**31 seconds away.
"""

HISTORIES_SHARE_MIN: Final = 0.99

REPLAY_SECONDS_MAX: Final = 170
EXECUTION_SECONDS_MAX: Final = 30
"""For one case; ten times what the slowest takes on an idle machine."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def copy_at(folder: Path, copy: Path, now: datetime) -> None:
    """Write the cases of AREAS into a new folder, their dates ahead of `now` as far as they were at
    the recording. Raises AssertionError when a case or a date of DAYS_AHEAD is no longer there.
    """
    copy.mkdir()
    moved = set()
    for area in AREAS:
        cases = json.loads((folder / f"{area}.json").read_text("utf-8"))
        for case in cases:
            for name, days in DAYS_AHEAD.get(case["id"], {}).items():
                assert name in case["input"], f"{case['id']} has no {name} in its input"
                case["input"][name] = f"{now + timedelta(days=days):%Y-%m-%dT%H:%M:%S.000Z}"
                moved.add(case["id"])
        (copy / f"{area}.json").write_text(json.dumps(cases), "utf-8")
    assert moved == set(DAYS_AHEAD), f"no case is named {set(DAYS_AHEAD) - moved}"


async def replay(folder: Path, endpoint: str, lambda_port: int, scratch: Path) -> list[Any]:
    """Return what came of every case: `id`, `area`, `outcome`, `history` (None without a recorded
    one), `why` and `why_history`. Raises AssertionError with the runner's own words when it fails.
    """
    copy, report = scratch / "cases", scratch / "report.json"
    copy_at(folder, copy, datetime.now(UTC))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(folder / "run.py"),
        *("--endpoint", endpoint, "--corpus", str(copy), "--report", str(report)),
        *("--lambda-port", str(lambda_port), "--limit", str(EXECUTION_SECONDS_MAX)),
        # Nothing of the caller's: a proxy or a profile would come between boto3 and the replica.
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(REPLAY_SECONDS_MAX):
            said, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, said.decode(errors="replace")
    results: list[Any] = json.loads(report.read_text("utf-8"))["results"]
    return results
