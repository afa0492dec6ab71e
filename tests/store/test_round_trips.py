"""How often a transaction goes to the database and back: what an unloaded service waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.engine.ports import Contended, Unavailable
from service.store import Database, PostgresStore
from service.store.database import LOCK_PATIENCE_MS, Session
from tests.store.factories import (
    ALICE,
    checkpoint,
    delete_account,
    execution,
    get_account,
    insert_account,
    new_key,
    step,
)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the statements that are sent, as they are."""
    names: list[str] = []
    fetch, run = Session.fetch, Session.run

    async def fetched(session: Session, name: str, *parameters: object) -> Any:
        names.append(name)
        return await fetch(session, name, *parameters)

    async def ran(session: Session, name: str) -> str:
        names.append(name)
        return await run(session, name)

    monkeypatch.setattr(Session, "fetch", fetched)
    monkeypatch.setattr(Session, "run", ran)
    return names


async def test_a_signup_alone_is_one_statement(database: Database, sent: list[str]) -> None:
    store, key = PostgresStore(database), new_key()
    sent.clear()
    row = execution(checkpoint(key), history=step(key, 1), effects=[insert_account(key)])
    async with store.transaction() as tx:
        await tx.insert([row], is_all=True)
    assert sent == ["insert_account.start"]


async def test_checkpoints_alone_are_one_statement(database: Database, sent: list[str]) -> None:
    store, key = PostgresStore(database), new_key()
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key))], is_all=True)
    sent.clear()
    async with store.transaction() as tx:
        assert await tx.save([checkpoint(key, 2)], [step(key, 1)]) == ()
    assert sent == ["save"]


async def test_what_is_not_alone_is_a_transaction(database: Database, sent: list[str]) -> None:
    store, key = PostgresStore(database), new_key()
    sent.clear()
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key), effects=[insert_account(key)])])
        await tx.apply([get_account(key)])
        await tx.save([checkpoint(key, 2)], [])
    assert sent == ["begin", "insert_account.start", "get_account", "save", "commit"]


async def test_an_effect_that_no_start_has_with_it_is_in_its_transaction(
    database: Database, sent: list[str]
) -> None:
    store, key, other = PostgresStore(database), new_key(), new_key()
    sent.clear()
    async with store.transaction() as tx:
        row = execution(checkpoint(key), effects=[insert_account(other)])
        await tx.insert([row], is_all=True)
    assert sent == ["begin", "insert_executions", "insert_account", "commit"]
    async with store.transaction() as tx:
        assert await tx.apply([delete_account(key), delete_account(other)]) == [
            None,
            {"ordinal": 1, "deleted": True, "status": "expired"},
        ]


async def test_less_patience_for_locks_takes_a_transaction(
    database: Database, sent: list[str]
) -> None:
    store, key = PostgresStore(database), new_key()
    sent.clear()
    async with store.transaction(LOCK_PATIENCE_MS - 1) as tx:
        await tx.insert([execution(checkpoint(key))], is_all=True)
    assert sent == ["begin", "set_lock_patience", "insert_executions", "commit"]


async def test_a_pooled_statement_alone_has_its_settings(
    pooled_database: Database, sent: list[str]
) -> None:
    store, key = PostgresStore(pooled_database), new_key()
    sent.clear()
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key))], is_all=True)
    assert sent == ["begin_pooled", "insert_executions", "commit"]


async def test_a_transaction_without_a_statement_sends_nothing(
    database: Database, sent: list[str]
) -> None:
    store = PostgresStore(database)
    sent.clear()
    async with store.transaction() as tx:
        assert await tx.lock([]) == {}
    with pytest.raises(LookupError):
        async with store.transaction():
            raise LookupError
    assert sent == []


async def test_a_lock_that_is_not_granted_to_a_statement_alone_is_contended(
    database: Database, observer: Any
) -> None:
    store, key = PostgresStore(database), new_key()
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key))], is_all=True)
    async with observer.transaction():
        await observer.execute("select from executions for update")
        with pytest.raises(Contended):
            async with store.transaction() as tx:
                await tx.save([checkpoint(key, 2)], [])
    assert await store.owned(ALICE) == [(key, 1)]


async def test_a_statement_alone_whose_connection_breaks_is_in_doubt(
    database: Database, observer: Any
) -> None:
    store, key = PostgresStore(database), new_key()
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key))], is_all=True)

    async def save() -> None:
        async with store.transaction() as tx:
            await tx.save([checkpoint(key, 2)], [])

    async with observer.transaction():
        await observer.execute("select from executions for update")
        saving = asyncio.create_task(save())
        waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock'"
        while (pid := await observer.fetchval(waiting)) is None:
            pass
        await observer.execute("select pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(Unavailable):
            await saving
    await save()
    assert await store.owned(ALICE) == [(key, 2)]
