"""What the account effects decide, in both stores alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.engine.ports import Effect, Key
from tests.store.factories import (
    DATA,
    delete_account,
    get_account,
    insert_account,
    new_key,
    verify_account,
)

VERIFIED = {"status": "verified", "newly": True}
VERIFIED_BEFORE = {"status": "verified", "newly": False}
SUPERSEDED = {"status": "superseded", "newly": False}
EXPIRED = {"status": "expired", "newly": False}


async def apply(store: Any, *effects: Effect) -> list[Mapping[str, Any] | None]:
    """Return the rows of effects in one batch, without their ordinals, which are checked here."""
    async with store.transaction(200) as tx:
        rows = await tx.apply(effects)
    assert [row is None or row["ordinal"] == n for n, row in enumerate(rows)] == [True] * len(rows)
    return [row and {name: row[name] for name in row.keys() - {"ordinal"}} for row in rows]


async def status(store: Any, key: Key) -> str | None:
    (row,) = await apply(store, get_account(key))
    return row and row["status"]


@pytest.fixture
async def key(store: Any) -> Key:
    """Return the key of a pending account."""
    key = new_key()
    await apply(store, insert_account(key))
    return key


async def test_inserted_account_is_pending(store: Any) -> None:
    key = new_key()
    assert await apply(store, insert_account(key)) == [{"id": key.id}]
    assert await apply(store, get_account(key)) == [
        {"status": "pending", "data": DATA, "verified": False}
    ]


async def test_account_inserted_again_stays_as_it_is(store: Any, key: Key) -> None:
    await apply(store, verify_account(key))
    assert await apply(store, insert_account(key)) == [{"id": key.id}]
    assert await status(store, key) == "verified"


async def test_followed_link_verifies_once(store: Any, key: Key) -> None:
    assert await apply(store, verify_account(key)) == [VERIFIED]
    assert await apply(store, verify_account(key)) == [VERIFIED_BEFORE]
    assert await apply(store, get_account(key)) == [
        {"status": "verified", "data": DATA, "verified": True}
    ]


async def test_followed_link_twice_in_one_batch_verifies_once(store: Any, key: Key) -> None:
    assert await apply(store, verify_account(key), verify_account(key)) == [
        VERIFIED,
        VERIFIED_BEFORE,
    ]


@pytest.mark.parametrize("n", [-1, 0, 2, 2_000_000_000])
async def test_link_that_was_never_sent_decides_nothing(store: Any, key: Key, n: int) -> None:
    assert await apply(store, verify_account(key, n)) == [EXPIRED]
    assert await status(store, key) == "pending"


async def test_dead_link_beside_a_live_one_takes_its_outcome(store: Any, key: Key) -> None:
    assert await apply(store, verify_account(key, 9), verify_account(key)) == [
        VERIFIED_BEFORE,
        VERIFIED,
    ]


async def test_one_of_an_address_wins_and_its_rivals_are_superseded(store: Any, key: Key) -> None:
    rival, bystander = new_key(), new_key()
    await apply(store, insert_account(rival), insert_account(bystander))
    assert await apply(store, verify_account(key), verify_account(rival)) == [VERIFIED, SUPERSEDED]
    assert await status(store, bystander) == "superseded"
    assert await apply(store, verify_account(bystander)) == [SUPERSEDED]


async def test_signup_for_an_owned_address_is_superseded_by_its_link(store: Any, key: Key) -> None:
    await apply(store, verify_account(key))
    late = new_key()
    await apply(store, insert_account(late))
    assert await status(store, late) == "pending"
    assert await apply(store, verify_account(late)) == [SUPERSEDED]
    assert await status(store, late) == "superseded"
    assert await status(store, key) == "verified"


async def test_other_addresses_are_left_alone(store: Any, key: Key) -> None:
    other, elsewhere = new_key(), new_key(8)
    await apply(store, insert_account(other, "bob@example.org"), insert_account(elsewhere))
    await apply(store, verify_account(key))
    assert [await status(store, k) for k in (other, elsewhere)] == ["pending", "pending"]


async def test_two_hundred_verify_in_one_batch(store: Any) -> None:
    keys = [new_key(n % 5) for n in range(200)]
    await apply(store, *(insert_account(k, f"{n}@example.org") for n, k in enumerate(keys)))
    assert await apply(store, *map(verify_account, keys)) == [VERIFIED] * 200


async def test_unverified_account_is_deleted_once(store: Any, key: Key) -> None:
    assert await apply(store, delete_account(key)) == [{"deleted": True, "status": "expired"}]
    assert await apply(store, delete_account(key)) == [{"deleted": False, "status": "expired"}]
    assert await apply(store, get_account(key)) == [
        {"status": "expired", "data": None, "verified": False}
    ]
    assert await apply(store, verify_account(key)) == [EXPIRED]


async def test_account_deleted_twice_in_one_batch_is_deleted_once(store: Any, key: Key) -> None:
    assert await apply(store, delete_account(key), delete_account(key)) == [
        {"deleted": True, "status": "expired"},
        {"deleted": False, "status": "expired"},
    ]


async def test_superseded_account_is_deleted(store: Any, key: Key) -> None:
    rival = new_key()
    await apply(store, insert_account(rival))
    await apply(store, verify_account(key))
    assert await apply(store, delete_account(rival)) == [{"deleted": True, "status": "expired"}]


async def test_verified_account_is_never_deleted(store: Any, key: Key) -> None:
    await apply(store, verify_account(key))
    assert await apply(store, delete_account(key)) == [{"deleted": False, "status": "verified"}]
    assert await status(store, key) == "verified"


async def test_deletion_in_the_batch_of_the_verification_comes_first(store: Any, key: Key) -> None:
    assert await apply(store, verify_account(key), delete_account(key)) == [
        EXPIRED,
        {"deleted": True, "status": "expired"},
    ]


async def test_freed_address_can_be_verified_by_another(store: Any, key: Key) -> None:
    await apply(store, delete_account(key))
    again = new_key()
    await apply(store, insert_account(again))
    assert await apply(store, verify_account(again)) == [VERIFIED]


async def test_unknown_account_has_no_row(store: Any) -> None:
    key = new_key()
    effects = [verify_account(key), get_account(key), delete_account(key)]
    assert await apply(store, *effects) == [None, None, None]


async def test_each_effect_gets_its_own_row(store: Any) -> None:
    keys = [new_key() for _ in range(3)]
    await apply(store, *(insert_account(k, f"{k.id}@example.org") for k in keys))
    await apply(store, verify_account(keys[1]), delete_account(keys[2]))
    rows = await apply(store, *map(get_account, reversed(keys)), get_account(new_key()))
    assert [row and row["status"] for row in rows] == ["expired", "verified", "pending", None]


async def test_effects_share_their_transaction(store: Any, key: Key) -> None:
    async def fail() -> None:
        async with store.transaction(200) as tx:
            await tx.apply([verify_account(key), insert_account(new_key(), "x@example.org")])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await status(store, key) == "pending"
    assert await apply(store, verify_account(key)) == [VERIFIED]


async def test_unknown_statement_is_a_mistake_of_the_caller(store: Any) -> None:
    with pytest.raises(KeyError):
        await apply(store, Effect("no_such_statement", ()))


async def test_no_effects_need_no_statement(store: Any) -> None:
    assert await apply(store) == []
