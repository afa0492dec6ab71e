"""Values: equality, size, timestamps."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl.values import (
    NESTING_MAX,
    PAYLOAD_BYTES_MAX,
    Json,
    equal,
    exceeds,
    format_timestamp,
    parse_timestamp,
    text_of,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def nested(levels: int) -> Json:
    value: Json = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        (0, -0.0),
        (10**30, 10**30),
        ({"a": 1, "b": [None]}, {"b": [None], "a": 1.0}),
        ([[], {}], [[], {}]),
    ],
)
def test_values_that_are_the_same_json_are_equal(a: Json, b: Json) -> None:
    assert equal(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (True, 1),
        (0, False),
        ([True], [1]),
        ({"a": 1}, {"a": True}),
        (None, False),
        ("1", 1),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ({"a": 1}, {"b": 1}),
        ({}, []),
        ([], ""),
    ],
)
def test_values_that_are_different_json_are_not_equal(a: Json, b: Json) -> None:
    assert not equal(a, b)
    assert not equal(b, a)


@given(VALUES)
def test_a_value_equals_what_its_text_says(value: Json) -> None:
    assert equal(value, json.loads(text_of(value)))


def test_equality_of_deep_values_needs_no_stack() -> None:
    assert equal(nested(100_000), nested(100_000))


@given(VALUES, st.integers(min_value=-3, max_value=3))
def test_exceeds_is_exact_at_the_limit(value: Json, off_by: int) -> None:
    size = len(text_of(value).encode("utf-8", "backslashreplace"))
    assert exceeds(value, size + off_by) is (off_by < 0)


@pytest.mark.parametrize("character", ["x", "é", "🆗", "\x01", '"', "\ud800"])
def test_exceeds_counts_bytes_and_not_characters(character: str) -> None:
    written = len(json.dumps(character, ensure_ascii=False).encode("utf-8", "backslashreplace")) - 2
    fits = character * ((PAYLOAD_BYTES_MAX - 2) // written)
    assert (exceeds(fits), exceeds(fits + character)) == (False, True)


def test_exceeds_of_shared_parts_counts_each_time_they_are_written() -> None:
    value: Json = "0123456789"
    for _ in range(40):
        value = [value, value]
    assert exceeds(value)


def test_a_value_nested_too_deep_exceeds_every_limit() -> None:
    assert (exceeds(nested(NESTING_MAX)), exceeds(nested(NESTING_MAX + 1))) == (False, True)
    assert exceeds(nested(100_000))


def test_text_of_is_compact_and_leaves_characters_as_they_are() -> None:
    assert text_of({"a": [1, 1.5, None, True], "é": "🆗"}) == '{"a":[1,1.5,null,true],"é":"🆗"}'


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2016-03-14T01:59:00Z", datetime(2016, 3, 14, 1, 59, tzinfo=UTC)),
        ("2012-10-09T19:00:55+01:00", datetime(2012, 10, 9, 18, 0, 55, tzinfo=UTC)),
        ("2016-03-14T01:59:00.5-00:30", datetime(2016, 3, 14, 2, 29, 0, 500_000, tzinfo=UTC)),
        ("2016-03-05T21:29:29.243167252Z", datetime(2016, 3, 5, 21, 29, 29, 243_167, tzinfo=UTC)),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_timestamps_are_read_in_utc(text: str, moment: datetime) -> None:
    parsed = parse_timestamp(text)
    assert (parsed, parsed.tzinfo) == (moment, UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2016-12-05",
        "2016-12-05 21:29:29Z",
        "2016-12-05t21:29:29Z",
        "2016-12-05T21:29:29z",
        "2016-12-05T21:29:29",
        "2016-12-05T21:29Z",
        "2016-12-05T21:29:29.Z",
        "2016-12-05T21:29:29.0123456789Z",
        "2016-12-05T21:29:29+0100",
        "2016-12-05T21:29:29Z\n",
        "05-12-2016T21:29:29Z",
        "\u0662016-12-05T21:29:29Z",
    ],
)
def test_what_is_no_rfc_3339_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an RFC 3339 timestamp"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    "text",
    [
        "2016-13-05T21:29:29Z",
        "2023-02-29T00:00:00Z",
        "2016-12-05T25:29:29Z",
        "2016-12-31T23:59:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "2016-12-05T21:29:29+24:00",
        "2016-12-05T21:29:29+01:60",
    ],
)
def test_what_the_calendar_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a moment of the calendar"):
        parse_timestamp(text)


@given(st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis takes naive bounds
def test_a_formatted_timestamp_reads_back_cut_to_milliseconds(moment: datetime) -> None:
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_timestamp(format_timestamp(moment)) == cut


def test_a_timestamp_is_formatted_in_utc_with_milliseconds() -> None:
    zone = timezone(timedelta(hours=2))
    assert format_timestamp(datetime(2026, 1, 2, 5, 4, 5, 678_999, zone)) == (
        "2026-01-02T03:04:05.678Z"
    )
