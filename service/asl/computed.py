"""How data flows through a state in JSONata: Arguments, Output, Assign and fields with `{% … %}`.

The same in JSONPath is in dataflow.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.asl.context import Visit
from service.asl.dataflow import JsonPathFlow, shortened
from service.asl.errors import EvaluationFailed
from service.asl.query.expressions import (
    RESERVED_VARIABLE,
    Expressions,
    Reach,
    compile_expressions,
)
from service.asl.values import Json

_NOTHING: Final[Mapping[str, Json]] = {}


@dataclass(frozen=True, slots=True)
class Computed:
    """One field in JSONata: a constant, or what expressions make of it."""

    expressions: Expressions

    @classmethod
    def compile(cls, value: Json, location: str, outcome: str | None = None) -> Computed:
        """Return the compiled field; `outcome` is what `$states` has beside input and context.

        Raise BadExpressions with all that is wrong with it.
        """
        return cls(compile_expressions(value, location, outcome))

    @property
    def location(self) -> str:
        """Return the name by which a failure tells of the field."""
        return self.expressions.location

    def of(self, visit: Visit, also: Mapping[str, Json] = _NOTHING) -> Json:
        """Return the value of the field; `also` are members of `$states` beside the input.

        Raise EvaluationFailed when an expression fails or yields nothing.
        """
        expressions = self.expressions
        if expressions.is_constant:
            return expressions.constant
        states: dict[str, Json] = {"input": visit.input, **also}
        if expressions.uses_context and "context" not in states:
            states["context"] = visit.context()
        variables = {**visit.variables, RESERVED_VARIABLE: states}
        return expressions.evaluate(Reach(variables, visit.now, visit.random, visit.work))

    def for_item(self, visit: Visit, index: int, item: Json) -> Json:
        """Return the value of the field for one item of a Map."""
        if not self.expressions.uses_context:
            return self.of(visit)
        return self.of(visit, {"context": visit.context_for_item(index, item)})

    def text(self, visit: Visit) -> str:
        """Return the value of a field that takes a string."""
        value = self.of(visit)
        if not isinstance(value, str):
            raise self.expressions.unexpected(value, "string")
        return value

    def flag(self, visit: Visit) -> bool:
        """Return the value of a field that takes a boolean."""
        value = self.of(visit)
        if not isinstance(value, bool):
            raise self.expressions.unexpected(value, "boolean")
        return value

    def items(self, visit: Visit) -> list[Json]:
        """Return the value of a field that takes an array."""
        value = self.of(visit)
        if not isinstance(value, list):
            raise self.expressions.unexpected(value, "array")
        return value

    # A union, since a whole number given as a float becomes one when this is compiled.
    def number(self, visit: Visit, minimum: int | float, maximum: int | float) -> int | float:
        """Return the value of a field that takes a number, from `minimum` to `maximum`."""
        value = self.of(visit)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.expressions.unexpected(value, "number")
        if not minimum <= value <= maximum:
            raise self._unfit(value, f"a number between {minimum:g} and {maximum:g}")
        return value

    def integer(self, visit: Visit, minimum: int, maximum: int) -> int:
        """Return the value of a field that takes an integer, from `minimum` to `maximum`."""
        value = self.number(visit, float("-inf"), float("inf"))
        if not minimum <= value <= maximum or value != int(value):
            raise self._unfit(value, f"an integer between {minimum} and {maximum}")
        return int(value)

    def _unfit(self, value: Json, wanted: str) -> EvaluationFailed:
        cause = f"The {self.location} field is not {wanted}: {shortened(value)}"
        return EvaluationFailed(cause, self.location)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonataFlow:
    """What the fields of a state, of a Choice rule or of a Catcher do to data, in JSONata.

    `result` is the name that a result has in `$states`; None when there is none, and the input is
    what goes on.
    """

    arguments_field: Computed | None = None
    output_field: Computed | None = None
    assign: Computed | None = None
    result: str | None = None

    def selected(self, visit: Visit) -> Json:
        """Return the input: JSONata states select nothing of it."""
        return visit.input

    def arguments(self, visit: Visit) -> Json:
        """Return the Arguments, or the input when there are none."""
        return visit.input if self.arguments_field is None else self.arguments_field.of(visit)

    def output(self, visit: Visit, result: Json) -> Json:
        """Return the Output, or the result when there is none."""
        if self.output_field is None:
            return result
        return self.output_field.of(visit, self._also(result))

    def assigned(self, visit: Visit, result: Json) -> Mapping[str, Json] | None:
        """Return the variables that Assign sets; None when it sets none."""
        if self.assign is None:
            return None
        variables = self.assign.of(visit, self._also(result))
        assert isinstance(variables, dict), variables
        return variables

    def _also(self, result: Json) -> Mapping[str, Json]:
        return _NOTHING if self.result is None else {self.result: result}


DataFlow: TypeAlias = JsonPathFlow | JsonataFlow
