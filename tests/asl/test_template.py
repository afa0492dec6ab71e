"""Payload templates."""

from __future__ import annotations

import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.asl.errors import INTRINSIC_FAILURE, PARAMETER_PATH_FAILURE, ExecutionError
from service.asl.query.scope import Scope
from service.asl.query.template import TEMPLATE_DEPTH_MAX, BadTemplate, compile_template
from service.asl.values import Json

NAMES = st.sampled_from(["a", "b", "a.$", "c.$", ".$", "a.b", "$"])
TEXTS = st.sampled_from(
    ["$", "$.a", "$$.b", "$.a[*]", "$..b", "$$", "States.Array($.a, 1)", "$.a[", "States.", "x", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)


class NoRandom:
    """Random numbers that nobody may ask for."""

    def bits(self, n: int) -> int:
        raise AssertionError

    def uniform(self) -> float:
        raise AssertionError


def fill(template: Json, value: Json, context: Json = None) -> Json:
    return compile_template(template).evaluate(Scope(value, context, NoRandom()))


def problems_of(template: Json) -> tuple[tuple[str, str, str], ...]:
    with pytest.raises(BadTemplate) as caught:
        compile_template(template)
    return caught.value.problems


def test_marked_members_are_replaced_wherever_they_are() -> None:
    template: Json = {
        "flagged": True,
        "parts": {"first.$": "$.vals[0]", "last3.$": "$.vals[3:]"},
        "list": ["$.vals", {"weekday.$": "$$.DayOfWeek"}, [{"n.$": "States.ArrayLength($.vals)"}]],
        "none.$": "$.none",
    }
    value: Json = {"flagged": 7, "vals": [0, 10, 20, 30, 40, 50], "none": None}
    assert fill(template, value, {"DayOfWeek": "TUESDAY"}) == {
        "flagged": True,
        "parts": {"first": 0, "last3": [30, 40, 50]},
        "list": ["$.vals", {"weekday": "TUESDAY"}, [{"n": 6}]],
        "none": None,
    }


def test_members_keep_their_order() -> None:
    assert list(dict(fill({"b.$": "$", "a": 1, "c.$": "$"}, 0))) == ["b", "a", "c"]  # type: ignore[arg-type]


def test_only_the_last_mark_of_a_name_is_taken() -> None:
    assert fill({"a.$.$": "$", "$.b": "$"}, 1) == {"a.$": 1, "$.b": "$"}


@pytest.mark.parametrize("template", [None, 1, "$.a", [], {}, {"a": ["$.b"]}])
def test_a_template_without_marks_is_handed_out_as_it_is(template: Json) -> None:
    assert fill(template, {"a": 1}) is template


def test_constant_parts_are_shared_and_not_copied() -> None:
    constant: Json = {"big": [1, 2, 3]}
    compiled = compile_template({"constant": constant, "x.$": "$.x"})
    one, other = (compiled.evaluate(Scope({"x": x}, None, NoRandom())) for x in (1, 2))
    assert (one, other) == ({"constant": constant, "x": 1}, {"constant": constant, "x": 2})
    assert isinstance(one, dict)
    assert one["constant"] is constant


def test_a_path_that_finds_nothing_is_a_parameter_path_failure() -> None:
    with pytest.raises(ExecutionError) as caught:
        fill({"Payload": {"address.$": "$.application.address"}}, {"flagged": False})
    assert (caught.value.error, caught.value.cause) == (
        PARAMETER_PATH_FAILURE,
        "The JSONPath '$.application.address' specified for the field 'address.$' "
        "could not be found in the input '{\"flagged\":false}'",
    )


def test_an_intrinsic_that_fails_is_an_intrinsic_failure() -> None:
    with pytest.raises(ExecutionError) as caught:
        fill({"x.$": "States.ArrayLength($.a)"}, {"a": 1})
    assert (caught.value.error, caught.value.cause) == (
        INTRINSIC_FAILURE,
        "The function 'States.ArrayLength($.a)' had the following error: "
        "Argument 1 must be an array",
    )


def test_all_bad_members_are_named_with_their_places() -> None:
    rule = "must be a valid JSONPath or a valid intrinsic function call"
    problems = problems_of(
        {
            "number.$": 1,
            "deep": [{"a/b.$": "ipsum"}],
            "path.$": "$.a[",
            "call.$": "States.Nope()",
            "twice": 1,
            "twice.$": "$",
            "fine.$": "$",
        }
    )
    assert problems == (
        ("/number.$", f"The value for the field 'number.$' {rule}", "it is no string"),
        (
            "/deep/0/a~1b.$",
            f"The value for the field 'a/b.$' {rule}",
            "expected a function call such as States.UUID() (at character 1 of the call)",
        ),
        (
            "/path.$",
            f"The value for the field 'path.$' {rule}",
            "'$.a[' is not a JSONPath: a [ is never closed (at character 4)",
        ),
        (
            "/call.$",
            f"The value for the field 'call.$' {rule}",
            "there is no function States.Nope (at character 1 of the call)",
        ),
        ("/twice.$", "The object has both 'twice' and 'twice.$'", ""),
    )


def test_depth_is_bounded() -> None:
    template: Json = {"x.$": "$"}
    for _ in range(TEMPLATE_DEPTH_MAX - 1):
        template = [template]
    expected: Json = {"x": 1}
    for _ in range(TEMPLATE_DEPTH_MAX - 1):
        expected = [expected]
    assert fill(template, 1) == expected
    assert problems_of([template]) == (
        ("/0" * TEMPLATE_DEPTH_MAX, "The template is nested deeper than 100 levels", ""),
    )


@example({"a.$": "$$"}, None, None)  # a context that is no object
@given(VALUES, VALUES, VALUES)
def test_filling_touches_nothing_and_fails_only_as_the_language_says(
    template: Json, value: Json, context: Json
) -> None:
    before = copy.deepcopy((template, value, context))
    try:
        compiled = compile_template(template)
    except BadTemplate:
        return
    failed_with: str | None = None
    try:
        compiled.evaluate(Scope(value, context, NoRandom()))
    except ExecutionError as error:
        failed_with = error.error
    assert failed_with in (None, PARAMETER_PATH_FAILURE, INTRINSIC_FAILURE)
    assert (template, value, context) == before
