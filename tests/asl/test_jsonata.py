"""JSONata as the reference evaluates it, as the service words its failures, and within bounds."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.asl.errors import CAUSE_CHARACTERS_MAX, ExecutionError
from service.asl.query.jsonata import (
    BadExpression,
    compile_expression,
    unwrap,
)
from service.asl.query.jsonata.expression import TEXT_CHARACTERS_MAX
from service.asl.share import Work
from service.asl.values import Json
from tests.asl.expressions import NOON, NOTHING, UNSUPPORTED, Numbers, evaluate, failure

# Results of the reference implementation, npm's jsonata 2.0.6, for expressions of our own. A case
# with a `reason` differs from it on purpose; what the reference answers stands beside it.
_FILE = json.loads((Path(__file__).parent / "jsonata_cases.json").read_text("utf-8"))
INPUT: Json = _FILE["input"]
CASES: list[dict[str, Any]] = _FILE["cases"]


def outcome(text: str, variables: dict[str, Json]) -> dict[str, Any]:
    """Return what an expression comes to, as the cases tell it."""
    try:
        expression = compile_expression(text)
    except BadExpression as error:
        return {"invalid": error.message.partition(":")[0]}
    try:
        return {"result": expression.evaluate(variables, NOON, Numbers(), Work(), "Output")}
    except ExecutionError as error:
        reason = (error.cause or "").partition("specified for the field 'Output' ")[2]
    if reason == NOTHING:
        return {"undefined": True}
    if reason == UNSUPPORTED:
        return {"function": True}
    return {"error": reason.removeprefix("threw an error during evaluation. ")}


def text_of(value: Any) -> str:
    """Return JSON text, which unlike `==` tells true from 1 and 1 from 1.0."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("case", CASES, ids=[case["expression"] for case in CASES])
def test_expression_comes_to_what_the_reference_says(case: dict[str, Any]) -> None:
    expected = {
        key: value
        for key, value in case.items()
        if key in {"result", "error", "undefined", "function", "invalid"}
    }
    if "invalid" in expected:
        expected["invalid"] = expected["invalid"].partition(":")[0]
    variables: dict[str, Json] = {"states": {"input": copy.deepcopy(INPUT)}}
    assert text_of(outcome(case["expression"], variables)) == text_of(expected)
    assert text_of(variables["states"]) == text_of({"input": INPUT})


def test_differences_from_the_reference_are_few_and_have_a_reason() -> None:
    differing = [case for case in CASES if "reason" in case]
    assert len(CASES) >= 1000
    assert len(differing) <= 12
    for case in differing:
        ours = {key: value for key, value in case.items() if key in case["reference"]}
        assert text_of(ours) != text_of(case["reference"])


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("{% $x %}", "$x"),
        ("{%$x%}", "$x"),
        ("{%  %}", ""),
        ("{%%}", ""),
        (" {% $x %}", None),
        ("{% $x %} ", None),
        ("{% $x", None),
        ("$x %}", None),
        ("{%}", None),
        ("plain", None),
        ("", None),
    ],
)
def test_only_a_text_that_is_all_braces_holds_an_expression(text: str, inside: str | None) -> None:
    assert unwrap(text) == inside


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "S0207: Unexpected end of expression"),
        ("1 +", "S0207: Unexpected end of expression"),
        ("(1", 'S0203: Expected ")" before end of expression'),
        ("1 2", 'S0201: Syntax error: "2"'),
        ("$x ?: 1", 'S0201: Syntax error: "?:"'),
        ("$x ?? 1", 'S0201: Syntax error: "??"'),
        ("1 ! 2", 'S0204: Unknown operator: "!"'),
        ("'it\\'s'", 'S0103: Unsupported escape sequence: \\"\'"'),
        ("/* no end", "S0106: Comment has no closing tag"),
        ("1 + 2e+400", 'S0102: Number out of range: "2e+400"'),
        ("(" * 5_000, "The expression is nested too deeply"),
    ],
)
def test_text_that_is_no_expression_is_refused_with_its_code(text: str, message: str) -> None:
    with pytest.raises(BadExpression, match=f"^{re.escape(message)}$"):
        compile_expression(text)


