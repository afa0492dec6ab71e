"""Reads and writes of accounts beside the committer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from service.accounts.address import identity_bucket
from service.engine.ports import Contended, Effect, Key, Overloaded, Unavailable
from service.store import Accounts, Contact, Database, PostgresStore
from service.store import accounts as module
from tests.store.factories import (
    DATA,
    checkpoint,
    delete_account,
    ended,
    execution,
    insert_account,
    new_key,
    step,
    verify_account,
)

ADA = "ada@example.org"
CONTACT = Contact("Ada@example.org", ADA, "Ada", "en", "pending", 1, None)


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


@pytest.fixture
def store(database: Database) -> PostgresStore:
    return PostgresStore(database)


async def apply(store: PostgresStore, *effects: Effect) -> None:
    async with store.transaction() as tx:
        await tx.apply(effects)


async def signup(store: PostgresStore, identity_key: str = ADA) -> Key:
    key = new_key(identity_bucket(identity_key))
    await apply(store, insert_account(key, identity_key))
    return key


async def test_status_follows_what_was_decided(store: PostgresStore, accounts: Accounts) -> None:
    key = await signup(store)
    assert await accounts.status(*key) == "pending"
    await apply(store, verify_account(key))
    assert await accounts.status(*key) == "verified"
    assert await accounts.status(*new_key()) is None


# Contacts


async def test_contact_is_whom_to_write_to(store: PostgresStore, accounts: Accounts) -> None:
    key = await signup(store)
    assert await accounts.contact(key) == CONTACT
    assert await accounts.contact(new_key()) is None


async def test_contact_names_the_owner_of_the_address_unless_it_is_itself(
    store: PostgresStore, accounts: Accounts
) -> None:
    owner = await signup(store)
    await apply(store, verify_account(owner))
    late = await signup(store)
    found = [await accounts.contact(key) for key in (owner, late)]
    assert [(c.status, c.owner) for c in found if c] == [("verified", None), ("pending", owner.id)]


async def test_contact_of_a_tombstone_has_no_address(
    store: PostgresStore, accounts: Accounts
) -> None:
    key = await signup(store)
    await apply(store, delete_account(key))
    assert await accounts.contact(key) == Contact(None, None, None, None, "expired", 1, None)


class CountingDatabase:
    """A database that counts the rows asked for by each statement."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.asked: list[int] = []

    async def fetch(self, name: str, *columns: Sequence[object]) -> Any:
        self.asked.append(len(columns[0]))
        return await self._database.fetch(name, *columns)


