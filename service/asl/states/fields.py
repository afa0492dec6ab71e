"""Reading a definition's objects field by field, noting everything that is wrong on the way.

A reader never raises: a bad field is noted with its place and read as if it were not there, so that
one pass finds all problems of a definition. What nobody asked for is an unknown field, which
`close` notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from service.asl.computed import Computed
from service.asl.dataflow import IDENTITY, Expression, Payload, Placement, Selection
from service.asl.document import pointer_to
from service.asl.query.expressions import BadExpressions
from service.asl.query.jsonata import unwrap
from service.asl.query.jsonpath import Path, compile_path
from service.asl.query.template import BadTemplate
from service.asl.values import Json

SCHEMA: Final = "SCHEMA_VALIDATION_FAILED"
MISSING_TARGET: Final = "MISSING_TRANSITION_TARGET"
MISSING_END: Final = "MISSING_END_STATE"
INVALID_EXPRESSION: Final = "INVALID_JSONATA_EXPRESSION"
NOT_SUPPORTED: Final = "NOT_SUPPORTED"
PROBLEMS_MAX: Final = 1_000
SHOWN_CHARACTERS_MAX: Final = 100
MESSAGE_CHARACTERS_MAX: Final = 500

_ERROR_CODE: Final = re.compile(r"^[A-Z][0-9]{4}: ")

_T = TypeVar("_T")

_TYPES: Final = (
    (str, "String"),
    (bool, "Boolean"),
    (int, "Integer"),
    (float, "Number"),
    (list, "Array"),
    (dict, "Object"),
)


class Language(StrEnum):
    """A query language, by the name it has in a definition."""

    JSONPATH = "JSONPath"
    JSONATA = "JSONata"


# Fields that only one of the two languages has, whatever they are fields of.
_FIELDS_OF: Final = {
    Language.JSONPATH: frozenset(
        {
            "CausePath",
            "ErrorPath",
            "HeartbeatSecondsPath",
            "InputPath",
            "ItemsPath",
            "MaxInputBytesPerBatchPath",
            "MaxItemsPath",
            "MaxItemsPerBatchPath",
            "MaxConcurrencyPath",
            "OutputPath",
            "Parameters",
            "Result",
            "ResultPath",
            "ResultSelector",
            "SecondsPath",
            "TimeoutSecondsPath",
            "TimestampPath",
            "ToleratedFailureCountPath",
            "ToleratedFailurePercentagePath",
            "Variable",
        }
    ),
    Language.JSONATA: frozenset({"Arguments", "Condition", "Items", "Output"}),
}
_OTHER: Final = {
    Language.JSONPATH: Language.JSONATA,
    Language.JSONATA: Language.JSONPATH,
}


class Found(NamedTuple):
    """A problem: `pointer` leads to the very part, `at` to where the service's API places it."""

    code: str
    message: str
    pointer: str
    at: str
    detail: str


class Problems:
    """What is wrong with a definition, at most PROBLEMS_MAX problems of it.

    Problems of the codes `ignored` are not noted.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self.found: list[Found] = []
        self._ignored = ignored

    def add(
        self,
        pointer: str,
        message: str,
        code: str = SCHEMA,
        *,
        at: str | None = None,
        detail: str = "",
    ) -> None:
        """Note a problem of what `pointer` points at."""
        message, detail = message[:MESSAGE_CHARACTERS_MAX], detail[:MESSAGE_CHARACTERS_MAX]
        problem = Found(code, message, pointer, pointer if at is None else at, detail)
        if code in self._ignored:
            return
        if problem not in self.found and len(self.found) < PROBLEMS_MAX:
            self.found.append(problem)


class Variables:
    """The variables of a state: those it refers to, and where it sets which."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.assigned: dict[str, str] = {}


