"""Retry and Catch: which failures they match, how long a retry waits, what a catcher hands on.

ASL spec: "Errors", "Retrying After Error", "Fallback States". Observed: a result over the payload
limit that a task returned is caught by States.ALL, although the guide calls
States.DataLimitExceeded terminal; one that comes of the state's own data flow is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.asl.computed import DataFlow
from service.asl.dataflow import NO_FIELDS
from service.asl.errors import (
    ALL,
    BRANCH_FAILED,
    CAUSE_CHARACTERS_MAX,
    ERROR_CHARACTERS_MAX,
    HEARTBEAT_TIMEOUT,
    TASK_FAILED,
    TIMEOUT,
    UNCATCHABLE,
)
from service.asl.values import Json, Random

MAX_ATTEMPTS_MAX: Final = 99_999_999  # Step Functions guide, "Retrying after an error"
INTERVAL_SECONDS_MAX: Final = 99_999_999
MAX_DELAY_SECONDS_MAX: Final = 31_622_400
RETRIERS_MAX: Final = 100
ERROR_NAMES_MAX: Final = 100


@dataclass(init=False, slots=True)
class Failure:
    """Why a state failed.

    `by_task`: a handler's answer was at fault, not the state's own data flow.
    """

    error: Final[str | None]
    cause: Final[str | None]
    by_task: Final[bool]
    in_branch: Final[bool]

    def __init__(
        self,
        error: str | None,
        cause: str | None,
        by_task: bool = False,
        in_branch: bool = False,
    ) -> None:
        self.error = error
        self.cause = cause
        self.by_task = by_task
        self.in_branch = in_branch

    def of_branch(self) -> Failure:
        """Return the same failure as the state sees it in whose branch it happened."""
        return Failure(self.error, self.cause, self.by_task, in_branch=True)

    def output(self) -> Json:
        """Return the Error Output that a catcher hands on."""
        return {"Error": self.error or "", "Cause": self.cause or ""}

    def details(self) -> dict[str, Json]:
        """Return the members that history events show; what is not known is left out."""
        members: dict[str, Json] = {}
        if self.error is not None:
            members["error"] = self.error
        if self.cause is not None:
            members["cause"] = self.cause
        return members


def bounded(error: str | None, cause: str | None) -> tuple[str | None, str | None]:
    """Return an error and its cause cut to the lengths that Step Functions keeps."""
    return (
        None if error is None else error[:ERROR_CHARACTERS_MAX],
        None if cause is None else cause[:CAUSE_CHARACTERS_MAX],
    )


def matches(error_equals: frozenset[str], failure: Failure) -> bool:
    """Return whether an ErrorEquals matches a failure."""
    error = failure.error
    if error in error_equals:
        return True
    if error == HEARTBEAT_TIMEOUT and TIMEOUT in error_equals:
        return True
    if error in UNCATCHABLE and not failure.by_task:
        return False
    if failure.in_branch and BRANCH_FAILED in error_equals:
        return True
    return ALL in error_equals or (TASK_FAILED in error_equals and error != TIMEOUT)


@dataclass(frozen=True, slots=True)
class Retrier:
    """One of a state's Retry entries."""

    error_equals: frozenset[str]
    interval_seconds: int = 1
    max_attempts: int = 3
    backoff_rate: float = 2.0
    max_delay_seconds: int | None = None
    has_full_jitter: bool = False

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Return how long to wait before the next try, after `attempt` retries by this retrier."""
        limit = float(self.max_delay_seconds or MAX_DELAY_SECONDS_MAX)
        try:
            delay = min(self.interval_seconds * self.backoff_rate**attempt, limit)
        except OverflowError:
            delay = limit
        return delay * random.uniform() if self.has_full_jitter else delay


@dataclass(frozen=True, slots=True)
class Catcher:
    """One of a state's Catch entries; its fields take the Error Output for the result."""

    error_equals: frozenset[str]
    next: str
    flow: DataFlow = NO_FIELDS
