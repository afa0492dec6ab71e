"""Payload templates: JSON in which a member named `name.$` becomes `name`, with what it selects.

Compiled once to nested functions. A part without such members is a constant: it is handed out as it
is, again and again, since nobody changes a value. Source: ASL spec, "Payload Template".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from service.asl.document import pointer_to
from service.asl.errors import PARAMETER_PATH_FAILURE, ExecutionError
from service.asl.query.intrinsics import parse_intrinsic
from service.asl.query.jsonpath import Path, PathNotFound, compile_path
from service.asl.query.scope import Scope
from service.asl.values import Json

TEMPLATE_DEPTH_MAX: Final = 100
TEMPLATE_PROBLEMS_MAX: Final = 100

_MARK: Final = ".$"

Evaluate: TypeAlias = Callable[[Scope], Json]


class BadTemplate(ValueError):
    """A template that does not compile, with all its problems.

    Each of `problems` is the RFC 6901 pointer of a member within the template, the rule it breaks
    in the words of the service, and how it does, which may be empty.
    """

    def __init__(self, problems: list[tuple[str, str, str]]) -> None:
        super().__init__(
            "; ".join(f"{pointer or '/'}: {rule} ({why})" for pointer, rule, why in problems)
        )
        self.problems = tuple(problems)


class Template:
    """A compiled template; made by `compile_template`."""

    __slots__ = ("_constant", "_evaluate", "variables")

    def __init__(
        self, constant: Json, evaluate: Evaluate | None, variables: frozenset[str]
    ) -> None:
        self._constant = constant
        self._evaluate = evaluate
        self.variables = variables

    def evaluate(self, scope: Scope) -> Json:
        """Return the template filled from what the scope holds.

        Parts of the result are shared with the template and the scope. Raise
        ExecutionError States.ParameterPathFailure when a path finds nothing,
        States.IntrinsicFailure when a function fails.
        """
        if self._evaluate is None:
            return self._constant
        return self._evaluate(scope)


def compile_template(value: Json) -> Template:
    """Return the compiled template.

    Raise BadTemplate, naming every member `name.$` that is neither a path nor a call of an
    intrinsic function, every name given twice (as `name` and `name.$`), and a part nested deeper
    than TEMPLATE_DEPTH_MAX.
    """
    compiler = _Compiler()
    evaluate = compiler.part(value, "", 0)
    if compiler.problems:
        raise BadTemplate(compiler.problems[:TEMPLATE_PROBLEMS_MAX])
    return Template(value, evaluate, frozenset(compiler.variables))


class _Compiler:
    def __init__(self) -> None:
        self.problems: list[tuple[str, str, str]] = []
        self.variables: set[str] = set()

    def part(self, part: Json, pointer: str, depth: int) -> Evaluate | None:
        """Return how to evaluate a part; None if it is a constant."""
        if not isinstance(part, (dict, list)):
            return None
        if depth >= TEMPLATE_DEPTH_MAX:
            rule = f"The template is nested deeper than {TEMPLATE_DEPTH_MAX} levels"
            self.problems.append((pointer, rule, ""))
            return None
        if isinstance(part, list):
            elements = [
                (element, self.part(element, pointer_to(pointer, index), depth + 1))
                for index, element in enumerate(part)
            ]
            return _array(elements) if any(evaluate for _, evaluate in elements) else None
        members: list[tuple[str, Json, Evaluate | None]] = []
        for name, member in part.items():
            place = pointer_to(pointer, name)
            if not name.endswith(_MARK):
                members.append((name, member, self.part(member, place, depth + 1)))
                continue
            if (evaluate := self._field(name, member, place)) is not None:
                members.append((name.removesuffix(_MARK), None, evaluate))
            if (plain := name.removesuffix(_MARK)) in part:
                rule = f"The object has both '{plain}' and '{name}'"
                self.problems.append((place, rule, ""))
        return _object(members) if any(evaluate for *_, evaluate in members) else None

    def _field(self, name: str, text: Json, place: str) -> Evaluate | None:
        """Return how to evaluate a member `name.$`; None if it cannot be."""
        # Observed: the words in which CreateStateMachine refuses one.
        rule = f"The value for the field '{name}' must be a valid JSONPath"
        rule += " or a valid intrinsic function call"
        if not isinstance(text, str):
            self.problems.append((place, rule, "it is no string"))
            return None
        try:
            if not text.startswith("$"):
                call = parse_intrinsic(text)
                self.variables |= call.variables
                return call.evaluate
            path = compile_path(text)
        except ValueError as error:
            self.problems.append((place, rule, str(error)))
            return None
        self.variables |= path.variables
        return _selection(name, path)


def _selection(field: str, path: Path) -> Evaluate:
    is_whole_context = path.text == "$$"

    def evaluate(scope: Scope) -> Json:
        try:
            found = path.find(scope.value, scope.context, scope.variables, scope.work)
        except PathNotFound as error:
            raise ExecutionError(PARAMETER_PATH_FAILURE, error.in_field(field)) from error
        return _as_in_payloads(found) if is_whole_context else found

    return evaluate


def _as_in_payloads(context: Json) -> Json:
    """Return the Context Object as a payload has it.

    Observed: with Execution.RedriveCount where a Pass is given it, and without where a Task is;
    of the two only a Task has State.RetryCount. By its name it is there for both.
    """
    if not isinstance(context, dict):
        return context
    state, execution = context.get("State"), context.get("Execution")
    if not (isinstance(state, dict) and isinstance(execution, dict) and "RetryCount" in state):
        return context
    kept = {name: value for name, value in execution.items() if name != "RedriveCount"}
    return {**context, "Execution": kept}


def _object(members: list[tuple[str, Json, Evaluate | None]]) -> Evaluate:
    def evaluate(scope: Scope) -> Json:
        return {
            name: constant if dynamic is None else dynamic(scope)
            for name, constant, dynamic in members
        }

    return evaluate


def _array(elements: list[tuple[Json, Evaluate | None]]) -> Evaluate:
    def evaluate(scope: Scope) -> Json:
        return [constant if dynamic is None else dynamic(scope) for constant, dynamic in elements]

    return evaluate
