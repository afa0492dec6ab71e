"""Redriving, as the engine may rely on it, of both stores alike."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.asl import Status
from service.engine.ids import map_run_key
from service.engine.map_ports import Wanted
from service.engine.ports import Key, NewExecution
from service.engine.redrive import OPEN_DAYS_MAX, REDRIVABLE_DAYS, TOKENS_MAX
from service.store import Database, PostgresStore
from tests.store.factories import (
    ALICE,
    BOB,
    DEFINITION,
    STARTED,
    checkpoint,
    claimed,
    ended,
    execution,
    new_key,
    resting,
    step,
    timeless,
)
from tests.store.test_map_runs import PARENT, RUN, new_run


def now(store: Any) -> datetime:
    """Return a time near the store's own."""
    clock = getattr(store, "_clock", None)
    return datetime.now(UTC) if clock is None else clock.now()


def failed(store: Any, **changes: Any) -> NewExecution:
    """Return an execution that has failed a moment ago and kept where it stood."""
    moment = now(store)
    at = {"status": Status.FAILED, "document": b"kept", "error": "E", "cause": "c"}
    at |= {"output": None, "stopped_at": moment} | changes
    return execution(replace(ended(new_key(), 1), **at), started_at=moment - timedelta(hours=1))


async def insert(store: Any, *rows: NewExecution) -> None:
    async with store.transaction(200) as tx:
        await tx.insert(rows)


async def redrive(store: Any, key: Key, token: str | None = None) -> bool:
    return len(await store.redrive(ALICE, [key], token)) == 1


async def end(store: Any, key: Key, epoch: int) -> None:
    """End a redriven execution again."""
    at = checkpoint(key, epoch, status=Status.FAILED, owner=None, stopped_at=now(store))
    async with store.transaction(200) as tx:
        assert not await tx.save([at], [])


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT, Status.ABORTED])
async def test_redriven_execution_is_the_workers_as_it_stood(store: Any, status: Status) -> None:
    row = failed(store, status=status)
    await insert(store, row)
    (claim,) = await store.redrive(BOB, [row.first.key])
    assert claim.redriven_at is not None
    assert timeless(claim) == claimed(
        row, 2, claims=0, redrive_count=1, redriven_at=claim.redriven_at
    )
    assert await store.owned(BOB) == [(row.first.key, 2)]
    assert [timeless(each) for each in await store.claim_owned(BOB, [row.first.key])] == [
        timeless(claim)
    ]
    async with store.transaction(200) as tx:
        assert await tx.lock([(row.first.key, 2)]) == {row.first.key: False}


async def test_what_runs_or_has_succeeded_or_is_unknown_is_left_out(store: Any) -> None:
    running, done = execution(resting(new_key())), execution(ended(new_key(), 1))
    await insert(store, running, done)
    keys = [running.first.key, done.first.key, new_key()]
    assert await store.redrive(ALICE, keys) == []
    assert await store.owned(ALICE) == []


async def test_what_kept_nothing_or_ended_or_began_too_long_ago_is_left_out(store: Any) -> None:
    moment = now(store)
    rows = [
        failed(store, document=None),
        failed(store, stopped_at=moment - timedelta(days=REDRIVABLE_DAYS)),
        replace(failed(store), started_at=moment - timedelta(days=OPEN_DAYS_MAX)),
    ]
    kept = failed(store, stopped_at=moment - timedelta(days=REDRIVABLE_DAYS - 1))
    await insert(store, *rows, kept)
    claims = await store.redrive(ALICE, [row.first.key for row in (*rows, kept)])
    assert [claim.key for claim in claims] == [kept.first.key]


async def test_execution_is_redriven_once_at_a_time(store: Any) -> None:
    row = failed(store)
    await insert(store, row)
    assert await redrive(store, row.first.key)
    assert not await redrive(store, row.first.key)
    await end(store, row.first.key, 3)
    assert await redrive(store, row.first.key)
    ((_, epoch),) = await store.owned(ALICE)
    assert epoch == 4


async def test_token_redrives_once_and_tells_when(store: Any) -> None:
    row = failed(store)
    key = row.first.key
    await insert(store, row)
    assert await store.redriven_by(key, "a") is None
    (claim,) = await store.redrive(ALICE, [key], "a")
    assert await store.redriven_by(key, "a") == claim.redriven_at
    assert await store.redriven_by(key, "b") is None
    assert await store.redriven_by(new_key(), "a") is None
    await end(store, key, 3)
    assert not await redrive(store, key, "a")
    assert await redrive(store, key, None)
    await end(store, key, 5)
    assert await redrive(store, key, None)


