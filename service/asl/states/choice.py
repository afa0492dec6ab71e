"""Choice state. ASL spec: "Choice State"; Step Functions guide: "Choice workflow state".

A comparison of values of different types is false, never an error; a path that selects nothing is
an error, except for IsPresent. Strings are ordered by UTF-16 code units, as the service orders
them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from service.asl.computed import Computed, DataFlow
from service.asl.context import Visit
from service.asl.dataflow import find
from service.asl.errors import NO_CHOICE_MATCHED, RUNTIME, ExecutionError
from service.asl.query.jsonpath import Path, PathNotFound
from service.asl.states.base import Goto, State, read_common, read_rule_flow
from service.asl.states.fields import Node, type_of
from service.asl.values import Json, parse_timestamp

RULES_MAX: Final = 1_000
RULE_DEPTH_MAX: Final = 20

NO_MATCH_CAUSE: Final = (
    "Failed to transition out of the state. The state does not point to a next state."
)

Test: TypeAlias = Callable[[Json, Json], bool]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A test of a value against a literal, or against another value that a path selects."""

    variable: Path
    test: Test
    operand: Json | Path

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test.

        Raise ExecutionError("States.Runtime") when a path selects nothing.
        """
        operand = self.operand
        if isinstance(operand, Path):
            operand = _selected(operand, value, visit)
        return self.test(_selected(self.variable, value, visit), operand)


@dataclass(frozen=True, slots=True)
class Presence:
    """IsPresent: whether a path selects anything."""

    variable: Path
    expected: bool

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test."""
        try:
            find(self.variable, value, visit)
        except PathNotFound:
            return not self.expected
        return self.expected


@dataclass(frozen=True, slots=True)
class And:
    """All of several rules."""

    rules: tuple[Rule, ...]

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test; it ends at the first rule that does not hold."""
        return all(rule.holds(value, visit) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of several rules."""

    rules: tuple[Rule, ...]

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test; it ends at the first rule that holds."""
        return any(rule.holds(value, visit) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of a rule."""

    rule: Rule

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test."""
        return not self.rule.holds(value, visit)


Rule: TypeAlias = Comparison | Presence | And | Or | Not


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule in JSONata: a boolean, or an expression that yields one."""

    field: Computed

    def holds(self, value: Json, visit: Visit) -> bool:
        """Return the outcome of the test.

        Raise EvaluationFailed unless the expression yields a boolean.
        """
        return self.field.flag(visit)


@dataclass(frozen=True, slots=True)
class Way:
    """One of the Choices: its rule, the state it leads to, and what its fields do to data."""

    rule: Rule | Condition
    next: str
    flow: DataFlow


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(State):
    """Go on with the state whose rule is the first that holds, or with the Default."""

    choices: tuple[Way, ...]
    default: str | None = None

    @property
    def type(self) -> str:
        return "Choice"

    def enter(self, visit: Visit) -> Goto:
        """Return the way to the chosen state.

        Raise ExecutionError("States.NoChoiceMatched") when no rule holds and there is no Default.
        """
        value = self.flow.selected(visit)
        for way in self.choices:
            if way.rule.holds(value, visit):
                flow = way.flow
                return Goto(way.next, flow.output(visit, value), flow.assigned(visit, value))
        if self.default is None:
            raise ExecutionError(NO_CHOICE_MATCHED, NO_MATCH_CAUSE)
        return self.lead(self.default, visit, value)


def _selected(path: Path, value: Json, visit: Visit) -> Json:
    try:
        return find(path, value, visit)
    except PathNotFound as error:
        cause = (
            f"Invalid path '{path.text}': The choice state's condition path references "
            "an invalid value."
        )
        raise ExecutionError(RUNTIME, cause) from error


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _moment(value: Json) -> datetime | None:
    try:
        return parse_timestamp(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_timestamp(value: Json) -> bool:
    return _moment(value) is not None


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _strings(compare: Callable[..., bool]) -> Test:
    def test(value: Json, operand: Json) -> bool:
        if not (isinstance(value, str) and isinstance(operand, str)):
            return False
        if value.isascii() and operand.isascii():
            return compare(value, operand)
        return compare(_utf16(value), _utf16(operand))

    return test


def _numbers(compare: Callable[..., bool]) -> Test:
    def test(value: Json, operand: Json) -> bool:
        if not (isinstance(value, int | float) and isinstance(operand, int | float)):
            return False
        return _is_number(value) and _is_number(operand) and compare(value, operand)

    return test


def _moments(compare: Callable[[datetime, datetime], bool]) -> Test:
    def test(value: Json, operand: Json) -> bool:
        left, right = _moment(value), _moment(operand)
        return left is not None and right is not None and compare(left, right)

    return test


def _booleans(value: Json, operand: Json) -> bool:
    return isinstance(value, bool) and isinstance(operand, bool) and value is operand


def _is(predicate: Callable[[Json], bool]) -> Test:
    def test(value: Json, operand: Json) -> bool:
        return predicate(value) is operand

    return test


def string_matches(text: str, pattern: tuple[str, ...]) -> bool:
    """Return whether `text` is the parts of `pattern` with anything between them.

    Each part is looked for once, from left to right: the time is bounded by the product of the
    lengths.
    """
    first, *middle = pattern
    if not middle:
        return text == first
    last = middle.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def wildcard_parts(pattern: str) -> tuple[str, ...]:
    r"""Return the literal parts between the `*` of a StringMatches pattern.

    Raise ValueError when a backslash stands before anything but `*` or a backslash.
    """
    parts, part, characters = [], "", iter(pattern)
    for character in characters:
        if character == "*":
            parts.append(part)
            part = ""
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "\\"):
                raise ValueError("a backslash can only stand before * or another backslash")
            part += escaped
        else:
            part += character
    return (*parts, part)


