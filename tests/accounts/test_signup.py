"""Tests of service.accounts.signup."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from service import metrics
from service.accounts.address import identity_bucket, parse_address
from service.accounts.signup import (
    Begun,
    SignupRequest,
    Signups,
    Verification,
    asked_at,
)
from service.accounts.tokens import Tokens, UnknownToken
from service.engine.ids import bucket_of, key_of, new_id
from service.engine.ports import Effect, Overloaded, Unavailable
from tests.accounts.fakes import KEYS, NOON, FakeAccounts, FakeClock, FakeEngine, FakeRow

LINK_SECONDS_MAX = 604_800
ADA = parse_address("Ada@Example.org")
ID = new_id(NOON, identity_bucket(ADA.identity_key))
KEY = key_of(ID)
TOKENS = Tokens(KEYS)


def signups(
    engine: FakeEngine | None = None,
    accounts: FakeAccounts | None = None,
    clock: FakeClock | None = None,
    tokens: Tokens = TOKENS,
) -> Signups:
    return Signups(
        engine or FakeEngine(),
        accounts or FakeAccounts(),
        tokens,
        clock or FakeClock(),
        workflow="verification",
        link_seconds_max=LINK_SECONDS_MAX,
    )


def deciding(status: str, *, newly: bool = False) -> FakeEngine:
    return FakeEngine(decide=lambda effect: {"status": status, "newly": newly})


def counted() -> tuple[float, float]:
    signups = metrics.REGISTRY.get_sample_value("countersign_signups_total")
    verified = metrics.REGISTRY.get_sample_value("countersign_verified_total")
    assert signups is not None
    assert verified is not None
    return signups, verified


async def test_begin_starts_an_execution_named_after_the_account_together_with_its_row() -> None:
    engine = FakeEngine()
    request = SignupRequest(ADA, name="Ada", locale="de-CH", data={"plan": "pro", "n": 1})

    begun = await signups(engine).begin(request)

    key = key_of(begun.id)
    assert begun == Begun(begun.id, TOKENS.bearer_secret(begun.id))
    assert key.bucket == identity_bucket("ada@example.org")
    assert engine.started == [
        (
            "verification",
            str(begun.id),
            {"account_id": str(begun.id), "email_domain": "example.org", "locale": "de-CH"},
            key,
            (
                Effect(
                    "insert_account",
                    (
                        key.bucket,
                        begun.id,
                        "Ada@example.org",
                        "ada@example.org",
                        1,
                        "Ada",
                        "de-CH",
                        '{"plan":"pro","n":1}',
                    ),
                ),
            ),
        )
    ]


async def test_begin_without_name_and_locale_stores_nulls() -> None:
    engine = FakeEngine()

    begun = await signups(engine).begin(SignupRequest(ADA, name=None, locale=None, data={}))

    ((_, _, input, _, (effect,)),) = engine.started
    assert input == {"account_id": str(begun.id), "email_domain": "example.org", "locale": None}
    assert effect.row[-3:] == (None, None, "{}")


async def test_begin_keeps_the_visitor_out_of_the_workflow_and_the_log() -> None:
    engine = FakeEngine()
    request = SignupRequest(ADA, name="Lovelace", locale=None, data={"plan": "pro"})

    with capture_logs() as lines:
        begun = await signups(engine).begin(request)

    ((_, _, input, _, _),) = engine.started
    assert not any(word in str(input) for word in ("Ada", "ada", "Lovelace", "pro"))
    assert lines == [{"event": "signup_accepted", "account": str(begun.id), "log_level": "info"}]


async def test_two_signups_of_one_address_share_its_bucket_and_nothing_else() -> None:
    request = SignupRequest(ADA, name=None, locale=None, data={})
    service = signups()

    one, two = await service.begin(request), await service.begin(request)

    assert one.id != two.id
    assert one.secret != two.secret
    assert bucket_of(one.id) == bucket_of(two.id)


@pytest.mark.parametrize("failure", [Overloaded(), Unavailable()])
async def test_a_signup_that_is_not_stored_is_neither_counted_nor_acknowledged(
    failure: Exception,
) -> None:
    before = counted()
    request = SignupRequest(ADA, name=None, locale=None, data={})

    with capture_logs() as lines, pytest.raises(type(failure)):
        await signups(FakeEngine(failure=failure)).begin(request)

    assert (counted(), lines) == (before, [])


async def test_begin_counts_the_signup() -> None:
    before, _ = counted()

    await signups().begin(SignupRequest(ADA, name=None, locale=None, data={}))

    assert counted()[0] == before + 1


@pytest.mark.parametrize(
    ("stored", "visible"),
    [
        ("pending", "pending"),
        ("verified", "verified"),
        ("expired", "expired"),
        ("superseded", "pending"),
    ],
)
async def test_status_shows_a_superseded_signup_as_pending(stored: str, visible: str) -> None:
    accounts = FakeAccounts({KEY: FakeRow(ID, status=stored)})

    assert await signups(accounts=accounts).status(ID, TOKENS.bearer_secret(ID)) == visible


async def test_status_of_an_unknown_account_is_none() -> None:
    assert await signups().status(ID, TOKENS.bearer_secret(ID)) is None


@pytest.mark.parametrize(
    "secret",
    ["", "x" * 43, TOKENS.bearer_secret(new_id(NOON, 7)), TOKENS.link_token(ID, 1), "ä" * 43],
)
async def test_status_with_a_wrong_secret_is_none_without_a_look_at_the_account(
    secret: str,
) -> None:
    class Unread(FakeAccounts):
        async def status(self, bucket: int, id: UUID) -> str | None:
            raise AssertionError("read for a stranger")

    assert await signups(accounts=Unread()).status(ID, secret) is None


async def test_status_takes_the_secret_of_a_retired_key() -> None:
    rotated = Tokens((b"n" * 32, *KEYS))
    accounts = FakeAccounts({KEY: FakeRow(ID)})

    status = await signups(accounts=accounts, tokens=rotated).status(ID, TOKENS.bearer_secret(ID))

    assert status == "pending"


async def test_verify_decides_by_the_number_of_the_link_and_signals_the_execution() -> None:
    engine = deciding("verified", newly=True)

    verification = await signups(engine).verify(TOKENS.link_token(ID, 3))

    assert verification == Verification(ID, "verified")
    assert engine.requested == [Effect("verify_account", (KEY.bucket, ID, 3))]
    assert engine.signalled == [KEY]


@pytest.mark.parametrize("status", ["verified", "expired", "superseded"])
async def test_verify_again_answers_what_was_decided_and_signals_nobody(status: str) -> None:
    engine = deciding(status)
    before = counted()

    with capture_logs() as lines:
        verification = await signups(engine).verify(TOKENS.link_token(ID, 1))

    assert verification == Verification(ID, status)
    assert (engine.signalled, lines, counted()) == ([], [], before)


async def test_verify_counts_a_new_verification_and_how_long_it_took() -> None:
    def total() -> float:
        name = "countersign_time_to_verify_seconds_sum"
        return metrics.REGISTRY.get_sample_value(name) or 0.0

    clock = FakeClock(NOON + timedelta(seconds=90))
    (_, verified_before), total_before = counted(), total()

    with capture_logs() as lines:
        await signups(deciding("verified", newly=True), clock=clock).verify(
            TOKENS.link_token(ID, 1)
        )

    assert counted()[1] == verified_before + 1
    assert total() == pytest.approx(total_before + 90)
    assert lines == [{"event": "account_verified", "account": str(ID), "log_level": "info"}]


@pytest.mark.parametrize("token", ["", "nonsense", Tokens((b"o" * 32,)).link_token(ID, 1)])
async def test_verify_with_a_token_that_is_not_ours_asks_nobody(token: str) -> None:
    engine = deciding("verified", newly=True)

    with pytest.raises(UnknownToken):
        await signups(engine).verify(token)

    assert engine.requested == []


async def test_verify_of_an_account_that_is_no_longer_kept_is_an_unknown_token() -> None:
    with pytest.raises(UnknownToken, match="no longer kept"):
        await signups(FakeEngine(decide=lambda effect: None)).verify(TOKENS.link_token(ID, 1))


@pytest.mark.parametrize(
    ("stored", "answered"),
    [
        ("pending", "expired"),
        ("verified", "verified"),
        ("expired", "expired"),
        ("superseded", "superseded"),
    ],
)
async def test_a_link_past_its_greatest_age_decides_nothing_any_more(
    stored: str, answered: str
) -> None:
    engine = deciding("verified", newly=True)
    accounts = FakeAccounts({KEY: FakeRow(ID, status=stored)})
    late = FakeClock(asked_at(ID) + timedelta(seconds=LINK_SECONDS_MAX + 1))

    verification = await signups(engine, accounts, late).verify(TOKENS.link_token(ID, 1))

    assert verification == Verification(ID, answered)
    assert engine.requested == []


async def test_a_link_at_its_greatest_age_still_decides() -> None:
    engine = deciding("verified", newly=True)
    late = FakeClock(asked_at(ID) + timedelta(seconds=LINK_SECONDS_MAX))

    await signups(engine, clock=late).verify(TOKENS.link_token(ID, 1))

    assert engine.signalled == [KEY]


async def test_an_old_link_of_an_account_that_is_no_longer_kept_is_an_unknown_token() -> None:
    late = FakeClock(NOON + timedelta(days=60))

    with pytest.raises(UnknownToken, match="no longer kept"):
        await signups(clock=late).verify(TOKENS.link_token(ID, 1))


def test_an_id_says_when_the_signup_was_made() -> None:
    moment = NOON + timedelta(milliseconds=123)

    assert asked_at(new_id(moment, 255)) == moment
