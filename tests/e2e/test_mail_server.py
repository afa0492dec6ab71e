"""The mail server has a bad day: it is away, or it refuses an address for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import asyncpg
import pytest

from tests.e2e.process import Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors
from tests.faults.ledger import read_histories

pytestmark = pytest.mark.e2e

StartReplica = Callable[..., Awaitable[Replica]]

WAIT: Final = timedelta(seconds=18)
FAILURES: Final = 5
ANSWER_SECONDS_MAX: Final = 2.0
"""Of a signup; the transport's own patience with a silent server is many times this."""


async def test_a_mail_server_that_is_down_delays_the_mail_and_the_wait_but_not_the_answer(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    await sink.stop()
    replica = await start_replica(WAIT_TIME_SCALE=str(WAIT / timedelta(minutes=30)))
    began = asyncio.get_running_loop().time()
    ada = await visitors.sign_up(replica, "ada@example.org")
    answered_seconds = asyncio.get_running_loop().time() - began
    assert answered_seconds < ANSWER_SECONDS_MAX

    unavailable = 'countersign_mails_total{kind="verification",outcome="unavailable"}'

    async def has_failed_often() -> bool:
        return await visitors.metric(replica, unavailable) >= FAILURES

    await until(has_failed_often, f"{FAILURES} tries to send")
    ready = await visitors.ask(f"{replica.ops}/health/ready")
    assert (ready.status, list(ready.body["soft_reasons"])) == (200, ["smtp"])
    assert await visitors.status(replica, ada) == "pending"
    back_at = await database.fetchval("select clock_timestamp()")
    await sink.start()

    link = await sink.link(ada.id)

    async def due_at() -> object:
        return await database.fetchval("select due_at from executions where owner is null")

    due = await until(due_at, "the wait")
    events = (await read_histories(database))[ada.id]
    (entered,) = [event.timestamp for event in events if event.type == "WaitStateEntered"]
    assert entered > back_at
    assert due == entered + WAIT
    assert link.token is not None
    assert (await visitors.verify(replica, link.token)).status == 200
    await sink.welcome("ada@example.org")
    print(json.dumps({"test": "smtp_down", "answered_seconds": round(answered_seconds, 3)}))


async def test_an_address_refused_for_good_ends_the_signup_at_once(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    sink.refused.add("nobody@example.org")
    replica = await start_replica()  # the half hour in full: nothing here waits for it
    nobody = await visitors.sign_up(replica, "nobody@example.org")
    ada = await visitors.sign_up(replica, "ada@example.org")
    await visitors.until_status(replica, nobody, "expired")
    await sink.link(ada.id)
    assert await visitors.status(replica, ada) == "pending"
    row = await database.fetchrow(
        "select e.status, e.output, a.address from executions e join accounts a using (bucket, id)"
        " where id = $1",
        nobody.id,
    )
    assert (row["status"], row["address"]) == ("SUCCEEDED", None)
    output = json.loads(row["output"])
    assert output["failure"]["Error"] == "MailRefused"
    assert output["deletion"] == {"deleted": True, "status": "expired"}
    assert sink.to("nobody@example.org") == []
    print(json.dumps({"test": "refused_for_good", "failure": output["failure"]["Error"]}))
