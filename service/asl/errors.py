"""The errors of the language: the workflow's, named as ASL names them, and a definition's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ALL: Final = "States.ALL"
HEARTBEAT_TIMEOUT: Final = "States.HeartbeatTimeout"
TIMEOUT: Final = "States.Timeout"
TASK_FAILED: Final = "States.TaskFailed"
PERMISSIONS: Final = "States.Permissions"
RESULT_PATH_MATCH_FAILURE: Final = "States.ResultPathMatchFailure"
PARAMETER_PATH_FAILURE: Final = "States.ParameterPathFailure"
BRANCH_FAILED: Final = "States.BranchFailed"
NO_CHOICE_MATCHED: Final = "States.NoChoiceMatched"
INTRINSIC_FAILURE: Final = "States.IntrinsicFailure"
EXCEED_TOLERATED_FAILURE_THRESHOLD: Final = "States.ExceedToleratedFailureThreshold"
ITEM_READER_FAILED: Final = "States.ItemReaderFailed"
RESULT_WRITER_FAILED: Final = "States.ResultWriterFailed"
DATA_LIMIT_EXCEEDED: Final = "States.DataLimitExceeded"
RUNTIME: Final = "States.Runtime"
QUERY_EVALUATION_ERROR: Final = "States.QueryEvaluationError"

# Step Functions guide, "Error handling": States.ALL catches neither of these.
UNCATCHABLE: Final = frozenset({DATA_LIMIT_EXCEEDED, RUNTIME})

ERROR_CHARACTERS_MAX: Final = 256
CAUSE_CHARACTERS_MAX: Final = 32_768


class ExecutionError(Exception):
    """A failure of the workflow itself, which Retry and Catch can match by its name."""

    def __init__(self, error: str | None, cause: str | None = None) -> None:
        super().__init__(error, cause)
        self.error = error
        self.cause = cause


class ReportedError(ExecutionError):
    """A failure that is told as it came: a Fail state's, a task's, a payload over the limit.

    Any other ExecutionError gets a cause that also names the state it happened in.
    """


class EvaluationFailed(ExecutionError):
    """A JSONata field that could not be evaluated, or yielded what the field cannot use.

    The history tells of it by an event of its own. `location` names the field, or is None.
    """

    def __init__(self, cause: str | None, location: str | None) -> None:
        super().__init__(QUERY_EVALUATION_ERROR, cause)
        self.location = location


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a definition: a stable code, the rule broken, and where."""

    code: str
    message: str
    pointer: str  # RFC 6901
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class TextProblem(Problem):
    """A problem of a definition's text, in the words of the Step Functions API as far as known.

    `pointer` leads to where the API places it, which may be a part around; line and column to the
    very part. `location` is the place as the API writes it, None where it names none; `detail` says
    what the message leaves unsaid.
    """

    location: str | None
    detail: str


class InvalidDefinition(Exception):
    """A definition that does not compile, with everything that is wrong with it at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(_told, problems)))
        self.problems = tuple(problems)


def _told(problem: Problem) -> str:
    detail = problem.detail if isinstance(problem, TextProblem) else ""
    return f"{problem.message}{detail and ': '}{detail} (at {problem.pointer or '/'})"
