"""History lies in a partition for each day, which comes in time and goes when nothing needs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.store import Database, PostgresStore
from tests.store.factories import FAR_OFF, checkpoint, ended, execution, new_key, resting, step

LONG_AGO = datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> PostgresStore:
    return PostgresStore(database)


async def days(observer: asyncpg.Connection) -> list[str]:
    rows = await observer.fetch(
        "select relname from pg_class where relname ~ '^history_[0-9]{8}$' order by relname"
    )
    return [row["relname"] for row in rows]


async def add(observer: asyncpg.Connection, day: datetime) -> bool:
    added: bool = await observer.fetchval("select add_history_day($1::date)", day.date())
    return added


async def test_today_and_the_days_ahead_are_there_after_tidying(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    await store.tidy(30, 10)
    today = (await observer.fetchval("select now()")).date()
    expected = {f"history_{today + timedelta(days=n):%Y%m%d}" for n in range(4)}
    assert expected <= set(await days(observer))
    before = await days(observer)
    await store.tidy(30, 10)
    assert await days(observer) == before


async def test_rows_go_to_the_day_their_execution_started(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    assert await add(observer, LONG_AGO) is True
    assert await add(observer, LONG_AGO) is False
    last, next_day = new_key(at=LONG_AGO), new_key(at=LONG_AGO + timedelta(seconds=1))
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(k), history=step(k, 1)) for k in (last, next_day)])
    rows = await observer.fetch("select tableoid::regclass::text as t, execution_id from history")
    assert {(row["t"], row["execution_id"]) for row in rows} == {
        ("history_20200229", last.id),
        ("history_default", next_day.id),
    }
    assert await store.read_history(next_day) == [b"events"]
    await observer.execute("truncate history; drop table history_20200229")


async def test_default_partition_keeps_a_day_it_has_rows_of(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    key = new_key(at=LONG_AGO)
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key), history=step(key, 1))])
    assert await add(observer, LONG_AGO) is False
    assert await days(observer) == [d for d in await days(observer) if d != "history_20200229"]
    assert await store.read_history(key) == [b"events"]


async def test_day_goes_with_the_last_of_its_executions(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    await add(observer, LONG_AGO)
    over = execution(ended(new_key(at=LONG_AGO), 1, stopped_at=LONG_AGO))
    waiting = execution(resting(new_key(200, at=LONG_AGO), due_at=FAR_OFF))
    async with store.transaction() as tx:
        await tx.insert([replace(r, history=step(r.first.key, 1)) for r in (over, waiting)])
    assert await store.tidy(30, 10) == 1
    assert "history_20200229" in await days(observer)
    async with store.transaction() as tx:
        await tx.save([ended(waiting.first.key, 2, stopped_at=LONG_AGO)], [])
    assert await store.tidy(30, 10) == 1
    assert "history_20200229" not in await days(observer)
    assert await store.read_history(waiting.first.key) == []


async def test_replicas_that_tidy_together_do_not_fail(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    await observer.execute(
        "do $$ declare d text; begin for d in select relname from pg_class"
        " where relname ~ '^history_[0-9]{8}$' loop execute 'drop table ' || d; end loop; end $$"
    )
    await add(observer, LONG_AGO)
    await asyncio.gather(*(store.tidy(30, 10) for _ in range(4)))
    assert len(await days(observer)) == 4


async def test_writers_go_on_while_a_day_is_added(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    key = new_key(at=await observer.fetchval("select now()"))  # a day that has its partition
    async with observer.transaction():
        await add(observer, LONG_AGO)
        async with store.transaction(25) as tx:
            await tx.insert([execution(checkpoint(key), history=step(key, 1))])
    assert await store.read_history(key) == [b"events"]
    await observer.execute("drop table history_20200229")


async def test_lost_workers_without_executions_are_forgotten(
    store: PostgresStore, observer: asyncpg.Connection
) -> None:
    holder, idle, living = (new_key().id for _ in range(3))
    row = execution(resting(new_key()))
    async with store.transaction() as tx:
        await tx.insert([row])
    await store.claim_due(holder, 1)
    for worker in (holder, idle, living):
        await store.heartbeat(worker, 30)
    await observer.execute(
        "update workers set heartbeat_at = now() - interval '2 hours' where id <> $1", living
    )
    await store.tidy(30, 10)
    rows = await observer.fetch("select id from workers")
    assert {row["id"] for row in rows} == {holder, living}
