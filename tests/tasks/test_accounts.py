"""Tests of service.tasks.accounts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service import metrics
from service.asl import Json
from service.documents import dumps
from service.engine.ids import new_id
from service.engine.ports import Answer, Effect
from service.tasks import close_account, close_ended
from service.tasks.accounts import delete_unverified_account, get_account
from service.tasks.inputs import InvalidTaskInput
from tests.tasks.calls import ID, KEY, NOON, task

INPUT: dict[str, Json] = {"account_id": str(ID)}


def account(status: str, data: str | None = "{}") -> Mapping[str, object]:
    return {"status": status, "data": data, "verified": status == "verified"}


def expired_count() -> float:
    return metrics.REGISTRY.get_sample_value("countersign_expired_total") or 0.0


def test_get_account_asks_for_the_accounts_row() -> None:
    assert get_account(INPUT).effect(INPUT, task()) == Effect("get_account", (KEY.bucket, ID))


@pytest.mark.parametrize("status", ["pending", "superseded", "expired"])
def test_get_account_shows_an_unverified_account(status: str) -> None:
    assert get_account(INPUT).answer(account(status)) == Answer(
        {"account_id": str(ID), "status": status, "verified": False}
    )


def test_get_account_that_says_verified_acknowledges_the_signal() -> None:
    assert get_account(INPUT).answer(account("verified")) == Answer(
        {"account_id": str(ID), "status": "verified", "verified": True}, acknowledges_signal=True
    )


def test_get_account_shows_one_that_is_no_longer_kept_as_expired() -> None:
    assert get_account({**INPUT, "fields": ["data.plan"]}).answer(None) == Answer(
        {"account_id": str(ID), "status": "expired", "verified": False, "data": {"plan": None}}
    )


def test_get_account_exposes_the_named_parts_of_data_and_no_others() -> None:
    data = '{"plan":"pro","secret":1,"address":{"city":"Ulm","street":"Gasse"},"list":[1]}'
    fields: Json = ["data.plan", "data.address.city", "data.list", "data.none", "data.plan2.deep"]

    answer = get_account({**INPUT, "fields": fields}).answer(account("pending", data))

    assert answer.output == {
        "account_id": str(ID),
        "status": "pending",
        "verified": False,
        "data": {
            "plan": "pro",
            "address": {"city": "Ulm"},
            "list": [1],
            "none": None,
            "plan2": {"deep": None},
        },
    }


def test_get_account_exposes_all_of_data_when_the_flow_asks_for_it() -> None:
    answer = get_account({**INPUT, "fields": ["data"]}).answer(account("pending", '{"a":{"b":1}}'))

    assert isinstance(answer.output, dict)
    assert answer.output["data"] == {"a": {"b": 1}}


@pytest.mark.parametrize("data", ["null", "5", '"text"', "[1]", '{"a":5}', None])
def test_a_path_through_what_is_no_object_leads_to_null(data: str | None) -> None:
    answer = get_account({**INPUT, "fields": ["data.a.b"]}).answer(account("expired", data))

    assert isinstance(answer.output, dict)
    assert answer.output["data"] == {"a": {"b": None}}


names = st.text("abc", min_size=1, max_size=2)


@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(names, inner, max_size=3)),
    st.lists(
        st.lists(names, max_size=3).map(lambda path: ".".join(["data", *path])),
        max_size=4,
        unique=True,
    ),
)
def test_every_field_is_found_at_its_own_path_in_the_output(data: Json, fields: list[str]) -> None:
    assume(not any(a is not b and f"{a}.".startswith(f"{b}.") for a in fields for b in fields))
    handler = get_account({**INPUT, "fields": [*fields]})
    output = handler.answer(account("pending", dumps(data).decode())).output
    for field in fields:
        shown: Json = output
        stored: Json = {"data": data}
        for name in field.split("."):
            assert isinstance(shown, dict)
            shown = shown[name]
            stored = stored.get(name) if isinstance(stored, dict) else None
        assert shown == stored


@pytest.mark.parametrize(
    ("input", "cause"),
    [
        (None, "input: null is not an object"),
        ([], "input: an array is not an object"),
        ({}, "account_id: null is not the id of an account"),
        ({"account_id": {}}, "account_id: an object is not the id of an account"),
        ({"account_id": "ada"}, "account_id: 'ada' is not a UUID"),
        ({"fields": "data"}, "fields: 'data' is not an array of names such as data.plan"),
        ({"fields": ["data.x"] * 51}, "fields: 51 names; at most 50 are allowed"),
        ({"fields": [1]}, "fields[0]: 1 is not a text of at most 256 characters"),
        (
            {"fields": ["data." + "x" * 252]},
            f"fields[0]: 'data.{'x' * 74} is not a text of at most 256 characters",
        ),
        (
            {"fields": ["data.a", "address"]},
            "fields[1]: 'address' does not name a part of data, such as data.plan",
        ),
        (
            {"fields": ["data..a"]},
            "fields[0]: 'data..a' does not name a part of data, such as data.plan",
        ),
        ({"fields": ["data.a", "data.a.b"]}, "fields[1]: 'data.a.b' overlaps 'data.a'"),
        ({"fields": ["data.a.b", "data"]}, "fields[1]: 'data' overlaps 'data.a.b'"),
    ],
)
def test_get_account_refuses_input_naming_place_value_and_rule(input: Json, cause: str) -> None:
    if isinstance(input, dict) and "fields" in input:
        input = {"account_id": str(ID), **input}

    with pytest.raises(InvalidTaskInput) as raised:
        get_account(input)

    assert (raised.value.error, raised.value.cause) == ("InvalidTaskInput", cause)


def test_delete_asks_for_one_conditional_statement() -> None:
    handler = delete_unverified_account(INPUT)

    assert handler.effect(INPUT, task()) == Effect("delete_unverified_account", (KEY.bucket, ID))


def test_delete_answers_what_it_did() -> None:
    answer = delete_unverified_account(INPUT).answer({"deleted": True, "status": "expired"})

    assert answer == Answer({"deleted": True, "status": "expired"})


def test_an_expiry_counts_once_it_is_committed_and_only_then() -> None:
    before = expired_count()
    effect = delete_unverified_account(INPUT).effect(INPUT, task())
    assert expired_count() == before
    assert effect.committed is not None

    effect.committed({"deleted": True, "status": "expired"})
    effect.committed({"deleted": False, "status": "verified"})

    assert expired_count() == before + 1


def test_delete_that_comes_too_late_acknowledges_the_signal() -> None:
    before = expired_count()
    answer = delete_unverified_account(INPUT).answer({"deleted": False, "status": "verified"})

    assert answer == Answer({"deleted": False, "status": "verified"}, acknowledges_signal=True)
    assert expired_count() == before


@pytest.mark.parametrize("row", [None, {"deleted": False, "status": "expired"}])
def test_delete_of_what_is_gone_deletes_nothing(row: Mapping[str, object] | None) -> None:
    before = expired_count()

    assert delete_unverified_account(INPUT).answer(row) == Answer(
        {"deleted": False, "status": "expired"}
    )
    assert expired_count() == before


def test_the_end_of_a_signups_execution_decides_its_account() -> None:
    assert close_ended(str(ID), KEY) == close_account(KEY)
    assert close_account(KEY) == Effect("delete_unverified_account", (KEY.bucket, ID))


@pytest.mark.parametrize("name", ["nightly", "", str(new_id(NOON, 42)), f"{ID}-resend-1"])
def test_the_end_of_any_other_execution_decides_nothing(name: str) -> None:
    assert close_ended(name, KEY) is None
