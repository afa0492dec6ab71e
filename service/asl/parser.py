"""A definition's text compiled into a StateMachine, or refused with all its problems."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from service.asl.advice import advice_on
from service.asl.document import (
    Document,
    MalformedDocument,
    Place,
    parse_document,
    pointer_to,
    tokens_of,
)
from service.asl.errors import InvalidDefinition, Problem, TextProblem
from service.asl.execution import ROOT_SCOPE
from service.asl.states import choice, distributed_map, fail, parallel, pass_, succeed, task, wait
from service.asl.states.base import SECONDS_MAX, State
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.fields import (
    MISSING_END,
    NOT_SUPPORTED,
    SCHEMA,
    Language,
    Node,
    Problems,
    shown,
    type_of,
)
from service.asl.validate import check_labels, check_scope, check_shadowing
from service.asl.values import Json

NESTING_DEPTH_MAX: Final = 20
INVALID_JSON: Final = "INVALID_JSON_DESCRIPTION"
DUPLICATE_NAME: Final = "DUPLICATE_STATE_NAME"
NO_OBJECT: Final = "Definition must be a valid JSON object"
TRIAL_STATE: Final = "StateName"
"""Observed: how TestState calls the state it is given."""

_READERS: Final[dict[str, Callable[[Node, str], State]]] = {
    "Choice": choice.read,
    "Fail": fail.read,
    "Pass": pass_.read,
    "Succeed": succeed.read,
    "Task": task.read,
    "Wait": wait.read,
}
_FORKING_READERS: Final[dict[str, Callable[[Node, str, list[Node]], State]]] = {
    "Map": distributed_map.read,
    "Parallel": parallel.read,
}


@dataclass(frozen=True, slots=True)
class TaskReference:
    """What a Task state calls, and where the definition says so.

    `function_name` is None unless it is literal.
    """

    pointer: str
    resource: str
    function_name: str | None


@dataclass(frozen=True, slots=True)
class Scope:
    """States that lead to each other: the machine's, a Parallel branch's, a Map iteration's."""

    start_at: str
    states: Mapping[str, State]


@dataclass(frozen=True, slots=True)
class StateMachine:
    """A compiled definition.

    `scopes` is keyed by the JSON pointer of the object that holds the States. Of each state that
    refers to variables, `variable_references` has their names, in order. `labels` leads from the
    label of a Distributed Map to the scope that its child executions walk through.
    """

    text: str
    sha256: bytes
    comment: str | None
    timeout_seconds: int | None
    scopes: Mapping[str, Scope]
    tasks: tuple[TaskReference, ...]
    variable_references: Mapping[str, tuple[str, ...]]
    document: Document
    labels: Mapping[str, str]

    @property
    def start_at(self) -> str:
        """Return the name of the first state."""
        return self.scopes[ROOT_SCOPE].start_at

    @property
    def states(self) -> Mapping[str, State]:
        """Return the states of the top level by name."""
        return self.scopes[ROOT_SCOPE].states

    def processor(self, label: str) -> StateMachine:
        """Return the ItemProcessor of a Distributed Map as a machine of its own.

        Its text and SHA-256 stay those of the whole. Raise KeyError for an unknown label.
        """
        scope = self.labels[label]
        scopes = {**self.scopes, ROOT_SCOPE: self.scopes[scope]}
        below = f"{scope}/"
        labels = {name: at for name, at in self.labels.items() if at.startswith(below)}
        return replace(self, scopes=scopes, timeout_seconds=None, labels=labels)

    def place(self, pointer: str) -> Place:
        """Return where the text says what a JSON pointer points at."""
        return self.document.place(pointer)


def compile_definition(text: str, *, is_express: bool = False) -> StateMachine:
    """Return the compiled definition, of a machine of the type EXPRESS or STANDARD.

    Raise InvalidDefinition with every problem there is, in the order of their places.
    """
    return _compile(_parse(text), _Compiler(is_express=is_express))


def compile_trial(text: str, *, is_state: bool) -> StateMachine:
    """Return what is compiled to try one of its states: a definition, or a state alone.

    A state alone becomes the machine's only one, named TRIAL_STATE; where it leads is not checked.
    What this service does not perform is taken, since an answer may be mocked. Raise
    InvalidDefinition as `compile_definition` does.
    """
    document = _parse(text)
    if not is_state:
        return _compile(document, _Compiler(is_trial=True))
    if isinstance(document.value, dict):  # of any other value the compiler tells
        name = f'"{TRIAL_STATE}"'
        document = parse_document(f'{{"StartAt": {name}, "States": {{{name}: {text}}}}}')
    return _compile(document, _Compiler(is_trial=True, is_state=True))


def warnings_of(text: str) -> list[TextProblem]:
    """Return what in a definition is valid but hardly meant; nothing of a text that is no JSON."""
    try:
        document = _parse(text)
    except InvalidDefinition:
        return []
    problems = Problems()
    for code, message, pointer in advice_on(document.value):
        problems.add(pointer, message, code)
    return _placed(problems, document)


def _parse(text: str) -> Document:
    if not text.strip():
        raise InvalidDefinition([TextProblem(SCHEMA, NO_OBJECT, "", 1, 1, None, "")])
    try:
        return parse_document(text)
    except MalformedDocument as error:
        problem = Problem(INVALID_JSON, error.message, error.pointer, error.line, error.column)
        raise InvalidDefinition([problem]) from error


def _compile(document: Document, compiler: _Compiler) -> StateMachine:
    machine = compiler.machine(document)
    if machine is None or compiler.problems.found:
        raise InvalidDefinition(_placed(compiler.problems, document))
    return machine


