"""Map runs and their children: what the engine may rely on, of both stores alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from service.asl import Status
from service.engine.ids import CHILDREN_MAX, child_key, map_run_key, run_of
from service.engine.map_ports import Child, NewMapRun, Wanted
from service.engine.ports import Key
from tests.store.factories import (
    ALICE,
    BOB,
    LONG_AGO,
    STARTED,
    checkpoint,
    ended,
    execution,
    new_key,
    resting,
)

PARENT = new_key()
RUN = map_run_key(STARTED, PARENT, 3)
WANTED = Wanted(RUN, 0)
LAST = child_key(RUN, CHILDREN_MAX - 1).id


def new_run(key: Key = RUN, execution: UUID = PARENT.id, command_id: int = 3) -> NewMapRun:
    return NewMapRun(key, execution, command_id, "m/each", "each", 10, 1, 2.5, STARTED)


async def insert(store: Any, *firsts: Any) -> None:
    async with store.transaction(200) as tx:
        await tx.insert([execution(first) for first in firsts])


async def test_a_run_begins_once_and_ends_once(store: Any) -> None:
    maps = store.map_runs
    await insert(store, checkpoint(PARENT))
    assert await maps.status(RUN) is None
    await maps.begin(new_run())
    await maps.begin(new_run())
    assert await maps.status(RUN) is Status.RUNNING
    assert await maps.end(RUN, Status.SUCCEEDED, 7, ALICE)
    assert not await maps.end(RUN, Status.FAILED, None, ALICE)
    assert not await maps.abort(WANTED)
    assert await maps.status(RUN) is Status.SUCCEEDED


async def test_a_run_is_ended_by_the_owner_of_its_execution_alone(store: Any) -> None:
    maps = store.map_runs
    await maps.begin(new_run())
    assert not await maps.end(RUN, Status.SUCCEEDED, 7, ALICE)  # there is no such execution
    await insert(store, checkpoint(PARENT))
    assert [claim.key for claim in await store.seize(BOB, [PARENT])] == [PARENT]
    assert not await maps.end(RUN, Status.FAILED, 7, ALICE)
    assert (await maps.status(RUN), await maps.of(PARENT, BOB)) == (Status.RUNNING, {3: WANTED})
    assert await maps.end(RUN, Status.SUCCEEDED, 7, BOB)
    assert await maps.status(RUN) is Status.SUCCEEDED


async def test_runs_of_an_execution_at_rest_are_nobodys(store: Any) -> None:
    maps = store.map_runs
    await maps.begin(new_run())
    await insert(store, resting(PARENT))
    assert (await maps.of(PARENT, ALICE), await maps.of(PARENT, BOB)) == ({}, {})
    assert not await maps.end(RUN, Status.FAILED, None, ALICE)
    assert await maps.abort(WANTED)
    assert await maps.status(RUN) is Status.ABORTED


async def test_children_are_those_of_the_range_in_the_order_of_their_numbers(store: Any) -> None:
    second, first, tenth = (child_key(RUN, index) for index in (1, 0, 9))
    stranger = map_run_key(STARTED, PARENT, 4)
    await insert(
        store,
        ended(second, 1),
        checkpoint(first),
        ended(tenth, 1),
        checkpoint(PARENT),
        checkpoint(child_key(stranger, 0)),
    )
    found = await store.map_runs.children(RUN.bucket, first.id, LAST, 10)
    assert [child.id for child in found] == [first.id, second.id, tenth.id]
    assert found[1] == Child(
        second.id, str(second.id), Status.SUCCEEDED, STARTED, STARTED, '{"n":1}', '{"done":true}',
        None, None,
    )  # fmt: skip
    assert [c.id for c in await store.map_runs.children(RUN.bucket, second.id, LAST, 1)] == [
        second.id
    ]
    keys = [first, second, tenth, child_key(RUN, 5)]
    assert await store.map_runs.ended(keys) == {second: "SUCCEEDED", tenth: "SUCCEEDED"}
    assert await store.map_runs.ended([]) == {}


async def test_running_children_are_claimed_whoever_holds_them(store: Any) -> None:
    first, second, third, fourth = (child_key(RUN, number) for number in range(4))
    await insert(
        store, checkpoint(first), ended(second, 1), checkpoint(third), checkpoint(fourth, owner=BOB)
    )
    await store.map_runs.begin(new_run())
    claims = await store.seize_children(BOB, WANTED, first.id, LAST, 2)
    assert {(claim.key, claim.epoch, claim.claims) for claim in claims} == {
        (first, 2, 0),
        (third, 2, 0),
    }
    claims = await store.seize_children(BOB, WANTED, second.id, LAST, 10)
    assert {claim.key for claim in claims} == {third, fourth}


async def test_children_of_a_run_that_was_redriven_are_not_claimed_for_a_stop_before(
    store: Any,
) -> None:
    child = child_key(RUN, 0)
    await insert(store, checkpoint(child))
    assert await store.seize_children(BOB, WANTED, child.id, LAST, 1) == []
    await store.map_runs.begin(new_run())
    await store.map_runs.redrive(RUN, 2)
    for redrives in (0, 1):
        assert await store.seize_children(BOB, Wanted(RUN, redrives), child.id, LAST, 1) == []
    for redrives in (2, 3):
        assert len(await store.seize_children(BOB, Wanted(RUN, redrives), child.id, LAST, 1)) == 1


async def test_runs_of_an_execution_are_those_under_way(store: Any) -> None:
    maps, other = store.map_runs, map_run_key(STARTED, PARENT, 4)
    await insert(store, checkpoint(PARENT))
    await maps.begin(new_run())
    await maps.begin(new_run(other, command_id=4))
    await maps.begin(new_run(map_run_key(STARTED, new_key(), 3), execution=new_key().id))
    assert await maps.of(PARENT, ALICE) == {3: WANTED, 4: Wanted(other, 0)}
    assert await maps.of(PARENT, BOB) == {}
    assert await maps.end(RUN, Status.FAILED, 1, ALICE)
    assert await maps.of(PARENT, ALICE) == {4: Wanted(other, 0)}


async def test_a_run_is_forsaken_when_its_execution_is_over_or_gone(store: Any) -> None:
    maps = store.map_runs
    alive, over, gone = new_key(), new_key(), new_key()
    await insert(store, checkpoint(alive), ended(over, 1))
    runs = {key: map_run_key(STARTED, key, 3) for key in (alive, over, gone)}
    for key, run in runs.items():
        await maps.begin(new_run(run, execution=key.id))
    assert set(await maps.forsaken(10)) == {Wanted(runs[over], 0), Wanted(runs[gone], 0)}
    assert len(await maps.forsaken(1)) == 1
    await maps.abort(Wanted(runs[over], 0))
    await maps.stopped(runs[over])
    assert await maps.forsaken(10) == [Wanted(runs[gone], 0)]


async def test_a_run_that_is_being_stopped_is_forsaken_until_its_children_are(store: Any) -> None:
    maps = store.map_runs
    await insert(store, checkpoint(PARENT))
    await maps.begin(new_run())
    await maps.stopped(RUN)  # which nobody asked for
    assert (await maps.status(RUN), await maps.forsaken(10)) == (Status.RUNNING, [])
    assert await maps.abort(WANTED)
    assert await maps.forsaken(10) == [WANTED]
    assert await maps.of(PARENT, ALICE) == {}
    await maps.stopped(RUN)
    assert (await maps.status(RUN), await maps.forsaken(10)) == (Status.ABORTED, [])


@pytest.mark.parametrize("is_aborted", [False, True])
async def test_children_are_kept_while_their_run_goes_on(store: Any, is_aborted: bool) -> None:
    child, other = (child_key(map_run_key(LONG_AGO, PARENT, n), 0) for n in (3, 4))
    await store.map_runs.begin(new_run(run_of(child)))
    await insert(
        store,
        checkpoint(PARENT),
        *(replace(ended(key, 1), stopped_at=LONG_AGO) for key in (child, other)),
    )
    assert await store.tidy(30, 10) == 1
    first, last = child_key(run_of(child), 0).id, child_key(run_of(child), CHILDREN_MAX - 1).id
    assert [c.id for c in await store.map_runs.children(child.bucket, first, last, 9)] == [child.id]
    if is_aborted:
        await store.map_runs.abort(Wanted(run_of(child), 0))
        await store.map_runs.stopped(run_of(child))
    else:
        await store.map_runs.end(run_of(child), Status.SUCCEEDED, 1, ALICE)
    assert await store.tidy(30, 10) == 1


async def test_runs_are_kept_for_the_retention(store: Any) -> None:
    maps = store.map_runs
    run = map_run_key(LONG_AGO, PARENT, 3)
    await insert(store, checkpoint(PARENT))
    await maps.begin(new_run(run))
    await maps.begin(new_run(map_run_key(LONG_AGO, PARENT, 4), command_id=4))
    await maps.end(run, Status.SUCCEEDED, 1, ALICE)
    assert await maps.tidy(1, 10) == 0
    await age(store)
    assert await maps.tidy(1, 10) == 1
    assert (await maps.status(run), list(await maps.of(PARENT, ALICE))) == (None, [4])


async def age(store: Any) -> None:
    """Have every run that ended have ended long ago."""
    rows = getattr(store.map_runs, "rows", None)
    if rows is None:
        async with store._database.transaction() as session:
            await session._connection.execute(
                "update map_runs set stopped_at = $1 where stopped_at is not null", LONG_AGO
            )
        return
    for row in rows.values():
        row.stopped_at = row.stopped_at and LONG_AGO


@pytest.mark.parametrize("index", [0, CHILDREN_MAX - 1])
def test_a_child_is_in_the_bucket_of_its_parent(index: int) -> None:
    assert child_key(RUN, index).bucket == child_key(RUN, index).id.int & 255 == PARENT.bucket
