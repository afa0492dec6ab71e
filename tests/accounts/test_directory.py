"""Tests of service.accounts.directory."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.accounts.address import InvalidAddress
from service.accounts.directory import AccountView, BadCursor, Directory, NotPending, Page
from service.engine.ids import key_of, new_id
from service.engine.ports import Contended, Effect, Unavailable
from tests.accounts.fakes import NOON, FakeAccounts, FakeClock, FakeEngine, FakeRow

IDS = [new_id(NOON, bucket) for bucket in (3, 9, 200)]
ID = IDS[0]
KEY = key_of(ID)


def directory(engine: FakeEngine | None = None, accounts: FakeAccounts | None = None) -> Directory:
    return Directory(engine or FakeEngine(), accounts or FakeAccounts(), FakeClock())


def holding(*rows: FakeRow) -> FakeAccounts:
    return FakeAccounts({key_of(row.id): row for row in rows})


def view(id: UUID, status: str = "pending") -> AccountView:
    return AccountView(
        id=id,
        status=status,
        email="Ada@example.org",
        name="Ada",
        locale="de-CH",
        data={"plan": "pro"},
        created_at=NOON,
        decided_at=None,
    )


async def test_pages_follow_each_other_to_the_end() -> None:
    subject = directory(accounts=holding(*map(FakeRow, IDS)))

    first = await subject.list(email=None, status=None, cursor=None, limit=2)
    second = await subject.list(email=None, status=None, cursor=first.next_cursor, limit=2)

    assert first.items == [view(IDS[0]), view(IDS[1])]
    assert second == Page(items=[view(IDS[2])], next_cursor=None)


async def test_a_full_last_page_has_no_cursor() -> None:
    subject = directory(accounts=holding(*map(FakeRow, IDS)))

    page = await subject.list(email=None, status=None, cursor=None, limit=3)

    assert page == Page(items=[view(id) for id in IDS], next_cursor=None)


async def test_an_email_is_looked_up_as_ownership_sees_it() -> None:
    accounts = FakeAccounts()

    await directory(accounts=accounts).list(
        email=" ADA@Example.ORG ", status="verified", cursor=None, limit=10
    )

    assert accounts.pages == [("ada@example.org", "verified", None, 11)]


async def test_what_is_no_email_is_refused() -> None:
    with pytest.raises(InvalidAddress):
        await directory().list(email="nobody", status=None, cursor=None, limit=10)


async def test_a_cursor_leads_behind_the_last_account_shown() -> None:
    accounts = holding(*map(FakeRow, IDS))
    subject = directory(accounts=accounts)

    page = await subject.list(email=None, status=None, cursor=None, limit=1)
    await subject.list(email=None, status="pending", cursor=page.next_cursor, limit=1)

    assert accounts.pages[1] == (None, "pending", KEY, 2)


@given(st.text(max_size=30) | st.text("ABCDghij_-", min_size=22, max_size=22))
async def test_no_text_but_a_cursor_is_taken_for_one(text: str) -> None:
    accounts = FakeAccounts()
    try:
        await directory(accounts=accounts).list(email=None, status=None, cursor=text, limit=1)
    except BadCursor:
        assert accounts.pages == []
    else:
        ((_, _, after, _),) = accounts.pages
        assert after is not None
        assert len(text) == 22
        assert text[-1] in "AQgw"


async def test_get_shows_an_account_whose_person_is_gone() -> None:
    decided_at = NOON + timedelta(hours=1)
    row = FakeRow(ID, "expired", None, None, None, None, decided_at=decided_at)

    assert await directory(accounts=holding(row)).get(ID) == AccountView(
        ID, "expired", None, None, None, None, NOON, decided_at
    )


async def test_unknown_accounts_are_none() -> None:
    subject = directory()

    assert await subject.get(ID) is None
    assert await subject.verify(ID) is None
    assert await subject.get(UUID(int=0)) is None


async def test_verify_takes_the_visitors_path_with_the_newest_link() -> None:
    row = FakeRow(ID, links=4)

    def decide(effect: Effect) -> dict[str, object]:
        row.status = "verified"
        return {"status": "verified", "newly": True}

    engine = FakeEngine(decide)

    assert await directory(engine, holding(row)).verify(ID) == view(ID, "verified")
    assert engine.requested == [Effect("verify_account", (KEY.bucket, ID, 4))]
    assert engine.signalled == [KEY]


async def test_verify_of_a_verified_account_changes_nothing() -> None:
    engine = FakeEngine()

    found = await directory(engine, holding(FakeRow(ID, "verified"))).verify(ID)

    assert found == view(ID, "verified")
    assert engine.requested == []


@pytest.mark.parametrize("status", ["expired", "superseded"])
async def test_verify_of_an_account_decided_otherwise_is_refused(status: str) -> None:
    engine = FakeEngine()

    with pytest.raises(NotPending) as raised:
        await directory(engine, holding(FakeRow(ID, status))).verify(ID)

    assert raised.value.status == status
    assert engine.requested == []


async def test_verify_that_loses_the_address_meanwhile_is_refused() -> None:
    row = FakeRow(ID)

    def decide(effect: Effect) -> dict[str, object]:
        row.status = "superseded"
        return {"status": "superseded", "newly": False}

    engine = FakeEngine(decide)

    with pytest.raises(NotPending) as raised:
        await directory(engine, holding(row)).verify(ID)

    assert raised.value.status == "superseded"
    assert engine.signalled == []


async def test_erase_stops_the_execution_before_it_erases() -> None:
    steps: list[str] = []

    class Engine(FakeEngine):
        async def stop(self, *args: object, **keywords: object) -> None:
            steps.append("stop")

    class Accounts(FakeAccounts):
        async def erase(self, bucket: int, id: UUID) -> bool:
            steps.append("erase")
            return True

    assert await directory(Engine(), Accounts()).erase(ID)
    assert steps == ["stop", "erase"]


async def test_erase_names_why_the_execution_was_stopped() -> None:
    engine = FakeEngine(running={KEY})

    with capture_logs() as lines:
        assert await directory(engine, holding(FakeRow(ID))).erase(ID)

    assert engine.stopped == [(KEY, "AccountErased")]
    assert lines == [{"event": "account_erased", "account": str(ID), "log_level": "info"}]


async def test_erase_of_an_account_whose_execution_is_gone_still_erases() -> None:
    accounts = holding(FakeRow(ID, "verified"))

    assert await directory(accounts=accounts).erase(ID)
    assert accounts.erased == [KEY]


@pytest.mark.parametrize(("redriven", "is_erased"), [(2, True), (3, False)])
async def test_erase_stops_an_execution_again_that_was_redriven_meanwhile(
    redriven: int, is_erased: bool
) -> None:
    class Accounts(FakeAccounts):
        async def erase(self, bucket: int, id: UUID) -> bool:
            await super().erase(bucket, id)
            if len(self.erased) <= redriven:
                raise Contended("the execution runs")
            return True

    engine, accounts = FakeEngine(running={KEY}), Accounts()
    if is_erased:
        assert await directory(engine, accounts).erase(ID)
    else:
        with pytest.raises(Unavailable):
            await directory(engine, accounts).erase(ID)
    assert len(engine.stopped) == len(accounts.erased) == 3


async def test_erase_of_an_unknown_account_is_false_and_not_logged() -> None:
    with capture_logs() as lines:
        assert not await directory().erase(ID)

    assert lines == []
