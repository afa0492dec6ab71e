"""A visitor's course through the real process: what is answered, what is mailed, what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.e2e.process import Replica
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Visitors

pytestmark = pytest.mark.e2e

StartReplica = Callable[..., Awaitable[Replica]]

HALF_HOUR_IN_A_SECOND = str(1 / 1800)
QUICK_SECONDS = 10.0
"""Far from the half hour that is not scaled here, and ample for a busy machine."""


async def test_verifying_ends_the_wait_and_the_welcome_comes_long_before_its_time(
    start_replica: StartReplica, visitors: Visitors, sink: MailSink
) -> None:
    replica = await start_replica()  # the half hour in full
    ada = await visitors.sign_up(replica, "ada@example.org")
    link = await sink.link(ada.id)
    assert link.token is not None
    page = await visitors.ask(f"{replica.public}/verify?id={ada.id}")
    assert page.status == 200
    assert await visitors.status(replica, ada) == "pending"  # the page alone changes nothing

    began = asyncio.get_running_loop().time()
    verified = await visitors.verify(replica, link.token)
    assert (verified.status, verified.body) == (200, {"id": ada.id, "status": "verified"})
    await sink.welcome("ada@example.org")
    seconds = asyncio.get_running_loop().time() - began
    assert seconds < QUICK_SECONDS
    assert await visitors.status(replica, ada) == "verified"
    assert (await visitors.verify(replica, link.token)).status == 200
    print(json.dumps({"test": "verify_ends_wait", "welcome_after_seconds": round(seconds, 3)}))


async def test_a_signup_that_nobody_verifies_is_deleted_after_the_wait(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
) -> None:
    replica = await start_replica(WAIT_TIME_SCALE=HALF_HOUR_IN_A_SECOND)
    bob = await visitors.sign_up(replica, "bob@example.org")
    link = await sink.link(bob.id)
    assert link.token is not None
    await visitors.until_status(replica, bob, "expired")

    late = await visitors.verify(replica, link.token)
    assert (late.status, late.body["code"]) == (410, "expired")
    row = await database.fetchrow("select * from accounts where id = $1", bob.id)
    kept = {name: row[name] for name in ("address", "identity_key", "name", "locale", "data")}
    assert kept == dict.fromkeys(kept)
    assert [mail.account for mail in sink.to("bob@example.org")] == [bob.id]
    print(json.dumps({"test": "deleted_after_wait", "mails": len(sink.deliveries)}))


async def test_two_signups_of_one_address_verified_at_once_are_one_verified_and_one_superseded(
    start_replica: StartReplica, visitors: Visitors, sink: MailSink
) -> None:
    """198 neighbours are verified in the same instant and notice nothing."""
    replica = await start_replica()
    addresses = [f"neighbour-{n}@example.org" for n in range(198)]
    addresses[99:99] = ["rival@example.org"] * 2
    signups = await asyncio.gather(*(visitors.sign_up(replica, a) for a in addresses))
    links = await asyncio.gather(*(sink.link(signup.id) for signup in signups))

    answers = await asyncio.gather(*(visitors.verify(replica, link.token or "") for link in links))

    rivals = [
        (answer.status, answer.body.get("code", answer.body["status"]))
        for answer, address in zip(answers, addresses, strict=True)
        if address == "rival@example.org"
    ]
    assert sorted(rivals) == [(200, "verified"), (410, "superseded")]
    neighbours = [
        (answer.status, answer.body)
        for answer, address in zip(answers, addresses, strict=True)
        if address != "rival@example.org"
    ]
    assert neighbours == [
        (200, {"id": signup.id, "status": "verified"})
        for signup in signups
        if signup.email != "rival@example.org"
    ]
    await asyncio.gather(*(sink.welcome(address) for address in addresses))
    assert len([mail for mail in sink.deliveries if mail.is_welcome]) == 199
    # The loser's visitor learns of no other owner, by status or by mail.
    loser = next(s for s, a in zip(signups, answers, strict=True) if a.status == 410)
    assert await visitors.status(replica, loser) == "pending"
    splits = await visitors.metric(replica, "countersign_batch_splits_total")
    assert splits == 0
    print(json.dumps({"test": "rivals", "verified": 199, "superseded": 1, "splits": splits}))