def test_refusal_says_where_the_expression_goes_wrong() -> None:
    with pytest.raises(BadExpression) as raised:
        compile_expression("$a + )")
    assert raised.value.position == 6


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "[z-a]", "a**"])
def test_regular_expression_that_needs_backtracking_or_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(BadExpression, match="cannot be used"):
        compile_expression(f"$contains('a', /{pattern}/)")


def test_expression_that_is_too_long_is_refused() -> None:
    longest = "'" + "a" * (TEXT_CHARACTERS_MAX - 2) + "'"
    assert evaluate(longest) == "a" * (TEXT_CHARACTERS_MAX - 2)
    with pytest.raises(BadExpression, match="at most 32768 characters, not 32769"):
        compile_expression(longest + " ")


def test_expression_is_compiled_once() -> None:
    assert compile_expression("$a + 1") is compile_expression("$a + 1")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("$states.input.a", {"states"}),
        ("$a + $b.c[$d = 1]", {"a", "b", "d"}),
        ("$", set()),
        ("$$.a", set()),
        ("$sum($x)", {"x"}),
        ("$sum", set()),
        ("($x := $y; $x)", {"y"}),
        ("function($p){ $p + $q }(1)", {"q"}),
        ("$list@$l#$i.($l & $i & $o)", {"list", "o"}),
        ("$a^($b){$c: $d}", {"a", "b", "c", "d"}),
        ("$a ~> |$b|{'x': $c}, $d|", {"a", "b", "c", "d"}),
        ("$unknown(1)", {"unknown"}),
    ],
)
def test_variables_are_those_that_the_expression_does_not_bind(text: str, names: set[str]) -> None:
    assert compile_expression(text).variables == names


def test_plain_path_gives_the_value_itself_and_keeps_its_numbers() -> None:
    given: Json = {"big": 2**70, "one": 1.0, "deep": {"list": [1, None]}}
    assert text_of(evaluate("$v.big", v=given)) == "1180591620717411303424"
    assert text_of(evaluate("$v.one", v=given)) == "1.0"
    assert text_of(evaluate("$v", v=given)) == text_of(given)
    assert evaluate("$v.deep.list", v=given) == [1, None]
    assert evaluate("$v.deep.list.x = $v", v=given) is False


def test_numbers_inside_a_result_are_kept_as_given() -> None:
    given: Json = [2**70, 1.0, -0.0, 1e300]
    assert text_of(evaluate("{'all': $v}", v=given)) == text_of({"all": given})


def test_null_is_a_value_and_a_missing_variable_is_none() -> None:
    assert evaluate("$v", v=None) is None
    assert evaluate("$v.a", v={"a": None}) is None
    assert evaluate("[$v, $w]", v=None) == [None]
    assert failure("$doesNotExist") == NOTHING
    assert failure("$v.a", v={}) == NOTHING
    assert failure("$v.a.b", v={"a": None}) == NOTHING


def test_there_is_no_input_document() -> None:
    assert failure("$") == NOTHING
    assert failure("$$") == NOTHING
    assert failure("states.input", states={"input": 1}) == NOTHING


def test_variable_hides_a_function_of_its_name() -> None:
    assert evaluate("$count + 1", count=2) == 3


def test_evaluation_leaves_its_variables_as_they_were() -> None:
    given: Json = {"empty": [], "item": {"a": 1}}
    text = "($v.empty{'a': $}; $v := 2; $v.item ~> |$|{'b': 1}|; $v.empty ~> $append(1))"
    kept = {"v": copy.deepcopy(given)}
    assert compile_expression(text).evaluate(kept, NOON, Numbers(), Work(), "Output") == 1
    assert kept == {"v": given}


def test_a_transform_changes_a_copy() -> None:
    given: Json = {"a": {"b": 1}}
    changed = evaluate("$v ~> |a|{'b': 2, 'c': 3}|", v=given)
    assert changed == {"a": {"b": 2, "c": 3}}
    assert given == {"a": {"b": 1}}


