"""The service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.options import Mail

ROOT: Final = Path(__file__).parent.parent
"""Where a process finds both packages, and a service its workflows."""

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.02
LOG_TAIL_BYTES: Final = 4_000

COMMANDS: Final[Mapping[Mail, tuple[str, ...]]] = {
    "sink": ("-m", "service", "serve"),
    "discard": ("-m", "benchmarks.serve", "discard"),
    "none": ("-m", "benchmarks.serve", "none"),
}


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A service that is ready."""

    pid: int
    public_port: int
    ops_port: int


@asynccontextmanager
async def module_process(
    *module_and_arguments: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Yield a Python module as a process, and the line by which it says that it is ready.

    It ends with the block. Raises RuntimeError for one that ends without saying so.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module_and_arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(module_and_arguments)}: does not get ready")
        yield process, line.decode().strip()
    finally:
        await stop(process)


@asynccontextmanager
async def service_process(
    mail: Mail, environment: Mapping[str, str], log_path: Path
) -> AsyncIterator[ServiceProcess]:
    """Yield a service once it is ready; it ends with the block.

    Raises RuntimeError, with the end of its log, for a process that does not get ready.
    """
    with log_path.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMANDS[mail],
            env={**os.environ, **environment},
            cwd=ROOT,
            stderr=log_file,
        )
    try:
        ports = await _ports(process, log_path)
        yield ServiceProcess(process.pid, ports["public_port"], ports["ops_port"])
    finally:
        await stop(process)


async def _ports(process: asyncio.subprocess.Process, log_path: Path) -> dict[str, int]:
    """Return the ports that the process says in its log it listens on."""
    for _ in range(int(READY_SECONDS / POLL_SECONDS)):
        for line in _log(log_path).splitlines():
            if b'"service_ready"' in line:
                ready: dict[str, int] = orjson.loads(line)
                return ready
        if process.returncode is not None:
            break
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"the service does not get ready:\n{_log(log_path).decode()}")


def _log(log_path: Path) -> bytes:
    return log_path.read_bytes()[-LOG_TAIL_BYTES:]


async def stop(process: asyncio.subprocess.Process) -> None:
    """End a process, by force if it takes its time."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
