"""PostgreSQL goes away and comes back: the service says so, waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import asyncpg
import pytest

from tests.e2e.process import Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Answer, Visitors
from tests.faults.postgres import Server, own_server

pytestmark = pytest.mark.e2e

MakeReplica = Callable[..., Replica]

LEASE_SECONDS: Final = 1.5
LEASES_OUT: Final = 1.5
"""How many leases the long outage lasts, and how long we then watch for a rescue."""
OUTAGES: Final = 2
"""One by a kill, one in good order."""


@pytest.fixture
async def database_server() -> AsyncIterator[Server]:
    """Yield a server of the test's own, which may be killed and started again."""
    async with own_server() as server:
        yield server


async def test_an_outage_is_answered_with_503_and_everything_goes_on_by_itself(
    database_server: Server, make_replica: MakeReplica, visitors: Visitors, sink: MailSink
) -> None:
    replica = make_replica(database_server.url, LEASE_SECONDS=str(LEASE_SECONDS))
    await replica.start()
    for n in range(OUTAGES):
        email = f"visitor-{n}@example.org"
        signup = await visitors.sign_up(replica, email)
        link = await sink.link(signup.id)
        await until(lambda: _is_idle(visitors, replica), "nothing in flight")
        await (database_server.kill() if n % 2 == 0 else database_server.stop())

        # The first meets a service whose committer does not know yet, the second one that does.
        for _ in range(2):
            refused = await visitors.ask(f"{replica.public}/signup", {"email": "late@example.org"})
            assert _shape(refused) == (503, "unavailable", "2")
            await until(lambda: _is_unready(visitors, replica), "readiness lost")
        assert link.token is not None
        assert _shape(await visitors.verify(replica, link.token)) == (503, "unavailable", "2")
        unknown = await visitors.ask(f"{replica.public}/signup/{signup.id}", secret=signup.secret)
        assert _shape(unknown) == (503, "unavailable", "2")
        assert (await visitors.ask(f"{replica.ops}/health/live")).status == 200
        await database_server.start()

        await until(lambda: _is_ready(visitors, replica), "readiness again")
        assert (await visitors.verify(replica, link.token)).body["status"] == "verified"
        await sink.welcome(email)
    listed = await visitors.ask(f"{replica.ops}/accounts")
    assert [a["status"] for a in listed.body["items"]] == ["verified"] * OUTAGES
    assert sink.to("late@example.org") == []
    print(json.dumps({"test": "database_outages", "outages": OUTAGES, "verified": OUTAGES}))


async def test_after_an_outage_longer_than_the_lease_nobody_rescues_anybody(
    database_server: Server, make_replica: MakeReplica, visitors: Visitors, sink: MailSink
) -> None:
    replicas = [
        make_replica(database_server.url, LEASE_SECONDS=str(LEASE_SECONDS)) for _ in range(2)
    ]
    for replica in replicas:
        await replica.start()
    sink.hold()  # so that both have executions in their hands, whose heartbeats go stale
    emails = [f"visitor-{n}@example.org" for n in range(8)]
    signups = [await visitors.sign_up(replicas[n % 2], email) for n, email in enumerate(emails)]
    await until(lambda: sink.held == len(signups), "every mail in flight")

    await database_server.kill()
    await _pass(LEASES_OUT * LEASE_SECONDS)
    await database_server.start()
    for replica in replicas:
        await until(partial(_is_ready, visitors, replica), "readiness again")
    await _pass(LEASES_OUT * LEASE_SECONDS)  # in which a wrong rescue would come
    sink.release()
    links = [await sink.link(signup.id) for signup in signups]
    for replica, link in zip(replicas, links, strict=False):
        assert (await visitors.verify(replica, link.token or "")).status == 200

    rescues = [await visitors.metric(r, "countersign_rescues_total") for r in replicas]
    connection = await asyncpg.connect(database_server.url)
    try:
        await until(lambda: _rests(connection), "all in flight to end or rest")
    finally:
        await connection.close()
    links_sent = [mail.message_id for mail in sink.deliveries if not mail.is_welcome]
    line = {"test": "outage_beyond_lease", "rescues": rescues, "mails": len(links_sent)}
    print(json.dumps(line))
    assert rescues == [0, 0]
    assert len(links_sent) == len(set(links_sent)) == len(signups)


async def _pass(seconds: float) -> None:
    """Let time pass: here it is the very thing that is tested, not a wait for something else."""
    await asyncio.sleep(seconds)


async def _rests(connection: asyncpg.Connection) -> bool:
    in_flight = "select count(*) from executions where owner is not null"
    return bool(await connection.fetchval(in_flight) == 0)


async def _is_idle(visitors: Visitors, replica: Replica) -> bool:
    return await visitors.metric(replica, "countersign_executions_in_flight") == 0


async def _is_ready(visitors: Visitors, replica: Replica) -> bool:
    return (await visitors.ask(f"{replica.ops}/health/ready")).status == 200


async def _is_unready(visitors: Visitors, replica: Replica) -> bool:
    answer = await visitors.ask(f"{replica.ops}/health/ready")
    if answer.status == 200:
        return False
    assert (answer.status, "database" in answer.body["reasons"]) == (503, True), answer
    return True


def _shape(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.body["code"], answer.headers["Retry-After"]
