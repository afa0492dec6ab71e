"""Parallel state. ASL spec: "Parallel State"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.asl.context import Visit
from service.asl.execution import OpenFork
from service.asl.query.expressions import RESULT
from service.asl.states.base import (
    Branch,
    EventDetails,
    Fork,
    ForkingState,
    read_catchers,
    read_common,
    read_retriers,
)
from service.asl.states.fields import Node

BRANCHES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel(ForkingState):
    """Walk through several branches at once, each with the same input; the result lists outputs."""

    branches: tuple[tuple[str, str], ...]  # (scope, start_at)

    @property
    def type(self) -> str:
        return "Parallel"

    def enter(self, visit: Visit) -> Fork:
        """Return the fork: every branch begins at once.

        Raise ExecutionError when the input of the branches cannot be made.
        """
        length = len(self.branches)
        fork = OpenFork(self.flow.arguments(visit), length, length, is_map=False)
        return Fork(fork, ("ParallelStateStarted", None))

    def branch(self, visit: Visit, fork: OpenFork, index: int) -> Branch:
        """Return where the branch begins."""
        scope, start_at = self.branches[index]
        return Branch(scope, start_at, fork.items)

    def branch_event(self, outcome: str, index: int) -> EventDetails | None:
        """Return None: Step Functions notes nothing of a branch as a whole."""
        return None


def read(node: Node, name: str, scopes: list[Node]) -> Parallel:
    """Return the state, noting what is wrong; `scopes` gets the branches, to be read in turn."""
    fields = ("Parameters", "ResultSelector", "ResultPath", "Arguments", "Assign")
    common = read_common(node, name, *fields, result=RESULT)
    branches: list[Node] = []
    if node.require("Branches"):
        branches = node.children("Branches", BRANCHES_MAX) or []
        if node.raw("Branches") == []:
            node.wrong("Branches", "Value cannot be empty")
    scopes.extend(branches)
    return Parallel(
        name=name,
        next=common.next,
        flow=common.flow,
        retriers=read_retriers(node),
        catchers=read_catchers(node),
        branches=tuple((branch.pointer, branch.text("StartAt") or "") for branch in branches),
    )
