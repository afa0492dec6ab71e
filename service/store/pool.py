"""Connections that are kept: at most so many, the one returned last lent first.

asyncpg's own pool makes a task for each loan and another for each return, and wraps each call; that
cost more than a short statement itself (115 of 157 µs of CPU). Here a connection that ended its
work well is taken from a list and put back, and nothing is waited for. What ended badly is rolled
back before anybody else has it, or cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

import asyncpg

from service import metrics
from service.engine.ports import Unavailable
from service.store.errors import translated

# For a connection: all of them may be busy, or a new one has to be made.
ACQUIRE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 300.0
# A server's process keeps what it has seen of the schema: it is not kept for ever.
LIFE_SECONDS: Final = 3_600.0
CLOSE_SECONDS: Final = 5.0


class Pool:
    """Lends connections that `connect` makes, at most `size` at a time."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], size: int) -> None:
        self._connect = connect
        self._room = asyncio.Semaphore(size)
        self._idle: list[Kept] = []
        self._lent: set[Kept] = set()
        self._mending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def use(self) -> tuple[int, int]:
        """Return how many connections are busy and how many are idle."""
        return len(self._lent), sum(not kept.connection.is_closed() for kept in self._idle)

    def lend(self) -> Loan:
        """Lend a connection for a block. Raises Unavailable."""
        return Loan(self)

    async def close(self) -> None:
        """Close all; those still in use after CLOSE_SECONDS are cut off."""
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._lent:
                    await self._room.acquire()  # each return makes some
                for kept in self._idle:
                    await kept.connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # a connection that was lost, or is in use for too long
        finally:
            for kept in (*self._idle, *self._lent):
                kept.connection.terminate()

    async def take(self) -> Kept:
        """Return a connection that is lent from now on. Raises Unavailable."""
        with translated, metrics.POOL_WAIT_SECONDS.time():
            while self._idle and self._idle[-1].connection.is_closed():
                self._idle.pop()  # else one would be made in its place, without a limit of time
            if self._room.locked() or not self._idle:
                async with asyncio.timeout(ACQUIRE_SECONDS):
                    kept = await self._find()
            else:
                kept = await self._find()
        self._lent.add(kept)
        return kept

    async def _find(self) -> Kept:
        """Return the connection returned last, or another one, as soon as there is room."""
        await self._room.acquire()  # at once if there is
        try:
            if self._is_closed:
                raise Unavailable("the pool is closed")
            while self._idle:
                kept = self._idle.pop()
                if not kept.connection.is_closed():
                    return kept
            return Kept(await self._connect())
        except BaseException:
            self._room.release()
            raise

    def give_back(self, kept: Kept) -> None:
        """Take back a connection that has no transaction open, or is closed."""
        self._lent.discard(kept)
        now = kept.idle_since = time.monotonic()
        if self._is_closed or now - kept.made_at > LIFE_SECONDS:
            kept.connection.terminate()
        elif not kept.connection.is_closed():
            self._idle.append(kept)
            if now - self._idle[0].idle_since > IDLE_SECONDS:
                self._idle.pop(0).connection.terminate()
        self._room.release()

    async def mend(self, kept: Kept) -> None:
        """Take back a connection whose work ended badly, whatever happens to the caller."""
        task = asyncio.create_task(self._mend(kept))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)
        await asyncio.shield(task)

    async def _mend(self, kept: Kept) -> None:
        try:
            # asyncpg first waits for the end of a statement that it is stopping.
            async with asyncio.timeout(CLOSE_SECONDS):
                await kept.connection.execute("rollback")
        except Exception:
            kept.connection.terminate()
        finally:
            self.give_back(kept)


class Kept:
    """A connection, when it was made, and since when nobody has it."""

    __slots__ = ("connection", "idle_since", "made_at")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.made_at = self.idle_since = time.monotonic()


class Loan:
    """A connection of the pool for as long as a block lasts."""

    __slots__ = ("_kept", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Any:
        self._kept = await self._pool.take()
        return self._kept.connection

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        kept = self._kept
        if isinstance(error, Unavailable) and not isinstance(error.__cause__, TimeoutError):
            # Another server may answer the next one. Not after a timeout, or a cancellation: there
            # asyncpg is stopping the statement, whose locks would outlive the connection.
            with suppress(asyncpg.InterfaceError):  # gone already
                kept.connection.terminate()
        elif error is not None and (
            not isinstance(error, Exception)
            or isinstance(error, Unavailable)
            or kept.connection.is_in_transaction()
        ):
            await self._pool.mend(kept)
            return
        self._pool.give_back(kept)
