"""What the engine may rely on, of both stores alike: see `engine.ports`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from service.asl import Status
from service.engine.ports import Claim, Effect, Key, NewExecution, Rejected, Signalling
from tests.store.factories import (
    ALICE,
    BOB,
    FAR_OFF,
    LONG_AGO,
    checkpoint,
    claimed,
    delete_account,
    ended,
    execution,
    get_account,
    insert_account,
    later,
    new_key,
    resting,
    step,
    timeless,
)


async def insert(store: Any, *rows: NewExecution) -> set[Key]:
    async with store.transaction(200) as tx:
        return set(await tx.insert(rows))


async def lock(store: Any, *fences: tuple[Key, int]) -> dict[Key, bool]:
    async with store.transaction(200) as tx:
        return dict(await tx.lock(fences))


async def save(store: Any, *rows: Any, history: Sequence[Any] = ()) -> set[Key]:
    async with store.transaction(200) as tx:
        return set(await tx.save(rows, history))


async def signal(store: Any, *keys: Key, owner: Any = ALICE) -> list[Signalling]:
    async with store.transaction(200) as tx:
        standing = await tx.standing(keys)
        found = await tx.signal([each.claim.key for each in standing], owner)
    return [Signalling(s.key, s.owner, timeless(s.claim)) for s in found]


def same(claims: Sequence[Claim]) -> list[Claim | None]:
    return [timeless(claim) for claim in claims]


# Starting


async def test_inserted_execution_is_its_owners(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    assert await insert(store, row) == {row.first.key}
    assert await store.owned(ALICE) == [(row.first.key, 1)]
    assert same(await store.claim_owned(ALICE, [row.first.key])) == [claimed(row, 1, claims=0)]
    assert await store.claim_owned(BOB, [row.first.key]) == []


async def test_execution_inserted_at_rest_is_claimed_when_due(store: Any) -> None:
    row = execution(resting(new_key()))
    await insert(store, row)
    assert await store.owned(ALICE) == []
    assert same((await store.claim_due(BOB, 10)).claims) == [claimed(row, 2)]


async def test_execution_may_be_inserted_already_ended(store: Any) -> None:
    row = execution(ended(new_key(), 1))
    assert await insert(store, row) == {row.first.key}
    assert await lock(store, (row.first.key, 1)) == {}
    assert (await store.claim_due(BOB, 10)).claims == []


async def test_taken_name_is_left_out_and_its_neighbours_are_not(store: Any) -> None:
    first = execution(checkpoint(new_key()), name="taken")
    await insert(store, first)
    second = execution(checkpoint(new_key()), name="taken")
    third = execution(checkpoint(new_key()), name="free")
    assert await insert(store, second, third) == {third.first.key}
    assert await store.claim_owned(ALICE, [second.first.key]) == []


async def test_one_batch_gives_a_name_once(store: Any) -> None:
    rows = [execution(checkpoint(new_key()), name="taken") for _ in range(2)]
    standing = await insert(store, *rows)
    assert len(standing) == 1
    assert standing < {row.first.key for row in rows}


async def test_a_name_is_free_for_another_machine(store: Any) -> None:
    rows = [execution(checkpoint(new_key()), name="n", machine=machine) for machine in "ab"]
    assert await insert(store, *rows) == {row.first.key for row in rows}


async def test_start_whose_commit_was_in_doubt_stands(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    other = execution(checkpoint(new_key()))
    async with store.transaction(200) as tx:
        assert await tx.insert([row, other]) == {row.first.key: False, other.first.key: True}


async def test_start_in_doubt_stands_whoever_has_gone_on_with_it(store: Any) -> None:
    row = execution(resting(new_key()))
    await insert(store, row)
    await store.claim_due(BOB, 10)
    async with store.transaction(200) as tx:
        assert set(await tx.insert([row])) == {row.first.key}
        await tx.save([checkpoint(row.first.key, 2, document=b"late")], [])
    assert same(await store.claim_owned(BOB, [row.first.key])) == [claimed(row, 2)]


# The fence


async def test_lock_holds_only_what_stands_at_its_epoch(store: Any) -> None:
    rows = [execution(checkpoint(new_key())) for _ in range(3)]
    await insert(store, *rows)
    keys = [row.first.key for row in rows]
    await save(store, ended(keys[1], 2))
    fences = [(keys[0], 1), (keys[1], 2), (keys[2], 2), (new_key(), 1)]
    assert await lock(store, *fences) == {keys[0]: False}


async def test_save_replaces_the_whole_checkpoint(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    await save(store, checkpoint(row.first.key, 2, document=b"next"))
    expected = claimed(row, 2, claims=0, checkpoint=b"next")
    assert same(await store.claim_owned(ALICE, [row.first.key])) == [expected]


async def test_save_clears_signal_claims_and_quarantine(store: Any) -> None:
    row = execution(resting(new_key()))
    await insert(store, row)
    await store.claim_due(ALICE, 1)
    await store.quarantine(row.first.key, 2, 1)
    await signal(store, row.first.key)
    await save(store, replace(checkpoint(row.first.key, 3), was_signalled=True))
    assert same(await store.claim_owned(ALICE, [row.first.key])) == [claimed(row, 3, claims=0)]


async def test_save_is_refused_to_whoever_does_not_know_the_row_as_it_is(store: Any) -> None:
    rows = [execution(checkpoint(new_key())) for _ in range(4)]
    await insert(store, *rows)
    known, fenced, signalled, spent = [row.first.key for row in rows]
    await store.seize(BOB, [fenced])
    await signal(store, signalled)
    await save(store, ended(spent, 2))
    steps = [checkpoint(key, 2, document=b"next") for key in (fenced, known, signalled, spent)]
    history = [step(row.key, 7) for row in steps]
    assert await save(store, *steps, history=history) == {fenced, signalled, spent}
    assert [await store.read_history(row.key) for row in steps] == [[], [b"events"], [], []]
    assert await store.owned(BOB) == [(fenced, 2)]
    assert sorted(await store.owned(ALICE)) == sorted([(known, 2), (signalled, 1)])
    marked = replace(checkpoint(signalled, 2), was_signalled=True)
    assert await save(store, marked, history=[step(signalled, 7)]) == set()
    assert await store.read_history(signalled) == [b"events"]


async def test_failed_transaction_leaves_nothing(store: Any) -> None:
    row, other = execution(checkpoint(new_key())), execution(checkpoint(new_key()))
    await insert(store, row)

    async def fail() -> None:
        async with store.transaction(200) as tx:
            await tx.insert([other])
            await tx.lock([(row.first.key, 1)])
            await tx.save([checkpoint(row.first.key, 2)], [step(row.first.key, 1)])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await store.owned(ALICE) == [(row.first.key, 1)]
    assert await store.read_history(row.first.key) == []


@pytest.mark.parametrize("text", ['"a\0b"', '"\ud800"'])
async def test_text_that_has_no_encoding_is_rejected(store: Any, text: str) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    with pytest.raises(Rejected):
        await save(store, ended(row.first.key, 2), checkpoint(new_key(), 2, output=text))
    with pytest.raises(Rejected):
        await insert(store, execution(checkpoint(new_key()), input=text))
    with pytest.raises(Rejected):
        async with store.transaction(200) as tx:
            await tx.apply([Effect("insert_account", (*new_key(), text, "k", 1, None, None, "{}"))])
    assert await store.owned(ALICE) == [(row.first.key, 1)]


# History


async def test_history_is_read_in_order_and_written_once(store: Any) -> None:
    key, other = new_key(), new_key()
    rows = [execution(checkpoint(k), history=step(k, 1, b"a")) for k in (key, other)]
    await insert(store, *rows)
    history = [step(key, 10, b"c"), step(other, 2, b"x")]
    await save(store, checkpoint(key, 2), checkpoint(other, 2), history=history)
    with pytest.raises(Rejected):
        await save(store, checkpoint(key, 3), history=[step(key, 10, b"again")])
    await save(store, checkpoint(key, 3), history=[step(key, 2, b"b")])
    assert await store.read_history(key) == [b"a", b"b", b"c"]
    assert await store.read_history(other) == [b"a", b"x"]


@pytest.mark.parametrize("is_all", [True, False])
async def test_history_and_effects_of_a_start_are_there_with_it_or_not_at_all(
    store: Any, is_all: bool
) -> None:
    keys = [new_key() for _ in range(3)]
    taken = execution(checkpoint(new_key()), name="taken")
    await insert(store, taken)
    first, second, third = (
        execution(checkpoint(key), history=step(key, 1), effects=[insert_account(key)])
        for key in keys
    )
    async with store.transaction(200) as tx:
        assert await tx.insert([first], is_all=is_all) == {keys[0]: True}
    rows = [first, second, replace(third, name="taken", machine=taken.machine)]
    async with store.transaction(200) as tx:
        standing = await tx.insert(rows, is_all=is_all)
    assert standing == {keys[0]: False, keys[1]: True}
    history = [await store.read_history(key) for key in keys]
    assert history == [[b"events"], [b"events"], []]
    async with store.transaction(200) as tx:
        accounts = await tx.apply([get_account(key) for key in keys])
    assert [account and account["status"] for account in accounts] == ["pending", "pending", None]


async def test_effects_of_a_start_may_be_of_any_kind(store: Any) -> None:
    key, other = new_key(), new_key()
    deleting = execution(checkpoint(other), effects=[delete_account(key)])
    for row in (execution(checkpoint(key), effects=[insert_account(key)]), deleting):
        async with store.transaction(200) as tx:
            assert await tx.insert([row], is_all=True) == {row.first.key: True}
    apart = execution(checkpoint(new_key()), effects=[insert_account(other)])
    async with store.transaction(200) as tx:
        assert await tx.insert([deleting, apart], is_all=True) == {
            other: False,
            apart.first.key: True,
        }
    async with store.transaction(200) as tx:
        accounts = await tx.apply([get_account(k) for k in (key, other)])
    assert [account and account["status"] for account in accounts] == ["expired", "pending"]


async def test_start_whose_effect_is_refused_is_none(store: Any) -> None:
    key = new_key()
    effect = Effect("insert_account", (*key, "a\0", "k", 1, None, None, "{}"))
    with pytest.raises(Rejected):
        async with store.transaction(200) as tx:
            await tx.insert([execution(checkpoint(key), effects=[effect])], is_all=True)
    assert await store.owned(ALICE) == []


# Timers


async def test_claims_come_earliest_first_and_within_the_limit(store: Any) -> None:
    rows = [execution(resting(new_key(), due_at=later(LONG_AGO, -n))) for n in range(5)]
    await insert(store, *rows)
    assert same((await store.claim_due(BOB, 2)).claims) == [
        claimed(rows[4], 2),
        claimed(rows[3], 2),
    ]
    assert same((await store.claim_due(BOB, 0)).claims) == []
    assert len((await store.claim_due(BOB, 10)).claims) == 3


async def test_nothing_is_claimed_before_its_time(store: Any) -> None:
    row = execution(resting(new_key(), due_at=FAR_OFF))
    await insert(store, row)
    assert (await store.claim_due(BOB, 10)).claims == []
    assert await store.next_due() == FAR_OFF


async def test_with_the_last_of_what_is_due_comes_when_the_next_is(store: Any) -> None:
    early, late = later(FAR_OFF, -1), FAR_OFF
    at = (LONG_AGO, LONG_AGO, late, early)
    rows = [execution(resting(new_key(), due_at=due_at)) for due_at in at]
    await insert(store, *rows)
    found = [await store.claim_due(BOB, limit) for limit in (1, 2, 2)]
    assert [(len(due.claims), due.next_due) for due in found] == [(1, None), (1, early), (0, None)]


async def test_next_due_is_the_earliest_at_rest(store: Any) -> None:
    assert await store.next_due() is None
    early, late = later(FAR_OFF, -1), FAR_OFF
    await insert(
        store,
        execution(resting(new_key(), due_at=late)),
        execution(resting(new_key(), due_at=early)),
        execution(checkpoint(new_key())),
    )
    assert await store.next_due() == early


async def test_two_workers_never_claim_the_same(store: Any) -> None:
    await insert(store, *(execution(resting(new_key())) for _ in range(40)))
    dues = await asyncio.gather(*(store.claim_due(owner, 25) for owner in (ALICE, BOB) * 2))
    keys = [claim.key for due in dues for claim in due.claims]
    assert len(keys) == len(set(keys)) == 40


# Signals


async def test_what_stands_is_found_as_it_is_whoever_holds_it(store: Any) -> None:
    rows = [execution(resting(new_key(), due_at=FAR_OFF)), execution(checkpoint(new_key()))]
    over = execution(ended(new_key(), 1))
    await insert(store, *rows, over)
    keys = [row.first.key for row in rows]
    async with store.transaction(200) as tx:
        found = await tx.standing([*keys, over.first.key, new_key(), keys[0]])
        assert await tx.standing([]) == []
    expected = sorted((claimed(row, 1, claims=0), row.first.owner) for row in rows)
    assert [(timeless(each.claim), each.owner) for each in found] == expected
    assert await store.next_due() == FAR_OFF


async def test_signal_claims_what_rests(store: Any) -> None:
    row = execution(resting(new_key(), due_at=FAR_OFF))
    await insert(store, row)
    claim = claimed(row, 2, is_signalled=True)
    assert await signal(store, row.first.key) == [Signalling(row.first.key, ALICE, claim)]
    assert await store.next_due() is None


async def test_signal_marks_what_another_holds(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    assert await signal(store, row.first.key, owner=BOB) == [Signalling(row.first.key, ALICE, None)]
    assert await lock(store, (row.first.key, 1)) == {row.first.key: True}
    assert (await store.heartbeat(ALICE, 30)).signalled == [row.first.key]
    assert (await store.heartbeat(BOB, 30)).signalled == []


async def test_signal_leaves_out_the_ended_and_the_unknown(store: Any) -> None:
    row = execution(ended(new_key(), 1))
    await insert(store, row)
    assert await signal(store, row.first.key, new_key()) == []


async def test_signal_of_one_execution_twice_in_a_batch_is_one(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    assert await signal(store, row.first.key, row.first.key) == [
        Signalling(row.first.key, ALICE, None)
    ]


# Leases


async def test_rescue_takes_from_the_lost_and_from_nobody_else(store: Any) -> None:
    lost, held, mine = (execution(checkpoint(new_key())) for _ in range(3))
    living, me = BOB, new_key().id
    await insert(
        store,
        lost,
        execution(checkpoint(held.first.key, owner=living)),
        execution(checkpoint(mine.first.key, owner=me)),
        execution(resting(new_key())),
        execution(ended(new_key(), 1)),
    )
    await store.heartbeat(living, 30)
    assert same(await store.rescue(me, 30, 10)) == [claimed(lost, 2)]
    assert await store.rescue(me, 30, 10) == []


async def test_rescue_waits_for_the_lease(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    await store.heartbeat(ALICE, 0)
    assert await store.rescue(BOB, 30, 10) == []
    assert same(await store.rescue(BOB, 0, 10)) == [claimed(row, 2)]


async def test_rescue_honours_a_longer_lease_than_its_own(store: Any) -> None:
    await insert(store, execution(checkpoint(new_key())))
    await store.heartbeat(ALICE, 30)
    assert await store.rescue(BOB, 0, 10) == []


async def test_rescue_stays_within_its_limit(store: Any) -> None:
    owners = [new_key().id for _ in range(3)]
    await insert(store, *(execution(checkpoint(new_key(), owner=o)) for o in owners * 3))
    assert len(await store.rescue(BOB, 30, 5)) == 5
    assert len(await store.rescue(BOB, 30, 5)) == 4


async def test_rescued_claims_are_counted(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    await store.rescue(BOB, 30, 1)
    assert same(await store.rescue(new_key().id, 30, 1)) == [claimed(row, 3, claims=2)]


async def test_heartbeat_tells_who_holds_anything(store: Any) -> None:
    async def told(owner: Any) -> tuple[bool, bool]:
        beat = await store.heartbeat(owner, 30)
        return beat.holds, beat.others_hold

    rest = execution(resting(new_key(), due_at=FAR_OFF))
    await insert(store, rest)
    assert [await told(owner) for owner in (ALICE, BOB)] == [(False, False), (False, False)]
    await insert(store, execution(checkpoint(new_key())))
    assert [await told(owner) for owner in (ALICE, BOB)] == [(True, False), (False, True)]
    await store.seize(BOB, [rest.first.key])
    assert [await told(owner) for owner in (ALICE, BOB)] == [(True, True), (True, True)]


async def test_heartbeat_goes_on(store: Any) -> None:
    first = await store.heartbeat(ALICE, 30)
    second = await store.heartbeat(ALICE, 30)
    assert first.now < second.now
    assert first.now.utcoffset() is not None


async def test_release_makes_everything_due_and_counts_no_death(store: Any) -> None:
    fresh, claimed_once = execution(checkpoint(new_key())), execution(resting(new_key()))
    others = execution(checkpoint(new_key(), owner=BOB))
    await insert(store, fresh, claimed_once, others)
    await store.heartbeat(BOB, 30)
    await store.claim_due(ALICE, 1)
    assert await store.release(ALICE) == 2
    assert await store.release(ALICE) == 0
    assert await lock(store, (fresh.first.key, 1), (claimed_once.first.key, 2)) == {}
    claims = (await store.claim_due(BOB, 10)).claims
    assert {(c.key, c.epoch, c.claims) for c in claims} == {
        (fresh.first.key, 3, 1),
        (claimed_once.first.key, 4, 1),
    }


async def test_released_lease_is_gone(store: Any) -> None:
    await store.heartbeat(ALICE, 30)
    await store.release(ALICE)
    await insert(store, execution(checkpoint(new_key())))
    assert len(await store.rescue(BOB, 30, 10)) == 1


# Taking over, giving back, quarantine


async def test_seize_fences_the_present_owner(store: Any) -> None:
    held, rests, over = (
        execution(checkpoint(new_key())),
        execution(resting(new_key(), due_at=FAR_OFF)),
        execution(ended(new_key(), 1)),
    )
    await insert(store, held, rests, over)
    claims = await store.seize(BOB, [row.first.key for row in (held, rests, over)])
    by_key = {claim.key: timeless(claim) for claim in claims}
    assert by_key == {row.first.key: claimed(row, 2, claims=0) for row in (held, rests)}
    assert await lock(store, (held.first.key, 1)) == {}
    assert await store.next_due() is None


async def test_let_go_comes_back_after_its_delay_with_its_count(store: Any) -> None:
    soon, late = execution(resting(new_key())), execution(resting(new_key()))
    await insert(store, soon, late)
    await store.claim_due(ALICE, 2)
    assert await store.let_go(soon.first.key, 2, 0)
    assert await store.let_go(late.first.key, 2, 3600)
    assert same((await store.claim_due(BOB, 10)).claims) == [claimed(soon, 4, claims=2)]


async def test_let_go_of_another_epoch_does_nothing(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    assert not await store.let_go(row.first.key, 2, 0)
    assert not await store.let_go(new_key(), 1, 0)
    assert await store.owned(ALICE) == [(row.first.key, 1)]


async def test_quarantine_counts_while_the_epoch_stands(store: Any) -> None:
    row = execution(checkpoint(new_key()))
    await insert(store, row)
    assert await store.quarantine(row.first.key, 1, 1)
    assert await store.quarantine(row.first.key, 1, 1)
    assert not await store.quarantine(row.first.key, 2, 1)
    assert not await store.quarantine(new_key(), 1, 1)
    expected = claimed(row, 1, claims=0, quarantined=2)
    assert same(await store.claim_owned(ALICE, [row.first.key])) == [expected]


async def test_sweep_makes_stray_rows_due(store: Any) -> None:
    rows = [execution(checkpoint(new_key(), owner=None)) for _ in range(3)]
    await insert(store, *rows, execution(ended(new_key(), 1)), execution(checkpoint(new_key())))
    assert await store.sweep(2) == 2
    assert await store.sweep(2) == 1
    assert await store.sweep(2) == 0
    assert {c.key for c in (await store.claim_due(BOB, 10)).claims} == {
        row.first.key for row in rows
    }


# Keeping and forgetting


async def test_tidy_deletes_what_closed_before_the_retention(store: Any) -> None:
    old = [execution(ended(new_key(b, at=LONG_AGO), 1, stopped_at=LONG_AGO)) for b in (0, 7, 255)]
    running = execution(resting(new_key(at=LONG_AGO), due_at=FAR_OFF))
    recent = execution(ended(new_key(at=LONG_AGO), 1, stopped_at=FAR_OFF))
    told = [replace(row, history=step(row.first.key, 1)) for row in (*old, running)]
    await insert(store, *told, recent)
    assert await store.tidy(30, 2) == 2
    assert await store.tidy(30, 2) == 1
    assert await store.tidy(30, 2) == 0
    assert [await store.read_history(row.first.key) for row in old] == [[], [], []]
    assert await store.read_history(running.first.key) == [b"events"]
    assert await insert(store, *old) == {row.first.key for row in old}
    assert await insert(store, execution(checkpoint(new_key()), name=running.name)) == set()


async def test_status_of_the_end_is_kept(store: Any) -> None:
    keys: Mapping[Status, Key] = {status: new_key() for status in Status}
    await insert(store, *(execution(checkpoint(key)) for key in keys.values()))
    await save(store, *(checkpoint(key, 2, status=status) for status, key in keys.items()))
    fences = [(key, 2) for key in keys.values()]
    assert await lock(store, *fences) == {keys[Status.RUNNING]: False}
