"""Calls of intrinsic functions, `States.Format('{}', $.name)`: how they are written and evaluated.

A call is read once, down to its innermost argument. What the functions do stands in functions.py.
Source: ASL spec, "Intrinsic Functions"; Step Functions guide, "Intrinsic functions".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NoReturn, TypeAlias

from service.asl.errors import INTRINSIC_FAILURE, ExecutionError
from service.asl.query.functions import FUNCTIONS, Function, FunctionFailed, format_with
from service.asl.query.jsonpath import Path, PathNotFound, compile_path
from service.asl.query.scope import Scope
from service.asl.values import PAYLOAD_BYTES_MAX, Json, exceeds

INTRINSIC_CHARACTERS_MAX: Final = 10_000
# Step Functions guide, "Intrinsic functions": so many calls within one field.
CALLS_MAX: Final = 10

_CALL: Final = re.compile(r"(States\.[A-Za-z0-9]+)\s*\(")
_STRING: Final = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"true|false|null")
_SPACE: Final = re.compile(r"\s*")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_PATTERN: Final = re.compile(r"(\{\})|\\(.)|([^\\{]+|\{)", re.DOTALL)
_PATH_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_CALL_TEXT_CHARACTERS_SHOWN: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Literal:
    """A number, boolean or null; a string also with its escapes."""

    value: Json
    text: str | None = None
    variables: ClassVar[frozenset[str]] = frozenset()

    def evaluate(self, scope: Scope) -> Json:
        return self.value


@dataclass(frozen=True, slots=True)
class _PathArgument:
    """A path; when it finds nothing the call fails, in the words Step Functions has for it."""

    path: Path

    @property
    def variables(self) -> frozenset[str]:
        return self.path.variables

    def evaluate(self, scope: Scope) -> Json:
        try:
            return self.path.find(scope.value, scope.context, scope.variables, scope.work)
        except PathNotFound as error:
            raise FunctionFailed(
                f"The JsonPath argument for the field '{self.path.text}' "
                f"could not be found in the input '{error.searched()}'"
            ) from error


class Intrinsic:
    """A call that was read; made by `parse_intrinsic`."""

    __slots__ = ("_arguments", "_function", "text")

    def __init__(self, text: str, function: Function, arguments: Sequence[_Argument]) -> None:
        self.text = text
        self._function = function
        self._arguments = tuple(arguments)

    @property
    def variables(self) -> frozenset[str]:
        """Return the names of the variables that the call refers to."""
        return frozenset[str]().union(*(argument.variables for argument in self._arguments))

    def __repr__(self) -> str:
        return f"Intrinsic({self.text!r})"

    def evaluate(self, scope: Scope) -> Json:
        """Return the result of the call, its paths followed in the scope.

        Raise ExecutionError States.IntrinsicFailure when a path finds nothing, an argument is not
        what the function takes, or the result is larger than a payload may be.
        """
        try:
            arguments = [a.evaluate(scope) for a in self._arguments]
            result = self._function.call(arguments, scope.random)
            if exceeds(result):
                raise FunctionFailed(f"The result is larger than {PAYLOAD_BYTES_MAX} bytes")
        except FunctionFailed as error:
            shown = self.text[:_CALL_TEXT_CHARACTERS_SHOWN]
            cause = f"The function '{shown}' had the following error: {error}"
            raise ExecutionError(INTRINSIC_FAILURE, cause) from error
        return result


_Argument: TypeAlias = _Literal | _PathArgument | Intrinsic


def parse_intrinsic(text: str) -> Intrinsic:
    """Return the call that a text is.

    Raise ValueError for malformed text, a function there is not, a wrong number of arguments, more
    than CALLS_MAX calls, and more than INTRINSIC_CHARACTERS_MAX characters.
    """
    if len(text) > INTRINSIC_CHARACTERS_MAX:
        raise ValueError(
            f"a call of {len(text)} characters is longer than {INTRINSIC_CHARACTERS_MAX}"
        )
    return _Reader(text).read()


class _Reader:
    """Reads the text of one call, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._calls = 0

    def read(self) -> Intrinsic:
        call = self._call()
        if self._at != len(self._text):
            self._fail("expected the end of the call")
        return call

    def _call(self) -> Intrinsic:
        start = self._at
        match = _CALL.match(self._text, start)
        if match is None:
            self._fail("expected a function call such as States.UUID()")
        function = FUNCTIONS.get(match[1])
        if function is None:
            self._fail(f"there is no function {match[1]}")
        self._calls += 1
        if self._calls > CALLS_MAX:
            self._fail(f"a field may have at most {CALLS_MAX} calls")
        self._at = match.end()
        arguments = self._arguments()
        if match[1] == "States.Format" and arguments and isinstance(arguments[0], _Literal):
            # An escaped {} is a text. What a path gives as the pattern has no escapes.
            function = format_with(self._pattern_parts(arguments[0]))
            arguments = arguments[1:]
        if not function.takes(len(arguments)):
            self._fail(f"{match[1]} takes {function.arity} arguments here, not {len(arguments)}")
        return Intrinsic(self._text[start : self._at], function, arguments)

    def _arguments(self) -> list[_Argument]:
        """Read from behind ( to behind )."""
        arguments: list[_Argument] = []
        self._skip_space()
        while not self._text.startswith(")", self._at):
            if arguments:
                self._expect_comma()
            arguments.append(self._argument())
            self._skip_space()
        self._at += 1
        return arguments

    def _argument(self) -> _Argument:
        if self._text.startswith("States.", self._at):
            return self._call()
        if self._text.startswith("$", self._at):
            return self._path()
        if self._text.startswith("'", self._at):
            text = self._string()
            return _Literal(_ESCAPE.sub(r"\1", text), text)
        if match := _NUMBER.match(self._text, self._at):
            self._at = match.end()
            return _Literal(self._number(match))
        if match := _WORD.match(self._text, self._at):
            self._at = match.end()
            return _Literal(json.loads(match[0]))
        self._fail(
            "expected a string in single quotes, a number, true, false, null, a path or a call"
        )

    def _path(self) -> _PathArgument:
        start, open_brackets = self._at, 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if open_brackets == 0 and character in ",)":
                break
            if open_brackets and (quoted := _PATH_QUOTED.match(self._text, self._at)):
                self._at = quoted.end()
                continue
            open_brackets += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
            self._at += 2 if character == "\\" else 1
        return _PathArgument(compile_path(self._text[start : self._at].rstrip()))

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            self._fail("the string is never closed")
        for escape in _ESCAPE.finditer(match[1]):
            if escape[1] not in r"'\{}":
                self._fail(rf"\{escape[1]} is no escape; there are \' \\ \{{ and \}}")
        self._at = match.end()
        return match[1]

    def _pattern_parts(self, pattern: _Literal) -> tuple[str, ...]:
        """Split a pattern at its `{}`, of which an escaped one is none."""
        if pattern.text is None:
            self._fail("the first argument of States.Format must be a string")
        parts = [""]
        for match in _PATTERN.finditer(pattern.text):
            if match[1]:
                parts.append("")
            else:
                parts[-1] += match[2] or match[3]
        return tuple(parts)

    def _number(self, match: re.Match[str]) -> Json:
        try:
            number: Json = json.loads(match[0])
        except ValueError:
            number = None
        if number is None or number in (float("inf"), float("-inf")):
            self._fail("the number is too large")
        return number

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _expect_comma(self) -> None:
        if not self._text.startswith(",", self._at):
            self._fail("expected , or )")
        self._at += 1
        self._skip_space()

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f"{why} (at character {self._at + 1} of the call)")
