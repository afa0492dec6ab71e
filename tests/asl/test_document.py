"""Documents: JSON that knows where its parts stand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl.document import (
    DEFINITION_BYTES_MAX,
    DEPTH_MAX,
    DUPLICATE_MEMBER,
    NOT_JSON,
    NUMBER_CHARACTERS_MAX,
    MalformedDocument,
    Place,
    parse_document,
    pointer_to,
)
from service.asl.errors import Problem
from service.asl.values import Json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

TEXT = """{
  "StartAt": "Send",
  "States": {
    "Send": {"Type": "Pass",
             "Re/try": [1, {"~": null}]}
  }
}"""


def offset_of(text: str, place: Place) -> int:
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: place.line - 1]) + place.column - 1


def parts(value: Json, pointer: str = "") -> list[tuple[str, Json]]:
    found = [(pointer, value)]
    if isinstance(value, dict):
        for name, member in value.items():
            found += parts(member, pointer_to(pointer, name))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            found += parts(element, pointer_to(pointer, index))
    return found


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("", Place(1, 1)),
        ("/StartAt", Place(2, 14)),
        ("/States/Send", Place(4, 13)),
        ("/States/Send/Type", Place(4, 22)),
        ("/States/Send/Re~1try/0", Place(5, 25)),
        ("/States/Send/Re~1try/1/~0", Place(5, 34)),
    ],
)
def test_places_are_those_an_editor_shows(pointer: str, place: Place) -> None:
    assert parse_document(TEXT).place(pointer) == place


def test_what_is_missing_has_the_place_of_what_should_have_it() -> None:
    document = parse_document(TEXT)
    assert document.place("/States/Send/Next") == document.place("/States/Send")
    assert document.place("/States/Gone/Retry/0") == document.place("/States")


def test_a_pointer_without_its_slash_is_refused() -> None:
    with pytest.raises(ValueError, match="'States' is not an RFC 6901 pointer"):
        parse_document(TEXT).place("States")


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_documents_read_as_the_standard_library_reads_them(
    value: Json, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert repr(parse_document(text).value) == repr(json.loads(text))


@given(VALUES, st.sampled_from([None, 2]))
def test_every_place_points_at_the_text_of_its_value(value: Json, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    document = parse_document(text)
    for pointer, part in parts(value):
        begins = offset_of(text, document.place(pointer))
        decoded, _ = json.JSONDecoder().raw_decode(text, begins)
        assert repr(decoded) == repr(part)


@given(st.text(alphabet='{}[]",:\\/u01.-+eEtrufalsn \n\ud800', max_size=40))
def test_any_text_is_read_as_the_standard_library_does_or_refused_as_it_does(text: str) -> None:
    def pairs(members: list[tuple[str, Json]]) -> dict[str, Json]:
        assert len(dict(members)) == len(members)
        return dict(members)

    try:
        expected = repr(json.loads(text, object_pairs_hook=pairs))
    except (ValueError, AssertionError):
        expected = ""
    try:
        read = repr(parse_document(text).value)
    except MalformedDocument as error:
        # The library reads 1e999 as an infinity.
        read = expected if "too large for a double" in error.message else ""
    assert read == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", Problem(NOT_JSON, "expected a value, found the end of the text", "", 1, 1)),
        ("\ufeff{}", Problem(NOT_JSON, "expected a value, found '\\ufeff'", "", 1, 1)),
        ('{"a": NaN}', Problem(NOT_JSON, "expected a value, found 'N'", "/a", 1, 7)),
        ("[-Infinity]", Problem(NOT_JSON, "expected a value, found '-'", "/0", 1, 2)),
        (
            '{\n"a": 1,\n}',
            Problem(NOT_JSON, "expected a member name in double quotes, found '}'", "", 3, 1),
        ),
        ("[1,]", Problem(NOT_JSON, "expected a value, found ']'", "/1", 1, 4)),
        ("[1 2]", Problem(NOT_JSON, "expected a comma or ], found '2'", "", 1, 4)),
        (
            '{"a" 1}',
            Problem(NOT_JSON, "expected a colon after the member name, found '1'", "", 1, 6),
        ),
        ("{} x", Problem(NOT_JSON, "expected the end of the text, found 'x'", "", 1, 4)),
        ('{"a/b": ["c', Problem(NOT_JSON, "unterminated string", "/a~1b/0", 1, 10)),
        ('["\t"]', Problem(NOT_JSON, "invalid control character", "/0", 1, 3)),
        ("[1e400]", Problem(NOT_JSON, "the number 1e400 is too large for a double", "/0", 1, 2)),
    ],
)
def test_text_that_is_no_json_is_refused_with_its_place(text: str, problem: Problem) -> None:
    with pytest.raises(MalformedDocument) as caught:
        parse_document(text)
    assert caught.value.problems == (problem,)
    assert str(caught.value) == f"line {problem.line} column {problem.column}: {problem.message}"


def test_all_duplicate_names_are_reported_at_once() -> None:
    text = '{"a": 1,\n "a": 2, "b": {"c": [], "c": 0}}'
    with pytest.raises(MalformedDocument) as caught:
        parse_document(text)
    assert caught.value.problems == (
        Problem(DUPLICATE_MEMBER, "the object has two members named 'a'", "/a", 2, 2),
        Problem(DUPLICATE_MEMBER, "the object has two members named 'c'", "/b/c", 2, 25),
    )


def test_big_integers_are_exact() -> None:
    assert parse_document("[123456789012345678901234567890, 1.0, 1]").value == [
        123456789012345678901234567890,
        1.0,
        1,
    ]


def test_depth_is_bounded() -> None:
    deepest = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    assert parse_document(deepest).text == deepest
    with pytest.raises(MalformedDocument, match="nested deeper than 100 levels"):
        parse_document(f"[{deepest}]")
    with pytest.raises(MalformedDocument, match="nested deeper than 100 levels"):
        parse_document('{"a":' * 100_000)


def test_size_is_bounded_in_bytes() -> None:
    longest = '"' + "é" * (DEFINITION_BYTES_MAX // 2 - 1) + '"'
    assert parse_document(longest).value == longest[1:-1]
    with pytest.raises(MalformedDocument, match="longer than 1048576 bytes"):
        parse_document(longest + " ")


def test_numbers_are_bounded() -> None:
    assert parse_document("9" * NUMBER_CHARACTERS_MAX).value == 10**NUMBER_CHARACTERS_MAX - 1
    with pytest.raises(MalformedDocument, match="more than 4000 characters"):
        parse_document("9" * (NUMBER_CHARACTERS_MAX + 1))
