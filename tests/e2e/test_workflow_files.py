"""An operator edits the flow while it runs, and adds a step of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tests.e2e.flows import (
    FILE,
    copy_workflows,
    edit,
    insert_pause_before_deleting,
    insert_reminder,
    replace,
)
from tests.e2e.process import REPOSITORY, Replica, until
from tests.e2e.sink import MailSink
from tests.e2e.visitors import Signup, Visitors

pytestmark = pytest.mark.e2e

StartReplica = Callable[..., Awaitable[Replica]]

WAIT_SECONDS: Final = 6.0
"""The half hour, scaled: an edit is seen within a second, long before it is over."""

PAUSE: Final = """
import asyncio
from pathlib import Path

from service.tasks import handler

@handler
async def pause(input):
    Path(__file__).with_name("paused").touch()
    while not Path(__file__).with_name("go-on").exists():
        await asyncio.sleep(0.01)
"""


async def waits(database: asyncpg.Connection, signup: Signup) -> bool:
    """Tell whether the signup's execution is at rest until its wait is over."""
    statement = "select due_at > now() from executions where id = $1 and owner is null"
    return bool(await database.fetchval(statement, signup.id))


async def definition_of(database: asyncpg.Connection, signup: Signup) -> bytes:
    return bytes(
        await database.fetchval("select definition from executions where id = $1", signup.id)
    )


async def test_new_signups_take_an_edited_flow_and_waiting_ones_end_on_the_old(
    start_replica: StartReplica,
    visitors: Visitors,
    sink: MailSink,
    database: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    flow = copy_workflows(tmp_path / "workflows")
    replica = await start_replica(
        WORKFLOWS_DIR=str(flow.parent), WAIT_TIME_SCALE=str(WAIT_SECONDS / 1800)
    )
    old = await visitors.sign_up(replica, "old@example.org")
    await sink.link(old.id)
    await until(lambda: waits(database, old), "the wait on the old flow")

    edit(flow, insert_reminder)
    await until(lambda: len(replica.events("definition_published")) == 2, "the edit's publication")
    assert await waits(database, old), "void: the old signup ended before the edit was seen"
    new = await visitors.sign_up(replica, "new@example.org")

    good = flow.read_text(encoding="utf-8")
    replace(flow, good.replace('"Next": "GetAccount"', '"Next": "GetAcount"'))
    (refused,) = await until(lambda: replica.events("definition_refused"), "the refusal")
    line = 1 + good[: good.index('"Next": "GetAccount"')].count("\n")
    column = 1 + good.splitlines()[line - 1].index('"GetAccount"')
    assert refused["last_good_runs_on"] is True
    (problem,) = [text for text in refused["problems"] if "WaitOnceMore" in text]
    assert problem.startswith(f"{FILE}:{line}:{column}: MISSING_TRANSITION_TARGET ")
    assert problem.endswith("(at /States/WaitOnceMore/Next)")

    last = await visitors.sign_up(replica, "last@example.org")
    await sink.link(last.id)
    for signup in (old, new, last):
        await visitors.until_status(replica, signup, "expired")
    mails = {s.email: len(sink.to(s.email)) for s in (old, new, last)}
    print(json.dumps({"test": "edited_flow", "mails": mails, "refused": refused["problems"]}))
    # A verification each, and a reminder on the new flow only.
    assert mails == {"old@example.org": 1, "new@example.org": 2, "last@example.org": 2}
    subjects = {mail.subject for mail in sink.to("new@example.org")}
    assert len(subjects) == 2
    definitions = [await definition_of(database, signup) for signup in (old, new, last)]
    assert definitions[0] != definitions[1] == definitions[2]


async def test_a_visitor_who_verifies_between_check_and_delete_is_welcomed(
    start_replica: StartReplica, visitors: Visitors, sink: MailSink, tmp_path: Path
) -> None:
    flow = copy_workflows(tmp_path / "workflows")
    edit(flow, insert_pause_before_deleting)
    (tmp_path / "pausing.py").write_text(PAUSE, encoding="utf-8")
    replica = await start_replica(
        WORKFLOWS_DIR=str(flow.parent),
        WAIT_TIME_SCALE=str(0.2 / 1800),
        HANDLERS="pausing",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(REPOSITORY)]),
    )
    ada = await visitors.sign_up(replica, "ada@example.org")
    link = await sink.link(ada.id)
    # The flow has found her unverified and is about to delete the account.
    await until((tmp_path / "paused").exists, "the pause between check and delete")
    assert link.token is not None
    answer = await visitors.verify(replica, link.token)
    assert (answer.status, answer.body["status"]) == (200, "verified")
    (tmp_path / "go-on").touch()

    await sink.welcome("ada@example.org")
    assert await visitors.status(replica, ada) == "verified"
    ended = 'countersign_executions_ended_total{machine="verification",status="SUCCEEDED"}'

    async def has_ended() -> bool:
        return await visitors.metric(replica, ended) == 1

    await until(has_ended, "the flow's end")
    assert [mail.is_welcome for mail in sink.to("ada@example.org")] == [False, True]
    print(json.dumps({"test": "verified_before_delete", "mails": len(sink.deliveries)}))
