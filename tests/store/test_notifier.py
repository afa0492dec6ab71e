"""Hints reach the worker they are for, come back after a lost connection, and are never needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from service.store import Database, Notifier
from service.store import notifier as module
from tests.store.factories import ALICE, BOB, new_key

LISTENERS = """
    select pid
    from pg_stat_activity
    where datname = current_database()
    and query like 'LISTEN%'
"""


class Ear:
    """Counts how often a worker is called back."""

    def __init__(self) -> None:
        self.calls = 0
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self._called.set()

    async def hears(self) -> None:
        """Wait for one more call."""
        async with asyncio.timeout(10):
            await self._called.wait()
        self._called.clear()


@pytest.fixture
async def notifier(database: Database) -> AsyncIterator[Notifier]:
    notifier = Notifier(database)
    yield notifier
    await notifier.close()


@pytest.fixture
async def listen(database: Database) -> AsyncIterator[Callable[..., Awaitable[Ear]]]:
    """Return a coroutine that begins to listen for a worker, once it does so."""
    notifiers = []

    async def begin(worker: object) -> Ear:
        ear = Ear()
        notifiers.append(Notifier(database))
        await notifiers[-1].listen(worker, ear)  # type: ignore[arg-type]
        await ear.hears()  # called once it listens, for what it missed before
        return ear

    yield begin
    await asyncio.gather(*(notifier.close() for notifier in notifiers))


async def test_hint_reaches_its_worker_and_no_other(
    notifier: Notifier, listen: Callable[..., Awaitable[Ear]]
) -> None:
    alice, bob = await listen(ALICE), await listen(BOB)
    notifier.notify(BOB)
    await bob.hears()
    notifier.notify(ALICE)
    await alice.hears()
    assert (alice.calls, bob.calls) == (2, 2)


async def test_hints_of_one_moment_are_one(
    notifier: Notifier, listen: Callable[..., Awaitable[Ear]]
) -> None:
    alice, bob = await listen(ALICE), await listen(BOB)
    for _ in range(50):
        notifier.notify(ALICE)
        notifier.notify(BOB)
    await asyncio.gather(alice.hears(), bob.hears())
    notifier.notify(BOB)
    await bob.hears()
    assert (alice.calls, bob.calls) == (2, 3)


async def test_full_hint_fits_its_payload(
    notifier: Notifier, listen: Callable[..., Awaitable[Ear]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await listen(ALICE)
    for _ in range(module.HINTS_MAX - 1):
        notifier.notify(new_key().id)
    notifier.notify(ALICE)
    await alice.hears()


async def test_lost_connection_is_replaced(
    notifier: Notifier,
    listen: Callable[..., Awaitable[Ear]],
    observer: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECONNECT_SECONDS", (0.0,))
    alice = await listen(ALICE)
    (listener,) = await observer.fetch(LISTENERS)
    await observer.fetch("select pg_terminate_backend($1, 5000)", listener["pid"])
    await alice.hears()
    notifier.notify(ALICE)
    await alice.hears()


async def test_hint_without_a_database_is_dropped(database: Database, notifier: Notifier) -> None:
    await database.close()
    notifier.notify(ALICE)
    sender = notifier._sender
    assert sender is not None
    await asyncio.wait_for(sender, 10)
    await database.open()


async def test_nothing_listens_behind_a_pooler(
    pooled_database: Database, observer: asyncpg.Connection
) -> None:
    notifier = Notifier(pooled_database)
    await notifier.listen(ALICE, Ear())
    assert notifier._listener is None
    await notifier.close()
    assert await observer.fetch(LISTENERS) == []


async def test_closed_notifier_listens_no_more(
    database: Database, observer: asyncpg.Connection
) -> None:
    notifier, ear = Notifier(database), Ear()
    await notifier.listen(ALICE, ear)
    await ear.hears()
    await notifier.close()
    async with asyncio.timeout(10):
        while await observer.fetch(LISTENERS):
            pass
