"""What all states have in common: fields, the three decisions, and how the fields are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, TypeAlias

from service.asl.context import Visit
from service.asl.dataflow import Payload, Placement, Selection
from service.asl.errors import ALL
from service.asl.execution import OpenFork, OpenTask, OpenWait
from service.asl.retry import (
    ERROR_NAMES_MAX,
    INTERVAL_SECONDS_MAX,
    MAX_ATTEMPTS_MAX,
    MAX_DELAY_SECONDS_MAX,
    RETRIERS_MAX,
    Catcher,
    Retrier,
)
from service.asl.states.fields import NOT_SUPPORTED, Node, shown
from service.asl.values import Json

STATE_NAME_CHARACTERS_MAX: Final = 80
SECONDS_MAX: Final = 99_999_999
BACKOFF_RATE_MAX: Final = 1_000_000.0

# Fields of the other query language and of variables: known, so that the message can say what is
# amiss.
_NOT_SUPPORTED: Final = {
    "Assign": "Assign (variables)",
    "Arguments": "Arguments (JSONata)",
    "Output": "Output (JSONata)",
}

EventDetails: TypeAlias = tuple[str, dict[str, Json] | None]


class Goto(NamedTuple):
    """Leave the state with this output, for the state named `next`; None ends the frame."""

    next: str | None
    output: Json


class Park(NamedTuple):
    """Wait for something, after noting these history events (type, details)."""

    waiting: OpenTask | OpenWait
    events: tuple[EventDetails, ...] = ()


class Fork(NamedTuple):
    """Go on in several frames, having noted this event; the state resumes when all have ended."""

    fork: OpenFork
    started: EventDetails


Decision: TypeAlias = Goto | Park | Fork


class Branch(NamedTuple):
    """Where one frame of a fork begins, and with what input."""

    scope: str
    start_at: str
    input: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of a compiled definition. Fields that a type does not have keep their defaults."""

    type: ClassVar[str]
    can_retry: ClassVar[bool] = False

    name: str
    next: str | None = None
    input_path: Selection | None = None
    parameters: Payload | None = None
    result_selector: Payload | None = None
    result_path: Placement | None = None
    output_path: Selection | None = None
    retriers: tuple[Retrier, ...] = ()
    catchers: tuple[Catcher, ...] = ()

    def enter(self, visit: Visit) -> Decision:
        """Return what happens when a frame stands in this state.

        Raise ExecutionError when the state fails.
        """
        raise NotImplementedError

    def resume(self, visit: Visit, result: Json) -> Goto:
        """Return where the frame goes now that what it waited for has come with `result`.

        Raise ExecutionError when the result does not fit.
        """
        return Goto(self.next, self.output_of(visit, result))

    def effective_input(self, visit: Visit) -> Json:
        """Return the input after InputPath and Parameters."""
        value = visit.input if self.input_path is None else self.input_path.of(visit.input, visit)
        return value if self.parameters is None else self.parameters.of(value, visit)

    def output_of(self, visit: Visit, result: Json) -> Json:
        """Return the output that a result makes: ResultSelector, ResultPath, OutputPath."""
        if self.result_selector is not None:
            result = self.result_selector.of(result, visit)
        if self.result_path is not None:
            result = self.result_path.of(visit.input, result)
        return result if self.output_path is None else self.output_path.of(result, visit)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkingState(State):
    """A state whose work is done in frames of its own: Parallel, Map."""

    can_retry: ClassVar[bool] = True

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


@dataclass(frozen=True, slots=True)
class Common:
    """What most states share, as it was read.

    The parts are None or empty where the type has no such field.
    """

    name: str
    next: str | None
    input_path: Selection | None
    output_path: Selection | None


def read_common(node: Node, name: str, *, has_next: bool = True) -> Common:
    """Return the fields that all states but Fail have, noting what is wrong with them."""
    node.has("Type")
    if len(name) > STATE_NAME_CHARACTERS_MAX:
        message = f"{len(name)} characters of a state's name are over the limit of "
        node.problems.add(node.pointer, f"{message}{STATE_NAME_CHARACTERS_MAX}")
    query_language = node.text("QueryLanguage")
    if query_language is not None and query_language != "JSONPath":
        message = f"QueryLanguage {shown(query_language)} is not supported"
        node.wrong("QueryLanguage", message, NOT_SUPPORTED)
    node.refuse(_NOT_SUPPORTED)
    next_ = _read_transition(node) if has_next else None
    return Common(name, next_, node.selection("InputPath"), node.selection("OutputPath"))


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
    node.refuse({"Assign": "Assign (variables)", "Output": "Output (JSONata)"})
    node.require("Next")
    error_equals = _read_error_equals(node, is_last=is_last)
    catcher = Catcher(error_equals, node.text("Next") or "", node.placement("ResultPath"))
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
