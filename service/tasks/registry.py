"""From a task's resource to the handler behind it: the built-in ones and the operator's own.

A function with a handler here runs in this process, whatever region, account, version or alias its
ARN names, so that one file serves here and on AWS. `arn:aws:states:::lambda:invoke` is unwrapped on
the way in and its answer wrapped as the service wraps it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from service.asl import ExecutionError, Json, Problem, RunTask, StateMachine, TaskFailed
from service.asl.errors import RUNTIME
from service.documents import INPUT_DEPTH_MAX, loads
from service.engine.ports import Answer, CoroutineHandler, Effect, EffectHandler, Handler, Task
from service.tasks.lambda_ import Invocation, wrapped

_SERVICE: Final = re.compile(r"arn:aws[a-z-]*:states:::(?P<action>[\w.:-]+)")
INVOKE: Final = re.compile(r"arn:aws[a-z-]*:states:::lambda:invoke")
FUNCTION_NOT_FOUND: Final = "Lambda.ResourceNotFoundException"
UNKNOWN_RESOURCE: Final = "UNKNOWN_RESOURCE"
"""The code of a definition's problem: it calls what this process cannot perform."""

RESOURCES_REMEMBERED: Final = 1024

# Lambda API reference, Invoke, "FunctionName": a name, a partial or a full ARN, and behind each of
# them a version or alias if need be.
_FUNCTION = re.compile(
    r"(?:(?:arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):)?(?P<account>[0-9]{12}):function:)?"
    r"(?P<name>[A-Za-z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)

_UNFIT_FOR_HEADERS: Final = re.compile(r"[^\x20-\x7e]")

EffectTask: TypeAlias = Callable[[Json], EffectHandler]
"""Make the handler of one input, since its answer depends on it. May raise ExecutionError."""

Performer: TypeAlias = CoroutineHandler | EffectTask


@dataclass(frozen=True, slots=True)
class Function:
    """What a resource or FunctionName says: which function, and where it would be on AWS."""

    name: str
    region: str | None
    account: str | None
    qualifier: str | None


class Elsewhere(Protocol):
    """Where functions are that this process has no handler for."""

    def function(self, arn: str) -> CoroutineHandler:
        """Return what calls a function by its ARN."""
        ...

    def invocation(self, invocation: Invocation) -> CoroutineHandler:
        """Return what calls a function as lambda:invoke does, its answer wrapped likewise."""
        ...


class Registry:
    """Every handler of this process by function name. Satisfies `engine.ports.Handlers`."""

    def __init__(
        self,
        performers: Mapping[str, Performer],
        *,
        region: str,
        account: str,
        elsewhere: Elsewhere | None = None,
        services: Mapping[str, CoroutineHandler] | None = None,
    ) -> None:
        """Know `performers`; other functions are called `elsewhere`, or are missing: they are named
        by `region` and `account` then. `services` are the actions of services beside
        lambda:invoke, such as `states:startExecution`.
        """
        self._services = dict(services or {})
        self._performers = dict(performers)
        self._elsewhere = elsewhere
        self._region = region
        self._account = account
        self._here = lru_cache(maxsize=RESOURCES_REMEMBERED)(self._performer_of)

    def resolve(self, command: RunTask) -> tuple[Handler, Json] | TaskFailed:
        """Return the handler of a task and its input, or the failure when there is none."""
        try:
            performer = self._here(command.resource)
            if performer is not None:
                return _handler_of(performer, command.parameters), command.parameters
            if INVOKE.fullmatch(command.resource):
                return self._invoke(command)
            function = _resource_function(command.resource)
            if self._is_elsewhere(function) and self._elsewhere is not None:
                return self._elsewhere.function(command.resource), command.parameters
            return self._handler(function, command.parameters, command), command.parameters
        except ExecutionError as error:
            return TaskFailed(command.id, error.error or RUNTIME, error.cause)

    def _performer_of(self, resource: str) -> Performer | None:
        """Return what performs all tasks of this resource; None when that takes a closer look."""
        service = self._service(resource)
        function = read_function(resource)
        if service is not None or function is None or function.region is None:
            return service
        return self._performers.get(function.name)

    def _invoke(self, command: RunTask) -> tuple[Handler, Json]:
        """Return what performs a lambda:invoke, and the payload."""
        invocation, payload = _unwrap(command.parameters)
        function = _named_function(invocation.function)
        if self._is_elsewhere(function) and self._elsewhere is not None:
            return self._elsewhere.invocation(invocation), payload
        if invocation.kind != "RequestResponse":
            raise ExecutionError(
                RUNTIME, f"InvocationType: {invocation.kind!r} is not 'RequestResponse'"
            )
        input = {} if payload is None else payload
        return _wrapped(self._handler(function, input, command), invocation.log_type), input

    def _service(self, resource: str) -> CoroutineHandler | None:
        match = _SERVICE.fullmatch(resource)
        return None if match is None else self._services.get(match["action"])

    def _is_elsewhere(self, function: Function) -> bool:
        return function.name not in self._performers

    def missing(self, machine: StateMachine) -> list[Problem]:
        """Return a problem for each task that nothing here can perform, in the definition's order.

        A FunctionName taken from the input (`FunctionName.$`) is not known before it runs.
        """
        problems = []
        for task in machine.tasks:
            complaint = self._complaint(task.resource, task.function_name)
            if complaint is not None:
                place = machine.place(task.pointer)
                problems.append(
                    Problem(UNKNOWN_RESOURCE, complaint, task.pointer, place.line, place.column)
                )
        return problems

    def _complaint(self, resource: str, function_name: str | None) -> str | None:
        """Return why nothing here can perform this resource; None when something can."""
        if self._service(resource) is not None:
            return None
        try:
            if not INVOKE.fullmatch(resource):
                function = _resource_function(resource)
            elif function_name is not None:
                function = _named_function(function_name)
            else:
                return None
        except ExecutionError as error:
            return error.cause
        if self._elsewhere is not None or function.name in self._performers:
            return None
        known = ", ".join(sorted(self._performers)) or "none"
        return f"no handler is named {function.name!r}; the known ones are: {known}"

    def _handler(self, function: Function, input: Json, command: RunTask) -> Handler:
        """Return what performs this function. Raise ExecutionError as the service fails it."""
        performer = self._performers.get(function.name)
        if performer is None:
            raise ExecutionError(FUNCTION_NOT_FOUND, self._not_found(function, command))
        return _handler_of(performer, input)

    def _not_found(self, function: Function, command: RunTask) -> str:
        """Return the cause in the service's words (observed: recordings of lambda:invoke)."""
        arn = (
            f"arn:aws:lambda:{function.region or self._region}:{function.account or self._account}"
            f":function:{function.name}:{function.qualifier or '$LATEST'}"
        )
        request_id = uuid5(NAMESPACE_URL, f"{arn}/{command.id}")
        return (
            f"Function not found: {arn} (Service: AWSLambda; Status Code: 404; "
            f"Error Code: ResourceNotFoundException; Request ID: {request_id}; Proxy: null)"
        )


def _handler_of(performer: Performer, input: Json) -> Handler:
    return performer if isinstance(performer, CoroutineHandler) else performer(input)


@lru_cache(maxsize=RESOURCES_REMEMBERED)
def read_function(text: str) -> Function | None:
    """Return the function that a name, partial ARN or ARN stands for; None for any other text."""
    match = _FUNCTION.fullmatch(text)
    return None if match is None else Function(**match.groupdict())


def _unwrap(parameters: Json) -> tuple[Invocation, Json]:
    """Return an invocation and its Payload; without one, or for null, the function gets {}.

    Observed: a Payload that is a text, and JSON, reaches the function as the value it stands for.
    Raise ExecutionError when there is no name, or a member is no text.
    """
    name = parameters.get("FunctionName") if isinstance(parameters, dict) else None
    if not isinstance(parameters, dict) or not isinstance(name, str):
        raise ExecutionError(
            RUNTIME,
            "The Parameters could not be used to start the Task: "
            '[The field "FunctionName" is required but was missing]',
        )
    payload = parameters.get("Payload")
    if isinstance(payload, str):
        with suppress(ValueError):
            payload = loads(payload, depth_max=INPUT_DEPTH_MAX)
    invocation = Invocation(
        function=name,
        kind=_text(parameters, "InvocationType") or "RequestResponse",
        log_type=_text(parameters, "LogType"),
        qualifier=_text(parameters, "Qualifier"),
        client_context=_text(parameters, "ClientContext"),
    )
    return invocation, payload


def _text(parameters: Mapping[str, Json], name: str) -> str | None:
    value = parameters.get(name)
    if value is None or (isinstance(value, str) and not _UNFIT_FOR_HEADERS.search(value)):
        return value
    raise ExecutionError(RUNTIME, f"{name}: {value!r:.100} is not a text of one line")


def _named_function(text: str) -> Function:
    function = read_function(text)
    if function is None:
        raise ExecutionError(RUNTIME, f"FunctionName: {text!r} is neither a name nor an ARN")
    return function


def _resource_function(resource: str) -> Function:
    """Return the function that a Resource is the full ARN of. Raise ExecutionError otherwise."""
    function = read_function(resource)
    if function is None or function.region is None:
        raise ExecutionError(
            RUNTIME,
            f"Resource: {resource!r} is neither the ARN of a Lambda function nor "
            "'arn:aws:states:::lambda:invoke' nor 'arn:aws:states:::states:startExecution'; "
            "nothing else is supported",
        )
    return function


def _wrapped(handler: Handler, log_type: str | None) -> Handler:
    """Return the handler with its answer in the form of lambda:invoke."""
    if isinstance(handler, EffectHandler):
        invocation = _EffectInvocation(handler, log_type)
        return EffectHandler(effect=invocation.effect, answer=invocation.answer)

    async def run(input: Json, task: Task) -> Answer:
        return _wrap(await handler.run(input, task), task.idempotency_key, log_type)

    return CoroutineHandler(run)


class _EffectInvocation:
    """One invocation of an effect handler: it keeps, from effect to answer, whose it is."""

    def __init__(self, handler: EffectHandler, log_type: str | None) -> None:
        self._handler = handler
        self._log_type = log_type
        self._request_id: UUID | None = None

    def effect(self, input: Json, task: Task) -> Effect:
        self._request_id = task.idempotency_key
        return self._handler.effect(input, task)

    def answer(self, row: Mapping[str, object] | None) -> Answer:
        assert self._request_id is not None, "answered before it was asked"
        return _wrap(self._handler.answer(row), self._request_id, self._log_type)


def _wrap(answer: Answer, request_id: UUID, log_type: str | None) -> Answer:
    """Return the answer as lambda:invoke gives it. The request id is the same for every repeat.

    The log is the service's own, so the tail of it that LogType asks for is empty.
    """
    headers = {
        "Content-Type": "application/json",
        "X-Amz-Executed-Version": "$LATEST",
        "x-amzn-RequestId": str(request_id),
    }
    output = wrapped(answer.output, [*headers.items()], status=200, request_id=str(request_id))
    if log_type == "Tail":
        output["LogResult"] = ""
    return Answer(output, answer.acknowledges_signal)
