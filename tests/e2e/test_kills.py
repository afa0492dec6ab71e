"""kill -9 at random moments under signups: nothing acknowledged is lost, nothing decided twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import asyncpg
import pytest

from tests.e2e.ledger import Ledger
from tests.e2e.process import Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Signup, Visitors

pytestmark = pytest.mark.e2e

SIGNUPS: Final = 200
WAIT_SECONDS: Final = 4.0
"""The flow's half hour, scaled: longer than a restart, or hardly anybody could verify in time."""
CLICK_SECONDS_MAX: Final = 0.5
"""What a prompt visitor takes to follow the link."""
RACE_SECONDS: Final = 0.3
"""How close to the end of the wait the others click: verify and delete then meet."""
VOLLEY_SECONDS: Final = 0.1
"""Before a kill, in which its signups come: it meets some not answered, some not committed."""
SUCCESS_MIN: Final = 0.95
IN_FLIGHT_MAX: Final = 16
"""Mails that one kill can repeat: one on each of the 8 connections, and those being committed."""


class Run:
    """A crowd that signs up and verifies, and what became of it."""

    def __init__(
        self,
        replicas: list[Replica],
        visitors: Visitors,
        sink: MailSink,
        seed: int,
    ) -> None:
        self.ledger = Ledger()
        self.tried = self.succeeded = 0
        self._replicas = replicas
        self._visitors = visitors
        self._sink = sink
        self._random = random.Random(seed)
        self._crowd: list[asyncio.Task[None]] = []

    async def kill_one(self, seconds_max: float, signups: int) -> None:
        """Kill a replica after a while, under a volley of signups, and start it again."""
        moment = self._random.uniform(0, seconds_max)
        for n in range(len(self._crowd), len(self._crowd) + signups):
            delay = max(0.0, moment - self._random.uniform(0, VOLLEY_SECONDS))
            self._crowd.append(asyncio.create_task(self._visit(n, delay)))
        await asyncio.sleep(moment)
        replica = self._random.choice(self._replicas)
        replica.kill()
        self.ledger.kills.append(time.monotonic())
        await replica.start()

    async def over(self) -> None:
        """Return when every visitor has got every answer."""
        await asyncio.gather(*self._crowd)

    async def _visit(self, n: int, delay: float) -> None:
        """Sign up after a while; every second visitor verifies."""
        await asyncio.sleep(delay)
        email = f"visitor-{n}@example.org"
        self.tried += 1
        answer = await self._insist("/signup", {"email": email})
        assert answer[0] == 202, answer
        self.succeeded += 1
        signup = Signup(email, answer[1]["id"], answer[1]["secret"])
        self.ledger.acknowledged[signup.id] = signup
        if n % 2 == 0:
            await self._verify(signup, is_prompt=n % 10 != 0)

    async def _verify(self, signup: Signup, *, is_prompt: bool) -> None:
        """Follow the link, at once or when the wait ends; either verdict is right then."""
        token = (await self._sink.link(signup.id)).token
        late = self._random.uniform(WAIT_SECONDS - RACE_SECONDS, WAIT_SECONDS + RACE_SECONDS)
        await asyncio.sleep(self._random.uniform(0, CLICK_SECONDS_MAX) if is_prompt else late)
        status, body = await self._insist("/verify", {"token": token})
        assert (status, body.get("code", "verified")) in ((200, "verified"), (410, "expired"))
        self.ledger.verdicts[signup.id] = "verified" if status == 200 else "expired"
        if is_prompt:
            self.tried += 1
            self.succeeded += status == 200

    async def _insist(self, path: str, body: dict[str, object]) -> tuple[int, dict[str, str]]:
        answer = await self._visitors.insist(self._replicas, path, body, choice=self._random)
        return answer.status, answer.body


@pytest.mark.parametrize(
    ("replica_count", "kills", "lease_seconds", "life_seconds_max"),
    # The lives of a lone process must at times outlast its lease, before which it rescues nothing.
    [(1, 20, 0.5, 1.0), (2, 8, 1.5, 1.0)],
    ids=["one_process", "two_replicas"],
)
async def test_kills_lose_nothing_and_decide_nothing_twice(
    make_replica: Callable[..., Replica],
    fresh_database: str,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
    replica_count: int,
    kills: int,
    lease_seconds: float,
    life_seconds_max: float,
) -> None:
    seed = int(os.environ.get("E2E_SEED") or random.SystemRandom().getrandbits(32))
    print(f"seed {seed} (E2E_SEED={seed} repeats its choices)")
    replicas = [
        make_replica(
            fresh_database,
            LEASE_SECONDS=str(lease_seconds),
            WAIT_TIME_SCALE=str(WAIT_SECONDS / 1800),
        )
        for _ in range(replica_count)
    ]
    for replica in replicas:
        await replica.start()
    run = Run(replicas, visitors, sink, seed)

    for _ in range(kills):
        await run.kill_one(life_seconds_max, SIGNUPS // kills)
    await run.over()
    await until(lambda: _is_at_rest(database), "every execution's end")

    counts = await run.ledger.count(database, sink.recorded())
    rescued = sum(e["count"] for r in replicas for e in r.events("executions_rescued"))
    success = run.succeeded / run.tried
    line = {"test": "kills", "replicas": replica_count, "seed": seed, "kills": kills}
    print(json.dumps({**line, **asdict(counts), "rescued": rescued, "success": round(success, 3)}))
    assert success >= SUCCESS_MIN, "void: too little worked for the counts to mean anything"
    assert counts.faults == {}, run.ledger.culprits
    assert len(run.ledger.acknowledged) == SIGNUPS
    assert counts.dup_mail <= kills * IN_FLIGHT_MAX
    assert counts.verified >= SIGNUPS * 0.3
    assert counts.expired >= SIGNUPS * 0.5
    assert rescued > 0, "void: no kill met anything in flight"


async def _is_at_rest(database: asyncpg.Connection) -> bool:
    running = "select count(*) from executions where status = 'RUNNING'"
    return bool(await database.fetchval(running) == 0)
