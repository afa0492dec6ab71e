"""The pool comes back by itself, and every error is one of three."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from service.engine.ports import Contended, Rejected, Unavailable
from service.store import Database
from service.store import pool as module
from service.store.database import Session

SQLSTATES = {
    Unavailable: ["08000", "08006", "53100", "53300", "57P01", "57P02", "57P03", "58030", "25006"],
    Contended: ["55P03", "40P01", "40001", "57014"],
    Rejected: ["22021", "22003", "23505", "23514", "54000"],
}


@pytest.mark.parametrize(
    ("kind", "sqlstate"), [(kind, state) for kind, states in SQLSTATES.items() for state in states]
)
async def test_sqlstate_decides_the_kind(
    database: Database, kind: type[Exception], sqlstate: str
) -> None:
    statement = f"do $$ begin raise 'words' using errcode = '{sqlstate}', detail = 'data'; end $$"
    with pytest.raises(kind, match=r"^\w+: words$") as caught:
        async with database.transaction() as session:
            await session.run_file(statement)
    assert isinstance(caught.value.__cause__, asyncpg.PostgresError)
    assert len(await database.fetch("ping")) == 1


async def test_mistake_of_ours_stays_what_it_is(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.transaction() as session:
            await session.run_file("select * from no_such_table")
    with pytest.raises(asyncpg.InterfaceError, match="expects 2 arguments"):
        await database.fetch("account_status", 7)


@pytest.mark.parametrize("value", [70_000, "seven", None.__class__])
async def test_parameter_without_an_encoding_is_rejected_and_not_quoted(
    database: Database, value: Any
) -> None:
    with pytest.raises(Rejected, match=r"^DataError: a parameter has no encoding as its type$"):
        await database.fetch("account_status", value, None)


async def test_server_that_is_not_there_is_unavailable_until_it_is(fresh_database: str) -> None:
    database = Database("postgresql://postgres@127.0.0.1:1/none")
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"ConnectionRefusedError|OSError"):
            await database.open()
    with pytest.raises(Unavailable):
        await database.fetch("ping")
    await database.close()


async def test_database_that_is_not_there_is_unavailable(database: Database) -> None:
    missing = Database(urlunsplit(urlsplit(database.dsn)._replace(path="/no_such_database")))
    with pytest.raises(Unavailable, match="InvalidCatalogNameError"):
        await missing.open()
    await missing.close()


async def test_closed_database_is_unavailable_and_opens_again(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable, match="not open"):
        await database.fetch("ping")
    await database.open()
    assert len(await database.fetch("ping")) == 1


async def _pid(session: Any) -> int:
    pid: int = session._connection.get_server_pid()
    return pid


async def test_connection_that_breaks_in_a_transaction_is_replaced(
    database: Database, observer: asyncpg.Connection
) -> None:
    pids = []

    async def lose() -> None:
        async with database.transaction() as session:
            pids.append(await _pid(session))
            await observer.execute("select pg_terminate_backend($1, 5000)", pids[0])
            await session.fetch("ping")

    with pytest.raises(Unavailable):
        await lose()
    async with database.transaction() as session:
        assert await _pid(session) not in pids


async def test_connection_that_breaks_before_its_commit_is_unavailable(
    database: Database, observer: asyncpg.Connection
) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as session:
            await observer.execute("select pg_terminate_backend($1, 5000)", await _pid(session))
    assert len(await database.fetch("ping")) == 1


async def test_standby_that_was_the_primary_is_left(database: Database) -> None:
    pids = []

    async def write() -> None:
        async with database.transaction() as session:
            pids.append(await _pid(session))
            await session.run_file("set transaction read only")
            await session.fetch("delete_worker", None)

    with pytest.raises(Unavailable, match="read-only"):
        await write()
    async with database.transaction() as session:
        assert await _pid(session) not in pids


async def test_rejected_statement_keeps_its_connection(database: Database) -> None:
    async with database.transaction() as session:
        pid = await _pid(session)
    with pytest.raises(Rejected):
        async with database.transaction() as session:
            await session.run_file("select 1 / 0")
    async with database.transaction() as session:
        assert await _pid(session) == pid


async def test_silent_server_is_unavailable_in_time(database: Database) -> None:
    with pytest.raises(Unavailable, match="TimeoutError"):
        async with database.transaction() as session:
            await session.run_file("select pg_sleep(60)", seconds=0.05)
    assert len(await database.fetch("ping")) == 1


async def test_busy_pool_is_unavailable_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACQUIRE_SECONDS", 0.05)
    small = Database(database.dsn, pool_size=1)
    await small.open()
    assert small.use() == (0, 1)
    async with small.transaction():
        assert small.use() == (1, 0)
        with pytest.raises(Unavailable, match="TimeoutError"):
            await small.fetch("ping")
    assert len(await small.fetch("ping")) == 1
    await small.close()
    assert small.use() == (0, 0)


async def test_error_that_was_swallowed_is_not_committed(database: Database) -> None:
    async def swallow() -> None:
        async with database.transaction() as session:
            with pytest.raises(Rejected):
                await session.run_file("select 1 / 0")

    with pytest.raises(Contended, match="aborted before its commit: ROLLBACK"):
        await swallow()


async def test_cancelled_transaction_leaves_no_lock(
    database: Database, observer: asyncpg.Connection
) -> None:
    begun = asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as session:
            await session.run_file("select pg_advisory_xact_lock(1)")
            begun.set()
            await session.run_file("select pg_sleep(60)")

    task = asyncio.create_task(hold())
    await begun.wait()
    # A cancellation that is there before the statement would find none.
    sleeps = "select exists (select from pg_stat_activity where wait_event = 'PgSleep')"
    while not await observer.fetchval(sleeps):
        pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await observer.execute("set lock_timeout = '10s'")
    async with observer.transaction():
        await observer.execute("select pg_advisory_xact_lock(1)")


async def test_lock_patience_ends_with_its_transaction(database: Database) -> None:
    small = Database(database.dsn, pool_size=1)
    await small.open()

    async def patience(session: Session) -> str:
        value: str = await session._connection.fetchval("show lock_timeout")
        return value

    async with small.transaction(25) as session:
        within = await patience(session)
    async with small.transaction() as session:
        after = await patience(session)
    await small.close()
    assert (within, after) == ("25ms", "200ms")


async def test_pool_closes_in_time_under_a_connection_in_use(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    small = Database(database.dsn, pool_size=1)
    await small.open()

    async def hold() -> None:
        async with small.transaction():
            await small.close()

    with pytest.raises(Unavailable):
        await hold()
