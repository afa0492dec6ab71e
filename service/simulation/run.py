"""One case played to its end in virtual time, by the same `advance` that production runs.

The clock jumps from one happening to the next: the answer of a task, the visitor's verification, a
timer. At one moment they happen in this order, so a visitor who verifies at the very moment at
which a Wait ends is not too late.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final, Protocol

from service.asl import (
    WHOLE_SHARE,
    About,
    Event,
    Execution,
    ExecutionError,
    HistoryEvent,
    Json,
    MapRunBegan,
    MapRunFailed,
    RunMap,
    RunTask,
    Signalled,
    Started,
    StateMachine,
    Status,
    TaskFailed,
    TaskReference,
    TaskSucceeded,
    TimerFired,
    advance,
)
from service.asl.errors import TASK_FAILED
from service.asl.map_run import Inputs
from service.asl.states.distributed_map import DistributedMap
from service.simulation.cases import DURATION_SECONDS_MAX, Case, Result
from service.simulation.maps import child_of, run_arn, run_map

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When every case begins, for definitions that name a moment of the calendar."""

STEPS_MAX: Final = 50_000
"""What may happen in one case: twice a full history, since late answers leave no event in it."""

INVOKE: Final = ":states:::lambda:invoke"

_ARN: Final = "arn:aws:states:us-east-1:000000000000"
_OWN_ANSWER: Final = Result()


class Account(Protocol):
    """The account that a signup's flow is about, and the functions that look at and decide it."""

    @property
    def functions(self) -> Collection[str]:
        """Return the names of the functions that need not be told what they answer."""
        ...

    def verify(self) -> bool:
        """Let the visitor verify, and return whether that decided the account."""
        ...

    def answer(self, function: str, input: Json) -> Json:
        """Return what a function answers at this moment. Raise ExecutionError."""
        ...

    def acknowledges_signal(self, function: str, output: Json) -> bool:
        """Return whether an answer tells what the signal of a verification would."""
        ...


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a case. `problem` says why it could not be played to its end."""

    case: Case
    execution: Execution
    seconds: float
    events: tuple[HistoryEvent, ...]
    verified_at: datetime | None = None  # None also when the visitor came too late
    problem: str | None = None

    @property
    def path(self) -> list[str]:
        """Return the names of the states in the order in which they were entered."""
        entered = (event for event in self.events if event.type.endswith("StateEntered"))
        return [str(event.details["name"]) for event in entered if event.details is not None]


class SeededRandom:
    """Random numbers that are the same in every run of a seed."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)  # noqa: S311  (jitter and made-up ids, no secrets)

    def bits(self, n: int) -> int:
        """Return an integer of n random bits."""
        return self._source.getrandbits(n)

    def uniform(self) -> float:
        """Return a number from [0, 1)."""
        return self._source.random()


def play(machine: StateMachine, case: Case, account: Account, seed: int) -> Played:
    """Return what comes of a case. Its account is changed on the way."""
    return _Play(machine, case, account, seed).to_the_end()


def names_of(machine: StateMachine, functions: Collection[str]) -> frozenset[str]:
    """Return the names for which results can be told: Task states, Maps that read their items,
    functions called or shipped.
    """
    called = {task.function_name for task in machine.tasks if task.function_name is not None}
    readers = {
        name
        for scope in machine.scopes.values()
        for name, state in scope.states.items()
        if isinstance(state, DistributedMap) and state.reader is not None
    }
    return frozenset(called | readers | _task_states(machine).keys() | set(functions))


def _task_states(machine: StateMachine) -> Mapping[str, TaskReference]:
    """Return what each Task state calls. A state's name stands once in a definition."""
    return {_state_of(task.pointer): task for task in machine.tasks}


def _state_of(pointer: str) -> str:
    """Return the last but one name that a JSON pointer leads through (RFC 6901)."""
    return pointer.rsplit("/", 2)[1].replace("~1", "/").replace("~0", "~")


class _Unplayable(Exception):
    """The case does not tell what it would take to go on."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A task whose answer is on its way. `function` is None for a resource that is no function."""

    command: RunTask
    function: str | None
    input: Json
    result: Result
    is_for_state: bool

    @property
    def is_invocation(self) -> bool:
        return self.command.resource.endswith(INVOKE)


