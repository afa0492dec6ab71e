"""Hints between workers by NOTIFY and LISTEN: "look for signals now", not at the next heartbeat.

A hint is never sent inside a batch's transaction, where its global lock, held through the commit,
halves the throughput (measured); it goes out afterwards, at most every 10 ms, all of that time's in
one. Losing one is harmless: the signal is in the row, and the heartbeat finds it. Behind a
transaction pooler there is no LISTEN; then polling is all there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from service.store.database import CONNECT_SECONDS, Database
from service.store.errors import translated

CHANNEL: Final = "countersign_signals"
HINT_SECONDS: Final = 0.01
# A payload may have 8,000 bytes; an id takes 37.
HINTS_MAX: Final = 200
RECONNECT_SECONDS: Final = (0.1, 0.5, 1.0, 5.0)

log = structlog.get_logger()


class Notifier:
    """Tells other workers, and is told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: set[UUID] = set()
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None

    def notify(self, worker: UUID) -> None:
        """Hint to a worker that an execution it holds was signalled. Drops what is too much."""
        if len(self._waiting) < HINTS_MAX:
            self._waiting.add(worker)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    async def listen(self, worker: UUID, callback: Callable[[], None]) -> None:
        """Call back at every hint to this worker, until `close`. Returns at once."""
        if not self._database.is_pooled and self._listener is None:
            self._listener = asyncio.create_task(self._keep_listening(worker, callback))

    async def close(self) -> None:
        """Stop listening; hints that have not gone out are dropped."""
        tasks = [task for task in (self._sender, self._listener) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sender = self._listener = None

    async def _send(self) -> None:
        try:
            while self._waiting:
                payload = ",".join(map(str, self._waiting))
                self._waiting.clear()
                try:
                    await self._database.fetch("notify", CHANNEL, payload)
                except Exception as error:  # A hint may be lost; whoever gives hints must go on.
                    log.debug("hint_dropped", reason=str(error))
                await asyncio.sleep(HINT_SECONDS)
        finally:
            self._sender = None

    async def _keep_listening(self, worker: UUID, callback: Callable[[], None]) -> None:
        failures = 0
        while True:
            try:
                with translated:
                    connection = await asyncpg.connect(self._database.dsn, timeout=CONNECT_SECONDS)
            except Exception as error:
                log.debug("listener_unconnected", reason=str(error))
            else:
                failures = 0
                await self._until_lost(connection, worker, callback)
            await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _until_lost(
        self, connection: Any, worker: UUID, callback: Callable[[], None]
    ) -> None:
        """Listen until the connection is gone. What was missed before is looked for at once."""
        lost = asyncio.Event()
        name = str(worker)

        def hinted(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            if name in payload.split(","):
                callback()

        connection.add_termination_listener(lambda _connection: lost.set())
        try:
            with translated:
                await connection.add_listener(CHANNEL, hinted)
            callback()
            await lost.wait()
        except Exception as error:
            log.debug("listener_lost", reason=str(error))
        finally:
            connection.terminate()
