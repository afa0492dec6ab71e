"""What is valid in a definition and yet hardly meant: paths and calls where none is evaluated.

API reference, ValidateStateMachineDefinitionDiagnostic: "List of warning codes". States in JSONata
get no advice: there an expression is known by its `{% %}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from service.asl.document import pointer_to
from service.asl.values import Json

NO_DOLLAR: Final = "NO_DOLLAR"
NO_PATH: Final = "NO_PATH"
STATIC_RESULT: Final = "PASS_RESULT_IS_STATIC"

_EVALUATED: Final = re.compile(r"\$\$?[.\[].*|States\.[A-Z]\w*\(.*\)", re.DOTALL)
_TEMPLATES: Final = frozenset(
    {"Assign", "BatchInput", "Credentials", "ItemSelector", "Parameters", "ResultSelector"}
)
_PARTS: Final = frozenset(
    {"And", "Catch", "Choices", "ItemBatcher", "ItemReader", "Not", "Or", "ResultWriter", "Retry"}
)
_MACHINES: Final = frozenset({"Branches", "ItemProcessor", "Iterator"})
_NAMES: Final = frozenset({"Comment", "Default", "Label", "Next", "Resource", "Type", "Variable"})


class Advice(NamedTuple):
    """Something that is hardly meant, and the pointer to it."""

    code: str
    message: str
    pointer: str


def advice_on(definition: Json) -> Iterator[Advice]:
    """Yield the advice on a definition, whether it compiles or not."""
    language = definition.get("QueryLanguage") if isinstance(definition, dict) else None
    return _on_machine(definition, "", language)


def _on_machine(machine: Json, at: str, language: Json) -> Iterator[Advice]:
    states = machine.get("States") if isinstance(machine, dict) else None
    for name, state in states.items() if isinstance(states, dict) else ():
        pointer = pointer_to(pointer_to(at, "States"), name)
        if not isinstance(state, dict):
            continue
        for field in _MACHINES & state.keys():
            for place, inner in _each(state[field], pointer_to(pointer, field)):
                yield from _on_machine(inner, place, language)
        if state.get("QueryLanguage", language) != "JSONata":
            yield from _on_part(state, pointer)


def _on_part(part: Json, at: str) -> Iterator[Advice]:
    """Yield the advice on a state or an object in it, such as a rule of a Choice."""
    for name, value in part.items() if isinstance(part, dict) else ():
        pointer = pointer_to(at, name)
        if name in _TEMPLATES:
            yield from _on_template(value, pointer)
        elif name in _PARTS:
            for place, inner in _each(value, pointer):
                yield from _on_part(inner, place)
        elif name == "Result":
            if any(map(_is_evaluated, _strings(value))):
                message = "The Result of a Pass state is static: no path or function in it is used"
                yield Advice(STATIC_RESULT, message, pointer)
        elif not (name.endswith("Path") or name in _NAMES) and _is_evaluated(value):
            message = f"The value looks like a path, but '{name}' does not end with 'Path'"
            yield Advice(NO_PATH, message, pointer)


def _on_template(value: Json, at: str) -> Iterator[Advice]:
    for place, inner in _members(value, at):
        name = place.rpartition("/")[2]
        if isinstance(inner, dict | list):
            yield from _on_template(inner, place)
        elif isinstance(value, dict) and not name.endswith(".$") and _is_evaluated(inner):
            message = "The value looks like a path or a function, but the name does not end with .$"
            yield Advice(NO_DOLLAR, message, place)


def _is_evaluated(value: Json) -> bool:
    return isinstance(value, str) and _EVALUATED.fullmatch(value) is not None


def _each(value: Json, at: str) -> Iterator[tuple[str, Json]]:
    """Yield the elements of an array with their pointers, or what is no array itself."""
    if isinstance(value, list):
        yield from _members(value, at)
    else:
        yield at, value


def _members(value: Json, at: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        yield from ((pointer_to(at, name), inner) for name, inner in value.items())
    elif isinstance(value, list):
        yield from ((pointer_to(at, index), inner) for index, inner in enumerate(value))


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for _, inner in _members(value, ""):
        yield from _strings(inner)
