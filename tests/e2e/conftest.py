"""What the end-to-end tests share: a mail sink, replicas that end with the test, a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.process import Replica, replica_environment
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors, open_visitors

MakeReplica = Callable[..., Replica]


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[MailSink]:
    """Yield a mail server that takes everything."""
    async with MailSink(tmp_path / "mails.jsonl") as sink:
        yield sink


@pytest.fixture
def make_replica(tmp_path: Path, sink: MailSink) -> Iterator[MakeReplica]:
    """Yield what makes a replica for a database, not started; all are killed after the test."""
    made: list[Replica] = []

    def make(database_url: str, **variables: str) -> Replica:
        environment = replica_environment(database_url, sink.url, MIGRATE="on") | variables
        replica = Replica(environment, tmp_path / f"replica-{len(made)}.log")
        made.append(replica)
        return replica

    try:
        yield make
    finally:
        for replica in made:
            replica.kill()


@pytest.fixture
def start_replica(
    fresh_database: str, make_replica: MakeReplica
) -> Callable[..., Awaitable[Replica]]:
    """Return what starts a replica on the test's own database, with these variables besides."""

    async def start(**variables: str) -> Replica:
        replica = make_replica(fresh_database, **variables)
        await replica.start()
        return replica

    return start


@pytest.fixture
async def visitors() -> AsyncIterator[Visitors]:
    """Yield a client without limits of its own."""
    async with open_visitors() as visitors:
        yield visitors


@pytest.fixture
async def database(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of the test's own to its database."""
    connection = await asyncpg.connect(fresh_database)
    try:
        yield connection
    finally:
        await connection.close()
