"""Two transactions meet at one row: what each then sees, on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from service.engine.ports import Contended, Key, Signalling
from service.store import Database, PostgresStore
from service.store.executions import PostgresTransaction
from tests.store.factories import (
    ALICE,
    BOB,
    FAR_OFF,
    checkpoint,
    claimed,
    delete_account,
    ended,
    execution,
    get_account,
    insert_account,
    new_key,
    resting,
    step,
    timeless,
    verify_account,
)

PATIENT_MS = 10_000


class Meeting:
    """Two transactions, the second begun while the first is open, and made to wait for it."""

    def __init__(self, store: PostgresStore, observer: asyncpg.Connection) -> None:
        self.store = store
        self._observer = observer

    async def of(
        self,
        first: Callable[[PostgresTransaction], Awaitable[Any]],
        second: Callable[[PostgresTransaction], Awaitable[Any]],
        *,
        is_rolled_back: bool = False,
    ) -> tuple[Any, Any]:
        """Return what each did; `is_rolled_back`: the first one, once the second waits."""
        try:
            async with self.store.transaction(PATIENT_MS) as tx:
                one = await first(tx)
                waiting = asyncio.create_task(self.alone(second))
                await self.until_it_waits()
                if is_rolled_back:
                    raise LookupError
        except LookupError:
            pass
        return one, await waiting

    async def alone(self, work: Callable[[PostgresTransaction], Awaitable[Any]]) -> Any:
        async with self.store.transaction(PATIENT_MS) as tx:
            return await work(tx)

    async def until_it_waits(self) -> None:
        async with asyncio.timeout(10):
            while not await self._observer.fetchval(
                "select exists (select from pg_locks l join pg_stat_activity a using (pid)"
                " where not l.granted and a.datname = current_database())"
            ):
                pass


@pytest.fixture
def meeting(database: Database, observer: asyncpg.Connection) -> Meeting:
    return Meeting(PostgresStore(database), observer)


async def _apply(store: PostgresStore, *effects: Any) -> list[Any]:
    async with store.transaction() as tx:
        return list(await tx.apply(effects))


async def _status(store: PostgresStore, key: Key) -> str:
    (row,) = await _apply(store, get_account(key))
    assert row is not None
    return str(row["status"])


@pytest.fixture
async def key(meeting: Meeting) -> Key:
    """Return the key of a pending account."""
    key = new_key()
    await _apply(meeting.store, insert_account(key))
    return key


async def test_deletion_that_waits_for_a_verification_deletes_nothing(
    meeting: Meeting, key: Key
) -> None:
    verified, deleted = await meeting.of(
        lambda tx: tx.apply([verify_account(key)]), lambda tx: tx.apply([delete_account(key)])
    )
    assert verified == [{"ordinal": 0, "status": "verified", "newly": True}]
    assert deleted == [{"ordinal": 0, "deleted": False, "status": "verified"}]
    assert await _status(meeting.store, key) == "verified"


async def test_verification_that_waits_for_a_deletion_is_expired(
    meeting: Meeting, key: Key
) -> None:
    deleted, verified = await meeting.of(
        lambda tx: tx.apply([delete_account(key)]), lambda tx: tx.apply([verify_account(key)])
    )
    assert deleted == [{"ordinal": 0, "deleted": True, "status": "expired"}]
    assert verified == [{"ordinal": 0, "status": "expired", "newly": False}]
    again = new_key()
    await _apply(meeting.store, insert_account(again))
    assert await _apply(meeting.store, verify_account(again)) == [
        {"ordinal": 0, "status": "verified", "newly": True}
    ]


async def test_verification_goes_on_when_the_deletion_is_rolled_back(
    meeting: Meeting, key: Key
) -> None:
    _, verified = await meeting.of(
        lambda tx: tx.apply([delete_account(key)]),
        lambda tx: tx.apply([verify_account(key)]),
        is_rolled_back=True,
    )
    assert verified == [{"ordinal": 0, "status": "verified", "newly": True}]


async def test_two_verifications_of_one_address_have_one_winner(meeting: Meeting, key: Key) -> None:
    rival = new_key()
    await _apply(meeting.store, insert_account(rival))
    won, lost = await meeting.of(
        lambda tx: tx.apply([verify_account(rival)]), lambda tx: tx.apply([verify_account(key)])
    )
    assert won == [{"ordinal": 0, "status": "verified", "newly": True}]
    assert lost == [{"ordinal": 0, "status": "superseded", "newly": False}]
    assert [await _status(meeting.store, k) for k in (rival, key)] == ["verified", "superseded"]


async def test_second_of_an_address_wins_when_the_first_is_rolled_back(
    meeting: Meeting, key: Key
) -> None:
    rival = new_key()
    await _apply(meeting.store, insert_account(rival))
    _, won = await meeting.of(
        lambda tx: tx.apply([verify_account(rival)]),
        lambda tx: tx.apply([verify_account(key)]),
        is_rolled_back=True,
    )
    assert won == [{"ordinal": 0, "status": "verified", "newly": True}]
    assert [await _status(meeting.store, k) for k in (rival, key)] == ["superseded", "verified"]


async def test_rivals_are_locked_before_any_of_them_is_decided(meeting: Meeting, key: Key) -> None:
    rival = new_key()
    await _apply(meeting.store, insert_account(rival))
    async with meeting.store.transaction(PATIENT_MS) as tx:
        await tx._fetch("verify_account.lock", [0], [rival.bucket], [rival.id], [1])
        waiting = asyncio.create_task(meeting.alone(lambda tx: tx.apply([verify_account(key)])))
        await meeting.until_it_waits()
        won = await tx.apply([verify_account(rival)])
    assert won == [{"ordinal": 0, "status": "verified", "newly": True}]
    assert await waiting == [{"ordinal": 0, "status": "superseded", "newly": False}]


async def test_one_link_followed_in_two_transactions_verifies_once(
    meeting: Meeting, key: Key
) -> None:
    first, second = await meeting.of(
        lambda tx: tx.apply([verify_account(key)]), lambda tx: tx.apply([verify_account(key)])
    )
    assert first == [{"ordinal": 0, "status": "verified", "newly": True}]
    assert second == [{"ordinal": 0, "status": "verified", "newly": False}]


async def test_batches_over_the_same_addresses_never_deadlock(meeting: Meeting) -> None:
    addresses = [f"{n}@example.org" for n in range(30)]
    signups = [[new_key(n % 3) for n in range(30)] for _ in range(4)]
    for keys in signups:
        await _apply(meeting.store, *map(insert_account, keys, addresses))

    async def verify(keys: list[Key], direction: int) -> list[Any]:
        async with meeting.store.transaction(PATIENT_MS) as tx:
            return list(await tx.apply([verify_account(key) for key in keys[::direction]]))

    batches = await asyncio.gather(*(verify(k, (-1) ** n) for n, k in enumerate(signups)))
    statuses = [row["status"] for rows in batches for row in rows]
    assert {s: statuses.count(s) for s in statuses} == {"verified": 30, "superseded": 90}


async def test_fence_that_waits_for_a_checkpoint_is_too_old(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    fence = (row.first.key, 1)
    _, held = await meeting.of(
        lambda tx: tx.save([checkpoint(row.first.key, 2)], []), lambda tx: tx.lock([fence])
    )
    assert held == {}


async def test_fence_that_waits_for_a_rollback_still_stands(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    _, held = await meeting.of(
        lambda tx: tx.save([checkpoint(row.first.key, 2)], []),
        lambda tx: tx.lock([(row.first.key, 1)]),
        is_rolled_back=True,
    )
    assert held == {row.first.key: False}


async def test_fence_that_waits_for_a_signal_sees_it(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    _, held = await meeting.of(
        lambda tx: _signal(tx, row.first.key, BOB), lambda tx: tx.lock([(row.first.key, 1)])
    )
    assert held == {row.first.key: True}


async def test_signal_that_waits_for_a_checkpoint_claims_what_rests_then(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    rest = resting(row.first.key, 2, due_at=FAR_OFF)
    _, (signalling,) = await meeting.of(
        lambda tx: tx.save([rest], []), lambda tx: _signal(tx, row.first.key, BOB)
    )
    expected = claimed(row, 3, is_signalled=True)
    assert (signalling.key, signalling.owner, timeless(signalling.claim)) == (
        row.first.key,
        BOB,
        expected,
    )


async def test_signal_that_waits_for_a_claim_marks_the_new_owners(meeting: Meeting) -> None:
    row = execution(resting(new_key(), due_at=FAR_OFF))
    await _insert(meeting.store, row)
    _, signalled = await meeting.of(
        lambda tx: _signal(tx, row.first.key, ALICE), lambda tx: _signal(tx, row.first.key, BOB)
    )
    assert signalled == [Signalling(row.first.key, ALICE, None)]


async def test_signal_that_waits_for_the_end_is_left_out(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    _, signalled = await meeting.of(
        lambda tx: tx.save([ended(row.first.key, 2)], []),
        lambda tx: _signal(tx, row.first.key, BOB),
    )
    assert signalled == []


async def test_start_repeated_while_its_first_commit_is_under_way_stands(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    first, again = await meeting.of(lambda tx: tx.insert([row]), lambda tx: tx.insert([row]))
    assert (set(first), set(again)) == ({row.first.key}, {row.first.key})


async def test_name_given_while_another_start_is_under_way_is_taken(meeting: Meeting) -> None:
    rows = [execution(checkpoint(new_key()), name="taken") for _ in range(2)]
    first, second = await meeting.of(lambda tx: tx.insert(rows[:1]), lambda tx: tx.insert(rows[1:]))
    assert (set(first), set(second)) == ({rows[0].first.key}, set())


async def test_locked_row_is_given_up_in_time_and_not_claimed(
    meeting: Meeting, observer: asyncpg.Connection
) -> None:
    held, free = execution(resting(new_key())), execution(resting(new_key()))
    await _insert(meeting.store, held, free)
    async with observer.transaction():
        await observer.execute("select from executions where id = $1 for update", held.first.key.id)
        with pytest.raises(Contended, match="lock timeout"):
            async with meeting.store.transaction(25) as tx:
                await tx.lock([(held.first.key, 1), (free.first.key, 1)])
        claims = (await meeting.store.claim_due(BOB, 10)).claims
        assert [timeless(claim) for claim in claims] == [claimed(free, 2)]
    claims = (await meeting.store.claim_due(BOB, 10)).claims
    assert [timeless(claim) for claim in claims] == [claimed(held, 2)]


async def test_checkpoint_that_waits_for_a_rescue_is_refused(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    key = row.first.key
    _, refused = await meeting.of(
        lambda tx: tx.save([checkpoint(key, 2, owner=BOB)], []),
        lambda tx: tx.save([checkpoint(key, 2)], [step(key, 5)]),
    )
    assert refused == {key}
    assert await meeting.store.owned(BOB) == [(key, 2)]
    assert await meeting.store.read_history(key) == []


async def test_checkpoint_that_waits_for_a_signal_is_refused(meeting: Meeting) -> None:
    row = execution(checkpoint(new_key()))
    await _insert(meeting.store, row)
    key = row.first.key
    _, refused = await meeting.of(
        lambda tx: _signal(tx, key, BOB), lambda tx: tx.save([checkpoint(key, 2)], [step(key, 5)])
    )
    assert refused == {key}
    assert await meeting.store.owned(ALICE) == [(key, 1)]
    assert await meeting.store.read_history(key) == []


async def _signal(tx: PostgresTransaction, key: Key, owner: UUID) -> Sequence[Signalling]:
    return await tx.signal([each.claim.key for each in await tx.standing([key])], owner)


async def _insert(store: PostgresStore, *rows: Any) -> None:
    async with store.transaction() as tx:
        assert set(await tx.insert(rows)) == {row.first.key for row in rows}