class _Play:
    """A case being played."""

    def __init__(self, machine: StateMachine, case: Case, account: Account, seed: int) -> None:
        self._machine = machine
        self._case = case
        self._account = account
        self._random = SeededRandom(seed)
        self._tasks = _task_states(machine)
        self._now = START
        self._execution = Execution.new(_about(case.input))
        self._events: list[HistoryEvent] = []
        self._calls: Counter[str] = Counter()
        self._verified_at: datetime | None = None
        # What is to come: moment, order of planning, and the call answered or what came of a map;
        # None is the visitor.
        self._ahead: list[tuple[datetime, int, _Call | Event | None]] = []
        self._order = count()

    def to_the_end(self) -> Played:
        """Play until the execution has ended, or nothing says how it would go on."""
        problem = None
        if self._case.verified_at is not None:
            self._plan(self._case.verified_at, None)
        try:
            self._play()
        except _Unplayable as error:
            problem = str(error)
        return Played(
            self._case,
            self._execution,
            (self._now - START).total_seconds(),
            tuple(self._events),
            self._verified_at,
            problem,
        )

    def _play(self) -> None:
        self._feed(Started())
        for _ in range(STEPS_MAX):
            if self._execution.status is not Status.RUNNING:
                return
            self._happen()
        raise _Unplayable(f"still RUNNING after {STEPS_MAX} steps")

    def _happen(self) -> None:
        """Let the next thing happen: what is planned before a timer of the same moment."""
        due_at = self._execution.due_at
        if self._ahead and (due_at is None or self._ahead[0][0] <= due_at):
            moment, _, call = heapq.heappop(self._ahead)
            self._pass_time_until(moment)
            if call is None:
                self._verify()
            elif not isinstance(call, _Call):
                self._feed(call)
            elif call.command in self._execution.open_tasks:  # else the answer is too late
                self._feed(self._answer(call))
        elif due_at is not None:
            self._pass_time_until(due_at)
            self._feed(TimerFired())
        else:
            raise _Unplayable("waits for what a simulation does not have")

    def _pass_time_until(self, moment: datetime) -> None:
        if moment - START > timedelta(seconds=DURATION_SECONDS_MAX):
            raise _Unplayable(f"still RUNNING after {DURATION_SECONDS_MAX} seconds")
        self._now = max(self._now, moment)

    def _plan(self, seconds: float, call: _Call | Event | None) -> None:
        moment = self._now + timedelta(seconds=seconds)
        heapq.heappush(self._ahead, (moment, next(self._order), call))

    def _verify(self) -> None:
        if self._account.verify():
            self._verified_at = self._now
            self._feed(Signalled())

    def _feed(self, event: Event) -> None:
        step = advance(
            self._machine, self._execution, event, self._now, self._random, share=WHOLE_SHARE
        )
        self._execution = step.execution
        self._events += step.history
        for command in step.commands:
            if isinstance(command, RunTask):
                self._call(command)
            elif isinstance(command, RunMap):
                self._run_map(command)

    # ---------------------------------------------------------------- maps

    def _run_map(self, command: RunMap) -> None:
        """Play the children of a Distributed Map, and plan what comes of them."""
        about = self._execution.about
        arn = run_arn(about, command.label)
        self._feed(MapRunBegan(command.id, arn))
        read = Result(output=command.items) if command.items is not None else self._read(command)
        if read.error is not None:
            self._plan(read.seconds, MapRunFailed(command.id, read.error, read.cause))
            return
        processor = self._machine.processor(command.label)
        children = count()

        def play_child(input: Json, moment: datetime) -> tuple[Execution, datetime]:
            child = copy(self)
            child._machine, child._now = processor, moment
            child._events, child._ahead = [], []
            described = child_of(about, command.label, next(children), input, moment)
            child._execution = Execution.new(described)
            child._play()
            return child._execution, child._now

        inputs = Inputs.of(self._machine, self._execution, command, self._now, self._random)
        begun_at = self._now + timedelta(seconds=read.seconds)
        event, moment = run_map(command, arn, inputs, read.output, begun_at, play_child)
        self._plan((moment - self._now).total_seconds(), event)

    def _read(self, command: RunMap) -> Result:
        """Return what a map's ItemReader reads, as the case tells it: items, or an error."""
        result = self._told(command.state)
        if result is None:
            raise _Unplayable(
                f"state {command.state!r} reads its items, and nothing tells which: "
                f"add results for {command.state!r}, whose output is an array"
            )
        if result.error is None and not isinstance(result.output, list):
            raise _Unplayable(f"the items told for the state {command.state!r} are no array")
        return result

    # ---------------------------------------------------------------- tasks

    def _call(self, command: RunTask) -> None:
        """Plan the answer of a task: as the case tells it for the state, or for the function."""
        function, input = self._target(command)
        for name in (command.state, function):
            result = None if name is None else self._told(name)
            if result is not None:
                break
        else:
            name, result = function, _OWN_ANSWER
        if not result.is_told and function not in self._account.functions:
            raise _Unplayable(_unknown(command, function))
        call = _Call(command, function, input, result, is_for_state=name == command.state)
        self._plan(result.seconds, call)

    def _told(self, name: str) -> Result | None:
        """Return the next of the results that the case tells for a name; None without any."""
        results = self._case.results.get(name)
        if not results:
            return None
        result = results[min(self._calls[name], len(results) - 1)]
        self._calls[name] += 1
        return result

    def _target(self, command: RunTask) -> tuple[str | None, Json]:
        """Return the function that a task calls, None if it calls none, and its input."""
        function = self._tasks[command.state].function_name
        input = command.parameters
        if not command.resource.endswith(INVOKE):
            return function, input
        if not isinstance(input, dict):
            return function, {}
        if function is None and "FunctionName" in input:
            # A name, a partial or a full ARN, and behind each of them perhaps a version or alias.
            text = str(input["FunctionName"])
            function = text.rpartition("function:")[2].partition(":")[0]
        return function, input.get("Payload", {})

    def _answer(self, call: _Call) -> Event:
        """Return the event of a task's answer, made at the moment at which it comes."""
        id_, result = call.command.id, call.result
        if result.error is not None:
            return TaskFailed(id_, result.error, result.cause)
        if result.is_told and (call.is_for_state or call.function is None):
            return TaskSucceeded(id_, result.output, self._acknowledges(call, result.output))
        assert call.function is not None, call
        output = result.output
        if not result.is_told:
            try:
                output = self._account.answer(call.function, call.input)
            except ExecutionError as error:
                return TaskFailed(id_, error.error or TASK_FAILED, error.cause)
        whole = _invocation(output) if call.is_invocation else output
        return TaskSucceeded(id_, whole, self._acknowledges(call, whole))

    def _acknowledges(self, call: _Call, output: Json) -> bool:
        """Return whether an answer tells of the verification, in the form the task has it in."""
        if call.is_invocation and isinstance(output, dict):
            output = output.get("Payload")
        return call.function is not None and self._account.acknowledges_signal(
            call.function, output
        )


