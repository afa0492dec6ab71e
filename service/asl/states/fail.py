"""Fail state. ASL spec: "Fail State"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from service.asl.computed import Computed, JsonataFlow
from service.asl.context import Visit
from service.asl.dataflow import NO_FIELDS, Expression, shortened
from service.asl.errors import RUNTIME, ExecutionError, ReportedError
from service.asl.states.base import State, check_name
from service.asl.states.fields import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(State):
    """End the frame badly. Error and Cause are texts, or expressions that yield texts."""

    error: str | Expression | Computed | None = None
    cause: str | Expression | Computed | None = None

    @property
    def type(self) -> str:
        return "Fail"

    def enter(self, visit: Visit) -> NoReturn:
        """Raise the failure that the definition asks for.

        Raise EvaluationFailed when an expression fails, ExecutionError("States.Runtime") when
        ErrorPath or CausePath yields no string.
        """
        raise ReportedError(_text(self.error, visit), _text(self.cause, visit))


def _text(told: str | Expression | Computed | None, visit: Visit) -> str | None:
    if told is None or isinstance(told, str):
        return told
    if isinstance(told, Computed):
        return told.text(visit)
    value = told.of(visit.input, visit)
    if not isinstance(value, str):
        cause = f"The {told.field} parameter does not reference a string: {shortened(value)}"
        raise ExecutionError(RUNTIME, cause)
    return value


def read(node: Node, name: str) -> Fail:
    """Return the state, noting what is wrong with it."""
    check_name(node, name)
    return Fail(
        name=name,
        flow=JsonataFlow() if node.is_jsonata else NO_FIELDS,
        error=_read_text(node, "Error"),
        cause=_read_text(node, "Cause"),
    )


def _read_text(node: Node, field: str) -> str | Expression | Computed | None:
    if node.is_expression(field):
        return node.computed(field)
    if not node.is_jsonata:
        node.exclusive(field, f"{field}Path")
        if not node.has(field):
            return node.expression(f"{field}Path")
    return node.text(field)
