"""A primary that was restarted in place shows commits that its standby never had.

Whoever waited for the standby when the server died waits no more when it is back, and the rows are
there. What the engine believes of a commit in doubt must outlive the primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from service.engine.ports import NewExecution
from service.store import Database, PostgresStore, migrate
from tests.e2e.process import until
from tests.faults.postgres import Pair, own_pair
from tests.store.factories import ALICE, checkpoint, execution, new_key

WAITING = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
PATIENCE_MS = 10_000


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with own_pair() as pair:
        yield pair


@pytest.fixture
async def store(pair: Pair) -> AsyncIterator[PostgresStore]:
    database = Database(pair.primary.url)
    await database.open()
    await migrate(database)
    yield PostgresStore(database)
    await database.close()


async def _start(store: PostgresStore, row: NewExecution) -> Any:
    async with store.transaction(PATIENCE_MS) as tx:
        return await tx.insert([row])


async def _owned(store: PostgresStore, _row: NewExecution) -> Any:
    return await store.owned(ALICE)


@pytest.mark.parametrize("look", [_owned, _start])
async def test_what_is_read_of_a_commit_in_doubt_is_on_the_standby_too(
    pair: Pair,
    store: PostgresStore,
    look: Callable[[PostgresStore, NewExecution], Awaitable[Any]],
) -> None:
    row = execution(checkpoint(new_key()))
    await _start(store, row)
    await pair.standby.stop()

    async def is_waiting() -> bool:
        return bool(await pair.primary.ask(WAITING))

    looking = asyncio.ensure_future(look(store, row))
    await until(is_waiting, "a look that waits for the standby")
    assert not looking.done()
    await pair.standby.start()
    assert await looking == ([(row.first.key, 1)] if look is _owned else {row.first.key: False})
