"""The ledger counts: each kind of damage done to a whole story shows in its count alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from service.asl import HistoryEvent
from service.engine.history import pack, unpack
from service.store import Database, migrate
from tests.e2e.sink import Delivery
from tests.e2e.visitors import Signup
from tests.faults.audit import AUDIT
from tests.faults.ledger import Counts, Ledger
from tests.faults.stories import ADA, BOB, EVE, write_stories

FAULTS = ("lost", "dup_db", "dup_mail", "unexplained", "resurrected", "stuck", "history")
WHOLE = dict.fromkeys(FAULTS, 0)


@dataclass
class Story:
    """Three signups: Ada verified, Bob's wait ended, Eve's mail was tried again."""

    database: asyncpg.Connection
    ledger: Ledger
    mails: list[Delivery]

    async def count(self) -> dict[str, int]:
        """Return what is counted, by name."""
        counts: Counts = await self.ledger.count(self.database, self.mails)
        assert (counts.executions, counts.histories_replayed) == (3, 3)
        return {name: getattr(counts, name) for name in FAULTS}

    def repeat_link(self, account: str) -> float:
        """Have the mail with a link come again, a second after it; return when that was."""
        first = next(mail for mail in self.mails if mail.account == account)
        self.mails.append(replace(first, at=first.at + 1.0))
        return first.at

    async def take_over(self, account: str, *, heartbeat_age: timedelta) -> None:
        """Have an execution taken from an owner who was last heard of so long ago."""
        await self.database.execute(
            "insert into workers (id, heartbeat_at, lease_seconds) "
            "values ($1, clock_timestamp() - $2::interval, 30) on conflict do nothing",
            ADA,
            heartbeat_age,
        )
        for owner in (ADA, BOB, None):
            await self.database.execute(
                "update executions set owner = $2 where id = $1", account, owner
            )

    async def change_history(
        self, id: str, change: Callable[[list[HistoryEvent]], list[HistoryEvent]]
    ) -> None:
        """Put other events in the place of an execution's history."""
        rows = await self.database.fetch(
            "select events from history where execution_id = $1 order by first_event_id", id
        )
        events = [event for row in rows for event in unpack(row["events"])]
        await self.database.execute("delete from history where execution_id = $1", id)
        await self.database.execute(
            "insert into history values (0, $1, 1, $2)", id, pack(change(events))
        )


