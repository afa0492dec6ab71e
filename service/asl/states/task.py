"""Task state.

ASL spec: "Task State"; Step Functions guide: "Task workflow state", "Integrating services".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from service.asl.commands import RunTask
from service.asl.computed import Computed
from service.asl.context import Visit
from service.asl.dataflow import Payload, check_size, find, shortened
from service.asl.errors import HEARTBEAT_TIMEOUT, RUNTIME, TIMEOUT, ExecutionError
from service.asl.execution import OpenTask
from service.asl.query.expressions import RESULT
from service.asl.query.jsonata import unwrap
from service.asl.query.jsonpath import Path, PathNotFound
from service.asl.retry import Failure
from service.asl.states.base import (
    SECONDS_MAX,
    EventDetails,
    Park,
    State,
    read_catchers,
    read_common,
    read_retriers,
)
from service.asl.states.fields import NOT_SUPPORTED, Node
from service.asl.values import Json

RESOURCE_CHARACTERS_MAX: Final = 2_048

# Observed: an account that is no number, as in the guide's examples, is taken as it is.
_LAMBDA: Final = re.compile(r"arn:aws[a-z-]*:lambda:[\w-]*:[\w-]*:function:([\w-]+)(?::[\w$-]+)?")
_SERVICE: Final = re.compile(r"arn:aws[a-z-]*:states:::([\w-]+(?::[\w-]+)*):([\w.-]+(?::2)?)")
_ACTIVITY: Final = re.compile(r"arn:aws[a-z-]*:states:[\w-]+:\d*:activity:.+")
_PATTERN: Final = re.compile(r"\.(sync(?::2)?|waitForTaskToken)$")
_TIMEOUTS: Final = frozenset({TIMEOUT, HEARTBEAT_TIMEOUT})

# Step Functions guide, "Invoke an AWS Lambda function", "Start a new execution".
_REQUIRED: Final = {
    ("lambda", "invoke"): "FunctionName",
    ("states", "startExecution"): "StateMachineArn",
}


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """A Lambda function called by its own ARN: its result is what the function returns."""

    arn: str
    name: str

    @property
    def resource(self) -> str:
        """Return the resource as the definition names it."""
        return self.arn

    @property
    def origin(self) -> str:
        """Return the name by which Step Functions complains about a result."""
        return self.arn

    def scheduled(self, command: RunTask, visit: Visit) -> tuple[EventDetails, EventDetails]:
        """Return the history events of a task that begins."""
        details: dict[str, Json] = {"resource": self.arn, "input": command.parameters}
        if command.timeout_seconds is not None:
            details["timeoutInSeconds"] = command.timeout_seconds
        return ("LambdaFunctionScheduled", details), ("LambdaFunctionStarted", None)

    def succeeded(self, output: Json) -> EventDetails:
        """Return the history event of a task that answered."""
        return "LambdaFunctionSucceeded", {"output": output}

    def failed(self, failure: Failure) -> EventDetails:
        """Return the history event of a task that failed or took too long."""
        timed_out = failure.error in _TIMEOUTS
        return f"LambdaFunction{'TimedOut' if timed_out else 'Failed'}", failure.details()


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """An action of a service, `arn:aws:states:::<service>:<action>`."""

    resource: str
    service: str
    action: str

    @property
    def origin(self) -> str:
        """Return the name by which Step Functions complains about a result."""
        return self.service

    def scheduled(self, command: RunTask, visit: Visit) -> tuple[EventDetails, EventDetails]:
        """Return the history events of a task that begins."""
        details = self._details() | {
            "region": region_of(visit.about.machine_arn),
            "parameters": command.parameters,
        }
        if command.timeout_seconds is not None:
            details["timeoutInSeconds"] = command.timeout_seconds
        if command.heartbeat_seconds is not None:
            details["heartbeatInSeconds"] = command.heartbeat_seconds
        return ("TaskScheduled", details), ("TaskStarted", self._details())

    def succeeded(self, output: Json) -> EventDetails:
        """Return the history event of a task that answered."""
        return "TaskSucceeded", self._details() | {"output": output}

    def failed(self, failure: Failure) -> EventDetails:
        """Return the history event of a task that failed or took too long."""
        timed_out = failure.error in _TIMEOUTS
        return f"Task{'TimedOut' if timed_out else 'Failed'}", self._details() | failure.details()

    def _details(self) -> dict[str, Json]:
        return {"resourceType": self.service, "resource": self.action}


@dataclass(frozen=True, slots=True)
class Limit:
    """TimeoutSeconds or HeartbeatSeconds: a number of seconds, the path to one, or computed."""

    field: str
    seconds: int | Path | Computed

    def of(self, value: Json, visit: Visit) -> int:
        """Return the number of seconds.

        Raise ExecutionError("States.Runtime") when the path yields no positive integer,
        EvaluationFailed when an expression does not.
        """
        if isinstance(self.seconds, int):
            return self.seconds
        if isinstance(self.seconds, Computed):
            return self.seconds.integer(visit, 1, SECONDS_MAX)
        try:
            seconds = find(self.seconds, value, visit)
        except PathNotFound as error:
            path = self.seconds.text
            cause = f"The {self.field} parameter does not reference an input value: {path}"
            raise ExecutionError(RUNTIME, cause) from error
        # Compared by type, not isinstance: true and false are no numbers.
        if type(seconds) is int and 0 < seconds <= SECONDS_MAX:
            return seconds
        cause = (
            f"The {self.field} parameter does not reference a positive integer "
            f"up to {SECONDS_MAX}: {self.seconds.text} == {shortened(seconds)}"
        )
        raise ExecutionError(RUNTIME, cause)


@dataclass(frozen=True, slots=True)
class Role:
    """Credentials: the role to call with. It is told in the history; handlers have no roles."""

    arn: Payload | Computed

    def of(self, value: Json, visit: Visit) -> str:
        """Return the ARN of the role.

        Raise ExecutionError when it cannot be made, or is no string.
        """
        if isinstance(self.arn, Computed):
            return self.arn.text(visit)
        credentials = self.arn.of(value, visit)
        assert isinstance(credentials, dict), credentials
        arn = credentials["RoleArn"]
        if not isinstance(arn, str):
            cause = f"The RoleArn of Credentials must be a string but was {shortened(arn)}"
            raise ExecutionError(RUNTIME, cause)
        return arn


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(State):
    """Have a handler do something and go on with its answer."""

    target: LambdaFunction | ServiceCall
    timeout: Limit | None = None
    heartbeat: Limit | None = None
    role: Role | None = None

    @property
    def type(self) -> str:
        return "Task"

    @property
    def can_retry(self) -> bool:
        return True

    def enter(self, visit: Visit) -> Park:
        """Return the command, which the frame waits for.

        Raise ExecutionError when the parameters or limits cannot be made of the input.
        """
        flow = self.flow
        value = visit.input
        if not (self.timeout is None and self.heartbeat is None and self.role is None):
            value = flow.selected(visit)
        timeout = None if self.timeout is None else self.timeout.of(value, visit)
        heartbeat = None if self.heartbeat is None else self.heartbeat.of(value, visit)
        role = None if self.role is None else self.role.of(value, visit)
        value = flow.arguments(visit)
        if value is not visit.input:  # that was measured when it was made
            check_size(value, self.name)
        command = RunTask(
            visit.next_event_id,
            visit.frame.entered_event_id,
            self.name,
            self.target.resource,
            value,
            visit.attempt,
            timeout,
            heartbeat,
        )
        waiting = OpenTask(command, after(visit.now, timeout), after(visit.now, heartbeat))
        scheduled, started = self.target.scheduled(command, visit)
        if role is not None:
            type_, details = scheduled
            scheduled = type_, (details or {}) | {"taskCredentials": {"roleArn": role}}
        return Park(waiting, (scheduled, started))


def after(now: datetime, seconds: int | None) -> datetime | None:
    """Return the moment so many seconds from now, or None for no limit."""
    return None if seconds is None else now + timedelta(seconds=seconds)


def region_of(arn: str) -> str:
    """Return the region that an ARN names."""
    parts = arn.split(":")
    return parts[3] if len(parts) > 3 else ""


def function_name_of(text: str) -> str:
    """Return the bare name of a function given as a name or an ARN, perhaps with a qualifier."""
    match = _LAMBDA.fullmatch(text)
    return match[1] if match else text.partition(":")[0]


def read(node: Node, name: str) -> Task:
    """Return the state, noting what is wrong with it."""
    fields = ("Parameters", "ResultSelector", "ResultPath", "Arguments", "Assign")
    common = read_common(node, name, *fields, result=RESULT)
    node.require("Resource")
    target = _read_target(node)
    _check_parameters(node, target)
    timeout, heartbeat = _read_limit(node, "TimeoutSeconds"), _read_limit(node, "HeartbeatSeconds")
    _check_heartbeat(node, timeout, heartbeat)
    return Task(
        name=name,
        next=common.next,
        flow=common.flow,
        retriers=read_retriers(node),
        catchers=read_catchers(node),
        target=target,
        timeout=timeout,
        heartbeat=heartbeat,
        role=_read_role(node),
    )


def _read_role(node: Node) -> Role | None:
    credentials = node.child("Credentials")
    if credentials is None:
        return None
    fields = ("RoleArn",) if node.is_jsonata else ("RoleArn", "RoleArn.$")
    field = credentials.exclusive(*fields)
    if field is None:
        message = "The field 'RoleArn' is required but was missing"
        node.problems.add(credentials.pointer, message)
        return None
    arn: Payload | Computed | None
    arn = credentials.computed(field) if node.is_jsonata else node.payload("Credentials")
    is_literal = field == "RoleArn" and not credentials.is_expression(field)
    if is_literal and credentials.text(field) == "":
        credentials.wrong(field, "Value cannot be empty")
    credentials.close()
    return None if arn is None else Role(arn)


def _check_parameters(node: Node, target: LambdaFunction | ServiceCall) -> None:
    """Note that the parameters lack what the call cannot be made without.

    Observed: the words, of Credentials.
    """
    if not isinstance(target, ServiceCall):
        return
    required = _REQUIRED.get((target.service, target.action))
    field = "Arguments" if node.is_jsonata else "Parameters"
    given = node.raw(field)
    if required is None or not isinstance(given, dict) or required in given:
        return
    if node.is_jsonata or f"{required}.$" not in given:
        node.problems.add(node.at(field), f"The field '{required}' is required but was missing")


def literal_function_name(node: Node, target: LambdaFunction | ServiceCall) -> str | None:
    """Return the bare name of the function that a task calls, or None unless it is literal."""
    if isinstance(target, LambdaFunction):
        return target.name
    parameters = node.raw("Arguments" if node.is_jsonata else "Parameters")
    name = parameters.get("FunctionName") if isinstance(parameters, dict) else None
    is_invoke = (target.service, target.action) == ("lambda", "invoke")
    if not (is_invoke and isinstance(name, str)) or (node.is_jsonata and unwrap(name) is not None):
        return None
    return function_name_of(name)


def _read_target(node: Node) -> LambdaFunction | ServiceCall:
    resource = node.text("Resource", RESOURCE_CHARACTERS_MAX)
    if resource is None:
        return ServiceCall("", "", "")
    if match := _LAMBDA.fullmatch(resource):
        return LambdaFunction(resource, match[1])
    if match := _SERVICE.fullmatch(resource):
        return ServiceCall(resource, match[1], match[2])
    if not _ACTIVITY.fullmatch(resource):
        node.wrong("Resource", "Value is not a valid resource ARN")
    return ServiceCall(resource, "", "")


def check_pattern(node: Node, target: LambdaFunction | ServiceCall, *, is_express: bool) -> None:
    """Note that a task waits for more than an answer, which no EXPRESS machine can.

    Source: Step Functions guide, "Choosing workflow type". Observed: the words for `.sync`.
    """
    pattern = _PATTERN.search(target.resource)
    if _ACTIVITY.fullmatch(target.resource):
        if is_express:
            message = f"Express state machine does not support Activity ARN '{target.resource}'"
            node.wrong("Resource", message)
        else:
            node.wrong("Resource", "An activity is not supported", NOT_SUPPORTED)
    elif pattern and is_express:
        suffix = pattern[0].partition(":")[0]
        message = f"Express state machine does not support '{suffix}' service integration"
        node.wrong("Resource", message)
    elif pattern:
        message = f"The service integration pattern '{pattern[0]}' is not supported"
        node.wrong("Resource", message, NOT_SUPPORTED)


def _read_limit(node: Node, field: str) -> Limit | None:
    if node.is_expression(field):
        computed = node.computed(field)
        return None if computed is None else Limit(field, computed)
    if node.is_jsonata:
        seconds = node.integer(field, 1, SECONDS_MAX)
        return None if seconds is None else Limit(field, seconds)
    node.exclusive(field, f"{field}Path")
    if (seconds := node.integer(field, 1, SECONDS_MAX)) is not None:
        return Limit(field, seconds)
    path = node.reference_path(f"{field}Path")
    return None if path is None else Limit(f"{field}Path", path)


def _check_heartbeat(node: Node, timeout: Limit | None, heartbeat: Limit | None) -> None:
    if timeout is None or heartbeat is None:
        return
    longest, beat = timeout.seconds, heartbeat.seconds
    if isinstance(longest, int) and isinstance(beat, int) and beat >= longest:
        node.wrong("HeartbeatSeconds", f"{beat} is not less than TimeoutSeconds, {longest}")
