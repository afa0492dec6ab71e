"""Succeed state. ASL spec: "Succeed State"."""

from __future__ import annotations

from dataclasses import dataclass

from service.asl.context import Visit
from service.asl.states.base import Goto, State, read_common
from service.asl.states.fields import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeed(State):
    """End the frame well."""

    @property
    def type(self) -> str:
        return "Succeed"

    def enter(self, visit: Visit) -> Goto:
        """Return the end of the frame, with what the fields leave of the input."""
        return self.goto(visit, self.flow.arguments(visit))


def read(node: Node, name: str) -> Succeed:
    """Return the state, noting what is wrong with it."""
    return Succeed(name=name, flow=read_common(node, name, has_next=False).flow)
