"""The service of a run, as an operator would have it: a database, a mail server and replicas."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from service.store import Database, migrate
from tests.e2e.process import COMMAND, Replica, replica_environment
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors, open_visitors
from tests.faults.audit import AUDIT
from tests.faults.ledger import Counts, Ledger
from tests.faults.run import Stage

FLOW_SECONDS: Final = 1800
"""What the shipped flow waits for a visitor."""
POLL_SECONDS: Final = 0.1
REST_SECONDS_MAX: Final = 120.0
"""Without any that ends or waits for its time, after which a run is over all the same."""
_RUNNING: Final = """
select count(*) as running, exists (select from executions where due_at > now()) as any_waits
from executions where status = 'RUNNING'
"""


@dataclass
class Cluster:
    """Replicas on one database, the sink that takes their mails, and what clients know of them."""

    stage: Stage
    database_url: str
    environment: dict[str, str]
    sink: MailSink
    visitors: Visitors
    ledger: Ledger
    replicas: list[Replica] = field(default_factory=list)
    leases: dict[Replica, UUID] = field(default_factory=dict)

    def new_replica(self, *, command: Sequence[str] = COMMAND, **variables: str) -> Replica:
        """Return one more replica, not started, with variables besides those that all have."""
        log_path = self.stage.folder / f"replica-{len(self.replicas)}.log"
        replica = Replica({**self.environment, **variables}, log_path, command=command)
        self.replicas.append(replica)
        return replica

    async def add_replica(self, *, command: Sequence[str] = COMMAND, **variables: str) -> None:
        """Start one more replica."""
        await self.start(self.new_replica(command=command, **variables))

    async def start(self, replica: Replica) -> None:
        """Start a replica, and learn which lease it has taken: one starts at a time for that."""
        async with self.connected() as database:
            known = await database.fetch("select id from workers")
            await replica.start()
            statement = "select id from workers where id <> all($1) order by started_at desc"
            self.leases[replica] = await database.fetchval(statement, [row["id"] for row in known])

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection of the caller's own to the database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def look(self, statement: str, *arguments: Any) -> Any:
        """Return the first value of what a statement finds."""
        async with self.connected() as database:
            return await database.fetchval(statement, *arguments)

    async def come_to_rest(self) -> None:
        """Return once every execution has ended, or none does any more."""
        loop = asyncio.get_running_loop()
        async with self.connected() as database:
            (fewest, _), since = await database.fetchrow(_RUNNING), loop.time()
            while fewest:
                running, any_waits = await database.fetchrow(_RUNNING)
                if running < fewest or any_waits:
                    fewest, since = running, loop.time()
                if loop.time() - since > REST_SECONDS_MAX:
                    return
                # At most a tenth of the time is spent on counting, however many there are.
                began = loop.time()
                await asyncio.sleep(max(POLL_SECONDS, 10 * (loop.time() - began)))

    async def count(self, *, one_of: int = 1) -> Counts:
        """Count the ledger, once everything is at rest or nothing moves any more."""
        self.stage.tell("waiting for every execution's end")
        await self.come_to_rest()
        self.stage.tell("counting")
        async with self.connected() as database:
            return await self.ledger.count(database, self.sink.recorded(), one_of=one_of)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one name in the logs of all replicas."""
        return [each for replica in self.replicas for each in replica.events(event)]

    async def metric(self, name: str) -> float:
        """Return the sum of a metric over all replicas, as they count since their last start."""
        return sum([await self.visitors.metric(replica, name) for replica in self.replicas])

    @property
    def rescued(self) -> int:
        """Return how many executions replicas took over from others, by their logs."""
        return sum(event["count"] for event in self.logged("executions_rescued"))


@asynccontextmanager
async def open_cluster(
    stage: Stage,
    *,
    replicas: int,
    wait_seconds: float = FLOW_SECONDS,
    database_url: str | None = None,
    **variables: str,
) -> AsyncIterator[Cluster]:
    """Yield a cluster of running replicas; all that it consists of ends with it.

    `wait_seconds` is what the shipped flow's half hour is scaled to. The database is a fresh one of
    the stage's server, unless the caller brings an empty one of its own; its schema is made here.
    """
    async with (
        _database(stage, database_url) as url,
        MailSink(stage.folder / "mails.jsonl") as sink,
        open_visitors() as visitors,
    ):
        scale = wait_seconds / FLOW_SECONDS
        environment = replica_environment(url, sink.url, WAIT_TIME_SCALE=str(scale)) | variables
        cluster = Cluster(stage, url, environment, sink, visitors, Ledger(time_scale=scale))
        await _migrate(url)
        async with cluster.connected() as database:
            await database.execute(AUDIT)
        with _killed_in_the_end(cluster.replicas):
            for _ in range(replicas):
                await cluster.add_replica()
            yield cluster


@asynccontextmanager
async def _database(stage: Stage, given: str | None) -> AsyncIterator[str]:
    """Yield the URL of an empty database, which is dropped in the end unless it was given."""
    if given is not None:
        yield given
        return
    async with stage.server() as server:
        name = f"faults_{secrets.token_hex(4)}"
        await _execute(server, f"create database {name}")
        try:
            yield urlsplit(server)._replace(path=f"/{name}").geturl()
        finally:
            await _execute(server, f"drop database {name} with (force)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.open()
    try:
        await migrate(database)
    finally:
        await database.close()


@contextmanager
def _killed_in_the_end(replicas: list[Replica]) -> Iterator[None]:
    try:
        yield
    finally:
        for replica in replicas:
            replica.kill()
