"""A definition's JSON text read into a value that still knows where each part of it stands.

The standard library's decoder forgets positions, so the structure is read here and only strings are
left to its scanner. A part is found again by its RFC 6901 pointer. Positions are kept as a tree
beside the value, not by pointer: all the pointers of a deep text would be far longer than the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from math import inf
from typing import Final, NoReturn

from service.asl.errors import Problem
from service.asl.values import Json

DEPTH_MAX: Final = 100
DEFINITION_BYTES_MAX: Final = 1_048_576
# Python refuses to convert longer digit strings; no definition has a use for one.
NUMBER_CHARACTERS_MAX: Final = 4_000

NOT_JSON: Final = "INVALID_JSON_DESCRIPTION"
DUPLICATE_MEMBER: Final = "DUPLICATE_MEMBER"

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS: Final[dict[str, Json]] = {"true": True, "false": False, "null": None}
_LITERAL: Final = re.compile("|".join(_LITERALS))
_DUPLICATES_MAX: Final = 100
_scan_string: Callable[[str, int, bool], tuple[str, int]] = scanstring


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the text, as editors count: both from 1, columns in characters."""

    line: int
    column: int


class MalformedDocument(ValueError):
    """A text that is not the JSON we accept, with the first problem's place and all problems."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        super().__init__(f"line {first.line} column {first.column}: {first.message}")
        self.problems = tuple(problems)
        self.message = first.message
        self.line = first.line
        self.column = first.column
        self.pointer = first.pointer


@dataclass(slots=True)
class _Node:
    """Where a part begins, and its own parts."""

    start: int
    members: dict[str, _Node] = field(default_factory=dict)


class Document:
    """A JSON value and the text it was read from."""

    def __init__(self, text: str, value: Json, root: _Node) -> None:
        self.text = text
        self.value = value
        self._root = root

    def place(self, pointer: str) -> Place:
        """Return where the value at an RFC 6901 pointer begins.

        For what does not exist, such as a member that is missing, that is where the deepest part
        on the way to it begins. Raise ValueError for a pointer that neither is empty nor begins
        with "/".
        """
        return self._places.at(self._node(pointer).start)

    def _node(self, pointer: str) -> _Node:
        node = self._root
        for token in tokens_of(pointer):
            if (child := node.members.get(token)) is None:
                break
            node = child
        return node

    @cached_property
    def _places(self) -> _Places:
        return _Places(self.text)


def pointer_to(parent: str, token: str | int) -> str:
    """Return the RFC 6901 pointer of a member or element of what `parent` points at."""
    return f"{parent}/{str(token).replace('~', '~0').replace('/', '~1')}"


def tokens_of(pointer: str) -> Iterator[str]:
    """Return the names and indices that an RFC 6901 pointer leads through, unescaped.

    Raise ValueError for a text that neither is empty nor begins with "/".
    """
    if pointer and not pointer.startswith("/"):
        raise ValueError(
            f"{pointer!r} is not an RFC 6901 pointer: it must be empty or begin with /"
        )
    return (t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:])


def parse_document(text: str) -> Document:
    """Return the document that a JSON text (RFC 8259) holds; integers of any size are exact.

    Raise MalformedDocument for anything else, for a name that an object has twice (all of them at
    once), for more than DEPTH_MAX levels, and for more than DEFINITION_BYTES_MAX bytes of UTF-8.
    """
    reader = _Reader(text)
    if len(text.encode("utf-8", "surrogatepass")) > DEFINITION_BYTES_MAX:
        reader.fail(f"the text is longer than {DEFINITION_BYTES_MAX} bytes", 0)
    start = reader.skip_space(0)
    root = _Node(start)
    value, end = reader.read(root)
    reader.expect_end(end)
    if reader.duplicates:
        raise MalformedDocument(reader.duplicates)
    return Document(text, value, root)


class _Places:
    """Turns offsets into lines and columns; counts the lines of a text once."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)