class Node:
    """One object of the definition.

    `trail` is its place within its state, as the service's causes write it, such as `Choices[0]/`.
    """

    def __init__(
        self,
        value: dict[str, Json],
        pointer: str,
        problems: Problems,
        language: Language = Language.JSONPATH,
        *,
        trail: str = "",
        variables: Variables | None = None,
    ) -> None:
        self.value = value
        self.pointer = pointer
        self.problems = problems
        self.language = language
        self.trail = trail
        self.variables = Variables() if variables is None else variables
        self._asked = {"Comment"}
        if not isinstance(value.get("Comment", ""), str):
            self.wrong(
                "Comment", f"Expected a value of type String but was {type_of(value['Comment'])}"
            )

    @property
    def is_jsonata(self) -> bool:
        """Return whether expressions in it are JSONata, not JSONPath."""
        return self.language is Language.JSONATA

    def at(self, name: str) -> str:
        """Return the pointer of a field."""
        return pointer_to(self.pointer, name)

    def wrong(self, name: str, message: str, code: str = SCHEMA) -> None:
        """Note a problem of a field."""
        self.problems.add(self.at(name), message, code)

    def has(self, name: str) -> bool:
        """Return whether the field is there, and count it as known."""
        self._asked.add(name)
        return name in self.value

    def raw(self, name: str) -> Json:
        """Return a field as it is, or None."""
        self._asked.add(name)
        return self.value.get(name)

    def require(self, *names: str) -> bool:
        """Return whether all of these fields are there; note those that are not, in one problem."""
        missing = [name for name in names if name not in self.value]
        if missing:
            self.problems.add(self.pointer, f"These fields are required: [{', '.join(missing)}]")
        return not missing

    def exclusive(self, *names: str) -> str | None:
        """Return which of these fields is there, or None; note a problem when several are."""
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            message = f"There should only be one of the following fields: [{', '.join(present)}]"
            self.problems.add(self.pointer, message)
        return present[0] if present else None

    def refuse(self, names: dict[str, str]) -> None:
        """Note every one of these fields that is there as not supported, by its feature."""
        for name, feature in names.items():
            if self.has(name):
                self.wrong(name, f"{feature} is not supported", NOT_SUPPORTED)

    def close(self) -> None:
        """Note every field that was not asked for."""
        other = _OTHER[self.language]
        for name in self.value:
            if name in self._asked:
                continue
            message = f"Field '{name[:SHOWN_CHARACTERS_MAX]}' is not supported"
            if name in _FIELDS_OF[other]:
                message = (
                    f"The QueryLanguage is set to '{self.language}', but field '{name}' "
                    f"is only supported for the '{other}' QueryLanguage"
                )
            self.problems.add(self.at(name), message, at=self.pointer)

    def text(self, name: str, characters_max: int | None = None) -> str | None:
        """Return a field that is a string, or None."""
        text = self._typed(name, str)
        if text is not None and characters_max is not None and len(text) > characters_max:
            self.wrong(name, f"{len(text)} characters are over the limit of {characters_max}")
            return None
        return text

    def flag(self, name: str) -> bool | None:
        """Return a field that is true or false, or None."""
        return self._typed(name, bool)

    def integer(self, name: str, minimum: int, maximum: int) -> int | None:
        """Return a field that is an integer within limits, or None."""
        number = self._typed(name, int)
        return number if number is None or self._is_within(name, number, minimum, maximum) else None

    def number(self, name: str, minimum: float, maximum: float) -> float | None:
        """Return a field that is a number within limits, or None."""
        if not self.has(name):
            return None
        number = self.value[name]
        if isinstance(number, bool) or not isinstance(number, int | float):
            self.wrong(name, f"Expected a value of type Number but was {type_of(number)}")
            return None
        return float(number) if self._is_within(name, number, minimum, maximum) else None

    def _is_within(self, name: str, number: float, minimum: float, maximum: float) -> bool:
        if number < minimum:
            self.problems.add(
                self.at(name), f"Minimum value is {minimum}", detail=f"{shown(number)} is less"
            )
        elif number > maximum:
            self.problems.add(
                self.at(name), f"Maximum value is {maximum}", detail=f"{shown(number)} is more"
            )
        return minimum <= number <= maximum

    def path(self, name: str) -> Path | None:
        """Return a field that is a JSONPath, or None."""
        path = self._compiled(name, compile_path)
        if path is not None:
            self.variables.read |= path.variables
        return path

    def reference_path(self, name: str) -> Path | None:
        """Return a field that is a Reference Path (a path to one single node), or None."""
        path = self.path(name)
        if path is not None and not path.is_reference:
            message = "Value is not a Reference Path"
            self.problems.add(self.at(name), message, detail=shown(path.text))
            return None
        return path

    def selection(self, name: str) -> Selection | None:
        """Return InputPath or OutputPath; None when it lets everything through."""
        if self.has(name) and self.value[name] is None:
            return Selection(None)
        path = self.path(name)
        return None if path is None or path.text == IDENTITY else Selection(path)

    def placement(self, name: str) -> Placement | None:
        """Return ResultPath; None when the result replaces everything."""
        if self.has(name) and self.value[name] is None:
            return Placement(None)
        path = self.reference_path(name)
        if path is not None and path.root != "input":
            self.wrong(name, f"{shown(path.text)}: only the input can be written to")
            return None
        return None if path is None or path.text == IDENTITY else Placement(path)

    def expression(self, name: str) -> Expression | None:
        """Return a field that is a path or the call of an intrinsic function, or None."""
        expression = self._compiled(name, lambda text: Expression.compile(name, text))
        if expression is not None:
            self.variables.read |= expression.term.variables
        return expression

    def payload(self, name: str) -> Payload | None:
        """Return a field that is a payload template, or None."""
        if not self.has(name):
            return None
        try:
            payload = Payload.compile(self.value[name])
        except BadTemplate as error:
            at = self.at(name)
            for pointer, message, detail in error.problems:
                self.problems.add(at + pointer, message, at=at, detail=detail)
            return None
        self.variables.read |= payload.template.variables
        return payload

    def computed(self, name: str, outcome: str | None = None) -> Computed | None:
        """Return a field in JSONata, which is any JSON with expressions in it, or None.

        `outcome` is what `$states` has in it beside input and context, if anything.
        """
        if not self.has(name):
            return None
        try:
            field = Computed.compile(self.value[name], self.trail + name, outcome)
        except BadExpressions as error:
            for pointer, message in error.problems:
                # Observed: the service leaves out JSONata's code of the error.
                plain = _ERROR_CODE.sub("", message)
                self.problems.add(self.at(name) + pointer, plain, INVALID_EXPRESSION)
            return None
        self.variables.read |= field.expressions.variables
        return field

    def is_expression(self, name: str) -> bool:
        """Return whether a field is one JSONata expression as a whole."""
        value = self.value.get(name)
        return self.is_jsonata and isinstance(value, str) and unwrap(value) is not None

    def child(self, name: str) -> Node | None:
        """Return a field that is an object, or None."""
        value = self._typed(name, dict)
        return None if value is None else self._below(value, self.at(name), name)

    def children(self, name: str, maximum: int) -> list[Node] | None:
        """Return a field that is an array of objects, or None."""
        values = self._typed(name, list)
        if values is None:
            return None
        if len(values) > maximum:
            self.wrong(name, f"{len(values)} entries are over the limit of {maximum}")
            return None
        return list(self._objects(name, values))

    def texts(self, name: str, maximum: int) -> list[str]:
        """Return a field that is a non-empty array of strings; empty when it is something else."""
        values = self._typed(name, list)
        if values is None:
            return []
        if not 1 <= len(values) <= maximum:
            self.wrong(name, f"{len(values)} elements are not between 1 and {maximum}")
            return []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                message = f"Expected a value of type String but was {type_of(value)}"
                self.problems.add(pointer_to(self.at(name), index), message)
        return [value for value in values if isinstance(value, str)]

    def _objects(self, name: str, values: Iterable[Json]) -> Iterator[Node]:
        for index, value in enumerate(values):
            at = pointer_to(self.at(name), index)
            if isinstance(value, dict):
                yield self._below(value, at, f"{name}[{index}]")
            else:
                self.problems.add(at, f"Expected a value of type Object but was {type_of(value)}")

    def _below(self, value: dict[str, Json], pointer: str, step: str) -> Node:
        return Node(
            value,
            pointer,
            self.problems,
            self.language,
            trail=f"{self.trail}{step}/",
            variables=self.variables,
        )

    def _typed(self, name: str, expected: type[_T]) -> _T | None:
        if not self.has(name):
            return None
        value = self.value[name]
        if isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
            return value
        wanted = dict(_TYPES)[expected]
        self.wrong(name, f"Expected a value of type {wanted} but was {type_of(value)}")
        return None

    def _compiled(self, name: str, compiler: Callable[[str], _T]) -> _T | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return compiler(text)
        except ValueError as error:
            self.wrong(name, str(error))
            return None


def type_of(value: Json) -> str:
    """Return the name of a value's JSON type, and the value itself where it is short."""
    if value is None:
        return "null"
    name = next(name for type_, name in _TYPES if isinstance(value, type_))
    return name if isinstance(value, list | dict) else f"{name} {shown(value)}"


def shown(value: str | int | float) -> str:
    """Return a value as a message quotes it, cut to a bounded length."""
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
