"""The yardstick of the HTTP figures: one insert for each request, and nothing else.

An endpoint of the same HTTP server, the same event loop and the same driver, whose requests share
commits as the engine's steps do, into a table with one index. No service that stores what it was
asked before it answers can be much faster with these parts; `python -m benchmarks.limit URL` serves
it and writes its port to stdout.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import uvloop
from aiohttp import web

from benchmarks.counters import Counters
from benchmarks.database import BenchDatabase
from benchmarks.options import HOST, Mail, Options
from benchmarks.processes import module_process
from benchmarks.wire import Connection
from service.engine.clock import DatabaseClock
from service.engine.ids import new_id

ADDRESS: Final = "visitor@example.org"
FLUSHERS: Final = 2
ROW_BYTES: Final = 200

TABLE: Final = """
create table signups (
    id uuid primary key, address text not null, state smallint not null, data bytea not null,
    created_at timestamptz not null default now()
)
"""
INSERT: Final = """
insert into signups (id, address, state, data)
select * from unnest($1::uuid[], $2::text[], $3::smallint[], $4::bytea[])
"""


class Endpoint:
    """Answers a POST once its row is committed, with whoever else asked meanwhile."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._clock = DatabaseClock()
        self._data = os.urandom(ROW_BYTES)
        self._waiting: list[tuple[UUID, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def post(self, request: web.Request) -> web.Response:
        """Store the request's row."""
        await request.read()
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        id = new_id(self._clock.now(), 0)
        self._waiting.append((id, stored))
        self._wake.set()
        await stored
        answer = b'{"id":"%b"}' % str(id).encode()
        return web.Response(status=202, body=answer, content_type="application/json")

    async def flush(self) -> None:
        """Commit what waits, again and again."""
        async with self._pool.acquire() as connection:
            insert = await connection.prepare(INSERT)
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                if batch:
                    count = len(batch)
                    ids = [id for id, _ in batch]
                    await insert.fetch(ids, [ADDRESS] * count, [1] * count, [self._data] * count)
                    for _, stored in batch:
                        stored.set_result(None)


class LimitClient:
    """A visitor of the endpoint, who posts what a signup posts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def signup(self, email: str) -> UUID:
        """Return the id of the row. Raises RuntimeError for any answer but 202."""
        status, text = await self._connection.post("/signup", b'{"email":"%b"}' % email.encode())
        if status != 202:
            raise RuntimeError(f"POST /signup: {status}, not 202")
        return UUID(text[7:-2].decode())

    async def verify(self, account_id: UUID) -> None:
        """There is nothing to verify."""
        raise AssertionError(account_id)


class LimitTarget:
    """Endpoints on one table, among which visitors are dealt out in turn."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = itertools.cycle(ports)

    async def client(self) -> LimitClient:
        """Return a visitor. Raises OSError."""
        return LimitClient(await Connection.open(HOST, next(self._ports)))

    async def ended(self) -> float:
        """Nothing goes on, so nothing ends."""
        return 0.0

    async def counters(self) -> Counters:
        """Nothing is counted."""
        return {}


@asynccontextmanager
async def open_limit(
    options: Options, mail: Mail, database: BenchDatabase, folder: Path
) -> AsyncIterator[tuple[LimitTarget, list[int]]]:
    """Yield the endpoints and the pids of their processes, which end with the block."""
    await database.connection.execute(TABLE)
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(_process(database.url))
            for _ in range(options.processes)
        ]
        yield LimitTarget([port for port, _ in started]), [pid for _, pid in started]


@asynccontextmanager
async def _process(database_url: str) -> AsyncIterator[tuple[int, int]]:
    async with module_process("benchmarks.limit", database_url) as (process, port):
        yield int(port), process.pid


async def _serve(database_url: str) -> None:
    pool = await asyncpg.create_pool(database_url, min_size=FLUSHERS, max_size=FLUSHERS)
    endpoint = Endpoint(pool)
    app = web.Application()
    app.router.add_post("/signup", endpoint.post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.gather(*(endpoint.flush() for _ in range(FLUSHERS)))


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