class _Reader:
    """Reads a text by recursive descent: methods begin at an offset and return where they ended."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._places = _Places(text)
        # The way from the root to where the reader is. It becomes a pointer only when something is
        # wrong: the pointers of all the parts of a hostile document would be longer than memory.
        self._trail: list[str | int] = []
        self.duplicates: list[Problem] = []

    def skip_space(self, offset: int) -> int:
        match = _SPACE.match(self._text, offset)
        assert match is not None
        return match.end()

    def expect_end(self, offset: int) -> None:
        if (offset := self.skip_space(offset)) < len(self._text):
            self._unexpected("the end of the text", offset)

    def read(self, node: _Node) -> tuple[Json, int]:
        """Read the value that begins where `node` does, and give `node` its parts."""
        start = node.start
        match self._text[start : start + 1]:
            case "{":
                return self._read_object(node)
            case "[":
                return self._read_array(node)
            case '"':
                return self._read_string(start)
        if literal := _LITERAL.match(self._text, start):
            return _LITERALS[literal[0]], literal.end()
        return self._read_number(start)

    def _read_object(self, node: _Node) -> tuple[Json, int]:
        value: dict[str, Json] = {}
        offset = self._enter(node.start)
        if self._text[offset : offset + 1] == "}":
            return value, offset + 1
        while True:
            offset = self.skip_space(self._read_member(node, value, offset))
            if self._text[offset : offset + 1] == "}":
                return value, offset + 1
            offset = self._skip_comma(offset, "}")

    def _read_member(self, node: _Node, value: dict[str, Json], name_start: int) -> int:
        if self._text[name_start : name_start + 1] != '"':
            self._unexpected("a member name in double quotes", name_start)
        name, offset = self._read_string(name_start)
        offset = self.skip_space(offset)
        if self._text[offset : offset + 1] != ":":
            self._unexpected("a colon after the member name", offset)
        self._trail.append(name)
        if name in value:
            self._note_duplicate(name, name_start)
        child = node.members[name] = _Node(self.skip_space(offset + 1))
        value[name], offset = self.read(child)
        self._trail.pop()
        return offset

    def _read_array(self, node: _Node) -> tuple[Json, int]:
        value: list[Json] = []
        offset = self._enter(node.start)
        if self._text[offset : offset + 1] == "]":
            return value, offset + 1
        while True:
            self._trail.append(len(value))
            child = node.members[str(len(value))] = _Node(offset)
            element, offset = self.read(child)
            self._trail.pop()
            value.append(element)
            offset = self.skip_space(offset)
            if self._text[offset : offset + 1] == "]":
                return value, offset + 1
            offset = self._skip_comma(offset, "]")

    def _enter(self, start: int) -> int:
        if len(self._trail) >= DEPTH_MAX:
            self.fail(f"the text is nested deeper than {DEPTH_MAX} levels", start)
        return self.skip_space(start + 1)

    def _skip_comma(self, offset: int, closing: str) -> int:
        if self._text[offset : offset + 1] != ",":
            self._unexpected(f"a comma or {closing}", offset)
        return self.skip_space(offset + 1)

    def _read_string(self, start: int) -> tuple[str, int]:
        try:
            return _scan_string(self._text, start + 1, True)
        except JSONDecodeError as error:
            message = error.msg.removesuffix(" at").removesuffix(" starting")
            self.fail(message[0].lower() + message[1:], error.pos)

    def _read_number(self, start: int) -> tuple[int | float, int]:
        match = _NUMBER.match(self._text, start)
        if match is None:
            self._unexpected("a value", start)
        digits = match[0]
        if len(digits) > NUMBER_CHARACTERS_MAX:
            self.fail(f"a number has more than {NUMBER_CHARACTERS_MAX} characters", start)
        number = float(digits) if match.lastindex else int(digits)
        if number in (inf, -inf):
            self.fail(f"the number {digits} is too large for a double", start)
        return number, match.end()

    def _note_duplicate(self, name: str, offset: int) -> None:
        if len(self.duplicates) < _DUPLICATES_MAX:
            message = f"the object has two members named {name!r}"
            self.duplicates.append(self._problem(DUPLICATE_MEMBER, message, offset))

    def _unexpected(self, wanted: str, offset: int) -> NoReturn:
        found = repr(self._text[offset]) if offset < len(self._text) else "the end of the text"
        self.fail(f"expected {wanted}, found {found}", offset)

    def fail(self, message: str, offset: int) -> NoReturn:
        raise MalformedDocument([self._problem(NOT_JSON, message, offset)])

    def _problem(self, code: str, message: str, offset: int) -> Problem:
        place = self._places.at(offset)
        pointer = reduce(pointer_to, self._trail, "")
        return Problem(code, message, pointer, place.line, place.column)
