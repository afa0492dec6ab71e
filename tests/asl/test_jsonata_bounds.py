"""JSONata within bounds: what runs away is stopped for what it costs, what is of use is not.

Time is not measured: what an evaluation does is counted, in steps by itself and in calls of Python
and C functions by the profiler.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.asl.query.jsonata import compile_expression, expression
from service.asl.query.jsonata.values import STEPS_MAX, Run
from service.asl.values import Json
from tests.asl.expressions import TOO_DEEP, TOO_LARGE, TOO_LONG, evaluate, failure

# A call of a function takes the interpreter no less than a third of a step's time.
CALLS_MAX = STEPS_MAX * 3

TEXT = "ab" * 60_000
NUMBERS: Json = [place * 7919 % 10_007 for place in range(20_000)]
ITEMS: Json = [
    {"id": i, "name": f"item {i % 97}", "price": i * 7919 % 1000 / 10, "tags": ["a", str(i % 5)]}
    for i in range(2_000)
]
VARIABLES: dict[str, Json] = {"text": TEXT, "numbers": NUMBERS, "items": ITEMS}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Return the evaluations that are made, so that what they have spent can be seen."""
    made: list[Run] = []

    class Seen(Run):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(expression, "Run", Seen)
    return made


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """Count the calls of functions, at most one more than CALLS_MAX, which are all that matter."""
    calls: list[str] = []

    def note(frame: object, event: str, argument: object) -> None:
        if event in {"call", "c_call"} and len(calls) <= CALLS_MAX:
            calls.append(event)

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def each(part: str) -> str:
    """Return an expression that evaluates a part of it a million times."""
    return f"$map([1..1000], function($i){{ $map([1..1000], function($j){{ {part} }}) }})"


RUNAWAYS = [
    ("($f := function($x){ $f($x) }; $f(1))", TOO_LONG),
    ("($f := function($x){ $f($x + 1) }; $f(1))", TOO_LONG),
    ("($f := function($x){ 1 + $f($x) }; $f(1))", TOO_DEEP),
    ("($f := function($x){ [$f($x)] }; $f(1))", TOO_DEEP),
    ("($f := function($x){ $map([1, 2], $f) }; $f(1))", TOO_DEEP),
    ("($f := function($x){ $map([$x], function($y){ $f($y) }) }; $f(1))", TOO_DEEP),
    ("($f := function($x){ $x ~> $f }; $f(1))", TOO_DEEP),
    ("($f := function($x){ $replace('a', /a/, $f) }; $f(1))", TOO_DEEP),
    ("($f := function($x){ $sort([2, 1], function($a, $b){ $f(1) }) }; $f(1))", TOO_DEEP),
    ("($f := function($n){ $n < 2 ? $n : $f($n - 1) + $f($n - 2) }; $f(30))", TOO_LONG),
    ("1" + "+1" * 101, TOO_DEEP),
    # Ranges and their products.
    ("[1..10000000]", TOO_LARGE),
    ("[1..1000000]", TOO_LARGE),
    ("[1..873783] ~> $count()", TOO_LARGE),
    ("[1..800000]", TOO_LONG),
    ("[1..1000].[1..1000].[1..1000]", TOO_LARGE),
    ("[1..1000].($x := $; [1..1000].($x * $))", TOO_LONG),
    ("$range(0, 1e12, 1)", TOO_LONG),
    ("$zip([1..400000], [1..400000])", TOO_LONG),
    ("[1..800000][$ % 2 = 0]", TOO_LONG),
    ("[1..1000][[1..1000]]", TOO_LONG),
    ("$map([1..800000], function($v){ $v * 2 })", TOO_LONG),
    ("$filter([1..800000], function($v){ $v = 0 })", TOO_LONG),
    ("$reduce([1..800000], function($a, $b){ $a + $b })", TOO_LONG),
    ("$reduce([1..100000], $append)", TOO_LARGE),
    ("$reduce([1..100000], function($a, $b){ $a & 'x' })", TOO_LARGE),
    # Joins, orders and groups.
    ("$items@$x.$items[id = $x.id]", TOO_LONG),
    ("$items@$x.$items@$y[$x.id = $y.id].{'x': $x, 'y': $y}", TOO_LONG),
    ("$sort([1..100000], function($a, $b){ $a < $b })", TOO_LONG),
    ("$sort([1..800000])", TOO_LONG),
    ("$numbers^($) ~> $count()", TOO_LONG),
    ("[1..100000]{$string($): $}", TOO_LONG),
    ("$distinct([1..800000])", TOO_LONG),
    ("$shuffle([1..800000])", TOO_LONG),
    ("$string([1..800000])", TOO_LONG),
    ("[1..100000].{'a': {'b': $}}", TOO_LONG),
    ("$merge([1..100000].{$string($): $})", TOO_LONG),
    # Texts.
    ("$pad('', 10000000000)", TOO_LARGE),
    ("$pad('', -8000000, '\U0001f600')", TOO_LARGE),
    ("$join([1..1000].$pad('x', 20000))", TOO_LARGE),
    ("$replace($pad('', 100000, 'a'), 'a', $pad('', 100000))", TOO_LARGE),
    ("($p := function($s, $n){ $n = 0 ? $s : $p($s & $s, $n - 1) }; $p('x', 23))", TOO_LARGE),
    ("$encodeUrl($pad('', 3000000, '\u4e00'))", TOO_LONG),
    ("$split($pad('', 3000000, 'a,'), ',')", TOO_LONG),
    ("$parse('[' & $pad('', 900000, '[],') & '1]')", TOO_LONG),
    # Pictures.
    ("$formatInteger(999999999999, 'I')", TOO_LARGE),
    (each("$formatNumber($j, '#,##0.00' & $j)"), TOO_LONG),
    (each("$formatNumber(1e300, $pad('', 1000, '#') & '0')"), TOO_LONG),
    (each("$formatInteger($j, $pad('', 1000, '#') & '0')"), TOO_LONG),
    (each("$formatBase(1e300, 2)"), TOO_LONG),
    (each("$fromMillis($j, $pad('', 900, '[x]'))"), TOO_LONG),
    (each("$toMillis('2020-01-01', '[Y0001]-[M01]-[D01]')"), TOO_LONG),
    (each("$parseInteger($pad('', 1000, 'M'), 'I')"), TOO_LONG),
    # Cheap work, often.
    (each("1"), TOO_LONG),
    (each("$i + $j"), TOO_LONG),
    (each("$text = $text & ''"), TOO_LARGE),
    (each("$boolean($numbers.(0))"), TOO_LONG),
    (each("$sum($numbers)"), TOO_LONG),
    (each("'no' in $items.name"), TOO_LONG),
    (each("$uppercase($text)"), TOO_LONG),
    (each("$hash($text, 'SHA-512')"), TOO_LONG),
    (each("$items ~> |$|{'a': 1}|"), TOO_LONG),
    (each("$j ~> $string ~> $length"), TOO_LONG),
    # Regular expressions that make other engines run away, and those that make this one walk.
    (each("$contains($text, /(a+)+$/)"), TOO_LONG),
    ("$contains($text, /([ab]?){500}[ab]{500}c/)", TOO_LONG),
    ("$contains($text, /((a{1,30}){1,30})c/)", TOO_LONG),
    ("$match($text, /[ab](.*c)?/)", TOO_LONG),
    ("$match($text, /a.*c|a/)", TOO_LONG),
    ("$replace($text, /a/, 'c')", TOO_LONG),
    ("$replace($substring($text, 0, 4000), /a/, $pad('', 1000, '$0'))", TOO_LONG),
    ("$split($text, /b/)", TOO_LONG),
]


