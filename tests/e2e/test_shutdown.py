"""SIGTERM: what is in flight is finished or handed over, and a second start goes on from there."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import asyncpg
import pytest

from tests.e2e.process import Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors

pytestmark = pytest.mark.e2e

StartReplica = Callable[..., Awaitable[Replica]]

SHUTDOWN_SECONDS: Final = 2.0
END_SECONDS: Final = 5.0
"""For closing ports, pool and process beside SHUTDOWN_SECONDS, on a busy machine."""


async def leases(database: asyncpg.Connection) -> int:
    """Return how many workers hold a lease."""
    return int(await database.fetchval("select count(*) from workers"))


async def owned(database: asyncpg.Connection) -> int:
    """Return how many executions are in some worker's hands."""
    return int(await database.fetchval("select count(*) from executions where owner is not null"))


async def test_sigterm_finishes_what_is_in_flight_and_a_second_start_finds_everything(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    replica = await start_replica()
    sink.hold()
    ada = await visitors.sign_up(replica, "ada@example.org")
    await until(lambda: sink.held == 1, "a mail in flight")

    replica.send(signal.SIGTERM)
    await until(lambda: _refuses(visitors, replica), "the public port's end")
    assert (await leases(database), await owned(database)) == (1, 1)
    sink.release()
    assert await replica.ended() == 0
    assert (await leases(database), await owned(database)) == (0, 0)
    (mail,) = sink.recorded()

    await replica.start()
    assert await visitors.status(replica, ada) == "pending"
    assert mail.token is not None
    assert (await visitors.verify(replica, mail.token)).status == 200
    await sink.welcome("ada@example.org")
    assert [m.is_welcome for m in sink.recorded()] == [False, True]
    print(json.dumps({"test": "sigterm", "mails": 2, "leases_left": 0}))


async def test_sigterm_hands_over_what_does_not_finish_within_the_time_allowed(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    replica = await start_replica(SHUTDOWN_SECONDS=str(SHUTDOWN_SECONDS))
    sink.hold()
    ada = await visitors.sign_up(replica, "ada@example.org")
    await until(lambda: sink.held == 1, "a mail in flight")
    began = asyncio.get_running_loop().time()
    replica.send(signal.SIGTERM)
    assert await replica.ended(seconds=SHUTDOWN_SECONDS + END_SECONDS) == 0
    seconds = asyncio.get_running_loop().time() - began
    assert (await leases(database), await owned(database)) == (0, 0)
    assert await database.fetchval("select due_at <= now() from executions")

    sink.release()
    await replica.start()  # its lease is young: what was given up needs no rescue
    await sink.link(ada.id)
    assert replica.events("executions_rescued") == []
    print(json.dumps({"test": "sigterm_in_time", "seconds": round(seconds, 2)}))


async def test_sigterm_under_signups_loses_none_that_was_acknowledged(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    replica = await start_replica()
    crowd = [asyncio.create_task(_try(visitors, replica, n)) for n in range(100)]
    await until(lambda: sink.deliveries, "the first mail")
    replica.send(signal.SIGTERM)
    acknowledged = {id for id in await asyncio.gather(*crowd) if id is not None}
    assert await replica.ended() == 0
    assert (await leases(database), await owned(database)) == (0, 0)
    kept = {str(row["id"]) for row in await database.fetch("select id from accounts")}
    assert acknowledged
    assert acknowledged <= kept

    await replica.start()
    await asyncio.gather(*(sink.link(id) for id in acknowledged))
    repeated = len(sink.deliveries) - len({mail.message_id for mail in sink.deliveries})
    line = {"test": "sigterm_under_signups", "acknowledged": len(acknowledged)}
    print(json.dumps({**line, "dup_mail": repeated}))
    assert repeated == 0


async def _try(visitors: Visitors, replica: Replica, n: int) -> str | None:
    """Return the id of a signup, None when the service was shutting down already."""
    try:
        answer = await visitors.ask(f"{replica.public}/signup", {"email": f"v{n}@example.org"})
    except (aiohttp.ClientError, TimeoutError):
        return None
    assert answer.status in (202, 503), answer
    return str(answer.body["id"]) if answer.status == 202 else None


async def _refuses(visitors: Visitors, replica: Replica) -> bool:
    try:
        return (await visitors.ask(f"{replica.public}/health/live")).status != 200
    except aiohttp.ClientError:
        return True