async def test_only_the_last_tokens_are_remembered(store: Any) -> None:
    row = failed(store)
    key = row.first.key
    await insert(store, row)
    for n in range(TOKENS_MAX + 1):
        assert await redrive(store, key, f"t{n}")
        await end(store, key, 2 * n + 3)
    assert await store.redriven_by(key, "t0") is None
    assert await store.redriven_by(key, "t1") is not None
    (claim,) = await store.redrive(ALICE, [key], "t0")
    assert claim.redrive_count == TOKENS_MAX + 2


async def test_token_is_good_for_a_quarter_of_an_hour(database: Database, observer: Any) -> None:
    store = PostgresStore(database)
    row = failed(store)
    key = row.first.key
    await insert(store, row)
    assert await redrive(store, key, "a")
    await end(store, key, 3)
    await observer.execute(
        "update executions set redrive_times = array[now() - interval '16 minutes']"
    )
    assert await store.redriven_by(key, "a") is None
    assert await redrive(store, key, "a")


async def test_claims_of_all_kinds_tell_of_the_redrive(store: Any) -> None:
    row = failed(store)
    key = row.first.key
    await insert(store, row)
    (claim,) = await store.redrive(ALICE, [key])
    told = (1, claim.redriven_at)
    (seized,) = await store.seize(BOB, [key])
    assert (seized.redrive_count, seized.redriven_at) == told
    assert await store.let_go(key, 3, 0.0)
    async with store.transaction(200) as tx:
        ((standing, _),) = await tx.standing([key])
    assert (standing.redrive_count, standing.redriven_at) == told
    (due,) = (await store.claim_due(ALICE, 10)).claims
    assert (due.redrive_count, due.redriven_at) == told
    (rescued,) = await store.rescue(BOB, 0.0, 10)
    assert (rescued.redrive_count, rescued.redriven_at) == told


async def test_what_was_buried_keeps_its_checkpoint_and_its_mark(store: Any) -> None:
    row = execution(checkpoint(new_key()), started_at=now(store))
    key = row.first.key
    await insert(store, row)
    async with store.transaction(200) as tx:
        await tx.standing([key])
        await tx.signal([key], BOB)
    assert await store.quarantine(key, 1, 1)
    assert await store.bury(key, 1, "Engine.Unreadable", "no")
    (claim,) = await store.redrive(ALICE, [key])
    assert timeless(claim) == claimed(
        row,
        3,
        claims=0,
        is_signalled=True,
        redrive_count=1,
        redriven_at=claim.redriven_at,
    )


async def test_saved_end_keeps_what_it_is_given(store: Any) -> None:
    row = execution(checkpoint(new_key()), started_at=now(store))
    key = row.first.key
    await insert(store, row)
    at = checkpoint(
        key, 2, status=Status.ABORTED, owner=None, document=b"there", stopped_at=now(store)
    )
    async with store.transaction(200) as tx:
        await tx.save([at], [step(key, 1)])
    (claim,) = await store.redrive(ALICE, [key])
    assert (claim.checkpoint, claim.definition) == (b"there", DEFINITION)


# Map runs


async def test_map_run_is_redriven_once_for_each_count(store: Any) -> None:
    maps = store.map_runs
    await insert(store, execution(checkpoint(PARENT)))
    await maps.begin(new_run())
    assert await maps.end(RUN, Status.FAILED, 3, ALICE)
    first = await maps.redrive(RUN, 1)
    assert await maps.status(RUN) is Status.RUNNING
    assert await maps.end(RUN, Status.FAILED, 3, ALICE)
    assert await maps.redrive(RUN, 1) == first
    assert await maps.status(RUN) is Status.FAILED
    assert await maps.redrive(RUN, 2) > first
    assert await maps.of(PARENT, ALICE) == {3: Wanted(RUN, 2)}


async def test_redriven_map_run_is_not_aborted_for_what_it_was(store: Any) -> None:
    maps = store.map_runs
    await maps.begin(new_run())
    assert await maps.forsaken(10) == [Wanted(RUN, 0)]
    await maps.redrive(RUN, 1)
    assert not await maps.abort(Wanted(RUN, 0))
    assert await maps.status(RUN) is Status.RUNNING
    assert await maps.abort(Wanted(RUN, 1))
    assert await maps.forsaken(10) == [Wanted(RUN, 1)]


async def test_children_that_succeeded_or_run_are_not_forgotten(store: Any) -> None:
    run = map_run_key(STARTED, PARENT, 9)
    assert run.bucket == PARENT.bucket
    rows = [failed(store), execution(ended(new_key(), 1)), execution(checkpoint(new_key()))]
    await insert(store, *rows)
    await store.map_runs.forget([row.first.key for row in rows])
    first, last = (Key(7, type(PARENT.id)(int=n)).id for n in (0, (1 << 128) - 1))
    left = {child.id for child in await store.map_runs.children(7, first, last, 10)}
    assert left == {row.first.key.id for row in rows[1:]}
    await insert(store, rows[0])  # its name is free again
    assert len(await store.map_runs.children(7, first, last, 10)) == 3