@pytest.mark.parametrize(("text", "reason"), RUNAWAYS)
def test_runaway_expression_is_stopped_before_it_has_done_much(text: str, reason: str) -> None:
    evaluated = compile_expression(text)  # which is no part of what is counted
    with counted_calls() as calls:
        assert failure(text, **VARIABLES) == reason
    assert evaluated is compile_expression(text)
    assert len(calls) <= CALLS_MAX


@pytest.mark.parametrize(
    "part",
    [
        "$uppercase($text)",
        "$trim($text)",
        "$encodeUrl($text & ' ')",
        "$base64encode($text)",
        "$hash($text, 'SHA-256')",
        "$contains($text, /b+c/)",
        "$split($text, 'b')",
        "$parse('\"' & $text & '\"')",
        "$sum($numbers)",
        "$max($numbers)",
        "$sort($numbers)",
        "$distinct($numbers)",
        "$string($numbers)",
        "'a' in $numbers",
        "$numbers = $numbers.($)",
        "$numbers[$ > 0]",
        "$numbers.(-$)",
        "$join($map($numbers, $string))",
    ],
)
def test_what_is_done_costs_in_proportion_to_the_data(part: str, runs: list[Run]) -> None:
    for share in (1, 4):
        evaluate(part, text=TEXT[: 8_000 * share], numbers=NUMBERS[: 800 * share])
    small, large = (STEPS_MAX - run.steps_left for run in runs)
    assert 2 * small < large + 100
    assert large < 8 * small


@pytest.mark.parametrize("part", ["$count($numbers)", "$length($text)", "$exists($numbers)"])
def test_what_is_known_at_once_costs_the_same_for_all_data(part: str, runs: list[Run]) -> None:
    evaluate(part, text="", numbers=[])
    evaluate(part, text=TEXT, numbers=NUMBERS)
    assert runs[0].steps_left == runs[1].steps_left


