"""Express executions: the same `advance` as everywhere, in memory alone and at most once.

Nothing is stored on the way, so a process that ends takes its runs with it, and nobody takes them
over. A run that needs a database effect has it in a transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import structlog

from service.asl import (
    About,
    Event,
    Execution,
    Json,
    RunTask,
    Started,
    StateMachine,
    Status,
    TaskFailed,
    TaskHeartbeat,
    TaskSucceeded,
    TimerFired,
    advance,
)
from service.engine.dispatch import Dispatch
from service.engine.ids import new_id
from service.engine.ports import CoroutineHandler, Effect, EffectHandler, Key, Overloaded, Task
from service.engine.turn import Surroundings, failure_of

log = structlog.get_logger()

EXPRESS_SECONDS_MAX: Final = 300
"""Step Functions guide, "Service quotas": the longest Express execution."""

RUNS_MAX: Final = 1_000
EVENTS_WAITING_MAX: Final = 1_000
"""Of one run, beyond which heartbeats are dropped; answers are as few as the open tasks."""

Request: TypeAlias = Callable[[Effect], Awaitable[Mapping[str, object] | None]]
"""Run one database effect and return its row."""


class Express:
    """Runs Express executions, a bounded number at a time."""

    def __init__(
        self, surroundings: Surroundings, request: Request, *, runs_max: int = RUNS_MAX
    ) -> None:
        self._surroundings = surroundings
        self._request = request
        self._runs_max = runs_max
        self._dispatch = Dispatch()
        self._runs: set[asyncio.Task[Execution]] = set()

    async def run(self, machine: StateMachine, about: About) -> Execution:
        """Run an execution and return it as it ended: SUCCEEDED, FAILED or TIMED_OUT.

        Raises Overloaded when RUNS_MAX of them run already.
        """
        return await self.begin(machine, about)

    def begin(self, machine: StateMachine, about: About) -> asyncio.Task[Execution]:
        """Start an execution without waiting for its end. Raises Overloaded."""
        if len(self._runs) >= self._runs_max:
            raise Overloaded(f"{self._runs_max} Express executions run")
        run = _Run(machine, about, self._surroundings, self._dispatch, self._request)
        task = asyncio.create_task(run.play())
        self._runs.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Execution]) -> None:
        self._runs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("express_execution_broken", exc_info=error)

    async def close(self, seconds: float) -> None:
        """Let what runs end within so many seconds; what does not is lost."""
        if not self._runs:
            return
        _, late = await asyncio.wait(self._runs, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            log.warning("express_executions_lost", executions=len(late))
            await asyncio.wait(late)


class _Run:
    """One execution from its start to its end."""

    def __init__(
        self,
        machine: StateMachine,
        about: About,
        surroundings: Surroundings,
        dispatch: Dispatch,
        request: Request,
    ) -> None:
        self._machine = machine
        self._surroundings = surroundings
        self._dispatch = dispatch
        self._request = request
        self._execution = Execution.new(about)
        id = new_id(surroundings.clock.now(), 0)
        self._key = Key(0, id)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._performing: dict[int, asyncio.Task[None]] = {}

    async def play(self) -> Execution:
        try:
            self._feed(Started())
            self._execution = _bounded(self._execution)
            while self._execution.status is Status.RUNNING:
                self._perform()
                if self._execution.halt is not None:
                    await asyncio.sleep(0)  # the step has taken long enough for the others
                self._feed(await self._next())
        finally:
            for task in self._performing.values():
                task.cancel()
        return self._execution

    def _feed(self, event: Event) -> None:
        shared = self._surroundings
        now = shared.clock.now()
        step = advance(
            self._machine, self._execution, event, now, shared.random, time_scale=shared.time_scale
        )
        self._execution = step.execution

    async def _next(self) -> Event:
        """Return what happens next: an answer, or the earliest timer."""
        due_at = self._execution.due_at
        assert due_at is not None, "every Express execution has a time limit"
        seconds = (due_at - self._surroundings.clock.now()).total_seconds()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                return await self._events.get()
        except TimeoutError:
            return TimerFired()

    def _perform(self) -> None:
        """Begin what is open and not begun; give up what is no longer open."""
        commands = {command.id: command for command in self._execution.open_tasks}
        for id in self._performing.keys() - commands.keys():
            self._performing.pop(id).cancel()
        for id in commands.keys() - self._performing.keys():
            self._performing[id] = asyncio.create_task(self._answer(commands[id]))

    async def _answer(self, command: RunTask) -> None:
        await self._events.put(await self._run(command))

    async def _run(self, command: RunTask) -> TaskSucceeded | TaskFailed:
        resolved = self._surroundings.handlers.resolve(command)
        if isinstance(resolved, TaskFailed):
            return resolved
        handler, input = resolved
        task = self._task(command)
        if isinstance(handler, CoroutineHandler):
            return await self._dispatch.perform(command, handler, input, task)
        return await self._apply(command, handler, input, task)

    async def _apply(
        self, command: RunTask, handler: EffectHandler, input: Json, task: Task
    ) -> TaskSucceeded | TaskFailed:
        try:
            effect = handler.effect(input, task)
            row = await self._request(effect)
            if effect.committed is not None:
                effect.committed(row)
            answer = handler.answer(row)
        except Exception as error:
            return failure_of(command.id, error)
        return TaskSucceeded(command.id, answer.output, answer.acknowledges_signal)

    def _task(self, command: RunTask) -> Task:
        about = self._execution.about
        return Task(
            execution=self._key,
            machine=about.machine_name,
            name=about.name,
            state=command.state,
            entered_event_id=command.entered_event_id,
            attempt=command.attempt,
            heartbeat=lambda: self._beat(command.id),
        )

    def _beat(self, command_id: int) -> None:
        if self._events.qsize() < EVENTS_WAITING_MAX:  # else there is time for the next one
            self._events.put_nowait(TaskHeartbeat(command_id))


def _bounded(execution: Execution) -> Execution:
    """Return the execution with the time limit that every Express execution has."""
    if execution.status is not Status.RUNNING:
        return execution
    bounded = execution.copy()
    latest: datetime = execution.about.started_at + timedelta(seconds=EXPRESS_SECONDS_MAX)
    bounded.times_out_at = min(execution.times_out_at or latest, latest)
    return bounded
