"""What all states have in common: fields, the three decisions, and how the fields are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from service.asl.computed import DataFlow, JsonataFlow
from service.asl.context import Visit
from service.asl.dataflow import NO_FIELDS, JsonPathFlow
from service.asl.errors import ALL
from service.asl.execution import OpenFork, OpenTask, OpenWait
from service.asl.query.expressions import ERROR_OUTPUT, RESERVED_VARIABLE
from service.asl.retry import (
    ERROR_NAMES_MAX,
    INTERVAL_SECONDS_MAX,
    MAX_ATTEMPTS_MAX,
    MAX_DELAY_SECONDS_MAX,
    RETRIERS_MAX,
    Catcher,
    Retrier,
)
from service.asl.states.fields import Node, shown
from service.asl.values import Json

STATE_NAME_CHARACTERS_MAX: Final = 80
SECONDS_MAX: Final = 99_999_999
BACKOFF_RATE_MAX: Final = 1_000_000.0

# Step Functions guide, "Passing data between states with variables": an identifier of Unicode.
VARIABLE_CHARACTERS_MAX: Final = 80
_VARIABLE: Final = re.compile(r"[^\W\d]\w*")

EventDetails: TypeAlias = tuple[str, dict[str, Json] | None]


@dataclass(init=False, slots=True)
class Goto:
    """Leave the state with this output, for the state named `next`; None ends the frame.

    `assigned` are the variables that are set on the way.
    """

    next: Final[str | None]
    output: Final[Json]
    assigned: Final[Mapping[str, Json] | None]

    def __init__(
        self, next: str | None, output: Json, assigned: Mapping[str, Json] | None = None
    ) -> None:
        self.next = next
        self.output = output
        self.assigned = assigned


@dataclass(init=False, slots=True)
class Park:
    """Wait for something, after noting these history events (type, details)."""

    waiting: Final[OpenTask | OpenWait]
    events: Final[tuple[EventDetails, ...]]

    def __init__(self, waiting: OpenTask | OpenWait, events: tuple[EventDetails, ...] = ()) -> None:
        self.waiting = waiting
        self.events = events


@dataclass(init=False, slots=True)
class Fork:
    """Go on in several frames, having noted this event; the state resumes when all have ended."""

    fork: Final[OpenFork]
    started: Final[EventDetails]

    def __init__(self, fork: OpenFork, started: EventDetails) -> None:
        self.fork = fork
        self.started = started


@dataclass(init=False, slots=True)
class Spread:
    """Have child executions process the items, having noted this event; None: they are read."""

    items: Final[list[Json] | None]
    started: Final[EventDetails]

    def __init__(self, items: list[Json] | None, started: EventDetails) -> None:
        self.items = items
        self.started = started


Decision: TypeAlias = Goto | Park | Fork | Spread


@dataclass(init=False, slots=True)
class Branch:
    """Where one frame of a fork begins, and with what input."""

    scope: Final[str]
    start_at: Final[str]
    input: Final[Json]

    def __init__(self, scope: str, start_at: str, input: Json) -> None:
        self.scope = scope
        self.start_at = start_at
        self.input = input


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of a compiled definition. Fields that a type does not have keep their defaults."""

    name: str
    next: str | None = None
    flow: DataFlow = NO_FIELDS
    retriers: tuple[Retrier, ...] = ()
    catchers: tuple[Catcher, ...] = ()

    @property
    def type(self) -> str:
        """Return the Type, as definitions and history events name it."""
        raise NotImplementedError

    @property
    def can_retry(self) -> bool:
        """Return whether states of this type can have Retry."""
        return False

    @property
    def fails_after_entry(self) -> bool:
        """Return whether a field that cannot be evaluated on entering is told of after the entry.

        Observed: its event is linked to what came before the state; in a Wait it is linked to the
        state's own entry.
        """
        return False

    def enter(self, visit: Visit) -> Decision:
        """Return what happens when a frame stands in this state.

        Raise ExecutionError when the state fails.
        """
        raise NotImplementedError

    def resume(self, visit: Visit, result: Json) -> Goto:
        """Return where the frame goes now that what it waited for has come with `result`.

        Raise ExecutionError when the result does not fit.
        """
        return self.goto(visit, result)

    def goto(self, visit: Visit, result: Json) -> Goto:
        """Return the way to the next state, with what the fields make of a result."""
        return self.lead(self.next, visit, result)

    def lead(self, name: str | None, visit: Visit, result: Json) -> Goto:
        """Return the way to the state of this name, with what the fields make of a result."""
        assigned = self.flow.assigned(visit, result)
        return Goto(name, self.flow.output(visit, result), assigned)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkingState(State):
    """A state whose work is done in frames of its own: Parallel, Map."""

    @property
    def can_retry(self) -> bool:
        return True

    def branch(self, visit: Visit, fork: OpenFork, index: int) -> Branch:
        """Return where the branch or iteration `index` begins.

        Raise ExecutionError when its input cannot be made.
        """
        raise NotImplementedError

    def branch_event(self, outcome: str, index: int) -> EventDetails | None:
        """Return the event of a branch that Started, Succeeded, Failed or Aborted, or None."""
        raise NotImplementedError

    def result_of(self, fork: OpenFork) -> Json:
        """Return the outputs of the branches in their order."""
        return [fork.results[index] for index in sorted(fork.results)]