def test_a_picture_is_taken_apart_once_in_an_evaluation(runs: list[Run]) -> None:
    evaluate("[1..2].$formatNumber($, '0.0')")
    evaluate("[1..3].$formatNumber($, '0.0')")
    evaluate("[1..3].$formatNumber($, '0.0' & ($ = 3 ? '#'))")
    two, three, another = (STEPS_MAX - run.steps_left for run in runs)
    assert three - two < 150
    assert another - three > 150


SHARED = "($d := function($x, $n){ $n = 0 ? $x : $d({'a': $x, 'b': $x}, $n - 1) }; $v := $d(1, 60);"


@pytest.mark.parametrize(
    "use",
    ["$v", "$string($v)", "$v = $d(1, 60)", "$v.**", "$distinct([$v, 2])", "$v ~> |$|{}|"],
)
def test_value_that_shares_its_parts_is_not_unfolded(use: str) -> None:
    assert failure(f"{SHARED} {use})") in {TOO_LONG, TOO_LARGE}


def test_value_nested_beyond_all_use_is_refused() -> None:
    text = "($d := function($x, $n){ $n = 0 ? $x : $d({'a': $x}, $n - 1) }; $d(1, 5000))"
    assert failure(text) == TOO_DEEP


def test_evaluation_within_the_bounds_observed_succeeds() -> None:
    assert evaluate("[1..873782] ~> $count()") == 873_782
    doubled = "($p := function($s, $n){ $n = 0 ? $s : $p($s & $s, $n - 1) }; $length($p('x', 22)))"
    assert evaluate(doubled) == 2**22
    assert evaluate("1" + "+1" * 98) == 99


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$map($items, function($v){ $v.price * 2 }) ~> $count()", 2_000),
        ("$filter($items, function($v){ $v.price > 50 and 'a' in $v.tags }) ~> $count()", 998),
        ("$sort($items, function($a, $b){ $a.price > $b.price })[-1].price", 99.9),
        ("$items^(price)[0].price", 0),
        ("$items^(>name, price, id)[0].name", "item 96"),
        ("$items[price > 50].name ~> $distinct() ~> $count()", 97),
        ("$items{name: {'count': $count($), 'most': $max(price)}}.`item 5`.count", 21),
        (
            "($items.{'id': id, 'total': $round(price * 1.19, 2),"
            " 'label': name & ' (' & $string(id) & ')'})[7]",
            {"id": 7, "total": 51.53, "label": "item 7 (7)"},
        ),
        ("$reduce($items.price, function($a, $v){ $a + $v })", 99_900),
        ("$merge($items.{$string(id): price}) ~> $keys() ~> $count()", 2_000),
        ("($items ~> |$|{'seen': true}, 'tags'|)[0]",
         {"id": 0, "name": "item 0", "price": 0.0, "seen": True}),
        ("($items.$fromMillis(id * 1000))[1]", "1970-01-01T00:00:01.000Z"),
        ("($items.$formatNumber(price, '#,##0.00'))[1]", "91.90"),
        ("$items.$parse('{\"a\":' & $string(id) & '}').a ~> $sum()", 1_999_000),
        ("$length($string($items)) > 100000", True),
        ("$count($items.tags)", 4_000),
        ("$items[name in ['item 1', 'item 2']] ~> $count()", 42),
        ("$match($substring($text, 0, 4000), /ab/) ~> $count()", 2_000),
        ("$split($text, 'b') ~> $count()", 60_001),
        ("$map([1..10000], function($v){ $v * 2 }) ~> $sum()", 100_010_000),
        ("($f := function($n){ $n = 0 ? 0 : $f($n - 1) }; $f(8000))", 0),
    ],
)  # fmt: skip
def test_work_on_a_payload_of_two_thousand_items_is_within_bounds(text: str, result: Json) -> None:
    assert evaluate(text, **VARIABLES) == result


def test_pattern_that_makes_other_engines_run_away_is_matched_at_once() -> None:
    assert evaluate("$contains($v, /(a+)+$/)", v="a" * 100_000 + "b") is False


@pytest.mark.parametrize(("subject", "matches"), [("a,b", ["a", "b"]), ("ä,é", ["ä", "é"])])
def test_matches_are_placed_by_characters(subject: str, matches: list[str]) -> None:
    found = evaluate(
        "$match($v, /([^,])/).{'at': index, 'text': match, 'group': groups}", v=subject
    )
    assert found == [
        {"at": 2 * place, "text": text, "group": [text]} for place, text in enumerate(matches)
    ]


def test_strings_are_ordered_by_the_units_of_utf_16() -> None:
    # U+1F600 is written D83D DE00, which is before FF5E.
    assert evaluate("$a < $b", a="\U0001f600", b="\uff5e") is True
    assert evaluate("$sort([$b, $a, 'z'])", a="\U0001f600", b="\uff5e") == [
        "z",
        "\U0001f600",
        "\uff5e",
    ]
    assert evaluate("[$b, $a]^($)", a="\U0001f600", b="\uff5e") == ["\U0001f600", "\uff5e"]
