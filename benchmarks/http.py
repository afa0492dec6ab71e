"""The service as processes of its own, over real HTTP and, with a mail sink, real SMTP."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import orjson

from benchmarks.counters import ENDED, Counters, read_counters
from benchmarks.database import BenchDatabase
from benchmarks.options import HOST, SECRET_KEY, Mail, Options, service_environment
from benchmarks.processes import service_process
from benchmarks.sink import sink_for
from benchmarks.wire import Connection
from service.accounts import Tokens


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
    """Replicas of the service, among which visitors are dealt out in turn."""

    def __init__(self, ports: Sequence[int], ops: Sequence[Connection]) -> None:
        self._ports = itertools.cycle(ports)
        self._ops = ops
        self._tokens = Tokens([SECRET_KEY.encode()])

    async def client(self) -> HttpClient:
        """Return a visitor. Raises OSError."""
        return HttpClient(await Connection.open(HOST, next(self._ports)), self._tokens)

    async def ended(self) -> float:
        """Return how many executions have ended."""
        return (await self.counters())[ENDED]

    async def counters(self) -> Counters:
        """Return the counters of all replicas together."""
        texts = [await ops.get("/metrics") for ops in self._ops]
        return read_counters("\n".join(text.decode() for _, text in texts))


@asynccontextmanager
async def open_http(
    options: Options, mail: Mail, database: BenchDatabase, folder: Path
) -> AsyncIterator[tuple[HttpTarget, list[int]]]:
    """Yield the target and the pids of its processes, which end with the block.

    Raises RuntimeError, with the end of its log, for a process that does not get ready.
    """
    async with AsyncExitStack() as stack:
        smtp_port = await stack.enter_async_context(sink_for(mail))
        environment = service_environment(options, database_url=database.url, smtp_port=smtp_port)
        # One after the other: the first of them makes the schema.
        services = [
            await stack.enter_async_context(
                service_process(mail, environment, folder / f"service{number}.log")
            )
            for number in range(options.processes)
        ]
        ops = [await Connection.open(HOST, service.ops_port) for service in services]
        ports = [service.public_port for service in services]
        yield HttpTarget(ports, ops), [service.pid for service in services]