@pytest.fixture(scope="module")
def written(database_url: str) -> Iterator[tuple[str, list[Delivery]]]:
    """Yield a database with the three stories, and their mails."""
    name = f"test_{uuid4().hex}"
    url = urlsplit(database_url)._replace(path=f"/{name}").geturl()
    asyncio.run(_execute(database_url, f"create database {name}"))
    yield url, asyncio.run(_write(url))
    asyncio.run(_execute(database_url, f"drop database {name} with (force)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _write(url: str) -> list[Delivery]:
    database = Database(url)
    await database.open()
    await migrate(database)
    await database.close()
    connection = await asyncpg.connect(url)
    await connection.execute(AUDIT)
    mails = await write_stories(connection)
    await connection.close()
    return mails


@pytest.fixture
async def story(written: tuple[str, list[Delivery]]) -> AsyncIterator[Story]:
    """Yield the stories; what a test does to them is rolled back."""
    url, mails = written
    ledger = Ledger()
    for account in (ADA, BOB, EVE):
        ledger.acknowledged[account] = Signup(f"{account}@example.org", account, "secret")
    ledger.verdicts = {ADA: "verified", BOB: "expired", EVE: "verified"}
    connection = await asyncpg.connect(url)
    damage = connection.transaction()
    await damage.start()
    try:
        yield Story(connection, ledger, list(mails))
    finally:
        await damage.rollback()
        await connection.close()


async def test_a_whole_story_counts_nothing(story: Story) -> None:
    assert await story.count() == WHOLE


async def _forget_account(story: Story) -> None:
    await story.database.execute("delete from accounts where id = $1", BOB)


async def _leave_undecided(story: Story) -> None:
    await story.database.execute("alter table accounts disable trigger all")
    await story.database.execute("update accounts set status = 'pending' where id = $1", BOB)
    story.ledger.verdicts.pop(BOB)


async def _fail_execution(story: Story) -> None:
    story.ledger.ends["0197a000-0000-7000-8000-000000000000"] = "SUCCEEDED"


async def _lose_link(story: Story) -> None:
    story.mails = [mail for mail in story.mails if mail.account != BOB]


async def _lose_welcome(story: Story) -> None:
    to_ada = f"{ADA}@example.org"
    story.mails = [
        mail for mail in story.mails if not (mail.is_welcome and mail.recipient == to_ada)
    ]


@pytest.mark.parametrize(
    "damage", [_forget_account, _leave_undecided, _fail_execution, _lose_link, _lose_welcome]
)
async def test_what_was_acknowledged_and_is_not_there_is_lost(
    story: Story, damage: Callable[[Story], Awaitable[None]]
) -> None:
    await damage(story)
    counted = await story.count()
    # An account that is gone contradicts its visitor's verdict, too.
    resurrected = int(damage is _forget_account)
    assert counted == {**WHOLE, "lost": 1, "resurrected": resurrected}


async def test_a_link_that_the_mail_server_refuses_is_not_lost(story: Story) -> None:
    await _lose_link(story)
    story.ledger.unreachable.add(f"{BOB}@example.org")
    assert await story.count() == WHOLE


async def test_an_account_that_changes_twice_the_same_way_is_a_database_effect_twice(
    story: Story,
) -> None:
    for status in ("pending", "verified"):
        await story.database.execute("update accounts set status = $2 where id = $1", ADA, status)
    assert await story.count() == {**WHOLE, "dup_db": 1}


async def test_a_command_answered_twice_is_a_database_effect_twice(story: Story) -> None:
    def answer_again(events: list[HistoryEvent]) -> list[HistoryEvent]:
        place = next(n for n, e in enumerate(events) if e.type == "LambdaFunctionSucceeded")
        doubled = [*events[: place + 1], *events[place:]]
        return [replace(event, id=n) for n, event in enumerate(doubled, start=1)]

    await story.change_history(BOB, answer_again)
    assert await story.count() == {**WHOLE, "dup_db": 1, "history": 1}


async def test_verified_and_expired_is_resurrected_in_whichever_order_it_was(story: Story) -> None:
    await story.database.execute("update accounts set status = 'expired' where id = $1", ADA)
    await story.database.execute("update accounts set status = 'verified' where id = $1", BOB)
    counted = await story.count()
    # Bob has no welcome, and so lacks a mail as well.
    assert counted == {**WHOLE, "resurrected": 2, "lost": 1}


async def test_a_verdict_that_the_rows_contradict_is_resurrected(story: Story) -> None:
    story.ledger.verdicts[BOB] = "verified"
    assert await story.count() == {**WHOLE, "resurrected": 1}


@pytest.mark.parametrize(
    ("owner", "due_at", "stuck"),
    [
        (None, None, 1),  # neither due time nor owner
        ("dead", None, 1),
        ("alive", None, 0),
        (None, timedelta(seconds=-61), 1),
        (None, timedelta(seconds=-30), 0),
        (None, timedelta(hours=1), 0),
    ],
)
async def test_a_running_execution_with_nothing_to_wait_for_is_stuck(
    story: Story, owner: str | None, due_at: timedelta | None, stuck: int
) -> None:
    beats = {"dead": timedelta(hours=-1), "alive": timedelta(0)}
    if owner is not None:
        await story.database.execute(
            "insert into workers (id, heartbeat_at, lease_seconds) values ($1, now() + $2, 30)",
            EVE,
            beats[owner],
        )
    await story.database.execute(
        "update executions set status = 'RUNNING', owner = $2, due_at = now() + $3, output = null "
        "where id = $1",
        BOB,
        EVE if owner else None,
        due_at,
    )
    # It has not ended, which is a loss whether it can still end or not; and its history has.
    assert await story.count() == {**WHOLE, "stuck": stuck, "lost": 1, "history": 1}


def _without_one(events: list[HistoryEvent]) -> list[HistoryEvent]:
    return events[:5] + events[6:]


def _unlinked(events: list[HistoryEvent]) -> list[HistoryEvent]:
    return [*events[:5], replace(events[5], previous_event_id=9), *events[6:]]


def _linked_elsewhere(events: list[HistoryEvent]) -> list[HistoryEvent]:
    return [*events[:5], replace(events[5], previous_event_id=2), *events[6:]]


def _without_the_end(events: list[HistoryEvent]) -> list[HistoryEvent]:
    return events[:-1]


def _of_another_answer(events: list[HistoryEvent]) -> list[HistoryEvent]:
    answers: list[Any] = [n for n, e in enumerate(events) if e.type == "LambdaFunctionSucceeded"]
    place = answers[-1]
    other = replace(events[place], details={"output": {"deleted": False, "status": "verified"}})
    return [*events[:place], other, *events[place + 1 :]]


@pytest.mark.parametrize(
    "change", [_without_one, _unlinked, _linked_elsewhere, _without_the_end, _of_another_answer]
)
async def test_a_history_that_does_not_lead_to_the_end_is_counted(
    story: Story, change: Callable[[list[HistoryEvent]], list[HistoryEvent]]
) -> None:
    await story.change_history(BOB, change)
    assert await story.count() == {**WHOLE, "history": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "update executions set output = '{\"account_id\": 1}' where id = $1",
        "update executions set status = 'FAILED', error = 'E' where id = $1",
        "delete from history where execution_id = $1",
    ],
)
async def test_a_row_that_ends_otherwise_than_its_history_is_counted(
    story: Story, statement: str
) -> None:
    await story.database.execute(statement, EVE)
    counted = await story.count()
    assert counted == {**WHOLE, "history": 1, "lost": int("FAILED" in statement)}


@pytest.mark.parametrize(
    ("fault", "unexplained"),
    [(None, 1), ((1.0, 2.0), 1), ((10.2, 10.2), 0), ((9.7, 9.8), 0), ((8.0, 30.0), 0)],
)
async def test_a_mail_that_comes_twice_needs_a_fault_in_between(
    story: Story, fault: tuple[float, float] | None, unexplained: int
) -> None:
    assert story.repeat_link(BOB) == 10.0
    if fault is not None:
        story.ledger.note_fault(fault[0], fault[1])
    assert await story.count() == {**WHOLE, "dup_mail": 1, "unexplained": unexplained}


@pytest.mark.parametrize(
    ("heartbeat_age", "whose", "times", "unexplained"),
    [
        (timedelta(seconds=31), BOB, 1, 0),
        (timedelta(seconds=31), EVE, 1, 1),  # another's execution
        (timedelta(seconds=31), BOB, 2, 1),  # one takeover is no excuse for two repeats
        (timedelta(seconds=10), BOB, 1, 1),  # of an owner whose lease stood
    ],
)
async def test_a_takeover_in_time_is_what_explains_one_repeat(
    story: Story, heartbeat_age: timedelta, whose: str, times: int, unexplained: int
) -> None:
    await story.take_over(whose, heartbeat_age=heartbeat_age)
    for _ in range(times):
        story.repeat_link(BOB)
    assert await story.count() == {**WHOLE, "dup_mail": times, "unexplained": unexplained}


@pytest.mark.parametrize(("times", "unexplained"), [(1, 0), (2, 1)])
async def test_an_attempt_that_timed_out_explains_one_repeat_of_its_mail(
    story: Story, times: int, unexplained: int
) -> None:
    for _ in range(times):
        story.repeat_link(EVE)
    assert await story.count() == {**WHOLE, "dup_mail": times, "unexplained": unexplained}


async def test_an_attempt_that_timed_out_explains_no_other_states_mail(story: Story) -> None:
    welcome = next(m for m in story.mails if m.is_welcome and m.recipient.startswith(EVE))
    story.mails.append(replace(welcome, at=welcome.at + 1.0))
    assert await story.count() == {**WHOLE, "dup_mail": 1, "unexplained": 1}


def test_a_fault_is_noted_from_its_beginning_until_now() -> None:
    ledger, before = Ledger(), time.monotonic()
    ledger.note_fault(1.0)
    (fault,) = ledger.faults
    assert fault.began == 1.0
    assert before <= fault.ended <= time.monotonic()
