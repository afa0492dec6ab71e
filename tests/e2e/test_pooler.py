"""Behind PgBouncer in transaction mode: a visitor's course, an expiry, and a killed replica."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from tests.e2e.process import Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors
from tests.faults.pgbouncer import PROGRAM, pgbouncer
from tests.faults.postgres import Server, own_server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        PROGRAM is None, reason="PgBouncer is not installed (Debian's package is pgbouncer)"
    ),
]

LEASE_SECONDS = 1.0
HALF_HOUR_IN_A_SECOND = str(1 / 1800)
CROWD = 8


async def test_signups_are_verified_expire_and_outlive_a_killed_replica_behind_a_pooler(
    make_replica: Callable[..., Replica], visitors: Visitors, sink: MailSink
) -> None:
    async with own_server(settings={"fsync": "off"}) as server, pgbouncer(server) as url:
        killed, heir = (
            make_replica(url, DATABASE_POOLER="transaction", LEASE_SECONDS=str(LEASE_SECONDS))
            for _ in range(2)
        )
        await killed.start()
        await heir.start()
        sink.hold()  # so that the replica which is killed has executions in its hands
        signups = [
            await visitors.sign_up(killed if n % 2 else heir, f"visitor-{n}@example.org")
            for n in range(CROWD)
        ]
        await until(lambda: sink.held == CROWD, "every mail in flight")
        killed.kill()
        sink.release()
        for signup in signups:
            link = await sink.link(signup.id)
            assert (await visitors.verify(heir, link.token or "")).status == 200
            await sink.welcome(signup.email)
        killed.environment["WAIT_TIME_SCALE"] = HALF_HOUR_IN_A_SECOND
        await killed.start()
        late = await visitors.sign_up(killed, "late@example.org")
        await visitors.until_status(heir, late, "expired")

        rescued = await visitors.metric(heir, "countersign_rescues_total")
        assert rescued == CROWD // 2
        assert await _statuses(server) == {"SUCCEEDED": CROWD + 1}


async def _statuses(server: Server) -> dict[str, int]:
    """Return how many executions have which status, once none is in anybody's hands."""
    connection = await asyncpg.connect(server.url)
    try:
        in_flight = "select count(*) = 0 from executions where owner is not null"
        await until(lambda: connection.fetchval(in_flight), "nothing in flight")
        rows = await connection.fetch("select status, count(*) from executions group by status")
    finally:
        await connection.close()
    return {row["status"]: row["count"] for row in rows}
