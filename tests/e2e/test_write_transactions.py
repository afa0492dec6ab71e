"""How many transactions a workflow writes, counted by the database: no clock in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from service.accounts import Tokens, parse_address
from service.accounts.signup import SignupRequest
from service.app import Service
from service.asl import Json
from service.config import load_config
from service.engine.ports import Answer, CoroutineHandler, Task

pytestmark = pytest.mark.e2e

SIGNUPS = 200
WRITES_PER_WORKFLOW_MAX = 0.2
KEY = "a key for tests that opens nothing"
PATIENCE_SECONDS = 120.0

# The checkpoint has the moment too, or a timer that fires early would be set again.
MAKE_DUE = """
update executions
set
    due_at = now(),
    checkpoint = convert_to(
        regexp_replace(convert_from(checkpoint, 'UTF8'), '"W":\\d+', '"W":0'), 'UTF8'
    )
where due_at is not null
"""


async def _no_mail(input: Json, task: Task) -> Answer:
    return Answer({"sent": True, "status": "pending"})


@pytest.fixture
async def service(fresh_database: str) -> AsyncIterator[Service]:
    """Yield a service without mails, whose heartbeats are rarer than a test is long."""
    config = load_config(
        {
            "DATABASE_URL": fresh_database,
            "SMTP_URL": "smtp://127.0.0.1:25?tls=none",
            "SECRET_KEY": KEY,
            "MIGRATE": "on",
            "PORT": "0",
            "OPS_PORT": "0",
            "LEASE_SECONDS": "600",
        }
    )
    names = ("send_verification_email", "send_reminder_email", "send_welcome_email")
    service = Service(config, mail_tasks=dict.fromkeys(names, CoroutineHandler(_no_mail)))
    await service.open()
    yield service
    await service.close()


@pytest.fixture
async def database(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


async def test_workflows_share_their_transactions(
    service: Service, database: asyncpg.Connection
) -> None:
    async def writes() -> int:
        """Return how many transaction ids have been used: one for each that wrote anything."""
        text = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        return int(await database.fetchval(text))

    async def count(condition: str) -> int:
        text = f"select count(*) from executions where {condition}"  # noqa: S608 - ours
        return int(await database.fetchval(text))

    before = await writes()
    addresses = [parse_address(f"visitor{n}@example.org") for n in range(SIGNUPS)]
    begun = await asyncio.gather(
        *(service.signups.begin(SignupRequest(each, None, None, {})) for each in addresses)
    )
    await _until(lambda: _is(count("due_at is not null"), SIGNUPS))
    tokens = Tokens([KEY.encode()])
    verified = [signup.id for signup in begun[::2]]
    links = [tokens.link_token(id, 1) for id in verified]
    await asyncio.gather(*map(service.signups.verify, links))
    await _until(lambda: _is(count("status = 'SUCCEEDED'"), SIGNUPS // 2))
    used = await writes() - before
    # All at once: else it would depend on the machine how many moments the wake-ups have.
    await database.execute(MAKE_DUE)
    before = await writes()
    await _until(lambda: _is(count("status = 'SUCCEEDED'"), SIGNUPS))
    used += await writes() - before

    assert await _outcomes(database) == {
        signup.id: "verified" if signup.id in set(verified) else "expired" for signup in begun
    }
    assert used <= WRITES_PER_WORKFLOW_MAX * SIGNUPS


async def _outcomes(database: asyncpg.Connection) -> dict[UUID, str]:
    return {row["id"]: row["status"] for row in await database.fetch("select * from accounts")}


async def _is(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - a row's state
            await asyncio.sleep(0.02)
