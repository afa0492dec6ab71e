"""What the end of a signup's execution has decided stays decided, however often it is redriven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from service.asl import Json, RunTask, TaskFailed
from service.engine.ports import Effect, Handler, Key, Task
from service.resources import resource_path
from service.tasks.accounts import ACCOUNT_TASKS, close_ended
from tests.engine.harness import Bench, Handlers, bench

FLOW: Final = (resource_path("workflows") / "verification.asl.json").read_text("utf-8")
ADDRESS: Final = "ada@example.org"


class AccountHandlers(Handlers):
    """The account functions as they are shipped, and mails that nobody takes until told so."""

    def __init__(self) -> None:
        super().__init__({"send_verification_email": self.sent, "send_welcome_email": self.sent})
        self.mails: list[str] = []
        self.takes_mail = asyncio.Event()

    def resolve(self, command: RunTask) -> tuple[Handler, Json] | TaskFailed:
        name = command.resource.rpartition(":")[2]
        if name in ACCOUNT_TASKS:
            return ACCOUNT_TASKS[name](command.parameters), command.parameters
        return super().resolve(command)

    async def sent(self, input: Json, task: Task) -> Json:
        await self.takes_mail.wait()
        self.mails.append(task.state)
        return {}


@asynccontextmanager
async def signed_up(url: str) -> AsyncIterator[tuple[Bench, AccountHandlers, Key]]:
    """Yield an engine with the shipped flow, and a signup whose mail has yet to be taken."""
    handlers = AccountHandlers()
    async with bench(url, handlers, on_ended=close_ended) as b:
        await b.publish("verification", FLOW)
        key = b.key()
        account = Effect("insert_account", (*key, ADDRESS, ADDRESS, 1, None, None, "{}"))
        input: Json = {"account_id": str(key.id), "email_domain": "example.org", "locale": None}
        await b.engine.start("verification", str(key.id), input, key=key, effects=[account])
        yield b, handlers, key


async def status(b: Bench, key: Key) -> str:
    row = await b.database.first("account", *key)
    assert row is not None
    return str(row["status"])


async def verify(b: Bench, key: Key) -> Mapping[str, object] | None:
    return await b.engine.request(
        Effect("verify_account", (*key, 1)),
        signal=lambda row: key if row is not None and row["status"] == "verified" else None,
    )


async def test_an_expired_account_is_not_verified_by_a_redrive(fresh_database: str) -> None:
    async with signed_up(fresh_database) as (b, handlers, key):
        handlers.takes_mail.set()
        await b.at_rest(key)
        await b.engine.stop(key, "Stopped", "by an operator")
        assert await status(b, key) == "expired"
        await b.engine.redrive(key)
        await b.at_rest(key)  # it waits for the visitor once more
        answer = await verify(b, key)
        assert answer is None or answer["status"] != "verified"
        assert await status(b, key) == "expired"
        await b.engine.stop(key)
        assert await status(b, key) == "expired"


async def test_the_flow_of_an_expired_account_ends_as_deleted(fresh_database: str) -> None:
    async with signed_up(fresh_database) as (b, handlers, key):
        await b.engine.stop(key)  # while the mail is being sent
        assert await status(b, key) == "expired"
        handlers.takes_mail.set()
        await b.engine.redrive(key)
        await b.at_rest(key)
        await b.engine.request(Effect("get_account", key), signal=lambda row: key)
        row = await b.ended(key)
        assert (row["status"], await status(b, key)) == ("SUCCEEDED", "expired")
        assert "SendWelcomeEmail" not in handlers.mails


async def test_a_verified_account_is_not_deleted_by_a_redrive(fresh_database: str) -> None:
    async with signed_up(fresh_database) as (b, handlers, key):
        handlers.takes_mail.set()
        await b.at_rest(key)
        handlers.takes_mail.clear()
        answer = await verify(b, key)
        assert answer is not None
        assert answer["status"] == "verified"
        await b.engine.stop(key)  # while the welcome is being sent
        assert await status(b, key) == "verified"
        handlers.takes_mail.set()
        await b.engine.redrive(key)
        assert (await b.ended(key))["status"] == "SUCCEEDED"
        assert await status(b, key) == "verified"
        assert handlers.mails == ["SendVerificationEmail", "SendWelcomeEmail"]


async def test_an_account_that_was_verified_while_its_execution_had_ended_is_kept(
    fresh_database: str,
) -> None:
    """Its address was verified by another link of its, before the execution was stopped."""
    async with signed_up(fresh_database) as (b, handlers, key):
        answer = await b.engine.request(Effect("verify_account", (*key, 1)))  # no signal came of it
        assert answer is not None
        assert answer["status"] == "verified"
        await b.engine.stop(key)
        assert await status(b, key) == "verified"
        handlers.takes_mail.set()
        await b.engine.redrive(key)
        await b.at_rest(key)
        await b.engine.request(Effect("get_account", key), signal=lambda row: key)
        row = await b.ended(key)
        assert (row["status"], await status(b, key)) == ("SUCCEEDED", "verified")
        assert handlers.mails == ["SendVerificationEmail", "SendWelcomeEmail"]
