"""The Step Functions protocol: `POST /` with an action in X-Amz-Target, AWS JSON 1.0 both ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias
from uuid import uuid4

from aiohttp import web

from service import documents
from service.api.answers import answer_bytes
from service.api.application import add_handler
from service.api.bodies import read_body
from service.api.problems import Problem
from service.api.stepfunctions.faults import Fault, fault_of, fault_of_problem
from service.asl import Json

JSON_TYPE: Final = "application/x-amz-json-1.0"
TARGET_PREFIX: Final = "AWSStepFunctions."
TARGET_CHARACTERS_SHOWN: Final = 100

BODY_BYTES_MAX: Final = 2_228_224
"""A definition of 1 MiB as a JSON string, of which every second character needs an escape, and
64 KiB for the rest."""

Members: TypeAlias = dict[str, Json]
Action: TypeAlias = Callable[[Members], Awaitable[Members]]


class StepFunctions:
    """Dispatches requests to actions, each a coroutine from members to members."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        self._actions = actions

    def add_to(self, app: web.Application) -> None:
        """Add the protocol's one path to the ops port's application."""
        add_handler(app, "POST", "/", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request, or what its action raises if the protocol has a name for it.

        The rest is for the port's own middleware, which comes back by `render_fault`.
        """
        try:
            action = self._action(request.headers.get("X-Amz-Target", ""))
            members = _members(await read_body(request, BODY_BYTES_MAX))
            return _answer(await action(members))
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            return _answer_fault(fault)

    def _action(self, target: str) -> Action:
        action = self._actions.get(target.removeprefix(TARGET_PREFIX))
        if action is None or not target.startswith(TARGET_PREFIX):
            raise Fault(
                "UnknownOperationException",
                f"X-Amz-Target: {target[:TARGET_CHARACTERS_SHOWN]!r} is not one of "
                f"{TARGET_PREFIX}{{{', '.join(sorted(self._actions))}}}",
            )
        return action


def render_fault(request: web.BaseRequest, problem: Problem) -> web.Response:
    """Return a problem that was found before an action was, in the protocol's shape."""
    request_id = problem.members.get("request_id")
    return _answer_fault(fault_of_problem(problem), str(request_id) if request_id else None)


def _members(body: bytes) -> Members:
    try:
        members = documents.loads(body or b"{}", depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise Fault("SerializationException", f"The body is not a JSON document: {error}") from None
    if not isinstance(members, dict):
        raise Fault("SerializationException", "The body is not a JSON object")
    return members


def _answer(members: Members) -> web.Response:
    return answer_bytes(documents.dumps(members), headers=_headers())


def _answer_fault(fault: Fault, request_id: str | None = None) -> web.Response:
    body = documents.dumps(fault.document())
    return answer_bytes(body, status=fault.status, headers=_headers(request_id))


def _headers(request_id: str | None = None) -> dict[str, str]:
    return {"Content-Type": JSON_TYPE, "x-amzn-RequestId": request_id or str(uuid4())}
