"""Static checks beyond single states: dangling names, unreachable states, no way out, scopes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.asl.document import pointer_to
from service.asl.states.base import State
from service.asl.states.choice import Choice
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.fail import Fail
from service.asl.states.fields import (
    MISSING_END,
    MISSING_TARGET,
    SHOWN_CHARACTERS_MAX,
    Node,
    Problems,
    shown,
)
from service.asl.states.succeed import Succeed
from service.asl.values import Json


def check_scope(
    node: Node,
    start_at: str | None,
    names: Mapping[str, Json],
    states: Mapping[str, State],
    problems: Problems,
) -> None:
    """Note what is wrong with the transitions of the States in `node`.

    `names` are all states that the text has, `states` those that could be read.
    """
    if not names:
        problems.add(node.at("States"), "Value cannot be empty")
        return
    if start_at is None:
        return
    if start_at not in names:
        node.wrong("StartAt", _missing(start_at), MISSING_TARGET)
    targets = {name: list(_transitions(state)) for name, state in states.items()}
    at = node.at("States")
    for name, transitions in targets.items():
        for pointer, target in transitions:
            if target and target not in names:
                problems.add(pointer_to(at, name) + pointer, _missing(target), MISSING_TARGET)
    if len(states) < len(names):
        return
    if not any(_is_terminal(state) for state in states.values()):
        problems.add(at, "Workflow has no terminal state", MISSING_END)
    else:
        _check_reached(at, start_at, states, targets, problems)


def _missing(target: str) -> str:
    # Observed: the service says 'Next' of StartAt and Default as well.
    return f"Missing 'Next' target: {target[:SHOWN_CHARACTERS_MAX]}"


def _check_reached(
    at: str,
    start_at: str,
    states: Mapping[str, State],
    targets: Mapping[str, list[tuple[str, str]]],
    problems: Problems,
) -> None:
    """Note the states that nothing leads to."""
    reached, ahead = {start_at}, [start_at]
    while ahead:
        for _, target in targets.get(ahead.pop(), ()):
            if target not in reached:
                reached.add(target)
                ahead.append(target)
    for name in states:
        if name not in reached:
            message = f'State "{name[:SHOWN_CHARACTERS_MAX]}" is not reachable.'
            problems.add(pointer_to(at, name), message, MISSING_TARGET)


def check_shadowing(assigned: Mapping[str, Mapping[str, str]], problems: Problems) -> None:
    """Note the variables that are set both inside of a Parallel or Map state and outside of it.

    `assigned` has, for each scope by its pointer, the variables that it sets and where. Source:
    Step Functions guide, "Passing data between states with variables", on scopes.
    """
    for pointer, names in assigned.items():
        outer = pointer
        while outer:
            outer = outer.rpartition("/")[0]
            for name in names.keys() & assigned.get(outer, {}).keys():
                message = f"The variable {shown(name)} is already assigned in an outer scope"
                problems.add(names[name], message)


def check_labels(
    states: Mapping[str, DistributedMap], problems: Problems, *, is_express: bool
) -> None:
    """Note labels that two Distributed Maps have, and those maps that Express executions would run.

    `states` are all of a definition by their pointers; `is_express`: so is its machine. Source:
    Step Functions guide, "Label", "Differences between Standard and Express workflows".
    """
    seen: set[str] = set()
    express = [f"{state.scope}/" for state in states.values() if state.is_express]
    for pointer, state in states.items():
        if state.label in seen:
            message = f"Label {shown(state.label)} is that of another Map state already"
            problems.add(pointer_to(pointer, "Label"), message)
        seen.add(state.label)
        if is_express or any(pointer.startswith(scope) for scope in express):
            problems.add(pointer, "Express state machine does not support Distributed Map")


def _is_terminal(state: State) -> bool:
    if isinstance(state, Succeed | Fail):
        return True
    return not isinstance(state, Choice) and state.next is None


def _transitions(state: State) -> Iterator[tuple[str, str]]:
    """Yield the place, within the state, and the name of each state that this one leads to."""
    if state.next is not None:
        yield "/Next", state.next
    for index, catcher in enumerate(state.catchers):
        yield f"/Catch/{index}/Next", catcher.next
    if isinstance(state, Choice):
        for index, choice in enumerate(state.choices):
            yield f"/Choices/{index}/Next", choice.next
        if state.default is not None:
            yield "/Default", state.default
