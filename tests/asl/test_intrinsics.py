"""Intrinsic functions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl.errors import INTRINSIC_FAILURE, ExecutionError
from service.asl.query.functions import (
    FUNCTIONS,
    RANGE_ITEMS_MAX,
    TEXT_CHARACTERS_MAX,
)
from service.asl.query.intrinsics import (
    CALLS_MAX,
    INTRINSIC_CHARACTERS_MAX,
    parse_intrinsic,
)
from service.asl.query.scope import Scope
from service.asl.values import PAYLOAD_BYTES_MAX, Json, equal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=10,
)


class Dice:
    """Random numbers that were chosen beforehand."""

    def __init__(self, bits: int = 0, uniform: float = 0.0) -> None:
        self._bits = bits
        self._uniform = uniform

    def bits(self, n: int) -> int:
        return self._bits % 2**n

    def uniform(self) -> float:
        return self._uniform


def call(text: str, value: Json = None, context: Json = None, random: Dice | None = None) -> Json:
    return parse_intrinsic(text).evaluate(Scope(value, context, random or Dice()))


def cause_of(text: str, value: Json = None) -> str:
    """Return why a call fails."""
    with pytest.raises(ExecutionError) as caught:
        call(text, value)
    assert caught.value.error == INTRINSIC_FAILURE
    start, _, reason = str(caught.value.cause).partition(" had the following error: ")
    assert start.startswith("The function 'States.")
    return reason


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("States.Array()", []),
        ("States.Array( $.a , 'b',1,-2.5e1, true)", [[1, 2, 3], "b", 1, -25, True]),
        ("States.Array(false,null)", [False, None]),
        ("States.ArrayPartition($.a, 2)", [[1, 2], [3]]),
        ("States.ArrayPartition($.a, 1.5)", [[1, 2], [3]]),
        ("States.ArrayPartition(States.Array(), 2)", []),
        ("States.ArrayContains($.a, 2.0)", True),
        ("States.ArrayContains($.a, true)", False),
        ("States.ArrayRange(1, 9, 9)", [1]),
        ("States.ArrayRange(0, 9, 3)", [0, 3, 6, 9]),
        ("States.ArrayRange(3, 0, -1)", [3, 2, 1, 0]),
        ("States.ArrayRange(3, 0, 1)", []),
        ("States.ArrayGetItem($.a, 2)", 3),
        ("States.ArrayLength($.a)", 3),
        ("States.ArrayUnique($.repeated)", [1, True, "1", {"a": [1], "b": 2}, [True], [1]]),
        ("States.Base64Encode('Data to encode')", "RGF0YSB0byBlbmNvZGU="),
        ("States.Base64Decode('RGF0YSB0byBl\nbmNvZGU=')", "Data to encode"),
        ("States.Hash('input data', 'SHA-1')", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        ("States.Hash('input data', 'MD5')", "812f45842bc6d66ee14572ce20db8e86"),
        ("States.JsonMerge($.below, $.above, false)", {"x": {"b": 1}, "y": 1, "z": 2}),
        ("States.StringToJson('{\"a\": [1, 2]}')", {"a": [1, 2]}),
        ("States.StringToJson(' ')", None),
        ("States.JsonToString($.below)", '{"x":{"a":1},"y":1}'),
        ("States.MathAdd(1.49, -1.49)", 0),
        ("States.MathAdd(-0.5, 0.5)", 1),
        ("States.MathAdd(-1.5, -1.51)", -3),
        ("States.StringSplit('This.is+a,test', '.+,=')", ["This", "is", "a", "test"]),
        ("States.StringSplit(',,,,', ',')", []),
        ("States.StringSplit('a^b-c]d', '-]^')", ["a", "b", "c", "d"]),
        ("States.StringSplit('whole', '')", ["whole"]),
        ("States.StringSplit('', '')", []),
        ("States.Format('{} is {}, {}, {}', 'it', 1.5, true, null)", "it is 1.5, true, null"),
        ("States.Format($.pattern, 7)", r"data \{7\}"),
        ("States.Format('no blanks')", "no blanks"),
        ("States.ArrayGetItem(States.StringSplit($$.Name, '-'), States.MathAdd(1, 0))", "run"),
        ("States.ArrayLength($.a[?(@ > 1)])", 2),
        ("States.Array($.a.length(), $['a,)b'])", [3, "odd"]),
    ],
)
def test_functions_compute(text: str, result: Json) -> None:
    value: Json = {
        "a": [1, 2, 3],
        "repeated": [1, True, 1.0, "1", {"a": [1], "b": 2}, {"b": 2, "a": [1]}, [True], [1]],
        "below": {"x": {"a": 1}, "y": 1},
        "above": {"x": {"b": 1}, "z": 2},
        "pattern": r"data \{{}\}",
        "a,)b": "odd",
    }
    computed = call(text, value, {"Name": "the-run"})
    assert equal(computed, result), computed


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"States.Format('it\'s \\ \{\} and {}', 1)", r"it's \ {} and 1"),
        (r"States.Format('{ {} }', 1)", "{ 1 }"),
        (r"States.Format('{{}}', 1)", "{1}"),
        (r"States.Array('\{it\'s\}')", ["{it's}"]),
        ("States.Array('a, b) \U0001f197\n')", ["a, b) \U0001f197\n"]),
    ],
)
def test_strings_are_unescaped(text: str, result: Json) -> None:
    assert call(text) == result


def test_a_uuid_is_version_4_and_made_of_the_given_bits() -> None:
    ones = call("States.UUID()", random=Dice(bits=2**128 - 1))
    zeros = call("States.UUID()", random=Dice(bits=0))
    assert (ones, zeros) == (
        "ffffffff-ffff-4fff-bfff-ffffffffffff",
        "00000000-0000-4000-8000-000000000000",
    )


def test_a_random_number_is_from_the_start_and_below_the_end() -> None:
    text = "States.MathRandom(12.5, 44.51)"
    assert call(text, random=Dice(uniform=0.0)) == 13
    assert call(text, random=Dice(uniform=1 - 2**-53)) == 44


def test_a_seeded_random_number_is_the_same_each_time() -> None:
    draws = {seed: call(f"States.MathRandom(0, 1000000, {seed})") for seed in range(20)}
    again = {
        seed: call(f"States.MathRandom(0, 1000000, {seed})", random=Dice(uniform=0.9))
        for seed in range(20)
    }
    assert draws == again
    assert len(set(draws.values())) > 15


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "States.Array($.gone)",
            "The JsonPath argument for the field '$.gone' could not be found in the input "
            """'{"list":[1],"big":2147483648,"object":{}}'""",
        ),
        ("States.ArrayLength('a')", "Argument 1 must be an array"),
        ("States.ArrayPartition($.list, 0)", "The chunk size must be a positive integer, not 0"),
        ("States.ArrayPartition($.list, '1')", "Argument 2 must be a number"),
        ("States.ArrayPartition($.list, true)", "Argument 2 must be a number"),
        ("States.ArrayRange(0, 9, 0)", "The step of a range must not be 0"),
        ("States.ArrayRange(0, 1000, 1)", "A range may have at most 1000 items"),
        ("States.ArrayRange(0, -1e300, -1)", "A range may have at most 1000 items"),
        ("States.ArrayGetItem($.list, 1)", "There is no item 1 in an array of 1"),
        ("States.ArrayGetItem($.list, -1)", "There is no item -1 in an array of 1"),
        ("States.Base64Encode(1)", "Argument 1 must be a string"),
        (
            "States.Hash('a', 'SHA-3')",
            "The algorithm must be one of MD5, SHA-1, SHA-256, SHA-384, SHA-512",
        ),
        ("States.JsonMerge($.object, $.list, false)", "The first two arguments must be objects"),
        (
            "States.JsonMerge($.object, $.object, true)",
            "The third argument must be false: only a shallow merge is supported",
        ),
        ("States.MathRandom(2, 2)", "The start 2 must be below the end 2"),
        ("States.MathAdd($.big, 1)", "Argument 1 must be in -2147483648..2147483647"),
        ("States.Format($.list, 1)", "Invalid arguments in States.Format"),
        ("States.Format('{}', $.list)", "Invalid arguments in States.Format"),
        ("States.Format(States.Format('a'), 1)", "There are 0 {} for 1 arguments"),
    ],
)
def test_bad_arguments_fail_the_call(text: str, reason: str) -> None:
    assert cause_of(text, {"list": [1], "big": 2**31, "object": {}}) == reason


@pytest.mark.parametrize("text", ["!", "YQ", "/w=="])
def test_what_is_no_base64_of_utf_8_fails_the_call(text: str) -> None:
    assert cause_of("States.Base64Decode($)", text).startswith("The text is not Base64 of UTF-8")


@pytest.mark.parametrize("text", ["{", "NaN", "[1e400]", "'a'", "1 2", "[" * 100_000])
def test_what_is_no_json_fails_the_call(text: str) -> None:
    assert cause_of("States.StringToJson($)", text).startswith("The text is not JSON: ")


def test_an_integer_too_long_to_be_read_fails_the_call() -> None:
    assert cause_of("States.StringToJson($)", "1" * 4_001) == (
        "The text is not JSON: a number has more than 4000 characters"
    )
    assert call("States.StringToJson($)", "1" * 4_000) == int("1" * 4_000)


def test_a_text_is_split_at_any_number_of_characters() -> None:
    delimiters = "".join(map(chr, range(0x4E00, 0x9000)))
    pair = {"text": f"a{delimiters}b]c", "at": delimiters + "]"}
    assert call("States.StringSplit($.text, $.at)", pair) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["States.Base64Encode($)", "States.Hash($, 'MD5')"])
def test_half_a_surrogate_pair_fails_the_call(text: str) -> None:
    assert cause_of(text, "\ud800") == "The text has half of a surrogate pair, which has no UTF-8"


@pytest.mark.parametrize(
    "text", ["States.Base64Encode($)", "States.Base64Decode($)", "States.Hash($, 'MD5')"]
)
def test_texts_to_encode_or_hash_are_bounded(text: str) -> None:
    assert isinstance(call(text, "A" * TEXT_CHARACTERS_MAX), str)
    assert "longer than 10000 characters" in cause_of(text, "A" * (TEXT_CHARACTERS_MAX + 1))


def test_ranges_may_be_as_long_as_their_bound() -> None:
    assert call(f"States.ArrayRange(1, {RANGE_ITEMS_MAX}, 1)") == list(range(1, 1_001))


@pytest.mark.parametrize(
    "text",
    [
        "States.Array(" + ",".join(["$"] * 3_000) + ")",
        "States.Format('" + "{}" * 2_000 + "'" + ",$" * 2_000 + ")",
        "States.JsonToString(States.Array($, $))",
        "States.Hash(States.Array($, $), 'MD5')",
    ],
)
def test_results_larger_than_a_payload_fail_the_call(text: str) -> None:
    assert "larger than 262144 bytes" in cause_of(text, "x" * (PAYLOAD_BYTES_MAX - 10))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a function call"),
        ("States.Nope()", "there is no function States.Nope"),
        ("States.UUID", "expected a function call"),
        ("States.UUID(", "expected a string in single quotes"),
        ("States.UUID() ", "expected the end of the call"),
        ("States.UUID(1)", "States.UUID takes 0 arguments here, not 1"),
        ("States.Format()", "States.Format takes at least 1 arguments here, not 0"),
        ("States.Format(1)", "the first argument of States.Format must be a string"),
        ("States.Format('{} {}', 1)", "States.Format takes 2 arguments here, not 1"),
        ("States.MathRandom(1)", "States.MathRandom takes 2 to 3 arguments here, not 1"),
        ("States.Array(1 2)", "expected , or )"),
        ("States.Array(1,)", "expected a string in single quotes"),
        ("States.Array(,1)", "expected a string in single quotes"),
        ('States.Array("a")', "expected a string in single quotes"),
        ("States.Array(nope)", "expected a string in single quotes"),
        ("States.Array('a", "the string is never closed"),
        ("States.Array($.a", "expected , or )"),
        ("States.Array($-a)", "is not a JSONPath"),
        ("States.Array(1e999)", "the number is too large"),
        ("States.Array(" + "9" * 5_000 + ")", "the number is too large"),
        # Observed: CreateStateMachine refuses it.
        (r"""States.Format('He said, \"Hello, {}!\"', 'Name')""", r"\" is no escape"),
        ("States.Array('" + "a" * INTRINSIC_CHARACTERS_MAX + "')", "is longer than 10000"),
    ],
)
def test_what_is_no_call_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared below
        parse_intrinsic(text)
    assert why in str(caught.value)


def test_the_calls_of_a_field_are_bounded() -> None:
    most = "States.Array(" * CALLS_MAX + ")" * CALLS_MAX
    assert json.dumps(call(most)) == "[" * CALLS_MAX + "]" * CALLS_MAX
    with pytest.raises(ValueError, match="at most 10 calls"):
        parse_intrinsic(f"States.Array({most})")


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(VALUES, max_size=3))
def test_any_arguments_give_a_result_or_an_intrinsic_failure(
    name: str, arguments: list[Json]
) -> None:
    value: Json = {f"a{i}": argument for i, argument in enumerate(arguments)}
    before = json.dumps(value)
    try:
        intrinsic = parse_intrinsic(f"{name}({', '.join(f'$.{key}' for key in value)})")
    except ValueError:
        return
    failed_with: str | None = INTRINSIC_FAILURE
    try:
        intrinsic.evaluate(Scope(value, None, Dice(uniform=0.5)))
    except ExecutionError as error:
        failed_with = error.error
    assert (failed_with, json.dumps(value)) == (INTRINSIC_FAILURE, before)


@given(st.text())
def test_base64_and_json_texts_read_back(text: str) -> None:
    pair = call("States.Array(States.StringToJson(States.JsonToString($)), $)", text)
    assert pair == [text, text]
    if len(text.encode()) < 1_000:
        assert call("States.Base64Decode(States.Base64Encode($))", text) == text


@given(st.text(alphabet="States.Array(),'$ab{}\\ 0-1e[]", max_size=30))
def test_any_text_is_a_call_or_refused(tail: str) -> None:
    try:
        intrinsic = parse_intrinsic("States." + tail)
    except ValueError:
        return
    assert intrinsic.text == "States." + tail
