"""A row of history gives back the very events it was made of, and says so when it cannot."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl import HistoryEvent, Json
from service.asl.history import stored
from service.documents import dumps
from service.engine.history import pack, unpack
from tests.engine.test_express import NOON

HISTORY_DEPTH = 200  # of a value, deeper than any that the language lets be

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)  # fmt: skip
EVENTS = st.lists(
    st.builds(
        HistoryEvent,
        st.integers(1, 25_000),
        st.integers(0, 25_000),
        st.datetimes(timezones=st.just(UTC)),
        st.sampled_from(["ExecutionStarted", "PassStateEntered"]),
        st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    ),
    max_size=5,
)


def entered(details: dict[str, Json] | None, at: datetime = NOON) -> HistoryEvent:
    return HistoryEvent(2, 1, at, "PassStateEntered", details)


@given(EVENTS)
def test_whatever_events_are_packed_come_out_again(events: list[HistoryEvent]) -> None:
    assert unpack(pack(events)) == events


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**64, id="beyond 64 bits"),
        pytest.param(-(10**300), id="of 300 digits"),
        pytest.param("a\ud800b", id="lone surrogate"),
        pytest.param({"\udfff": "\0"}, id="lone surrogate as a name"),
        pytest.param(1.0, id="a float that is whole"),
        pytest.param(nested(HISTORY_DEPTH), id="deep"),
    ],
)
def test_values_are_kept_as_they_are_in_a_row(value: Json) -> None:
    events = [entered({"output": value, "when": "x"}), entered(None)]
    assert repr(unpack(pack(events))) == repr(events)


def test_a_moment_is_kept_to_the_microsecond_whichever_writer_has_it() -> None:
    moments = [NOON + timedelta(microseconds=1), NOON.replace(microsecond=120_000), NOON]
    plain = [entered({"n": 1}, at) for at in moments]
    odd = [entered({"n": 2**70}, at) for at in moments]
    assert [e.timestamp for e in unpack(pack(plain))] == moments
    assert [e.timestamp for e in unpack(pack(odd))] == moments
    elsewhere = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert unpack(pack([entered(None, elsewhere)])) == [entered(None, elsewhere)]


STORED = bytes.fromhex(
    "486a40d4fe978b0606b521946d68a86b6414626804f40910814cc1d3ff20d4a000fa031cc0a4190f765f2c0045b42b82"
)


def test_a_row_that_was_stored_once_can_always_be_read() -> None:
    deleted = {"name": "Deleted", "input": {"account_id": "01"}}
    assert unpack(STORED) == [entered(deleted), entered(None)], "has the dictionary changed?"


def test_the_words_of_every_history_take_hardly_any_room() -> None:
    details = {"name": "WaitForVerification", "input": {"account_id": "01"}}
    event = HistoryEvent(7, 6, NOON, "WaitStateEntered", details)
    assert len(pack([event])) < len(zlib.compress(dumps(stored([event])))) / 2


def test_a_row_without_the_dictionary_is_read() -> None:
    events = [entered({"input": {"a": 1}}), entered(None)]
    assert unpack(zlib.compress(dumps(stored(events)))) == events


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="not compressed"),
        pytest.param(pack([entered({"a": 1})])[:-3], id="torn"),
        pytest.param(zlib.compress(b"[1"), id="no JSON"),
        pytest.param(zlib.compress(b"\xff"), id="no UTF-8"),
        pytest.param(zlib.compress(b"{}"), id="no list"),
        pytest.param(zlib.compress(b"[1]"), id="no events"),
        pytest.param(zlib.compress(b'[[1,0,"2026-01-01T00:00:00Z","X"]]'), id="a member missing"),
        pytest.param(zlib.compress(b'[[1,0,"yesterday","X",null]]'), id="no moment"),
        pytest.param(zlib.compress(b'[["1",0,"2026-01-01T00:00:00Z","X",null]]'), id="id a text"),
        pytest.param(zlib.compress(b'[[1,0,"2026-01-01T00:00:00Z","X",[]]]'), id="details a list"),
        pytest.param(zlib.compress(b"[" * 5_000 + b"]" * 5_000), id="too deep"),
    ],
)
def test_what_is_no_row_of_history_is_refused_as_such(row: bytes) -> None:
    with pytest.raises(ValueError, match="the row of history cannot be read: "):
        unpack(row)
