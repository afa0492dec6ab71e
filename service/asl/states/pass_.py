"""Pass state. ASL spec: "Pass State"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

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

    type: ClassVar[str] = "Pass"

    result: Json | _Absent = _ABSENT

    def enter(self, visit: Visit) -> Goto:
        """Return the way to the next state: a Pass state waits for nothing."""
        value = self.effective_input(visit)
        if not isinstance(self.result, _Absent):
            value = self.result
        return self.resume(visit, value)


def read(node: Node, name: str) -> Pass:
    """Return the state, noting what is wrong with it."""
    common = read_common(node, name)
    return Pass(
        name=name,
        next=common.next,
        input_path=common.input_path,
        parameters=node.payload("Parameters"),
        result=node.raw("Result") if node.has("Result") else _ABSENT,
        result_path=node.placement("ResultPath"),
        output_path=common.output_path,
    )
