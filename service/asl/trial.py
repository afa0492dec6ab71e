"""One state tried on its own: what it decides, and what each of its fields does to the data.

It is entered and resumed by the same `Run` as every execution; only what lies beyond the state is
different. Where it would lead on, be tried again or be lost, the trial ends; a wait is over at
once; the branches of a fork are not walked through, since their answer is mocked. The state's
fields are watched from outside, so that executions pay nothing for it.

Source: Step Functions guide, "Testing state machines with the TestState API"; which data is shown
of which type of state: observed, recordings of TestState.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from service.asl.commands import RunTask
from service.asl.context import Visit
from service.asl.dataflow import JsonPathFlow, check_size
from service.asl.errors import EXCEED_TOLERATED_FAILURE_THRESHOLD, ExecutionError
from service.asl.events import Started, TaskFailed, TaskSucceeded
from service.asl.execution import (
    ROOT_FRAME,
    ROOT_SCOPE,
    About,
    Backoff,
    Execution,
    Frame,
    OpenFork,
    OpenTask,
    OpenWait,
)
from service.asl.interpreter import TOLERANCE_CAUSE, Run
from service.asl.map_run import Batches
from service.asl.parser import TRIAL_STATE, Scope, StateMachine
from service.asl.retry import Catcher, Failure, bounded, matches
from service.asl.states.base import ForkingState, Goto, Park, State
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.map import Map
from service.asl.states.parallel import Parallel
from service.asl.states.pass_ import Pass
from service.asl.states.task import Limit, Task
from service.asl.values import Json, Random
from service.asl.watched import watched

ITERATIONS_TRIED_MAX: Final = 10_000
"""Of how many of a Map's iterations the input is made: of the first ones."""

_RESULT: Final = ("afterResultSelector", "afterResultPath")
_SHOWN: Final[Mapping[type[State], tuple[str, ...]]] = {
    Task: ("afterInputPath", "afterParameters", "afterArguments", "result", *_RESULT),
    Parallel: _RESULT,
    Map: (
        "afterInputPath",
        "afterItemsPointer",
        "afterItemsPath",
        "afterItemSelector",
        "afterItemBatcher",
        *_RESULT,
        "maxConcurrency",
        "toleratedFailureCount",
        "toleratedFailurePercentage",
    ),
}
_SHOWN_OF_PASS: Final = ("afterInputPath", "afterParameters", *_RESULT)
_SHOWN_OF_RESULT: Final = ("result", *_RESULT)
_SHOWN_ELSE: Final = ("afterInputPath",)


class Ending(StrEnum):
    """How a trial ends, in the words of the Step Functions API."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RETRIABLE = "RETRIABLE"
    CAUGHT_ERROR = "CAUGHT_ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a state is tried under.

    `context` takes the place of the Context Object. `items` are what a Map's ItemReader has read.
    `retries` is how often the state was tried before, by the Retrier that matches.
    """

    about: About
    role_arn: str | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    context: dict[str, Json] | None = None
    items: list[Json] | None = None
    retries: int = 0


class Outcome(NamedTuple):
    """What came of a trial. `data` has what the fields made of the data, by the API's names."""

    ending: Ending
    data: dict[str, Json]
    variables: dict[str, Json]
    next: str | None = None
    output: Json = None
    failure: Failure | None = None
    catch_index: int | None = None
    retry_index: int | None = None
    backoff_seconds: float = 0.0


def find_state(machine: StateMachine, name: str) -> State | None:
    """Return the state of this name, at whatever level, or None."""
    scopes = machine.scopes.values()
    return next((scope.states[name] for scope in scopes if name in scope.states), None)


def task_alone(machine: StateMachine, state: Task, command: RunTask) -> StateMachine:
    """Return a machine of one task that passes its input on and its answer back as they are."""
    timeout, heartbeat = command.timeout_seconds, command.heartbeat_seconds
    alone = Task(
        name=state.name,
        target=state.target,
        timeout=None if timeout is None else Limit("TimeoutSeconds", timeout),
        heartbeat=None if heartbeat is None else Limit("HeartbeatSeconds", heartbeat),
    )
    return _alone(machine, alone)


