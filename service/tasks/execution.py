"""`arn:aws:states:::states:startExecution`: a task that starts an execution of this very engine.

What it takes and answers is what the optimized integration of Step Functions does (guide, "Start
workflow executions from a task state"; recordings): the parameters of StartExecution with an Input
of any shape, and its answer with the members' names in capitals. An error is named after the
exception of the service's own client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from service.asl import ExecutionError, Json
from service.asl.errors import RUNTIME
from service.asl.values import format_timestamp
from service.documents import dumps
from service.engine.ports import Answer, CoroutineHandler, Overloaded, Task, Unavailable

START_EXECUTION: Final = "states:startExecution"

FIRST_DELAY_SECONDS: Final = 0.25
DELAY_SECONDS_MAX: Final = 4.0

_TEXTS: Final = ("StateMachineArn", "Name", "TraceHeader")
_FIELDS: Final = (*_TEXTS, "Input")


class StartRefused(Exception):
    """What StartExecution answers when it starts nothing: code, message and HTTP status."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


Members: TypeAlias = dict[str, Json]
Start: TypeAlias = Callable[[Members, Task], Awaitable[Members]]
"""StartExecution on behalf of a task, once for each entry of its state. Raises StartRefused,
Overloaded, Unavailable."""


def start_execution(start: Start) -> CoroutineHandler:
    """Return the handler of `states:startExecution`, which asks `start`."""

    async def run(input: Json, task: Task) -> Answer:
        members = _members(input)
        try:
            started = await _persistently(start, members, task)
        except StartRefused as refused:
            raise _failure(refused, task) from refused
        return Answer(_answer(started, str(task.idempotency_key)))

    return CoroutineHandler(run)


async def _persistently(start: Start, members: Members, task: Task) -> Members:
    """Return the answer, asked for again while the service cannot give one.

    That is no fault of the workflow's: an outage is outlasted, as everywhere in the engine. It ends
    with the task: by its timeout, or by a shutdown, after which another process performs it.
    """
    delay_seconds = FIRST_DELAY_SECONDS
    while True:
        try:
            return await start(members, task)
        except (Overloaded, Unavailable):
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, DELAY_SECONDS_MAX)


def _members(input: Json) -> Members:
    """Return the members of StartExecution.

    Observed: an Input of null is none. One that is a text is JSON already, as in the API. Raise
    ExecutionError for parameters that cannot be used.
    """
    if not isinstance(input, dict) or input.get("StateMachineArn") is None:
        raise _unusable('The field "StateMachineArn" is required but was missing')
    members: Members = {}
    for name, value in input.items():
        if name not in _FIELDS:
            raise _unusable(f"The field '{name[:100]}' is not supported by Step Functions")
        if name in _TEXTS and not isinstance(value, str | None):
            raise _unusable(f"The value for the field '{name}' must be a STRING")
        if value is not None:
            text = value if isinstance(value, str) else dumps(value).decode()
            members[f"{name[0].lower()}{name[1:]}"] = text
    return members


def _unusable(reason: str) -> ExecutionError:
    return ExecutionError(
        RUNTIME, f"The Parameters could not be used to start the Task: [{reason}]"
    )


def _failure(refused: StartRefused, task: Task) -> ExecutionError:
    """Return the error in the service's words (observed: recordings of states:startExecution)."""
    return ExecutionError(
        f"StepFunctions.{refused.code.removesuffix('Exception')}Exception",
        f"{refused.message} (Service: AWSStepFunctions; Status Code: {refused.status}; "
        f"Error Code: {refused.code}; Request ID: {task.idempotency_key}; Proxy: null)",
    )


def _answer(started: Members, request_id: str) -> Members:
    """Return the answer as the integration gives it.

    Observed: StartDate is a text (recordings of TestState, which refuses a mock with a number).
    """
    seconds = started["startDate"]
    assert isinstance(seconds, float), started
    headers: dict[str, Json] = {
        "Content-Type": "application/x-amz-json-1.0",
        "x-amzn-RequestId": request_id,
    }
    return {
        "ExecutionArn": started["executionArn"],
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
        "StartDate": format_timestamp(datetime.fromtimestamp(seconds, UTC)),
    }
