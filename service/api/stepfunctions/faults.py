"""Errors of the Step Functions API: their codes, and the one table from exceptions to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.api.problems import Problem as HttpProblem
from service.asl import InvalidDefinition, Json, Problem
from service.asl.errors import TextProblem
from service.engine.catalog import TooManyMachines
from service.engine.ports import Overloaded, Rejected, Unavailable

PROBLEMS_TOLD_MAX: Final = 20

_CODES: Final = {
    "unauthorized": "UnrecognizedClientException",
    "payload_too_large": "RequestEntityTooLargeException",
    "unsupported_media_type": "SerializationException",
    "malformed_request": "SerializationException",
    "malformed_json": "SerializationException",
    "body_timeout": "RequestTimeoutException",
    "foreign_host": "AccessDeniedException",
    "cross_site": "AccessDeniedException",
    "expectation_failed": "SerializationException",
    "overloaded": "ServiceUnavailable",
    "unavailable": "ServiceUnavailable",
    "internal_error": "InternalFailure",
}


class Fault(Exception):
    """A request that is answered with an error, by the name that SDKs know it by."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def document(self) -> dict[str, Json]:
        """Return the answer's body."""
        return {"__type": self.code, "message": self.message}


def validation(*constraints: str) -> Fault:
    """Return the fault of parameters that break these constraints."""
    errors = "error" if len(constraints) == 1 else "errors"
    return Fault(
        "ValidationException",
        f"{len(constraints)} validation {errors} detected: {'; '.join(constraints)}",
    )


def invalid(message: str) -> Fault:
    """Return the fault of parameters that break a rule of their action."""
    return Fault("ValidationException", message)


def invalid_input(reason: str) -> Fault:
    """Return the fault of an input that no execution could be started with."""
    return Fault("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{reason}'")


def no_machine(arn: str) -> Fault:
    """Return the fault of an ARN that no state machine has."""
    return Fault("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")


def no_execution(arn: str) -> Fault:
    """Return the fault of an ARN that no execution has."""
    return Fault("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")


def not_redrivable(reason: str) -> Fault:
    """Return the fault of an execution that cannot be redriven."""
    return Fault("ExecutionNotRedrivable", f"Execution Not Redrivable: '{reason}'")


def wrong_type() -> Fault:
    """Return the fault of an action that a machine's type does not have."""
    return Fault(
        "StateMachineTypeNotSupported",
        "This operation is not supported by this type of state machine",
    )


def invalid_definition(problems: Sequence[Problem]) -> Fault:
    """Return the fault of a definition, with what is wrong with it and where.

    Observed: recordings of CreateStateMachine.
    """
    told = [_told(problem) for problem in problems[:PROBLEMS_TOLD_MAX]]
    if len(problems) > PROBLEMS_TOLD_MAX:
        told.append(f"and {len(problems) - PROBLEMS_TOLD_MAX} more")
    return Fault("InvalidDefinition", f"Invalid State Machine Definition: '{', '.join(told)}'")


def location_of(problem: Problem) -> str | None:
    """Return where a problem is as the API writes it; None where it names no place."""
    return problem.location if isinstance(problem, TextProblem) else problem.pointer or "/"


def _told(problem: Problem) -> str:
    location = location_of(problem)
    return f"{problem.code}: {problem.message}{'' if location is None else f' at {location}'}"


def fault_of(error: Exception) -> Fault | None:
    """Return the fault that an exception stands for, or None when it is a fault of ours."""
    match error:
        case Fault():
            return error
        case InvalidDefinition():
            return invalid_definition(error.problems)
        case TooManyMachines():
            return Fault("StateMachineLimitExceeded", f"State Machine Limit Exceeded: '{error}'")
        case Rejected():
            return validation(f"a text has what no column can hold: {error}")
        case Overloaded() | Unavailable():
            return Fault("ServiceUnavailable", f"{error}. Nothing was decided.", status=503)
        case _:
            return None


def fault_of_problem(problem: HttpProblem) -> Fault:
    """Return what the port as a whole found wrong, in this protocol's shape."""
    code = _CODES.get(problem.code, "ValidationException")
    return Fault(code, problem.detail, status=problem.status)