def _matches(pattern: str) -> Test:
    parts = wildcard_parts(pattern)

    def test(value: Json, operand: Json) -> bool:
        return isinstance(value, str) and string_matches(value, parts)

    return test


_ORDER: Final[tuple[tuple[str, Callable[..., bool]], ...]] = (
    ("Equals", operator.eq),
    ("LessThan", operator.lt),
    ("GreaterThan", operator.gt),
    ("LessThanEquals", operator.le),
    ("GreaterThanEquals", operator.ge),
)

# Operator -> (test, JSON type that its literal must have). Each of these has a form that ends in
# Path as well.
_COMPARISONS: Final[dict[str, tuple[Test, type | tuple[type, ...]]]] = {
    **{f"String{name}": (_strings(compare), str) for name, compare in _ORDER},
    **{f"Numeric{name}": (_numbers(compare), (int, float)) for name, compare in _ORDER},
    **{f"Timestamp{name}": (_moments(compare), str) for name, compare in _ORDER},
    "BooleanEquals": (_booleans, bool),
}

_TYPE_TESTS: Final[dict[str, Test]] = {
    "IsNull": _is(lambda value: value is None),
    "IsNumeric": _is(_is_number),
    "IsString": _is(lambda value: isinstance(value, str)),
    "IsBoolean": _is(lambda value: isinstance(value, bool)),
    "IsTimestamp": _is(_is_timestamp),
}

OPERATORS: Final = (
    *_COMPARISONS,
    *(f"{name}Path" for name in _COMPARISONS),
    "StringMatches",
    "IsPresent",
    *_TYPE_TESTS,
)
_CONNECTIVES: Final = ("And", "Or", "Not")


def read(node: Node, name: str) -> Choice:
    """Return the state, noting what is wrong with it."""
    common = read_common(node, name, "Assign", has_next=False)
    ways: list[Way] = []
    if node.require("Choices"):
        if node.raw("Choices") == []:
            node.wrong("Choices", "Value cannot be empty")
        ways = [_read_way(way, common.flow) for way in node.children("Choices", RULES_MAX) or []]
    return Choice(
        name=name,
        flow=common.flow,
        choices=tuple(ways),
        default=node.text("Default"),
    )


def _read_way(node: Node, flow: DataFlow) -> Way:
    node.require("Next")
    next_ = node.text("Next") or ""
    flow = read_rule_flow(node, flow)
    rule = _read_condition(node) if node.is_jsonata else _read_rule(node, 0)
    # A rule that cannot be read keeps its place; the definition is refused anyway.
    return Way(rule or Or(()), next_, flow)


def _read_condition(node: Node) -> Condition | None:
    field = None
    if node.require("Condition"):
        if not node.is_expression("Condition"):
            node.flag("Condition")
        field = node.computed("Condition")
    node.close()
    return None if field is None else Condition(field)


def _read_rule(node: Node, depth: int) -> Rule | None:
    rule: Rule | None = None
    if depth > RULE_DEPTH_MAX:
        node.problems.add(node.pointer, f"Rules are nested deeper than {RULE_DEPTH_MAX}")
        return None
    connective = next((name for name in _CONNECTIVES if name in node.value), None)
    if connective is not None:
        rule = _read_connective(node, connective, depth)
    elif node.require("Variable"):
        rule = _read_comparison(node)
    node.close()
    return rule


def _read_connective(node: Node, connective: str, depth: int) -> Rule | None:
    node.exclusive(*_CONNECTIVES)
    if connective == "Not":
        inner = node.child("Not")
        rule = None if inner is None else _read_rule(inner, depth + 1)
        return None if rule is None else Not(rule)
    nodes = node.children(connective, RULES_MAX) or []
    if node.raw(connective) == []:
        node.wrong(connective, "Value cannot be empty")
    rules = tuple(rule for inner in nodes if (rule := _read_rule(inner, depth + 1)) is not None)
    return And(rules) if connective == "And" else Or(rules)


def _read_comparison(node: Node) -> Rule | None:
    variable = node.path("Variable")
    name = node.exclusive(*OPERATORS)
    if name is None:
        node.problems.add(node.pointer, "A comparison operator is required")
    if name is None or variable is None:
        return None
    if name == "IsPresent":
        return Presence(variable, bool(node.flag(name)))
    if name in _TYPE_TESTS:
        return Comparison(variable, _TYPE_TESTS[name], bool(node.flag(name)))
    if name == "StringMatches":
        return _read_pattern(node, variable)
    if name.endswith("Path"):
        path = node.path(name)
        test = _COMPARISONS[name.removesuffix("Path")][0]
        return None if path is None else Comparison(variable, test, path)
    return _read_literal(node, variable, name)


def _read_pattern(node: Node, variable: Path) -> Rule | None:
    pattern = node.text("StringMatches")
    if pattern is None:
        return None
    try:
        return Comparison(variable, _matches(pattern), None)
    except ValueError as error:
        node.wrong("StringMatches", str(error))
        return None


def _read_literal(node: Node, variable: Path, name: str) -> Rule | None:
    test, expected = _COMPARISONS[name]
    operand = node.raw(name)
    if not isinstance(operand, expected) or (expected is not bool and isinstance(operand, bool)):
        kind = name.partition("Equals")[0].partition("Less")[0].partition("Greater")[0]
        node.wrong(name, f"Expected a literal for {kind} but was {type_of(operand)}")
        return None
    if name.startswith("Timestamp") and not _is_timestamp(operand):
        node.wrong(name, "String does not match RFC3339 timestamp")
        return None
    return Comparison(variable, test, operand)
