"""JSON text and values: what is read is what the standard library reads, without its lenience."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.documents import DEPTH_MAX, dumps, loads

TEXT = st.text(st.characters())  # lone surrogates among them
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
FINITE = SCALARS.filter(lambda value: not (isinstance(value, float) and math.isinf(value)))
VALUES = st.recursive(FINITE, lambda v: st.lists(v) | st.dictionaries(TEXT, v), max_leaves=30)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def exactly(value: Any) -> str:
    """Tell apart what == does not: 1 and 1.0 and True, 0.0 and -0.0."""
    return repr(value)


@given(VALUES)
def test_what_is_written_reads_as_the_standard_library_reads_its_own(value: Any) -> None:
    assert exactly(loads(dumps(value))) == exactly(json.loads(json.dumps(value)))


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_any_spelling_of_a_text_reads_the_same(
    value: Any, indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    assert exactly(loads(text)) == exactly(json.loads(text))


@given(VALUES)
def test_what_is_written_is_compact_utf8(value: Any) -> None:
    text = dumps(value).decode()
    outside_strings = re.sub(r'"(\\.|[^"\\])*"', "", text)
    assert not re.search(r"\s", outside_strings)


@given(st.binary() | st.text('[]{},:"\\ \n0123456789.eE+-nulltruefasNIy\ud800\x00', max_size=60))
def test_text_that_is_no_json_is_a_value_error(text: bytes | str) -> None:
    try:
        expected = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        with pytest.raises(ValueError, match=r"."):
            loads(text)
        return
    if "NaN" in json.dumps(expected) or "Infinity" in json.dumps(expected):
        with pytest.raises(ValueError, match=r"is not a JSON number|beyond the largest double"):
            loads(text)
    else:
        assert exactly(loads(text)) == exactly(expected)


@pytest.mark.parametrize(
    "number",
    [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**19, 10**400, 1e16, 1e-7, 5e-324, -0.0],
)
def test_numbers_survive_exactly(number: float) -> None:
    assert exactly(loads(dumps({"n": [number]}))) == exactly({"n": [number]})


def test_an_integer_beyond_64_bits_is_written_beside_a_lone_surrogate() -> None:
    assert dumps([2**64, "\ud800é"]) == b'[18446744073709551616,"\\ud800\xc3\xa9"]'


def test_a_repeated_key_keeps_its_last_value() -> None:
    assert loads(b'{"a": 1, "b": 2, "a": 3}') == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e400", "1e400 is beyond the largest double, 1.8e308"),
        ("-1e400", "-1e400 is beyond the largest double, 1.8e308"),
        (b"\xef\xbb\xbf1", "Expecting value"),
        (b'"\xed\xa0\x80"', "can't decode byte"),
        ("1".encode("utf-16"), "can't decode byte"),
        ("9" * 5000, "4300 digits"),
        ("", "Expecting value"),
        ('"\n"', "Invalid control character"),
    ],
)
def test_refusals_name_the_rule(text: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(text)


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 255, 1100, 100_000])
@pytest.mark.parametrize("innermost", ["1", "null", str(2**70), '"\\ud800"'])
def test_nesting_has_one_bound_for_reading(levels: int, innermost: str) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {DEPTH_MAX} levels"):
        loads("[" * levels + innermost + "]" * levels)


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 255, 100_000])
def test_nesting_has_the_same_bound_for_writing(levels: int) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {DEPTH_MAX} levels"):
        dumps(nested(levels))


def test_the_deepest_value_allowed_is_read_and_written() -> None:
    assert loads(dumps(nested(DEPTH_MAX))) == nested(DEPTH_MAX)


def test_an_edge_may_set_a_narrower_bound() -> None:
    assert loads("[[1]]", depth_max=2) == [[1]]
    with pytest.raises(ValueError, match="nested deeper than 2 levels"):
        loads('{"a": [[1]]}', depth_max=2)


def test_brackets_inside_strings_are_not_nesting() -> None:
    assert loads(dumps(["[" * 1000])) == ["[" * 1000]


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], {"a": [None, -math.inf]}, [2**70, math.nan]]
)
def test_numbers_json_has_no_form_for_are_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not a JSON number|not JSON compliant"):
        dumps(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, object(), b"bytes", {1, 2}])
def test_values_json_has_no_form_for_are_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        dumps(value)
