"""The service as a process of its own, over real HTTP and, with a mail sink, real SMTP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import orjson

from benchmarks.counters import ENDED, Counters, read_counters
from benchmarks.database import BenchDatabase
from benchmarks.options import SECRET_KEY, Mail, Options, service_environment
from benchmarks.sink import Sink
from benchmarks.wire import Connection
from service.accounts import Tokens

HOST: Final = "127.0.0.1"
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05
LOG_TAIL_BYTES: Final = 4_000

COMMANDS: Final[Mapping[Mail, tuple[str, ...]]] = {
    "sink": ("-m", "service", "serve"),
    "discard": ("-m", "benchmarks.serve", "discard"),
    "none": ("-m", "benchmarks.serve", "none"),
}


class HttpClient:
    """A visitor with a connection of its own."""

    def __init__(self, connection: Connection, tokens: Tokens) -> None:
        self._connection = connection
        self._tokens = tokens

    async def signup(self, email: str) -> UUID:
        """Return the id of the signup. Raises RuntimeError for any answer but 202."""
        answer = await self._post("/signup", {"email": email}, status=202)
        return UUID(answer["id"])

    async def verify(self, account_id: UUID) -> None:
        """Follow the first link, derived as the mail has it: no inbox has to be read."""
        await self._post("/verify", {"token": self._tokens.link_token(account_id, 1)}, status=200)

    async def _post(self, path: str, body: dict[str, str], *, status: int) -> dict[str, str]:
        answered, text = await self._connection.post(path, orjson.dumps(body))
        if answered != status:
            raise RuntimeError(f"POST {path}: {answered}, not {status}: {text[:500]!r}")
        answer: dict[str, str] = orjson.loads(text)
        return answer


class HttpTarget:
    """A service on two ports."""

    def __init__(self, port: int, ops: Connection, database: BenchDatabase) -> None:
        self._port = port
        self._ops = ops
        self._database = database
        self._tokens = Tokens([SECRET_KEY.encode()])

    async def client(self) -> HttpClient:
        """Return a visitor. Raises OSError."""
        return HttpClient(await Connection.open(HOST, self._port), self._tokens)

    async def ended(self) -> float:
        """Return how many executions have ended."""
        return (await self.counters())[ENDED]

    async def counters(self) -> Counters:
        """Return the service's counters."""
        _, text = await self._ops.get("/metrics")
        return read_counters(text.decode())

    async def has_ended(self, account_id: UUID) -> bool:
        """Tell whether the signup's execution is stored as ended."""
        return await self._database.has_ended(account_id)


@asynccontextmanager
async def open_http(
    options: Options, mail: Mail, database: BenchDatabase, log_path: Path
) -> AsyncIterator[tuple[HttpTarget, int]]:
    """Yield the target and the pid of its process, which ends with the block.

    Raises RuntimeError, with the end of its log, for a process that does not get ready.
    """
    async with Sink() as sink:
        process = await _start(options, mail, database, sink.port, log_path)
        try:
            ports = await _ports(process, log_path)
            ops = await Connection.open(HOST, ports["ops_port"])
            yield HttpTarget(ports["public_port"], ops, database), process.pid
        finally:
            await _stop(process)


async def _start(
    options: Options, mail: Mail, database: BenchDatabase, smtp_port: int, log_path: Path
) -> asyncio.subprocess.Process:
    environment = service_environment(options, database_url=database.url, smtp_port=smtp_port)
    with log_path.open("ab") as log_file:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMANDS[mail],
            env=os.environ | environment,
            cwd=Path(__file__).parent.parent,
            stderr=log_file,
        )


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


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
