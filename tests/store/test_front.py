"""The front of the timers' index: looked at as a whole while that is cheap, and seldom when not."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from service.store.database import Database
from service.store.executions import PostgresStore
from service.store.front import BEGINNING, CHEAP_SECONDS, MARGIN, PAUSE_FACTOR, Front
from service.store.queries import all_queries
from tests.store.factories import BOB, LONG_AGO, STARTED, execution, later, new_key, resting

SLOW = 2 * CHEAP_SECONDS
FILL = """
insert into executions (bucket, id, started_at, definition, machine, name, input, due_at)
select n % 256, gen_random_uuid(), now(), '', 'm', n, '', now() - interval '1 hour'
from generate_series(1, 5000) as n
"""


@pytest.mark.parametrize("seconds", [0.0, CHEAP_SECONDS])
def test_after_a_cheap_look_the_next_is_whole_again(seconds: float) -> None:
    front = Front()
    assert front.begin(100.0)
    front.end(0.0, seconds, None, STARTED)
    assert (front.begin(100.0), front.since) == (True, BEGINNING)


@pytest.mark.parametrize(
    ("earliest", "expected"),
    [(None, STARTED), (later(STARTED, 60), STARTED), (later(STARTED, -60), later(STARTED, -60))],
    ids=["none", "to_come", "overdue"],
)
def test_after_a_slow_look_the_next_begin_shortly_before_what_it_found(
    earliest: datetime | None, expected: datetime
) -> None:
    front = Front()
    front.begin(100.0)
    front.end(100.0, 100.0 + SLOW, earliest, STARTED)
    assert not front.begin(100.0 + SLOW)
    assert front.since == expected - MARGIN


def test_whole_looks_take_a_small_share_of_the_time_however_slow_they_are() -> None:
    front = Front()
    front.begin(0.0)
    front.end(0.0, 1.0, None, STARTED)
    assert not front.begin(PAUSE_FACTOR * 1.0)
    assert front.begin(1.0 + PAUSE_FACTOR * 1.0)


async def test_a_timer_before_the_front_is_found_by_the_next_whole_look(database: Database) -> None:
    store = PostgresStore(database)
    row = execution(resting(new_key(), due_at=LONG_AGO))
    async with store.transaction() as tx:
        await tx.insert([row])
    store.front.end(0.0, 1e9, None, STARTED)  # so slow that none is whole any more
    assert await store.next_due() is None
    assert (await store.claim_due(BOB, 10)).claims == []
    store.front = Front()
    assert await store.next_due() == LONG_AGO
    assert [claim.key for claim in (await store.claim_due(BOB, 10)).claims] == [row.first.key]


@pytest.mark.parametrize(
    ("name", "parameters"), [("next_due", "{since}"), ("claim_due", f"500, '{BOB}', {{since}}")]
)
async def test_what_a_forgotten_transaction_keeps_is_not_waded_through(
    database: Database, observer: asyncpg.Connection, name: str, parameters: str
) -> None:
    connection = await asyncpg.connect(database.dsn)
    await observer.execute("begin isolation level repeatable read")
    await observer.fetchval("select count(*) from workers")
    await connection.execute(FILL)
    await connection.execute("update executions set due_at = null, status = 'SUCCEEDED'")

    await connection.execute(all_queries().text("settle"))
    whole, later_part = [
        await _pages(connection, name, parameters.format(since=since))
        for since in ("'-infinity'", "now() - interval '5 s'")
    ]
    await connection.close()
    assert whole > 50 > later_part


async def _pages(connection: Any, name: str, parameters: str) -> int:
    """Return how many pages a statement touches."""
    await connection.execute(f"prepare looked as {all_queries().text(name)}")
    explain = f"explain (analyze, buffers, format json) execute looked ({parameters})"
    plan = json.loads(await connection.fetchval(explain))[0]["Plan"]
    await connection.execute("deallocate looked")
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
