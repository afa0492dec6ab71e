"""Which connection is lent next, and which is never lent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from service.engine.ports import Contended, Unavailable
from service.store import pool as module
from service.store.pool import Pool


class FakeConnection:
    """A connection that notes what becomes of it."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.said: list[str] = []
        self.has_transaction = self.has_ended = False
        self.refuses: Exception | None = None

    def is_closed(self) -> bool:
        return self.has_ended

    def is_in_transaction(self) -> bool:
        return self.has_transaction

    async def execute(self, text: str) -> None:
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        self.said.append(text)
        self.has_transaction = False

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        self.has_ended = True


class Scene:
    """A pool of at most two connections, which are made one after the other."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.trouble: Exception | None = None
        self.delay: asyncio.Event | None = None
        self.pool = Pool(self._connect, 2)

    async def _connect(self) -> FakeConnection:
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        if self.delay is not None:
            await self.delay.wait()
        self.made.append(FakeConnection(len(self.made)))
        return self.made[-1]

    async def lent(self, error: BaseException | None = None, *, is_within: bool = False) -> int:
        """Return which connection is lent, for a block that ends with this error."""
        with suppress(type(error) if error is not None else ()):
            async with self.pool.lend() as connection:
                connection.has_transaction = is_within
                if error is not None:
                    raise error
        return int(connection.name)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_the_one_returned_last_is_lent_first(scene: Scene) -> None:
    async with scene.pool.lend() as first:
        assert await scene.lent() == 1
        assert scene.pool.use() == (1, 1)
    assert [await scene.lent(), await scene.lent()] == [first.name] * 2
    assert scene.pool.use() == (0, 2)


async def test_whoever_finds_all_of_them_busy_gets_the_next_one_returned(scene: Scene) -> None:
    async with scene.pool.lend():
        async with scene.pool.lend():
            waiting = [asyncio.create_task(scene.lent()) for _ in range(2)]
            await asyncio.sleep(0)
        assert [await one for one in waiting] == [1, 1]
    assert len(scene.made) == 2


async def test_a_wait_that_is_given_up_takes_nobodys_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACQUIRE_SECONDS", 0.01)
    async with scene.pool.lend(), scene.pool.lend():
        with pytest.raises(Unavailable, match="TimeoutError"):
            await scene.pool.take()
    assert scene.pool.use() == (0, 2)
    async with scene.pool.lend(), scene.pool.lend():
        pass


async def test_whoever_finds_only_dead_ones_does_not_wait_for_a_new_one_without_a_limit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await scene.lent() == 0
    scene.made[0].terminate()
    monkeypatch.setattr(module, "ACQUIRE_SECONDS", 0.01)
    scene.delay = asyncio.Event()
    with pytest.raises(Unavailable, match="TimeoutError"):
        await scene.pool.take()
    scene.delay.set()
    async with scene.pool.lend(), scene.pool.lend():
        assert scene.pool.use() == (2, 0)


async def test_a_connection_that_cannot_be_made_takes_nobodys_room(scene: Scene) -> None:
    scene.trouble = ConnectionRefusedError()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await scene.pool.take()
    scene.trouble = None
    async with scene.pool.lend(), scene.pool.lend():
        assert scene.pool.use() == (2, 0)


async def test_a_connection_that_failed_or_was_closed_is_not_lent_again(scene: Scene) -> None:
    assert await scene.lent(Unavailable("gone")) == 0
    assert await scene.lent() == 1
    scene.made[1].terminate()
    assert await scene.lent() == 2
    assert [one.has_ended for one in scene.made] == [True, True, False]


def _timed_out() -> Unavailable:
    error = Unavailable("TimeoutError")
    error.__cause__ = TimeoutError()
    return error


@pytest.mark.parametrize("make", [_timed_out, asyncio.CancelledError])
async def test_a_statement_that_was_given_up_is_rolled_back_first(
    scene: Scene, make: Callable[[], BaseException]
) -> None:
    assert await scene.lent(make()) == 0
    assert scene.made[0].said == ["rollback"]
    assert await scene.lent() == 0


@pytest.mark.parametrize(("is_within", "said"), [(True, ["rollback"]), (False, [])])
async def test_only_a_transaction_left_open_is_rolled_back(
    scene: Scene, is_within: bool, said: list[str]
) -> None:
    await scene.lent(Contended("a lock"), is_within=is_within)
    assert scene.made[0].said == said
    assert await scene.lent() == 0


async def test_a_connection_that_cannot_be_rolled_back_is_cut_off(scene: Scene) -> None:
    async with scene.pool.lend() as connection:
        connection.refuses = OSError("gone")
    assert await scene.lent(asyncio.CancelledError()) == 0
    assert await scene.lent() == 1


async def test_a_caller_who_is_cancelled_twice_leaves_no_connection_behind(scene: Scene) -> None:
    async def work() -> None:
        async with scene.pool.lend():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    while not scene.made:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while scene.pool.use() != (0, 1):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert scene.made[0].said == ["rollback"]


async def test_connections_are_kept_neither_idle_nor_in_use_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module, "time", _Clock(now))
    async with scene.pool.lend():
        await scene.lent()
    now[0] = module.IDLE_SECONDS + 1
    assert await scene.lent() == 0
    assert scene.made[1].has_ended
    now[0] = module.LIFE_SECONDS + 1
    assert await scene.lent() == 0
    assert scene.made[0].has_ended
    assert await scene.lent() == 2


class _Clock:
    def __init__(self, now: list[float]) -> None:
        self.monotonic = lambda: now[0]


async def test_closing_waits_for_what_is_in_use_and_refuses_who_still_waits(scene: Scene) -> None:
    async with scene.pool.lend(), scene.pool.lend():
        waiting: asyncio.Task[Any] = asyncio.create_task(scene.pool.take())
        await asyncio.sleep(0)
        closing = asyncio.create_task(scene.pool.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    assert [one.has_ended for one in scene.made] == [True, True]
    assert scene.pool.use() == (0, 0)