def _unknown(command: RunTask, function: str | None) -> str:
    if function is None:
        return (
            f"state {command.state!r} calls {command.resource}, and nothing tells what that "
            f"answers: add results for {command.state!r}"
        )
    return (
        f"state {command.state!r} calls the function {function!r}, and nothing tells what that "
        f"answers: add results for {function!r} or for {command.state!r}"
    )


def _about(input: Json) -> About:
    """Return what the context object tells of the execution: as of a signup, named by its id."""
    account = input.get("account_id") if isinstance(input, dict) else None
    name = account if isinstance(account, str) else "simulated"
    return About(
        arn=f"{_ARN}:execution:simulated:{name}",
        name=name,
        started_at=START,
        input=input,
        role_arn="arn:aws:iam::000000000000:role/simulated",
        machine_arn=f"{_ARN}:stateMachine:simulated",
        machine_name="simulated",
    )


def _invocation(output: Json) -> Json:
    """Return a function's output in the form of lambda:invoke."""
    headers: dict[str, str] = {
        "Content-Type": "application/json",
        "X-Amz-Executed-Version": "$LATEST",
        "x-amzn-RequestId": "00000000-0000-0000-0000-000000000000",
    }
    return {
        "ExecutedVersion": "$LATEST",
        "Payload": output,
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": {**headers},
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": headers["x-amzn-RequestId"]},
        "StatusCode": 200,
    }