class Common(NamedTuple):
    """What most states share, as it was read; None or empty where the type has no such field."""

    next: str | None
    flow: DataFlow


def read_common(
    node: Node, name: str, *fields: str, result: str | None = None, has_next: bool = True
) -> Common:
    """Return what all states but Choice and Fail have, noting what is wrong with it.

    `fields` are those of Parameters, ResultSelector, ResultPath, Arguments and Assign that the type
    has; `result` is the name of its result in `$states`, if it has one.
    """
    check_name(node, name)
    next_ = _read_transition(node) if has_next else None
    return Common(next_, read_flow(node, *fields, result=result))


def check_name(node: Node, name: str) -> None:
    """Note what is wrong with a state's name."""
    node.has("Type")
    node.has("QueryLanguage")
    if len(name) > STATE_NAME_CHARACTERS_MAX:
        message = f"{len(name)} characters of a state's name are over the limit of "
        node.problems.add(node.pointer, f"{message}{STATE_NAME_CHARACTERS_MAX}")


def read_flow(node: Node, *fields: str, result: str | None = None) -> DataFlow:
    """Return what a state's fields do to data."""
    has_assign = "Assign" in fields and _read_assigned(node)
    if node.is_jsonata:
        return JsonataFlow(
            arguments_field=node.computed("Arguments") if "Arguments" in fields else None,
            output_field=node.computed("Output", result),
            assign=node.computed("Assign", result) if has_assign else None,
            result=result,
        )
    return JsonPathFlow(
        input_path=node.selection("InputPath"),
        parameters=node.payload("Parameters") if "Parameters" in fields else None,
        result_selector=node.payload("ResultSelector") if "ResultSelector" in fields else None,
        result_path=node.placement("ResultPath") if "ResultPath" in fields else None,
        output_path=node.selection("OutputPath"),
        assign=node.payload("Assign") if has_assign else None,
    )


def read_rule_flow(node: Node, flow: DataFlow, *, result: str | None = None) -> DataFlow:
    """Return what the fields of a Choice rule or a Catcher do to data, in place of the state's."""
    has_assign = _read_assigned(node, is_catcher=result == ERROR_OUTPUT)
    if isinstance(flow, JsonPathFlow):
        return replace(flow, assign=node.payload("Assign") if has_assign else None)
    return JsonataFlow(
        output_field=node.computed("Output", result),
        assign=node.computed("Assign", result) if has_assign else None,
        result=result,
    )


