"""Replays recordings of the real service against one replica, by the runner that lies beside them.

CONFORMANCE_DIR names the folder: files of cases by area, and `run.py`, which calls any endpoint by
boto3, plays the functions that the cases call, and writes a report.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
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


async def replay(folder: Path, endpoint: str, lambda_port: int, report: Path) -> list[Any]:
    """Return what came of every case: `id`, `area`, `outcome`, `history` (None without a recorded
    one), `why` and `why_history`. Raises AssertionError with the runner's own words when it fails.
    """
    areas = [argument for area in AREAS for argument in ("--area", area)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(folder / "run.py"),
        *("--endpoint", endpoint, "--corpus", str(folder), "--report", str(report)),
        *("--lambda-port", str(lambda_port), "--limit", str(EXECUTION_SECONDS_MAX)),
        *areas,
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
