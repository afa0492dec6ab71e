"""Three signups as the service would leave them, made without it: what the ledger is tried on.

Their executions are walked through the language by hand: what it says happened is the history, and
where it stands in the end is the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

import asyncpg

from service.asl import (
    About,
    Event,
    Execution,
    HistoryEvent,
    Json,
    Signalled,
    Started,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
)
from service.documents import dumps_own
from service.engine.arns import Arns
from service.engine.history import pack
from service.engine.random import SystemRandom
from tests.e2e.process import REPOSITORY
from tests.e2e.sink import Delivery

ADA: Final = "0197a000-0000-7000-8000-0000000000a0"
BOB: Final = "0197a000-0000-7000-8000-0000000000b0"
EVE: Final = "0197a000-0000-7000-8000-0000000000e0"
MACHINE: Final = "verification"
SENT_AT: Final = 10.0
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_TEXT: Final = (REPOSITORY / "workflows" / "verification.asl.json").read_text(encoding="utf-8")
_DEFINITION: Final = compile_definition(_TEXT)


class Walk:
    """One execution led to its end, its history in one row for each step."""

    def __init__(self, id: str) -> None:
        arns = Arns()
        self.input: Json = {"account_id": id, "email_domain": "example.org", "locale": None}
        about = About(
            arn=arns.execution(MACHINE, id),
            name=id,
            started_at=NOON,
            input=self.input,
            role_arn=arns.role,
            machine_arn=arns.machine(MACHINE),
            machine_name=MACHINE,
        )
        self.execution = Execution.new(about)
        self.steps: list[Sequence[HistoryEvent]] = []
        self._now = NOON
        self.take(Started())

    def take(self, event: Event) -> None:
        """Let one more event happen, when it is time for it."""
        due_at = self.execution.due_at
        if isinstance(event, TimerFired) and due_at is not None:
            self._now = due_at
        self._now += timedelta(seconds=1)
        step = advance(_DEFINITION, self.execution, event, self._now, SystemRandom())
        self.execution = step.execution
        self.steps.append(step.history)

    def key(self, state: str) -> UUID:
        """Return the idempotency key of the task that a state is."""
        (entered,) = [
            event.id
            for events in self.steps
            for event in events
            if event.type == "TaskStateEntered" and (event.details or {}).get("name") == state
        ]
        return uuid5(UUID(self.execution.about.name), str(entered))

    def answer(self, output: Json) -> None:
        """Answer the task that is open."""
        (command,) = self.execution.open_tasks
        self.take(TaskSucceeded(command.id, output))

    def fail(self, error: str) -> None:
        """Fail the task that is open."""
        (command,) = self.execution.open_tasks
        self.take(TaskFailed(command.id, error, None))


async def write_stories(database: asyncpg.Connection) -> list[Delivery]:
    """Write the rows of Ada, Bob and Eve; return the mails that they were sent."""
    await database.execute(
        "insert into definitions (sha256, text) values ($1, $2)", _DEFINITION.sha256, _TEXT
    )
    walks = {ADA: _verified(Walk(ADA)), BOB: _expired(Walk(BOB)), EVE: _retried(Walk(EVE))}
    for id, walk in walks.items():
        await _write(database, id, walk, "expired" if id == BOB else "verified")
    return [
        *(_mail(id, walks[id].key("SendVerificationEmail"), id, "token") for id in walks),
        *(_mail(id, walks[id].key("SendWelcomeEmail"), None, None) for id in (ADA, EVE)),
    ]


def _verified(walk: Walk) -> Walk:
    walk.answer({"sent": True})
    walk.take(Signalled())
    walk.answer({"status": "verified", "verified": True})
    walk.answer({"sent": True})
    return walk


def _expired(walk: Walk) -> Walk:
    walk.answer({"sent": True})
    walk.take(TimerFired())
    walk.answer({"status": "pending", "verified": False})
    walk.answer({"deleted": True, "status": "expired"})
    return walk


def _retried(walk: Walk) -> Walk:
    """Fail at the mail, then time out there; the signal comes while the third one is sent."""
    walk.fail("MailUnavailable")
    walk.take(TimerFired())
    walk.take(TimerFired())
    walk.take(TimerFired())
    walk.take(Signalled())
    return _ended(walk)


def _ended(walk: Walk) -> Walk:
    walk.answer({"sent": True})
    walk.answer({"status": "verified", "verified": True})
    walk.answer({"sent": True})
    return walk


def _mail(id: str, key: UUID, account: str | None, token: str | None) -> Delivery:
    return Delivery(
        at=SENT_AT,
        recipient=f"{id}@example.org",
        message_id=f"<{key}@example.org>",
        subject="A mail",
        account=account,
        token=token,
    )


async def _write(database: asyncpg.Connection, id: str, walk: Walk, status: str) -> None:
    key = UUID(id)
    await database.execute(
        "insert into accounts (bucket, id, identity_version) values (0, $1, 1)", key
    )
    await database.execute("update accounts set status = $2 where id = $1", key, status)
    execution = walk.execution
    await database.execute(
        "insert into executions (bucket, id, started_at, definition, machine, name, input, status, "
        "output, stopped_at) values (0, $1, $2, $3, $4, $5, $6, $7, $8, now())",
        key,
        NOON,
        hashlib.sha256(_TEXT.encode()).digest(),
        MACHINE,
        id,
        dumps_own(walk.input).decode(),
        execution.status.value,
        dumps_own(execution.output).decode(),
    )
    for events in walk.steps:
        if events:
            await database.execute(
                "insert into history values (0, $1, $2, $3)", key, events[0].id, pack(events)
            )