def _read_assigned(node: Node, *, is_catcher: bool = False) -> bool:
    """Return whether Assign sets any variable, noting names that no variable can have."""
    assign = node.child("Assign")
    if assign is None:
        return False
    for field in assign.value:
        name = field if node.is_jsonata else field.removesuffix(".$")
        if not is_catcher:  # observed: what a Catcher sets may have the name of an inner variable
            node.variables.assigned.setdefault(name, assign.at(field))
        if len(name) > VARIABLE_CHARACTERS_MAX:
            message = f"{len(name)} characters of a variable's name are over the limit of "
            assign.wrong(field, f"{message}{VARIABLE_CHARACTERS_MAX}")
        elif not _VARIABLE.fullmatch(name):
            assign.wrong(field, f"{shown(name)} is not a variable's name: letters, digits and _")
        elif name == RESERVED_VARIABLE:
            assign.wrong(field, f"The variable {shown(name)} is reserved")
    return bool(assign.value)


def _read_transition(node: Node) -> str | None:
    next_, is_end = node.text("Next"), node.flag("End")
    if node.exclusive("Next", "End") is None:
        node.problems.add(node.pointer, "One of these fields is required: [Next, End]")
    elif node.has("End") and is_end is False:
        node.wrong("End", "The value of 'End' can only be true")
    return next_


def read_retriers(node: Node) -> tuple[Retrier, ...]:
    """Return a state's Retry."""
    entries = node.children("Retry", RETRIERS_MAX) or []
    return tuple(_read_retrier(entry, is_last=entry is entries[-1]) for entry in entries)


def _read_retrier(node: Node, *, is_last: bool) -> Retrier:
    error_equals = _read_error_equals(node, is_last=is_last)
    interval = node.integer("IntervalSeconds", 1, INTERVAL_SECONDS_MAX)
    attempts = node.integer("MaxAttempts", 0, MAX_ATTEMPTS_MAX)
    rate = node.number("BackoffRate", 1.0, BACKOFF_RATE_MAX)
    max_delay = node.integer("MaxDelaySeconds", 1, MAX_DELAY_SECONDS_MAX)
    jitter = node.text("JitterStrategy")
    if jitter is not None and jitter not in ("FULL", "NONE"):
        node.wrong("JitterStrategy", f"{shown(jitter)} is none of [FULL, NONE]")
    if max_delay is not None and max_delay < (interval or 1):
        node.wrong("MaxDelaySeconds", f"{max_delay} is less than IntervalSeconds, {interval or 1}")
    node.close()
    return Retrier(
        error_equals,
        1 if interval is None else interval,
        3 if attempts is None else attempts,
        2.0 if rate is None else rate,
        max_delay,
        jitter == "FULL",
    )


def read_catchers(node: Node) -> tuple[Catcher, ...]:
    """Return a state's Catch."""
    entries = node.children("Catch", RETRIERS_MAX) or []
    return tuple(_read_catcher(entry, is_last=entry is entries[-1]) for entry in entries)


def _read_catcher(node: Node, *, is_last: bool) -> Catcher:
    node.require("Next")
    error_equals = _read_error_equals(node, is_last=is_last)
    plain: DataFlow = JsonataFlow()
    if not node.is_jsonata:
        plain = JsonPathFlow(result_path=node.placement("ResultPath"))
    flow = read_rule_flow(node, plain, result=ERROR_OUTPUT)
    catcher = Catcher(error_equals, node.text("Next") or "", flow)
    node.close()
    return catcher


def _read_error_equals(node: Node, *, is_last: bool) -> frozenset[str]:
    if not node.require("ErrorEquals"):
        return frozenset()
    names = node.texts("ErrorEquals", ERROR_NAMES_MAX)
    if ALL in names and len(names) > 1:
        node.wrong("ErrorEquals", f"{ALL} must be the only element of the array")
    if ALL in names and not is_last:
        node.wrong("ErrorEquals", f"{ALL} is only allowed in the last element of the array")
    return frozenset(names)
