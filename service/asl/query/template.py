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
from service.asl.values import Json, Random

TEMPLATE_DEPTH_MAX: Final = 100
TEMPLATE_PROBLEMS_MAX: Final = 100

_MARK: Final = ".$"

Evaluate: TypeAlias = Callable[[Json, Json, Random], Json]


class BadTemplate(ValueError):
    """A template that does not compile, with all its problems.

    Each of `problems` is the RFC 6901 pointer of a member within the template, and a message.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{pointer or '/'}: {message}" for pointer, message in problems))
        self.problems = tuple(problems)


class Template:
    """A compiled template; made by `compile_template`."""

    __slots__ = ("_constant", "_evaluate")

    def __init__(self, constant: Json, evaluate: Evaluate | None) -> None:
        self._constant = constant
        self._evaluate = evaluate

    def evaluate(self, value: Json, context: Json, random: Random) -> Json:
        """Return the template filled from the input `value` and the context object.

        Parts of the result are shared with the template, the input and the context. Raise
        ExecutionError States.ParameterPathFailure when a path finds nothing,
        States.IntrinsicFailure when a function fails.
        """
        if self._evaluate is None:
            return self._constant
        return self._evaluate(value, context, random)


def compile_template(value: Json) -> Template:
    """Return the compiled template.

    Raise BadTemplate, naming every member `name.$` that is neither a path nor a call of an
    intrinsic function, every name given twice (as `name` and `name.$`), and a part nested deeper
    than TEMPLATE_DEPTH_MAX.
    """
    problems: list[tuple[str, str]] = []
    evaluate = _compile(value, "", 0, problems)
    if problems:
        raise BadTemplate(problems[:TEMPLATE_PROBLEMS_MAX])
    return Template(value, evaluate)


def _compile(
    part: Json, pointer: str, depth: int, problems: list[tuple[str, str]]
) -> Evaluate | None:
    """Return how to evaluate a part; None if it is a constant."""
    if not isinstance(part, (dict, list)):
        return None
    if depth >= TEMPLATE_DEPTH_MAX:
        problems.append(
            (pointer, f"the template is nested deeper than {TEMPLATE_DEPTH_MAX} levels")
        )
        return None
    if isinstance(part, list):
        elements = [
            (element, _compile(element, pointer_to(pointer, index), depth + 1, problems))
            for index, element in enumerate(part)
        ]
        return _array(elements) if any(evaluate for _, evaluate in elements) else None
    members: list[tuple[str, Json, Evaluate | None]] = []
    for name, member in part.items():
        place = pointer_to(pointer, name)
        if not name.endswith(_MARK):
            members.append((name, member, _compile(member, place, depth + 1, problems)))
            continue
        try:
            members.append((name.removesuffix(_MARK), None, _compile_field(name, member)))
        except ValueError as error:
            problems.append((place, str(error)))
        if name.removesuffix(_MARK) in part:
            problems.append(
                (place, f"the object has both '{name.removesuffix(_MARK)}' and '{name}'")
            )
    return _object(members) if any(evaluate for *_, evaluate in members) else None


def _compile_field(name: str, text: Json) -> Evaluate:
    """Return how to evaluate a member `name.$`."""
    # Observed: the words in which CreateStateMachine refuses one.
    rule = f"The value for the field '{name}' must be a valid JSONPath"
    if not isinstance(text, str):
        raise ValueError(f"{rule}, which is a string")
    try:
        if text.startswith("$"):
            return _selection(name, compile_path(text))
        return parse_intrinsic(text).evaluate
    except ValueError as error:
        raise ValueError(f"{rule} or a valid intrinsic function call: {error}") from error


def _selection(field: str, path: Path) -> Evaluate:
    def evaluate(value: Json, context: Json, random: Random) -> Json:
        try:
            return path.find(value, context)
        except PathNotFound as error:
            raise ExecutionError(PARAMETER_PATH_FAILURE, error.in_field(field)) from error

    return evaluate


def _object(members: list[tuple[str, Json, Evaluate | None]]) -> Evaluate:
    def evaluate(value: Json, context: Json, random: Random) -> Json:
        return {
            name: constant if dynamic is None else dynamic(value, context, random)
            for name, constant, dynamic in members
        }

    return evaluate


def _array(elements: list[tuple[Json, Evaluate | None]]) -> Evaluate:
    def evaluate(value: Json, context: Json, random: Random) -> Json:
        return [
            constant if dynamic is None else dynamic(value, context, random)
            for constant, dynamic in elements
        ]

    return evaluate
