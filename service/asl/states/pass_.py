"""Pass state. ASL spec: "Pass State"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.asl.context import Visit
from service.asl.states.base import Goto, State, read_common
from service.asl.states.fields import Node
from service.asl.values import Json


class _Absent:
    """No Result was given: null is one."""


_ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass(State):
    """Hand the input on, or a fixed Result in its stead."""

    result: Json | _Absent = _ABSENT

    @property
    def type(self) -> str:
        return "Pass"

    @property
    def has_result(self) -> bool:
        """Return whether there is a fixed Result, be it null."""
        return not isinstance(self.result, _Absent)

    def enter(self, visit: Visit) -> Goto:
        """Return the way to the next state: a Pass state waits for nothing."""
        value = self.flow.arguments(visit)
        if not isinstance(self.result, _Absent):
            value = self.result
        return self.goto(visit, value)


def read(node: Node, name: str) -> Pass:
    """Return the state, noting what is wrong with it."""
    common = read_common(node, name, "Parameters", "ResultPath", "Assign")
    has_result = not node.is_jsonata and node.has("Result")
    return Pass(
        name=name,
        next=common.next,
        flow=common.flow,
        result=node.raw("Result") if has_result else _ABSENT,
    )
