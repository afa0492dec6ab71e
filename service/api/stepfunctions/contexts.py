"""The Context Object that TestState is given, and what is wrong with it.

Members: Step Functions guide, "Accessing execution data from the Context object". Wording:
observed, recordings of TestState.
"""

from __future__ import annotations

from typing import Final

from service import documents
from service.api.stepfunctions.faults import Fault, invalid
from service.asl import Json
from service.asl.states.base import State
from service.asl.states.task import Task

_FIELDS: Final = {
    "Execution": {"Id", "Input", "Name", "RedriveCount", "RedriveTime", "RoleArn", "StartTime"},
    "State": {"EnteredTime", "Name", "RetryCount"},
    "StateMachine": {"Id", "Name"},
    "Task": {"Token"},
}
_WITH_TOKEN: Final = (".sync", ".sync:2", ".waitForTaskToken")


def read_context(text: str, state: State) -> dict[str, Json]:
    """Return the Context Object. Raise Fault for what no state of this kind gets to see."""
    try:
        context = documents.loads(text, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise _refused(f"it is not valid JSON: {error}") from None
    if not isinstance(context, dict):
        raise _refused("it is not a JSON object")
    if "Map" in context:
        raise _refused("'Map' field is not supported when mocking a Context object")
    for name, value in context.items():
        _check(name, value)
    if "Task" in context and not has_token(state):
        raise _refused(
            "Context object contains 'Task' when state is not a Task state with a '.sync' or "
            "'.waitForTaskToken' service integration pattern"
        )
    return context


def has_token(state: State) -> bool:
    """Return whether a state waits for more than the answer to its call."""
    return isinstance(state, Task) and state.target.resource.endswith(_WITH_TOKEN)


def _check(name: str, value: Json) -> None:
    if name not in _FIELDS:
        raise _refused(f"Field '{name}' is not allowed")
    if not isinstance(value, dict):
        raise _refused(f"Field '{name}' must be an object")
    for field in value:
        if field not in _FIELDS[name]:
            raise _refused(f"Field '{field}' is not allowed")


def _refused(reason: str) -> Fault:
    return invalid(f"Invalid Context object provided: {reason}")
