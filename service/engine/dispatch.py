"""From a RunTask command to the event that comes of it, by way of its handler.

Timeouts are not kept here: the checkpoint holds them and `TimerFired` brings them about, so that
they hold across a crash. A task that timed out is no longer open, and the worker cancels what still
runs for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from service import metrics
from service.asl import TASK_FAILED, Json, RunTask, TaskFailed, TaskSucceeded
from service.engine.ports import CoroutineHandler, Task
from service.engine.turn import failure_of

log = structlog.get_logger()

CONCURRENT_TASKS_MAX: Final = 256


class Dispatch:
    """Performs tasks, a bounded number at a time."""

    def __init__(self, concurrent_tasks_max: int = CONCURRENT_TASKS_MAX) -> None:
        self._slots = asyncio.Semaphore(concurrent_tasks_max)

    async def perform(
        self, command: RunTask, handler: CoroutineHandler, input: Json, task: Task
    ) -> TaskSucceeded | TaskFailed:
        """Run the handler and return what came of it; whatever it raises becomes TaskFailed."""
        async with self._slots:
            began = time.perf_counter()
            event = await _run(command, handler, input, task)
            outcome = "succeeded" if isinstance(event, TaskSucceeded) else "failed"
            metrics.child(metrics.TASK_SECONDS, _function(command.resource), outcome).observe(
                time.perf_counter() - began
            )
            return event


async def _run(
    command: RunTask, handler: CoroutineHandler, input: Json, task: Task
) -> TaskSucceeded | TaskFailed:
    try:
        answer = await handler.run(input, task)
        return TaskSucceeded(command.id, answer.output, answer.acknowledges_signal)
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
        return TaskFailed(command.id, TASK_FAILED, "the handler was cancelled")
    except Exception as error:
        failure = failure_of(command.id, error)
        log.info("task_failed", state=task.state, attempt=task.attempt, error=failure.error)
        return failure


def _is_being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _function(resource: str) -> str:
    """Return the last part of a resource as a metric's label."""
    return metrics.bounded("resource", resource.rsplit(":", 1)[-1][:80])
