"""When each execution ends, told by the database as it commits: nobody has to ask all the time.

Asking every millisecond cost the service's core a third of what it was measured to need.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

CHANNEL: Final = "benchmark_ends"
TELL: Final = f"""
create function tell_of_end() returns trigger language plpgsql as $$
begin
    perform pg_notify('{CHANNEL}', new.id::text);
    return null;
end
$$;
create trigger tell_of_end after update of status on executions
for each row when (old.status = 'RUNNING' and new.status <> 'RUNNING')
execute function tell_of_end();
"""
TELL_NO_MORE: Final = "drop function tell_of_end() cascade"


class Ends:
    """The moments, by the clock of `time.perf_counter`."""

    def __init__(self) -> None:
        self._ended: dict[UUID, asyncio.Future[float]] = {}

    async def of(self, execution_id: UUID) -> float:
        """Return when the execution ended, once it has."""
        return await self._future(execution_id)

    def note(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Take a notification."""
        ended = self._future(UUID(str(payload)))
        if not ended.done():
            ended.set_result(time.perf_counter())

    def _future(self, execution_id: UUID) -> asyncio.Future[float]:
        return self._ended.setdefault(execution_id, asyncio.get_running_loop().create_future())


@asynccontextmanager
async def told_of_ends(database_url: str) -> AsyncIterator[Ends]:
    """Have the database tell of ends for as long as the block lasts."""
    connection = await asyncpg.connect(database_url)
    try:
        ends = Ends()
        await connection.add_listener(CHANNEL, ends.note)
        await connection.execute(TELL)
        yield ends
        await connection.execute(TELL_NO_MORE)
    finally:
        await connection.close()