def test_a_transform_leaves_what_is_not_in_its_copy() -> None:
    given: Json = {"a": {"b": 1}, "o": {"c": 2}}
    assert evaluate("$v.a ~> |$v.o|{'x': 3}, 'c'|", v=given) == {"b": 1}
    assert given == {"a": {"b": 1}, "o": {"c": 2}}


@pytest.mark.parametrize(
    "text", ["$sum", "function($x){ $x }", "{'f': $sum}", "[1, [$sum]]", "/a/", "$fn := λ($x){$x}"]
)
def test_result_that_is_or_holds_a_function_is_unsupported(text: str) -> None:
    assert failure(text) == UNSUPPORTED


@pytest.mark.parametrize(
    ("value", "described"),
    [
        ("string", "'string' for value: \"string\""),
        ({"foo": "bar"}, '\'object\' for value: {"foo":"bar"}'),
        (1, "'number' for value: 1"),
        (None, "'null' for value: null"),
        (True, "'boolean' for value: true"),
        ([1], "'array' for value: [1]"),
    ],
)
def test_unexpected_type_is_told_in_the_words_of_the_service(value: Json, described: str) -> None:
    error = compile_expression("$ItemsVar").unexpected(value, "list", "Items")
    assert (error.error, error.cause) == (
        "States.QueryEvaluationError",
        "The JSONata expression '$ItemsVar' specified for the field 'Items' returned an unexpected "
        f"result type. Expected 'list', but was {described}",
    )


def test_cause_is_cut_to_what_the_service_keeps() -> None:
    with pytest.raises(ExecutionError) as raised:
        evaluate("$error($v)", v="x" * 100_000)
    assert raised.value.cause is not None
    assert len(raised.value.cause) == CAUSE_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$partition([1,2,3,4], 2)", [[1, 2], [3, 4]]),
        ("$partition([1,2,3], 5)", [[1, 2, 3]]),
        ("$partition([], 2)", []),
        ("$partition(7, 1)", [[7]]),
        ("$range(0, 10, 3)", [0, 3, 6, 9]),
        ("$range(0, 6, 2)", [0, 2, 4, 6]),
        ("$range(3, -3, -3)", [3, 0, -3]),
        ("$range(1, 0, 1)", []),
        ("$range(0, 1, 0.25)", [0, 0.25, 0.5, 0.75, 1]),
        ("$hash('input', 'MD5')", "a43c1b0aa53a0c908810c06ab1ff3967"),
        ("$hash('input', 'SHA-1')", "140f86aae51ab9e1cda9b4254fe98a74eb54c1a1"),
        ("$length($hash('input', 'SHA-256'))", 64),
        ("$length($hash('input', 'SHA-384'))", 96),
        ("$length($hash('input', 'SHA-512'))", 128),
        ("$random(42)", 0.7275636800328681),
        ("$random(42) = $random(42)", True),
        ("$parse('{\"a\": [1, 1.5, null]}').a[1]", 1.5),
        ("$parse('1')", 1),
        ("$parse('null')", None),
    ],
)
def test_functions_of_the_service(text: str, result: Json) -> None:
    assert text_of(evaluate(text)) == text_of(result)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$partition([1], 0)", "D3137: The size of a chunk must be positive, not 0"),
        ("$range(0, 1, 0)", "D3137: The step of a range must not be 0"),
        (
            "$hash('a', 'SHA-3')",
            "D3137: 'SHA-3' is no algorithm; there are MD5, SHA-1, SHA-256, SHA-384, SHA-512",
        ),
        (
            "$random('a')",
            'T0410: Argument 1 of function "random" does not match function signature',
        ),
        ("$uuid(1)", 'T0410: Argument 1 of function "uuid" does not match function signature'),
        ("$eval('1 + 1')", "T1006: Attempted to invoke a non-function"),
    ],
)
def test_functions_of_the_service_refuse_what_they_cannot_use(text: str, reason: str) -> None:
    assert failure(text) == f"threw an error during evaluation. {reason}"


def test_text_that_is_no_json_is_not_parsed() -> None:
    assert failure("$parse('{')").startswith(
        "threw an error during evaluation. D3137: The text is not JSON: "
    )


