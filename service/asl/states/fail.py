"""Fail state. ASL spec: "Fail State"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from service.asl.context import Visit
from service.asl.dataflow import Expression, shortened
from service.asl.errors import RUNTIME, ExecutionError, ReportedError
from service.asl.states.base import State, read_common
from service.asl.states.fields import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(State):
    """End the frame badly. Error and Cause are texts, or expressions that yield texts."""

    type: ClassVar[str] = "Fail"

    error: str | Expression | None = None
    cause: str | Expression | None = None

    def enter(self, visit: Visit) -> NoReturn:
        """Raise the failure that the definition asks for.

        Raise ExecutionError("States.Runtime") when ErrorPath or CausePath yields no string.
        """
        raise ReportedError(_text(self.error, visit), _text(self.cause, visit))


def _text(told: str | Expression | None, visit: Visit) -> str | None:
    if told is None or isinstance(told, str):
        return told
    value = told.of(visit.input, visit)
    if not isinstance(value, str):
        cause = f"The {told.field} parameter does not reference a string: {shortened(value)}"
        raise ExecutionError(RUNTIME, cause)
    return value


def read(node: Node, name: str) -> Fail:
    """Return the state, noting what is wrong with it."""
    read_common(node, name, has_next=False)
    for field in ("InputPath", "OutputPath"):
        if node.has(field):
            node.wrong(field, f"The field '{field}' is not supported here")
    node.exclusive("Error", "ErrorPath")
    node.exclusive("Cause", "CausePath")
    return Fail(
        name=name,
        error=node.text("Error") if node.has("Error") else node.expression("ErrorPath"),
        cause=node.text("Cause") if node.has("Cause") else node.expression("CausePath"),
    )
