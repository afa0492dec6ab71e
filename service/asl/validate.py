"""Static checks of how states lead on: dangling names, unreachable states, no way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.asl.document import pointer_to
from service.asl.states.base import State
from service.asl.states.choice import Choice
from service.asl.states.fail import Fail
from service.asl.states.fields import MISSING_TARGET, Node, Problems, shown
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
        node.wrong("StartAt", f"Missing 'StartAt' target: {shown(start_at)}", MISSING_TARGET)
    targets = {name: list(_transitions(state)) for name, state in states.items()}
    at = node.at("States")
    for name, transitions in targets.items():
        for pointer, target in transitions:
            if target and target not in names:
                place = pointer_to(at, name) + pointer
                field = pointer.rpartition("/")[2]
                problems.add(place, f"Missing '{field}' target: {shown(target)}", MISSING_TARGET)
    if start_at in names and len(states) == len(names):
        _check_ways(at, start_at, states, targets, problems)


def _check_ways(
    at: str,
    start_at: str,
    states: Mapping[str, State],
    targets: Mapping[str, list[tuple[str, str]]],
    problems: Problems,
) -> None:
    """Note the states that nothing leads to, and a scope that never ends."""
    reached, ahead = {start_at}, [start_at]
    while ahead:
        for _, target in targets.get(ahead.pop(), ()):
            if target not in reached:
                reached.add(target)
                ahead.append(target)
    for name in states:
        if name not in reached:
            problems.add(
                pointer_to(at, name), f"State {shown(name)} is not reachable", MISSING_TARGET
            )
    if not any(_is_terminal(state) for state in states.values()):
        problems.add(at, "No terminal state found: none of the states ends")


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
        for index, (_, target) in enumerate(state.choices):
            yield f"/Choices/{index}/Next", target
        if state.default is not None:
            yield "/Default", state.default
