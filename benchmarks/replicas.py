"""The benchmark in process, in as many processes at once as there are cores.

Each is a service of its own, with a database of its own on one server, as no load can tell which
replica ends what another has begun. What they share is the machine and the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.circumstances import cores, tell
from benchmarks.options import Mail, Options
from benchmarks.processes import ROOT, stop

_SUMS: Final = ("workflows", "workflows_per_s", "starts_per_s", "cores_service", "lost")
# Each process sees what the whole server does.
_OF_THE_SERVER: Final = (
    "cpu_postgres_ms_per_workflow",
    "write_transactions_per_workflow",
    "wal_bytes_per_workflow",
)
_SAME: Final = (
    *("mail", "seconds", "wait_s", "in_flight_max"),
    *("commit", "python", "core", "postgres"),
)


async def run_replicas(options: Options, server_url: str, mail: Mail) -> dict[str, object]:
    """Return the figures of all processes together.

    Raises RuntimeError when one of them fails.
    """
    tell(f"replicas: {cores()} processes for {options.seconds:g} s")
    lines = await asyncio.gather(*(_run_one(options, server_url, mail) for _ in range(cores())))
    return _together(lines)


async def _run_one(options: Options, server_url: str, mail: Mail) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "inproc", "--database", server_url, "--mail", mail),
        *("--seconds", str(options.seconds), "--wait", str(options.wait_seconds)),
        *("--clients", str(options.clients), "--in-flight", str(options.in_flight_max)),
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        out, said = await process.communicate()
    finally:
        await stop(process)
    if process.returncode not in (0, 1) or not out:
        raise RuntimeError(said.decode(errors="replace").strip().rpartition("\n")[2])
    line: dict[str, Any] = json.loads(out)
    return line


def _together(lines: Sequence[dict[str, Any]]) -> dict[str, object]:
    workflows: list[int] = [line["workflows"] for line in lines]

    def weighted(name: str) -> float:
        shares = zip(lines, workflows, strict=True)
        total: float = sum(line[name] * share for line, share in shares)
        return total / sum(workflows)

    return {
        "name": "replicas",
        "processes": len(lines),
        **{name: round(sum(line[name] for line in lines), 2) for name in _SUMS},
        "ack_ms": {p: max(line["ack_ms"][p] for line in lines) for p in ("p50", "p99")},
        "cpu_service_ms_per_workflow": round(weighted("cpu_service_ms_per_workflow"), 3),
        **{
            name: round(weighted(name) / len(lines), 3)
            for name in _OF_THE_SERVER
            if all(line[name] is not None for line in lines)
        },
        "cores_stolen": max(line["cores_stolen"] for line in lines),
        "loops_per_cpu_ms": min(line["loops_per_cpu_ms"] for line in lines),
        "clients": sum(line["clients"] for line in lines),
        **{name: lines[0][name] for name in _SAME},
    }