def _alone(machine: StateMachine, state: State) -> StateMachine:
    scopes = {**machine.scopes, ROOT_SCOPE: Scope(TRIAL_STATE, {TRIAL_STATE: state})}
    return replace(machine, scopes=scopes, timeout_seconds=None)


class Trial(Run):
    """A state being tried: `begin`, then an answer if it waits for one, then `outcome`."""

    def __init__(
        self,
        machine: StateMachine,
        state: State,
        conditions: Conditions,
        now: datetime,
        random: Random,
    ) -> None:
        self._conditions = conditions
        self._data: dict[str, Json] = {}
        self._distributed = state if isinstance(state, DistributedMap) else None
        self._tried = watched(state, conditions.items, self._data)
        execution = Execution.new(conditions.about)
        super().__init__(_alone(machine, self._tried), execution, now, random, 1.0)
        self._goto: Goto | None = None
        self._failure_found: Failure | None = None
        self._catch_index: int | None = None
        self._retry_index: int | None = None
        self._backoff_seconds = 0.0

    # ---------------------------------------------------------------- what is done with it

    def begin(self) -> None:
        """Enter the state."""
        self.take(Started())
        frame = self._frame = self.frames[ROOT_FRAME]
        frame.variables = self._conditions.variables
        frame.retries = self._retries(0)
        self._note_selected(frame)
        self.go_on()

    @property
    def command(self) -> RunTask | None:
        """Return the task that the state waits for, or None."""
        waiting = self._frame.open
        return waiting.command if isinstance(waiting, OpenTask) else None

    @property
    def iterations(self) -> int | None:
        """Return how many branches or iterations the state waits for, or None."""
        waiting = self._frame.open
        return waiting.length if isinstance(waiting, OpenFork) else None

    def succeed(self, result: Json, *, iterations_failed: int = 0) -> None:
        """Give what the state waits for its result; so many of a Map's iterations have failed."""
        waiting = self._frame.open
        if isinstance(waiting, OpenTask):
            self.take(TaskSucceeded(waiting.command.id, result))
        elif not self._exceeds_tolerance(iterations_failed):
            self._resume(self._frame, self._tried, result)

    def fail(
        self,
        error: str | None,
        cause: str | None,
        *,
        in_branch: bool = False,
        iterations_failed: int = 0,
    ) -> None:
        """Have what the state waits for fail; `in_branch`: by a state within it."""
        waiting = self._frame.open
        if isinstance(waiting, OpenTask):
            self.take(TaskFailed(waiting.command.id, error or "", cause))
        elif not self._exceeds_tolerance(iterations_failed):
            failure = Failure(*bounded(error, cause), in_branch=in_branch)
            self._fail(self._frame, self._tried, failure)

    def outcome(self) -> Outcome:
        """Return what came of it."""
        goto = Goto(None, None) if self._goto is None else self._goto
        return Outcome(
            self._ending(),
            {name: self._data[name] for name in _shown(self._tried) if name in self._data},
            dict(self._frame.variables),
            goto.next,
            goto.output,
            self._failure_found,
            self._catch_index,
            self._retry_index,
            self._backoff_seconds,
        )

    def _ending(self) -> Ending:
        if self._retry_index is not None:
            return Ending.RETRIABLE
        if self._goto is None:
            return Ending.FAILED
        return Ending.SUCCEEDED if self._catch_index is None else Ending.CAUGHT_ERROR

    def _exceeds_tolerance(self, iterations_failed: int) -> bool:
        """Return whether a Map has failed by its tolerance, and fail it if so."""
        fork = self._frame.open
        assert isinstance(fork, OpenFork), fork
        if fork.failures_max is None or iterations_failed <= fork.failures_max:
            return False
        failure = Failure(EXCEED_TOLERATED_FAILURE_THRESHOLD, TOLERANCE_CAUSE)
        self._fail(self._frame, self._tried, failure)
        return True

    def _note_selected(self, frame: Frame) -> None:
        """Note the input after InputPath, also of the types that have no use for it."""
        if isinstance(self._tried.flow, JsonPathFlow):
            try:
                self._data["afterInputPath"] = self._tried.flow.selected(
                    self.visit(frame, self._tried)
                )
            except ExecutionError:  # the state fails of it when it is entered, if it ever asks
                return

    def _retries(self, index: int) -> tuple[int, ...]:
        count = len(self._tried.retriers)
        return tuple(self._conditions.retries if i == index else 0 for i in range(count))

    # ---------------------------------------------------------------- where it differs from a run

    def visit(self, frame: Frame, state: State) -> Visit:
        """Return what the state gets to see."""
        return _TrialVisit(super().visit(frame, state), self._conditions)

    def _leave(self, frame: Frame, state: State, goto: Goto) -> None:
        self._goto = goto

    def _lose(self, frame: Frame, failure: Failure) -> None:
        self._failure_found, self._catch_index = failure, None

    def _catch(self, frame: Frame, state: State, catcher: Catcher, failure: Failure) -> None:
        self._failure_found = failure
        self._catch_index = state.catchers.index(catcher)
        super()._catch(frame, state, catcher, failure)

    def _retry(self, frame: Frame, state: State, failure: Failure) -> bool:
        for index, retrier in enumerate(state.retriers):
            if not matches(retrier.error_equals, failure):
                continue
            frame.retries = self._retries(index)
            if not super()._retry(frame, state, failure):
                return False
            backoff = frame.open
            assert isinstance(backoff, Backoff), backoff
            self._failure_found, self._retry_index = failure, index
            self._backoff_seconds = (backoff.due_at - self.now).total_seconds()
            return True
        return False

    def _park(self, frame: Frame, state: State, park: Park) -> None:
        super()._park(frame, state, park)
        if isinstance(park.waiting, OpenWait):
            self._resume(frame, state, None)

    def _continue_fork(
        self, frame: Frame, state: ForkingState, fork: OpenFork, previous: int
    ) -> None:
        """Make the inputs of a Map's iterations, and wait for a mocked answer."""
        if not isinstance(state, Map):
            return
        self._data.setdefault("maxConcurrency", 0)
        distributed = self._distributed
        reader = None if distributed is None else distributed.reader
        if reader is not None and reader.config.get("ItemsPointer"):
            self._data["afterItemsPointer"] = fork.items
        if isinstance(state.flow, JsonPathFlow):
            self._data["afterItemsPath"] = fork.items
        try:
            inputs = self._inputs(frame, state, fork)
            if state.item_selector is not None:
                self._data["afterItemSelector"] = inputs
            if distributed is not None and distributed.batcher is not None:
                self._data["afterItemBatcher"] = self._batches(frame, distributed, inputs)
        except ExecutionError as error:
            self._fail_by(error, frame, state)

    def _inputs(self, frame: Frame, state: Map, fork: OpenFork) -> list[Json]:
        visit, inputs = self.visit(frame, state), []
        for index in range(min(fork.length, ITERATIONS_TRIED_MAX)):
            inputs.append(state.branch(visit, fork, index).input)
            check_size(inputs[-1], state.name)
        return inputs

    def _batches(self, frame: Frame, state: DistributedMap, inputs: list[Json]) -> list[Json]:
        """Return what the children would be given, of a Map that has an ItemBatcher."""
        assert state.batcher is not None
        visit = self.visit(frame, state)
        batches = Batches(state.name, state.batcher.of(state.flow.selected(visit), visit))
        made = [batch for value in inputs for batch in batches.add(value)]
        return [batch.value for batch in (*made, *batches.rest())]

    def _failure(self, error: ExecutionError, frame: Frame) -> Failure:
        # Observed: the cause does not name the state, as that of an execution does.
        return Failure(*bounded(error.error, error.cause))


class _TrialVisit(Visit):
    """A visit whose Context Object may be the trial's."""

    def __init__(self, seen: Visit, conditions: Conditions) -> None:
        super().__init__(
            seen.execution,
            seen.frame,
            seen.now,
            seen.random,
            seen.time_scale,
            seen.counts_retries,
            seen.work,
        )
        self.conditions = conditions

    def _describe(self) -> dict[str, Json]:
        if self.conditions.context is not None:
            return self.conditions.context
        context = Visit._describe(self)
        execution = context["Execution"]
        assert isinstance(execution, dict), execution
        return context | {"Execution": execution | {"RoleArn": self.conditions.role_arn}}


def _shown(state: State) -> tuple[str, ...]:
    if isinstance(state, Pass):
        return _SHOWN_OF_RESULT if state.has_result else _SHOWN_OF_PASS
    return _SHOWN.get(type(state), _SHOWN_ELSE)
