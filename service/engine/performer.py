"""What is performed for executions in memory: tasks, map runs, and timeouts while they are here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

from service.asl import Event, Json, RunMap, RunTask, TaskFailed, TaskHeartbeat, TimerFired
from service.engine.dispatch import Dispatch
from service.engine.ports import CoroutineHandler, Task
from service.engine.turn import Surroundings, Tenure

HEARTBEATS_PER_TIMEOUT: Final = 3


class Performer:
    """Performs open commands, once each for as long as a tenure lasts."""

    def __init__(
        self,
        surroundings: Surroundings,
        dispatch: Dispatch,
        deliver: Callable[[Tenure, Event], None],
        perform_map: Callable[[Tenure, RunMap], Coroutine[None, None, None]],
    ) -> None:
        """Perform nothing yet. What happens is told by `deliver`; a map run tells by itself."""
        self._surroundings = surroundings
        self._dispatch = dispatch
        self._deliver = deliver
        self._perform_map = perform_map

    def perform(self, tenure: Tenure) -> bool:
        """Perform what is open and not yet under way; False when there is something that only a
        turn can answer.
        """
        maps = tenure.execution.open_maps
        is_complete = bool(tenure.execution.open_tasks or maps)  # else it is to be put to rest
        for run in maps:
            if run.id not in tenure.performing:
                tenure.performing[run.id] = asyncio.ensure_future(self._perform_map(tenure, run))
        for command in tenure.execution.open_tasks:
            if command.id in tenure.performing:
                continue
            resolved = self._surroundings.handlers.resolve(command)
            handler = None if isinstance(resolved, TaskFailed) else resolved[0]
            if isinstance(resolved, TaskFailed) or not isinstance(handler, CoroutineHandler):
                is_complete = False
                continue
            input = resolved[1]
            task = tenure.task(command)
            if command.heartbeat_seconds is not None:
                task = replace(task, heartbeat=self._heartbeat(tenure, command))
            tenure.performing[command.id] = asyncio.ensure_future(
                self._perform_task(tenure, command, handler, input, task)
            )
        self._set_timer(tenure)
        return is_complete

    def cancel_closed(self, tenure: Tenure) -> None:
        """Cancel what is performed for commands that are not open any more."""
        execution = tenure.execution
        still_open = {command.id for command in execution.open_tasks}
        still_open |= {command.id for command in execution.open_maps}
        for command_id in [id for id in tenure.performing if id not in still_open]:
            tenure.performing.pop(command_id).cancel()

    async def _perform_task(
        self, tenure: Tenure, command: RunTask, handler: CoroutineHandler, input: Json, task: Task
    ) -> None:
        event = await self._dispatch.perform(command, handler, input, task)
        # It stays in `performing` until a checkpoint has its answer: while another turn of this
        # execution is being committed the command is still open, and would be performed again.
        self._deliver(tenure, event)

    def _heartbeat(self, tenure: Tenure, command: RunTask) -> Callable[[], None]:
        """Return what a handler calls to show that it is alive; more often than the timeout needs
        is not passed on.
        """
        assert command.heartbeat_seconds is not None, command
        loop = asyncio.get_running_loop()
        interval, last = command.heartbeat_seconds / HEARTBEATS_PER_TIMEOUT, loop.time()

        def beat() -> None:
            nonlocal last
            if loop.time() - last >= interval:
                last = loop.time()
                self._deliver(tenure, TaskHeartbeat(command.id))

        return beat

    def _set_timer(self, tenure: Tenure) -> None:
        """Keep the earliest timeout of an execution in memory here: its row has no due time while
        it is owned.
        """
        if tenure.timer is not None:
            tenure.timer.cancel()
            tenure.timer = None
        due_at = tenure.execution.due_at
        if due_at is not None:
            seconds = max((due_at - self._surroundings.clock.now()).total_seconds(), 0.001)
            loop = asyncio.get_running_loop()
            tenure.timer = loop.call_later(seconds, self._deliver, tenure, TimerFired())
