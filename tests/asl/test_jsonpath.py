"""JSONPath, as Step Functions has it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl.query.jsonpath import (
    NODES_MAX,
    PATH_CHARACTERS_MAX,
    SEARCHED_CHARACTERS_MAX,
    PathNotFound,
    PathNotSettable,
    compile_path,
)
from service.asl.values import Json

STORE: Json = {
    "books": [
        {"title": "Emma", "price": 8, "tags": ["a", "b"]},
        {"title": "Ulysses", "price": 12.5, "sold": True},
        {"title": "Dune", "price": 5, "sold": None},
    ],
    "owner": {"name": "Ann", "limit": 6},
    "delivery-partner": "UQS",
    "none": None,
}

NAMES = st.text(alphabet="ab.'\"\\ é[]$", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)
KEYS = st.lists(NAMES | st.integers(min_value=0, max_value=3), max_size=5)


def find(path: str, value: Json = STORE, context: Json = None) -> Json:
    return compile_path(path).find(value, context)


def path_of(keys: list[str | int]) -> str:
    """Write keys as a path in brackets."""
    quoted = (
        key if isinstance(key, int) else "'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'"
        for key in keys
    )
    return "$" + "".join(f"[{key}]" for key in quoted)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", STORE),
        ("$.owner.name", "Ann"),
        ("$['owner']['name']", "Ann"),
        ('$["owner"].name', "Ann"),
        ("$.['owner'][ 'name' ]", "Ann"),
        ("$.delivery-partner", "UQS"),
        ("$.none", None),
        ("$.books[1].title", "Ulysses"),
        ("$.books[-1].title", "Dune"),
        ("$.owner['limit','name','gone']", {"limit": 6, "name": "Ann"}),
        ("$.books.length()", 3),
        ("$.owner.length()", 2),
        ("$.delivery-partner.length()", None),
    ],
)
def test_definite_paths_give_the_value_itself(path: str, found: Json) -> None:
    assert compile_path(path).is_definite
    assert find(path) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.books[*].title", ["Emma", "Ulysses", "Dune"]),
        ("$.books.*.price", [8, 12.5, 5]),
        ("$.owner.*", ["Ann", 6]),
        ("$.books[0,2].price", [8, 5]),
        ("$.books[-1,0].price", [5, 8]),
        ("$.books[1:].price", [12.5, 5]),
        ("$.books[:-1].price", [8, 12.5]),
        ("$.books[-2:].price", [12.5, 5]),
        ("$.books[5:].price", []),
        ("$.books[*].sold", [True, None]),
        ("$.books[*]['title','price'].length()", 3),
        ("$['owner','none'].name", ["Ann"]),
        ("$..price", [8, 12.5, 5]),
        ("$..tags[0]", ["a"]),
        ("$..['name']", ["Ann"]),
        ("$.owner..*", ["Ann", 6]),
        ("$.books[?(@.price < 10)].title", ["Emma", "Dune"]),
        ("$.books[?(@.price == 5 || @.tags)].title", ["Emma", "Dune"]),
        ("$.books[?(@.price > 5 && !(@.sold == true))].title", ["Emma"]),
        ("$.books[?(@['title'] == 'Emma')].price", [8]),
        ('$.books[?(@.title in ["Emma", "Dune", "]"])].price', [8, 5]),
        ("$.books[?(@.price < $.owner.limit)].title", ["Dune"]),
        ("$.books[?(@.sold == 1)].title", []),
        ("$.owner[?(@.limit == 6)].name", ["Ann"]),
        ("$.owner[?(@.limit == 7)].name", []),
        ("$.none[?(@.x)]", []),
        ("$.gone[*]", []),
        ("$.gone.deeper[1:5]", []),
        ("$[*].length()", 4),
    ],
)
def test_indefinite_paths_give_a_list(path: str, found: Json) -> None:
    assert find(path) == found
    assert compile_path(path).is_definite is path.endswith(".length()")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        # ASL spec, "Reference Paths", has these.
        (r"$.store\.book", "store.book"),
        (r"$.\stor\e\.boo\k", "store.book"),
        (r"$.foo\@bar\[\[\.\?pretty", "foo@bar[[.?pretty"),
        (r"$.&Ж中\uD800\uDF46", "&Ж中\U00010346"),
        # Observed: a backslash in quotes is a character.
        ('$[\'Test\\""Name"\']', 'Test\\""Name"'),
        (r"$['it\'s']", "it's"),
        (r'$["say \"it\""]', 'say "it"'),
        (r"$['back\\']", "back\\"),
        ("$['a,b']", "a,b"),
        ("$['a]b']", "a]b"),
        ("$['']", ""),
        ("$.a:b", "a:b"),
    ],
)
def test_names_are_unescaped(path: str, name: str) -> None:
    assert find(path, {name: "here"}) == "here"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        # Observed: InputPath and OutputPath of a Pass state.
        ("$.gone", "No results for path: $['gone']"),
        ("$.owner.gone", "No results for path: $['owner']['gone']"),
        ("$.gone.name", "Missing property in path $['gone']"),
        ("$.books[3]", "No results for path: $['books'][3]"),
        ("$.books[-4].title", "No results for path: $['books'][-4]['title']"),
        ("$.owner[0]", "No results for path: $['owner'][0]"),
        ("$.delivery-partner[0]", "No results for path: $['delivery-partner'][0]"),
        (
            "$.none.x",
            "Expected to find an object with property ['x'] in path $['none'] but found null",
        ),
        (
            "$.books.title",
            "Expected to find an object with property ['title'] in path $['books']"
            " but found an array",
        ),
        (
            "$.owner.name['a','b']",
            "Expected to find an object with property ['a','b'] in path $['owner']['name']"
            " but found a string",
        ),
        ("$.gone.length()", "No results for path: $['gone']"),
        ("$$.Task.Token", "Missing property in path $$['Task']"),
    ],
)
def test_definite_paths_that_lead_nowhere_say_where_they_end(path: str, reason: str) -> None:
    with pytest.raises(PathNotFound) as caught:
        find(path, STORE, {"State": {}})
    assert str(caught.value) == reason


def test_what_was_searched_is_named_and_cut() -> None:
    with pytest.raises(PathNotFound) as caught:
        find("$.gone", {"text": "x" * 10_000})
    shown = ('{"text":"' + "x" * 10_000)[:SEARCHED_CHARACTERS_MAX]
    assert caught.value.in_field("CausePath") == (
        "The JSONPath '$.gone' specified for the field 'CausePath' "
        f"could not be found in the input '{shown}'"
    )


def test_two_dollars_search_the_context() -> None:
    path = compile_path("$$.Execution.Id")
    assert (path.root, path.find({}, {"Execution": {"Id": "e"}})) == ("context", "e")
    assert compile_path("$.Execution").root == "input"


@pytest.mark.parametrize(
    "path", ["$", "$.a", "$.a.b-c", "$['a'][0]", "$[2][0].x", r"$.a\@b", "$$", "$$.Execution.Id"]
)
def test_reference_paths(path: str) -> None:
    assert compile_path(path).is_reference


@pytest.mark.parametrize(
    "path",
    [
        "$.a[*]",
        "$..a",
        "$.a[0:1]",
        "$.a[0,1]",
        "$['a','b']",
        "$.a[?(@.b)]",
        "$.a[-1]",
        "$.a.length()",
        "$.a@b",
        "$.a?",
        "$.a:b",
        "$.a,b",
    ],
)
def test_other_paths_are_no_reference_paths(path: str) -> None:
    assert not compile_path(path).is_reference


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "it does not begin with $"),
        ("a", "it does not begin with $"),
        ("$-a", "expected . or ["),
        ("$.", "expected a name"),
        ("$..", "expected a name"),
        ("$.a.", "expected a name"),
        ("$.a b", "expected . or ["),
        ("$.a]", "expected . or ["),
        ("$.a | $.b", "expected . or ["),
        ("$.a[", "never closed"),
        ("$['a'", "never closed"),
        ("$[a]", "is no name in quotes"),
        ("$[]", "is no name in quotes"),
        ("$['a',0]", "is no name in quotes"),
        ("$[1:2:3]", "is no name in quotes"),
        ("$[(@.length-1)]", "is no name in quotes"),
        ("$.a.max()", "the only function is length()"),
        ("$.a.length(1)", "the only function is length()"),
        ("$.a.length().b", "length() must be the end"),
        ("$[?(@.a ==)]", "is malformed"),
        ("$[?(@.a == 1), ?(@.b)]", "is more than names and indexes"),
        ("$[?(@..a)]", "is more than names and indexes"),
        ("$[?(@.a in $.b[*])]", "is more than names and indexes"),
        ("$[?(@.a[1:2])]", "is more than names and indexes"),
        ("$[?(match(@.a, 'x'))]", "is malformed"),
        ("$[?" + "(" * 1_000 + ")" * 1_000 + "]", "is malformed"),
        ("$[?(@.a =~ /(a+)+$/)]", "regular expressions in filters are not supported"),
        ("$." + "a" * PATH_CHARACTERS_MAX, "is longer than"),
    ],
)
def test_what_is_no_path_is_refused(path: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is compared below
        compile_path(path)
    assert why in str(caught.value)


def test_a_regular_expression_sign_in_a_string_is_no_regular_expression() -> None:
    assert find("$[?(@.a == '=~')]", [{"a": "=~"}]) == [{"a": "=~"}]
    assert find("$[?(@.a == 'b..*')]", [{"a": "b..*"}]) == [{"a": "b..*"}]


def test_the_same_text_is_compiled_once() -> None:
    assert compile_path("$.once") is compile_path("$.once")


def test_selecting_is_bounded() -> None:
    value: Json = 0
    for _ in range(50):
        value = [value]
    with pytest.raises(PathNotFound, match=f"looks at more than {NODES_MAX} nodes"):
        find("$..*..*..*..*..*", value)


def test_a_filter_costs_for_each_candidate_and_each_path_in_it() -> None:
    items: Json = [{"a": place} for place in range(NODES_MAX // 61)]
    assert find("$[?(@.a < 3)].a", items) == [0, 1, 2]
    with pytest.raises(PathNotFound, match=f"looks at more than {NODES_MAX} nodes"):
        find("$[?(@.a < 3 && @.a > 1)].a", items)


@pytest.mark.parametrize("path", ["$[0,0]" + "[0,0]" * 16 + "[0]" * 80, "$..*..*..*"])
def test_many_small_steps_are_bounded_together(path: str) -> None:
    value: Json = 0
    for _ in range(100):
        value = [value]
    with pytest.raises(PathNotFound, match=f"looks at more than {NODES_MAX} nodes"):
        find(path, value)


def test_what_is_searched_is_shown_however_deep_it_is() -> None:
    value: Json = {"x": 1}
    for _ in range(5_000):
        value = [value]
    with pytest.raises(PathNotFound) as caught:
        find("$.a", value)
    # How deep a value can be written down depends on the version of Python; how much is shown not.
    cause = caught.value.in_field("x.$")
    assert "(nested too deep to be shown)" in cause or "'[[[[" in cause
    assert len(cause) < 2_000


def test_descending_needs_no_stack() -> None:
    value: Json = {"x": 1}
    for _ in range(50_000):
        value = [value]
    assert find("$..x", value) == [1]


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("$", {"a": 1}, "new"),
        ("$.a", {"a": 1, "b": 2}, {"a": "new", "b": 2}),
        ("$.b.greeting", {"a": 1}, {"a": 1, "b": {"greeting": "new"}}),
        ("$.a.b.c", {"a": {"x": 1}}, {"a": {"x": 1, "b": {"c": "new"}}}),
        ("$.a[1].b", {"a": [1, {}]}, {"a": [1, {"b": "new"}]}),
        ("$[0]", [1, 2], ["new", 2]),
    ],
)
def test_setting_replaces_or_creates_the_place(path: str, value: Json, changed: Json) -> None:
    before = copy.deepcopy(value)
    assert compile_path(path).set(value, "new") == changed
    assert value == before


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("$.x", "foo", "'$.x' sets member 'x' of a string"),
        ("$.a.b", {"a": None}, "'$.a.b' sets member 'b' of null"),
        ("$.a.b", {"a": [1]}, "'$.a.b' sets member 'b' of an array"),
        ("$.a[0]", {"a": {}}, "'$.a[0]' sets element 0 of an object"),
        ("$.a[0]", {}, "'$.a[0]' sets element 0 of nothing"),
        ("$.a[1]", {"a": [0]}, "'$.a[1]' sets element 1 of an array of 1"),
        ("$.a[*]", {"a": [0]}, "'$.a[*]' is not a reference path into the input"),
        ("$$.a", {}, "'$$.a' is not a reference path into the input"),
    ],
)
def test_a_place_that_does_not_fit_the_value_cannot_be_set(
    path: str, value: Json, why: str
) -> None:
    with pytest.raises(PathNotSettable) as caught:
        compile_path(path).set(value, "new")
    assert str(caught.value) == why


def test_setting_shares_what_is_beside_the_way() -> None:
    beside: Json = {"big": [1, 2, 3]}
    changed = compile_path("$.a.b").set({"a": {}, "beside": beside}, 1)
    assert isinstance(changed, dict)
    assert changed["beside"] is beside


@given(VALUES, KEYS, VALUES)
def test_what_was_set_is_found_and_the_value_is_untouched(
    value: Json, keys: list[str | int], replacement: Json
) -> None:
    before = copy.deepcopy(value)
    path = compile_path(path_of(keys))
    try:
        changed = path.set(value, replacement)
    except PathNotSettable:
        changed = None
    else:
        assert path.find(changed, None) is replacement
    assert value == before


@given(VALUES, KEYS)
def test_finding_follows_the_keys_or_says_that_it_cannot(
    value: Json, keys: list[str | int]
) -> None:
    node: Json = value
    path = compile_path(path_of(keys))
    for key in keys:
        has_member = isinstance(key, str) and isinstance(node, dict) and key in node
        has_element = isinstance(key, int) and isinstance(node, list) and key < len(node)
        if not (has_member or has_element):
            with pytest.raises(PathNotFound):
                path.find(value, None)
            return
        node = node[key]
    assert path.find(value, None) is node


@given(st.text(alphabet="$.ab[]()'\"*?@:,0-1=!<&|\\ ~#^_\ue000", max_size=20), VALUES)
def test_any_text_is_a_path_that_finds_or_not_or_no_path(tail: str, value: Json) -> None:
    before = copy.deepcopy(value)
    try:
        path = compile_path("$" + tail)
    except ValueError:
        return
    try:
        found = path.find(value, {})
    except PathNotFound:
        found = []
    assert path.is_definite or isinstance(found, list)
    assert value == before