async def test_contacts_of_one_moment_are_one_read(
    store: PostgresStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTACTS_AT_ONCE", 4)
    keys = [await signup(store, f"{n}@example.org") for n in range(6)]
    counting = CountingDatabase(database)
    accounts = Accounts(counting)  # type: ignore[arg-type]
    found = await asyncio.gather(*map(accounts.contact, [*keys, keys[0]]))
    assert [contact and contact.identity_key for contact in found] == [
        *(f"{n}@example.org" for n in range(6)),
        "0@example.org",
    ]
    assert counting.asked == [4, 2]


async def test_cancelled_caller_does_not_cost_the_others_their_contact(
    store: PostgresStore, accounts: Accounts
) -> None:
    key = await signup(store)
    first, second = (asyncio.create_task(accounts.contact(key)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == CONTACT
    assert first.cancelled()


async def test_failed_read_fails_its_callers_and_not_the_next(
    store: PostgresStore, accounts: Accounts, database: Database
) -> None:
    key = await signup(store)
    await database.close()
    failures = await asyncio.gather(
        accounts.contact(key), accounts.contact(key), return_exceptions=True
    )
    assert [type(failure) for failure in failures] == [Unavailable, Unavailable]
    await database.open()
    assert await accounts.contact(key) == CONTACT


async def test_too_many_waiting_contacts_are_refused(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTACTS_WAITING_MAX", 1)
    found = await asyncio.gather(
        accounts.contact(new_key()), accounts.contact(new_key()), return_exceptions=True
    )
    assert [type(answer) for answer in found] == [type(None), Overloaded]


async def test_notice_is_given_once_a_day(
    store: PostgresStore, accounts: Accounts, observer: asyncpg.Connection
) -> None:
    key = await signup(store)
    assert not await accounts.claim_notice(key.bucket, ADA)
    await apply(store, verify_account(key))
    claimed = await asyncio.gather(*(accounts.claim_notice(key.bucket, ADA) for _ in range(4)))
    assert sorted(claimed) == [False, False, False, True]
    await observer.execute(
        "update verified_addresses set notified_at = notified_at - interval '1 day'"
    )
    assert await accounts.claim_notice(key.bucket, ADA)


# The operator


async def test_account_is_shown_whole(store: PostgresStore, accounts: Accounts) -> None:
    key = await signup(store)
    account = await accounts.get(*key)
    assert account is not None
    assert (account.bucket, account.id, account.status, account.address, account.name) == (
        *key,
        "pending",
        "Ada@example.org",
        "Ada",
    )
    assert (account.locale, account.data, account.links, account.decided_at) == (
        "en",
        DATA,
        1,
        None,
    )
    assert await accounts.get(*new_key()) is None


async def pages(accounts: Accounts, *filters: str | None) -> list[Key]:
    """Return the keys of all pages of two."""
    found: list[Key] = []
    while True:
        page = await accounts.page(*filters, found[-1] if found else None, 2)  # type: ignore[arg-type]
        found += [Key(account.bucket, account.id) for account in page]
        if len(page) < 2:
            return found


async def test_pages_hold_each_account_once_in_the_order_of_keys(
    store: PostgresStore, accounts: Accounts
) -> None:
    keys = [await signup(store, f"{n % 4}@example.org") for n in range(9)]
    await apply(store, verify_account(keys[0]), delete_account(keys[1]))
    assert await pages(accounts, None, None) == sorted(keys)
    of_zero = sorted(keys[::4])
    assert await pages(accounts, "0@example.org", None) == of_zero
    assert await pages(accounts, "0@example.org", "superseded") == [
        key for key in of_zero if key != keys[0]
    ]
    assert await pages(accounts, None, "expired") == [keys[1]]
    assert await pages(accounts, "nobody@example.org", None) == []


async def test_erased_person_leaves_a_tombstone_and_frees_the_address(
    store: PostgresStore, accounts: Accounts, observer: asyncpg.Connection
) -> None:
    key, other = await signup(store), await signup(store, "bob@example.org")
    await apply(store, verify_account(key))
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(k)) for k in (key, other)])
        await tx.save([ended(k, 2) for k in (key, other)], [step(k, 1) for k in (key, other)])
    assert await accounts.erase(*key)
    assert await accounts.contact(key) == Contact(None, None, None, None, "expired", 1, None)
    rows = await observer.fetch("select id, input, output from executions")
    assert {row["id"]: (row["input"], row["output"]) for row in rows} == {
        key.id: ("{}", None),
        other.id: ('{"n":1}', '{"done":true}'),
    }
    assert await store.read_history(key) == []
    assert await store.read_history(other) == [b"events"]
    again = await signup(store)
    await apply(store, verify_account(again))
    assert await accounts.status(*again) == "verified"


async def test_account_whose_execution_runs_is_not_erased(
    store: PostgresStore, accounts: Accounts
) -> None:
    key = await signup(store)
    async with store.transaction() as tx:
        await tx.insert([execution(checkpoint(key))])
    with pytest.raises(Contended):
        await accounts.erase(*key)
    assert await accounts.status(*key) == "pending"


async def test_unknown_account_cannot_be_erased(accounts: Accounts) -> None:
    assert not await accounts.erase(*new_key())


async def test_tombstones_go_after_their_time(
    store: PostgresStore, accounts: Accounts, observer: asyncpg.Connection
) -> None:
    keys = [await signup(store, f"{n}@example.org") for n in range(5)]
    await apply(store, *map(delete_account, keys[:4]), verify_account(keys[4]))
    await observer.execute(
        "update accounts set decided_at = now() - interval '31 days' where id <> $1", keys[0].id
    )
    assert await accounts.tombstones(30, 2) == 2
    assert await accounts.tombstones(30, 2) == 1
    assert await accounts.tombstones(30, 2) == 0
    assert [await accounts.status(*key) for key in (keys[0], keys[4])] == ["expired", "verified"]