def test_random_numbers_are_those_given() -> None:
    text = "[$random(), $uuid(), $shuffle([1..9])]"
    assert evaluate(text, seed=1) == evaluate(text, seed=1)
    assert evaluate(text, seed=1) != evaluate(text, seed=2)
    assert evaluate("$random()", seed=1) == Numbers(1).uniform()


def test_uuid_is_a_random_one() -> None:
    form = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(form, str(evaluate("$uuid()")))


def test_shuffled_array_has_the_same_items() -> None:
    assert evaluate("$sort($shuffle([1..50]))", seed=3) == list(range(1, 51))


def test_now_is_the_moment_given() -> None:
    assert evaluate("$now()") == "2026-03-14T12:00:00.123Z"
    assert evaluate("$now('[Y]/[M]/[D]')") == "2026/3/14"
    assert evaluate("$millis()") == 1773489600123
    assert evaluate("$toMillis('7', '[H]') - $toMillis('2026-03-14')") == 7 * 3_600_000


def test_deeply_nested_objects_compile_in_linear_time() -> None:
    assert evaluate("{'a': " * 60 + "1" + "}" * 60 + "." + ".".join("a" * 60)) == 1


@pytest.mark.parametrize(
    ("text", "result"),
    [("1/0", "Infinity"), ("[-1/0]", ["-Infinity"]), ("{'k': 0/0}", {"k": "NaN"})],
)
def test_number_that_json_cannot_write_becomes_text(text: str, result: Json) -> None:
    assert evaluate(text) == result


def test_half_of_a_surrogate_pair_harms_nobody() -> None:
    assert evaluate("$v & '!'", v="\ud800") == "\ud800!"
    assert evaluate("$length($v)", v="\ud800") == 1
    assert evaluate("$string([$v])", v="\ud800") == '["\\ud800"]'
    assert "D3140" in failure("$encodeUrl($v)", v="\ud800")
    assert "UnicodeEncodeError" in failure("$contains($v, /a/)", v="\ud800")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
_LEAVES = st.sampled_from(
    ["1", "-2.5", "'a'", "true", "null", "[]", "$v", "$v.a", "$v.b.c", "$v.*", "$v.**", "$w", "$",
     "function($x){ $x }", "/a/", "$sum", "[1..3]", "{'a': $v}"]
)  # fmt: skip
_FUNCTIONS = st.sampled_from(
    ["string", "length", "substring", "uppercase", "split", "join", "match", "replace", "contains",
     "number", "round", "power", "formatNumber", "formatBase", "formatInteger", "parseInteger",
     "fromMillis", "toMillis", "sum", "max", "average", "count", "append", "sort", "reverse",
     "distinct", "zip", "map", "filter", "single", "reduce", "sift", "each", "keys", "lookup",
     "spread", "merge", "type", "exists", "boolean", "not", "clone", "error", "assert", "pad",
     "base64decode", "decodeUrl", "encodeUrl", "partition", "range", "hash", "random", "parse"]
)  # fmt: skip


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(
        ["+", "-", "*", "/", "%", "&", "=", "!=", "<", ">=", "in", "and", "or", "~>", "."]
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, operators, inner),
        st.builds("${}({})".format, _FUNCTIONS, st.lists(inner, max_size=3).map(", ".join)),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({})^({})".format, inner, inner),
        st.builds("({}){{'k': {}}}".format, inner, inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("-({})".format, inner),
        st.builds("({} ~> |{}|{}, {}|)".format, inner, inner, inner, inner),
        st.builds("({}#$i.({} & $i))".format, inner, inner),
    )


@settings(max_examples=300, deadline=None)
@given(text=st.recursive(_LEAVES, _combined, max_leaves=8), value=_VALUES)
def test_generated_expression_gives_json_or_its_named_error(text: str, value: Json) -> None:
    before = text_of(value)
    result = outcome(text, {"v": value})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert text_of(value) == before


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="$av1.[](){}:;,'\"/\\*%^&|~>=<?!+-#@` \n", max_size=24))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    assert outcome(text, {"a": [1, {"v": "x"}], "v": {"a": 1}})
