"""How data flows through a state: InputPath, Parameters, ResultSelector, ResultPath, OutputPath.

Each field is compiled once. A field that changes nothing (`$`, or left out) is None in a state, so
that the common case costs one comparison. Values are shared, never copied and never changed: what a
path selects is the input's own part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.asl.context import Visit
from service.asl.errors import (
    DATA_LIMIT_EXCEEDED,
    RESULT_PATH_MATCH_FAILURE,
    RUNTIME,
    ExecutionError,
    ReportedError,
)
from service.asl.query.intrinsics import Intrinsic, parse_intrinsic
from service.asl.query.jsonpath import Path, PathNotFound, PathNotSettable, compile_path
from service.asl.query.template import Template, compile_template
from service.asl.values import Json, exceeds, text_of

IDENTITY: Final = "$"
CAUSE_VALUE_CHARACTERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Selection:
    """InputPath or OutputPath: the part of a value that goes on, or `{}` when the field is null."""

    path: Path | None

    def of(self, value: Json, visit: Visit) -> Json:
        """Return the selected part of `value`.

        Raise ExecutionError("States.Runtime") when there is no such part.
        """
        if self.path is None:
            return {}
        try:
            return find(self.path, value, visit)
        except PathNotFound as error:
            cause = f"Invalid path '{self.path.text}' : {error}"
            raise ExecutionError(RUNTIME, cause) from error


@dataclass(frozen=True, slots=True)
class Placement:
    """ResultPath: where in the raw input the result goes, or nowhere when the field is null."""

    path: Path | None

    def of(self, value: Json, result: Json) -> Json:
        """Return `value` with `result` in its place; `value` itself stays as it was.

        Raise ExecutionError("States.ResultPathMatchFailure") when `value` has no room there.
        """
        if self.path is None:
            return value
        try:
            return self.path.set(value, result)
        except PathNotSettable as error:
            cause = f"Unable to apply ReferencePath {self.path.text} to input {shortened(value)}"
            raise ExecutionError(RESULT_PATH_MATCH_FAILURE, cause) from error


@dataclass(frozen=True, slots=True)
class Payload:
    """Parameters, ResultSelector or ItemSelector: a template that is filled from a value."""

    template: Template
    uses_context: bool

    @classmethod
    def compile(cls, value: Json) -> Payload:
        """Return the compiled template.

        Raise BadTemplate with all that is wrong with it.
        """
        # Over-careful at worst: a `$$` in a constant builds a Context Object that is not looked at.
        return cls(compile_template(value), "$$" in text_of(value))

    def of(self, value: Json, visit: Visit) -> Json:
        """Return the template filled from `value`; paths and intrinsics fail as ExecutionError."""
        context = visit.context() if self.uses_context else None
        return self.template.evaluate(value, context, visit.random)

    def for_item(self, value: Json, visit: Visit, index: int, item: Json) -> Json:
        """Return the template filled from `value` for one item of a Map."""
        context = visit.context_for_item(index, item) if self.uses_context else None
        return self.template.evaluate(value, context, visit.random)


@dataclass(frozen=True, slots=True)
class Expression:
    """A field that takes a path or an intrinsic function: ErrorPath, CausePath."""

    field: str
    term: Path | Intrinsic

    @classmethod
    def compile(cls, field: str, text: str) -> Expression:
        """Return the compiled field.

        Raise ValueError when `text` is neither a path nor a call of an intrinsic function.
        """
        is_call = text.startswith("States.")
        return cls(field, parse_intrinsic(text) if is_call else compile_path(text))

    def of(self, value: Json, visit: Visit) -> Json:
        """Return what the field selects or computes.

        Raise ExecutionError("States.Runtime") when a path selects nothing,
        "States.IntrinsicFailure" when a call fails.
        """
        if not isinstance(self.term, Path):
            return self.term.evaluate(value, visit.context(), visit.random)
        try:
            return find(self.term, value, visit)
        except PathNotFound as error:
            cause = (
                f"The JSONPath '{self.term.text}' specified for the field '{self.field}' "
                f"could not be found in the input '{shortened(value)}'"
            )
            raise ExecutionError(RUNTIME, cause) from error


def find(path: Path, value: Json, visit: Visit) -> Json:
    """Return what a path selects in `value` or in the Context Object.

    Raise PathNotFound when that is nothing.
    """
    return path.find(value, visit.context() if path.root == "context" else None)


def check_size(value: Json, origin: str) -> None:
    """Raise States.DataLimitExceeded when `value`, made by the state `origin`, is too large."""
    if exceeds(value):
        raise ReportedError(DATA_LIMIT_EXCEEDED, too_large(origin))


def too_large(origin: str) -> str:
    """Return the cause that Step Functions gives for a result over the payload limit."""
    return (
        f"The state/task '{origin}' returned a result with a size exceeding "
        "the maximum number of bytes service limit."
    )


def shortened(value: Json) -> str:
    """Return JSON text for use in a cause, cut to a bounded length."""
    return text_of(value)[:CAUSE_VALUE_CHARACTERS_MAX]
