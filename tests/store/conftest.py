"""The two stores: one on an empty, migrated database, one in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from service.store import Database, MemoryStore, PostgresStore, migrate

EMPTY = """
    truncate
        executions,
        history,
        map_runs,
        workers,
        accounts,
        verified_addresses,
        machine_publications,
        machines,
        definitions
"""


class TickingClock:
    """A clock that goes on by a microsecond whenever somebody looks at it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(microseconds=1)
        return self._now


@pytest.fixture(scope="session")
def migrated_database(database_url: str) -> Iterator[str]:
    """Yield the URL of a database with the present schema, which the tests here share."""
    name = f"test_{uuid4().hex}"
    url = urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    asyncio.run(_execute(database_url, f"create database {name}"))
    asyncio.run(_migrate(url))
    yield url
    asyncio.run(_execute(database_url, f"drop database {name} with (force)"))


@pytest.fixture
async def database(migrated_database: str) -> AsyncIterator[Database]:
    """Yield an open database with the present schema and no rows."""
    await _execute(migrated_database, EMPTY)
    database = Database(migrated_database)
    await database.open()
    yield database
    await database.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.open()
    await migrate(database)
    await database.close()


@pytest.fixture
async def pooled_database(database: Database) -> AsyncIterator[Database]:
    """Yield the same database as it is used behind a transaction pooler."""
    pooled = Database(database.dsn, pooler="transaction")
    await pooled.open()
    yield pooled
    await pooled.close()


@pytest.fixture(params=["postgres", "pooled", "memory"])
def store(request: pytest.FixtureRequest) -> Any:
    """Return each of the stores in turn, empty."""
    if request.param == "memory":
        return MemoryStore(TickingClock())
    name = "database" if request.param == "postgres" else "pooled_database"
    return PostgresStore(request.getfixturevalue(name))


@pytest.fixture
async def observer(database: Database) -> AsyncIterator[Any]:
    """Yield a connection of the test's own to the database."""
    connection = await asyncpg.connect(database.dsn)
    yield connection
    await connection.close()
