"""The two stores: one on an empty, migrated database, one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.store import Database, MemoryStore, PostgresStore, migrate


class TickingClock:
    """A clock that goes on by a microsecond whenever somebody looks at it."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(microseconds=1)
        return self._now


@pytest.fixture
async def database(fresh_database: str) -> AsyncIterator[Database]:
    """Yield an open database with the present schema."""
    database = Database(fresh_database)
    await database.open()
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture(params=["postgres", "memory"])
def store(request: pytest.FixtureRequest) -> Any:
    """Return each of the two stores in turn."""
    if request.param == "memory":
        return MemoryStore(TickingClock())
    return PostgresStore(request.getfixturevalue("database"))
