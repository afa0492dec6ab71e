"""How data flows through a state in JSONPath: InputPath, Parameters, ResultSelector and so on.

Each field is compiled once. A field that changes nothing (`$`, or left out) is None in a state, so
that the common case costs one comparison. Values are shared, never copied and never changed: what a
path selects is the input's own part. The same in JSONata is in computed.py.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from service.asl.query.scope import Scope
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
    """Parameters, ResultSelector, ItemSelector, Assign: a template that is filled from a value."""

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
        scope = Scope(value, context, visit.random, visit.variables, visit.work)
        return self.template.evaluate(scope)

    def for_item(self, value: Json, visit: Visit, index: int, item: Json) -> Json:
        """Return the template filled from `value` for one item of a Map."""
        context = visit.context_for_item(index, item) if self.uses_context else None
        scope = Scope(value, context, visit.random, visit.variables, visit.work)
        return self.template.evaluate(scope)


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
            context = visit.context()
            scope = Scope(value, context, visit.random, visit.variables, visit.work)
            return self.term.evaluate(scope)
        try:
            return find(self.term, value, visit)
        except PathNotFound as error:
            cause = (
                f"The JSONPath '{self.term.text}' specified for the field '{self.field}' "
                f"could not be found in the input '{shortened(value)}'"
            )
            raise ExecutionError(RUNTIME, cause) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPathFlow:
    """What the fields of a state, of a Choice rule or of a Catcher do to data, in JSONPath."""

    input_path: Selection | None = None
    parameters: Payload | None = None
    result_selector: Payload | None = None
    result_path: Placement | None = None
    output_path: Selection | None = None
    assign: Payload | None = None

    def selected(self, visit: Visit) -> Json:
        """Return the input after InputPath."""
        return visit.input if self.input_path is None else self.input_path.of(visit.input, visit)

    def arguments(self, visit: Visit) -> Json:
        """Return the input after InputPath and Parameters."""
        value = self.selected(visit)
        return value if self.parameters is None else self.parameters.of(value, visit)

    def output(self, visit: Visit, result: Json) -> Json:
        """Return the output that a result makes: ResultSelector, ResultPath, OutputPath."""
        if self.result_selector is not None:
            result = self.result_selector.of(result, visit)
        if self.result_path is not None:
            result = self.result_path.of(visit.input, result)
        return result if self.output_path is None else self.output_path.of(result, visit)

    def assigned(self, visit: Visit, result: Json) -> Mapping[str, Json] | None:
        """Return the variables that Assign sets, `$` being the result; None when it sets none."""
        if self.assign is None:
            return None
        variables = self.assign.of(result, visit)
        assert isinstance(variables, dict), variables
        return variables


NO_FIELDS: Final = JsonPathFlow()


def find(path: Path, value: Json, visit: Visit) -> Json:
    """Return what a path selects in `value`, in the Context Object or in a variable.

    Raise PathNotFound when that is nothing.
    """
    context = visit.context() if path.root == "context" else None
    return path.find(value, context, visit.variables, visit.work)


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
