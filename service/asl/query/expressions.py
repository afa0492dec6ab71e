"""Fields in JSONata: JSON in which a string `{% … %}` stands for what the expression yields.

Compiled once to nested functions, as JSONPath templates are. Source: ASL spec, "JSONata"; Step
Functions guide, "Transforming data with JSONata".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from service.asl.document import pointer_to
from service.asl.errors import EvaluationFailed, ExecutionError
from service.asl.query.jsonata import BadExpression, Expression, compile_expression, unwrap
from service.asl.share import Work
from service.asl.values import Json, Random

EXPRESSIONS_DEPTH_MAX: Final = 100
EXPRESSIONS_PROBLEMS_MAX: Final = 100
RESERVED_VARIABLE: Final = "states"
# Members of `$states` that only some fields have: Output and Assign, of a state or of its Catch.
RESULT: Final = "result"
ERROR_OUTPUT: Final = "errorOutput"

# Whether a text may look at $states.context: unless every $states goes on to another member.
_LOOKS_AT_CONTEXT: Final = re.compile(r"\$states\b(?!\s*\.\s*(?:input|result|errorOutput)\b)")


class Reach(NamedTuple):
    """What an expression can see: the variables by their names, the moment, random numbers.

    `work` is where what it costs is counted.
    """

    variables: Mapping[str, Json]
    now: datetime
    random: Random
    work: Work


Evaluate: TypeAlias = Callable[[Reach], Json]


class BadExpressions(ValueError):
    """A field with expressions that do not compile.

    Each of `problems` is the RFC 6901 pointer of a string within the field, and a message.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer or '/'}: {message}" for pointer, message in problems))
        self.problems = tuple(problems)


class Expressions:
    """A compiled field; made by `compile_expressions`.

    `location` is the name by which the service tells of the field, such as `Choices[0]/Output`.
    """

    __slots__ = ("_evaluate", "constant", "expression", "location", "uses_context", "variables")

    def __init__(
        self, location: str, value: Json, evaluate: Evaluate | None, found: list[Expression]
    ) -> None:
        self.location = location
        self.constant = value
        self.expression = found[0] if isinstance(value, str) and found else None
        names = frozenset[str]().union(*(expression.variables for expression in found))
        self.variables = names - {RESERVED_VARIABLE}
        self.uses_context = any(_LOOKS_AT_CONTEXT.search(expression.text) for expression in found)
        self._evaluate = evaluate

    @property
    def is_constant(self) -> bool:
        """Return whether the field has no expression in it."""
        return self._evaluate is None

    def evaluate(self, reach: Reach) -> Json:
        """Return the field with every expression replaced by what it yields.

        Raise EvaluationFailed for the first that yields nothing or fails.
        """
        return self.constant if self._evaluate is None else self._evaluate(reach)

    def unexpected(self, value: Json, expected: str) -> EvaluationFailed:
        """Return the failure of a field that wants a value of another type, such as `array`."""
        assert self.expression is not None, "the type of a constant is checked when it is read"
        error = self.expression.unexpected(value, expected, self.location)
        return EvaluationFailed(error.cause, self.location)


def compile_expressions(value: Json, location: str, outcome: str | None) -> Expressions:
    """Return the compiled field; `outcome` is RESULT or ERROR_OUTPUT if `$states` has it there.

    Raise BadExpressions, naming every string `{% … %}` that is no expression or looks at what
    `$states` has not, and a part nested deeper than EXPRESSIONS_DEPTH_MAX.
    """
    compiler = _Compiler({RESULT, ERROR_OUTPUT} - {outcome})
    evaluate = compiler.part(value, location, "", 0)
    if compiler.problems:
        raise BadExpressions(compiler.problems[:EXPRESSIONS_PROBLEMS_MAX])
    return Expressions(location, value, evaluate, compiler.found)


class _Compiler:
    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.problems: list[tuple[str, str]] = []
        self.found: list[Expression] = []

    def part(self, part: Json, location: str, pointer: str, depth: int) -> Evaluate | None:
        """Return how to evaluate a part; None if it is a constant."""
        if isinstance(part, str):
            return self._text(part, location, pointer)
        if not isinstance(part, (dict, list)):
            return None
        if depth >= EXPRESSIONS_DEPTH_MAX:
            message = f"The field is nested deeper than {EXPRESSIONS_DEPTH_MAX} levels"
            self.problems.append((pointer, message))
            return None
        if isinstance(part, list):
            elements = [
                (item, self.part(item, f"{location}[{i}]", pointer_to(pointer, i), depth + 1))
                for i, item in enumerate(part)
            ]
            return _array(elements) if any(evaluate for _, evaluate in elements) else None
        members = [
            (
                name,
                item,
                self.part(item, f"{location}/{name}", pointer_to(pointer, name), depth + 1),
            )
            for name, item in part.items()
        ]
        return _object(members) if any(evaluate for *_, evaluate in members) else None

    def _text(self, text: str, location: str, pointer: str) -> Evaluate | None:
        inner = unwrap(text)
        if inner is None:
            return None
        try:
            expression = compile_expression(inner)
        except BadExpression as error:
            self.problems.append((pointer, error.message))
            return None
        for member in sorted(self.missing):
            if (RESERVED_VARIABLE, member) in expression.members:
                message = f"$states.{member} is not available in this field"
                self.problems.append((pointer, message))
        self.found.append(expression)
        return _yielding(expression, location)


def _yielding(expression: Expression, location: str) -> Evaluate:
    def evaluate(reach: Reach) -> Json:
        try:
            return expression.evaluate(*reach, location)
        except ExecutionError as error:
            raise EvaluationFailed(error.cause, location) from error

    return evaluate


def _object(members: list[tuple[str, Json, Evaluate | None]]) -> Evaluate:
    def evaluate(reach: Reach) -> Json:
        return {
            name: constant if dynamic is None else dynamic(reach)
            for name, constant, dynamic in members
        }

    return evaluate


def _array(elements: list[tuple[Json, Evaluate | None]]) -> Evaluate:
    def evaluate(reach: Reach) -> Json:
        return [constant if dynamic is None else dynamic(reach) for constant, dynamic in elements]

    return evaluate