def _placed(problems: Problems, document: Document) -> list[TextProblem]:
    placed = []
    for code, message, pointer, at, detail in problems.found:
        place = document.place(pointer)
        location = None if code == MISSING_END else _location(at, document.value)
        problem = TextProblem(code, message, at, place.line, place.column, location, detail)
        placed.append(problem)
    # Observed: what has no place of its own is told last.
    return sorted(placed, key=lambda p: (p.location is None, p.line, p.column))


def _location(pointer: str, value: Json) -> str:
    """Return a JSON pointer as the service writes it: `/States/A/Choices[0]/Next`."""
    location = ""
    for token in tokens_of(pointer):
        if isinstance(value, list):
            location += f"[{token}]"
            value = value[int(token)]
        else:
            location += f"/{token}"
            value = value.get(token) if isinstance(value, dict) else None
    return location or "/"


class _Compiler:
    def __init__(
        self, *, is_trial: bool = False, is_state: bool = False, is_express: bool = False
    ) -> None:
        self.problems = Problems(ignored=frozenset({NOT_SUPPORTED} if is_trial else ()))
        self.is_state = is_state
        self.is_express = is_express
        self.language = Language.JSONPATH
        self.scopes: dict[str, Scope] = {}
        self.tasks: list[TaskReference] = []
        self.names: set[str] = set()
        self.references: dict[str, tuple[str, ...]] = {}
        self.assigned: dict[str, dict[str, str]] = {}
        self.distributed: dict[str, DistributedMap] = {}

    def machine(self, document: Document) -> StateMachine | None:
        if not isinstance(document.value, dict):
            self.problems.add("", NO_OBJECT)
            return None
        node = Node(document.value, "", self.problems)
        self.language = self._read_language(node) or Language.JSONPATH
        timeout_seconds = node.integer("TimeoutSeconds", 1, SECONDS_MAX)
        node.text("Version")
        self._read_scopes(node)
        check_shadowing(self.assigned, self.problems)
        check_labels(self.distributed, self.problems, is_express=self.is_express)
        return StateMachine(
            document.text,
            hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).digest(),
            node.text("Comment"),
            timeout_seconds,
            self.scopes,
            tuple(self.tasks),
            self.references,
            document,
            {state.label: state.scope for state in self.distributed.values()},
        )

    def _read_language(self, node: Node) -> Language | None:
        language = node.text("QueryLanguage")
        if language is None and not node.has("QueryLanguage"):
            return None
        if language is not None and language not in set(Language):
            node.wrong("QueryLanguage", f"{shown(language)} is none of [JSONPath, JSONata]")
        # Observed: whatever is not JSONPath to the letter is read as JSONata.
        return Language.JSONPATH if language == Language.JSONPATH else Language.JSONATA

    def _language_of(self, node: Node) -> Language:
        language = self._read_language(node) or self.language
        if language is Language.JSONPATH and self.language is Language.JSONATA:
            message = (
                "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine"
            )
            self.problems.add(node.at("QueryLanguage"), message, at=node.pointer)
        return language

    def _read_scopes(self, root: Node) -> None:
        """Read the top level and what is nested in it, level by level: nesting costs no stack."""
        level = [root]
        for _ in range(NESTING_DEPTH_MAX):
            below: list[Node] = []
            for node in level:
                self.scopes[node.pointer] = self._read_scope(node, below)
            level = below
        for node in level:
            message = f"Map and Parallel states are nested deeper than {NESTING_DEPTH_MAX}"
            self.problems.add(node.pointer, message)

    def _read_scope(self, node: Node, below: list[Node]) -> Scope:
        node.require("States", "StartAt")
        start_at = node.text("StartAt")
        states_node = node.child("States")
        states: dict[str, State] = {}
        if states_node is not None:
            for name, value in states_node.value.items():
                state = self._read_state(node, name, value, below)
                if state is not None:
                    states[name] = state
            if not (self.is_state and node.pointer == ROOT_SCOPE):
                check_scope(node, start_at, states_node.value, states, self.problems)
        node.close()
        return Scope(start_at or "", states)

    def _read_state(self, scope: Node, name: str, value: Json, below: list[Node]) -> State | None:
        pointer = pointer_to(scope.at("States"), name)
        if name in self.names:
            message = f"Duplicate state name: {shown(name)}"
            self.problems.add(pointer, message, DUPLICATE_NAME)
        self.names.add(name)
        if not isinstance(value, dict):
            self.problems.add(pointer, f"Expected a value of type Object but was {type_of(value)}")
            return None
        node = Node(value, pointer, self.problems)
        node.language = self._language_of(node)
        if not node.require("Type"):
            return None
        type_ = node.text("Type")
        if type_ is None:
            return None
        if type_ in _FORKING_READERS:
            state = _FORKING_READERS[type_](node, name, below)
        elif type_ in _READERS:
            state = _READERS[type_](node, name)
        else:
            known = ", ".join(sorted(_READERS | _FORKING_READERS))
            node.wrong("Type", f"{shown(type_)} is none of [{known}]", SCHEMA)
            return None
        if isinstance(state, task.Task):
            task.check_pattern(node, state.target, is_express=self.is_express)
            function_name = task.literal_function_name(node, state.target)
            reference = TaskReference(node.at("Resource"), state.target.resource, function_name)
            self.tasks.append(reference)
        elif isinstance(state, DistributedMap):
            self.distributed[pointer] = state
        node.close()
        if node.variables.read:
            self.references[name] = tuple(sorted(node.variables.read))
        self.assigned.setdefault(scope.pointer, {}).update(node.variables.assigned)
        return state
