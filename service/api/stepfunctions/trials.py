"""TestState: one state of a definition tried with a given input, its task performed or mocked.

Shapes: API reference of TestState; order and wording of what is refused: observed, recordings.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import uuid4

from pydantic import Field

from service import documents
from service.api.stepfunctions import requests
from service.api.stepfunctions.contexts import has_token, read_context
from service.api.stepfunctions.faults import Fault, invalid, invalid_input
from service.api.stepfunctions.names import check_role
from service.api.stepfunctions.protocol import Action, Members
from service.api.stepfunctions.results import check_result
from service.asl import TIMEOUT, About, Json, Random, StateMachine, Status
from service.asl.parser import TRIAL_STATE, compile_trial
from service.asl.states.base import ForkingState, State
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.task import Task
from service.asl.trial import Conditions, Ending, Outcome, Trial, find_state, task_alone
from service.asl.values import PAYLOAD_BYTES_MAX, exceeds
from service.engine.arns import Arns
from service.engine.express import Express
from service.tasks.item_formats import BadItems, read_text

_FORK_WITHOUT_MOCK: Final = (
    "TestState API does not support Map or Parallel states. "
    "Supported state types include: [Task, Wait, Pass, Succeed, Fail, Choice]"
)
_ACTIVITY: Final = re.compile(r"arn:aws[a-z-]*:states:[^:]+:[^:]*:activity:.+")
_NUMBERS: Final = frozenset(
    {"maxConcurrency", "toleratedFailureCount", "toleratedFailurePercentage"}
)

Count = Annotated[int, Field(ge=0)]
StateName = Annotated[str, Field(min_length=1, max_length=80)]


class ErrorOutput(requests.Parameters):
    error: Annotated[str, Field(max_length=256)] | None = None
    cause: Annotated[str, Field(max_length=32_768)] | None = None


class Mock(requests.Parameters):
    """What the state's task or branches are said to have answered."""

    result: requests.Data | None = None
    error_output: ErrorOutput | None = None
    field_validation_mode: Literal["STRICT", "PRESENT", "NONE"] = "STRICT"


class Configuration(requests.Parameters):
    """What has happened to the state before, or within it."""

    retrier_retry_count: Count = 0
    error_caused_by_state: StateName | None = None
    map_iteration_failure_count: Count | None = None
    map_item_reader_data: requests.Data | None = None


class TryState(requests.Parameters):
    """The parameters of TestState."""

    definition: requests.Definition
    role_arn: requests.Arn | None = None
    input: requests.Data = "{}"
    inspection_level: Literal["INFO", "DEBUG", "TRACE"] = "INFO"
    reveal_secrets: bool = False
    variables: requests.Data = "{}"
    state_name: StateName | None = None
    mock: Mock | None = None
    context: requests.Data | None = None
    state_configuration: Configuration = Configuration()

    def check(self) -> None:
        """Raise Fault for parameters that do not go together."""
        mock = self.mock
        if mock is None:
            if self.state_configuration.map_iteration_failure_count is not None:
                raise invalid(
                    "TestState does not support MapIterationFailureCount when a mock is not "
                    "specified."
                )
            return
        if (mock.result is None) == (mock.error_output is None):
            only = "" if mock.result is None else "only "
            raise invalid(
                f"A test mock should have {only}one of the following fields: [result, errorOutput]."
            )
        if self.reveal_secrets:
            raise invalid("TestState does not support RevealSecrets when a mock is specified.")


class Trials:
    """The action TestState."""

    def __init__(
        self, express: Express, arns: Arns, random: Random, now: Callable[[], datetime]
    ) -> None:
        self._express = express
        self._arns = arns
        self._random = random
        self._now = now

    def actions(self) -> dict[str, Action]:
        """Return the actions by name."""
        return {"TestState": self.try_state}

    async def try_state(self, members: Members) -> Members:
        """Try a state and tell what came of it. Nothing of it is stored."""
        request = requests.read(TryState, members)
        request.check()
        if request.role_arn is not None:
            check_role(request.role_arn)
        is_state = request.state_name is None
        machine = await asyncio.to_thread(compile_trial, request.definition, is_state=is_state)
        state = find_state(machine, request.state_name or TRIAL_STATE)
        if state is None:
            raise invalid("State not found in definition")
        _check_type(state, request)
        result = _mocked_result(state, request.mock)
        input = _input(request.input)
        conditions = self._conditions(request, state, input)
        trial = Trial(machine, state, conditions, self._now(), self._random)
        await asyncio.to_thread(trial.begin)
        if request.mock is None:
            await self._perform(trial, machine, state)
        else:
            _answer(trial, request.mock, request.state_configuration, result)
        return _told(trial.outcome(), input, request.inspection_level)

    def _conditions(self, request: TryState, state: State, input: Json) -> Conditions:
        name, machine_name = str(uuid4()), str(uuid4())
        about = About(
            arn=self._arns.express(machine_name, name, uuid4()),
            name=name,
            started_at=self._now(),
            input=input,
            role_arn=request.role_arn or self._arns.role,
            machine_arn=self._arns.machine(machine_name),
            machine_name=machine_name,
        )
        configuration = request.state_configuration
        return Conditions(
            about=about,
            role_arn=request.role_arn,
            variables=_variables(request.variables),
            context=None if request.context is None else read_context(request.context, state),
            items=_items(configuration.map_item_reader_data, state),
            retries=configuration.retrier_retry_count,
        )

    async def _perform(self, trial: Trial, machine: StateMachine, state: State) -> None:
        """Have the task done as it would be in an execution, and take its answer."""
        if trial.command is None:
            return
        assert isinstance(state, Task), state
        about = trial.execution.about._replace(input=trial.command.parameters)
        ended = await self._express.run(task_alone(machine, state, trial.command), about)
        if ended.status is Status.SUCCEEDED:
            trial.succeed(ended.output)
        else:
            trial.fail(ended.error or TIMEOUT, ended.cause)  # as a whole it has five minutes


def _check_type(state: State, request: TryState) -> None:
    """Raise Fault for a state that cannot be tried with, or without, a mock."""
    is_fork = isinstance(state, ForkingState)
    if request.mock is not None:
        if not (is_fork or isinstance(state, Task)):
            raise invalid(f"State type '{state.type}' is not supported when a mock is specified")
    elif is_fork:
        raise Fault("InvalidDefinition", _FORK_WITHOUT_MOCK)
    elif isinstance(state, Task):
        if request.role_arn is None:
            raise invalid("RoleArn must be specified when testing a Task state")
        _check_performed(state)


def _check_performed(state: Task) -> None:
    """Raise Fault for a task that this service takes in a trial only because it may be mocked."""
    resource = state.target.resource
    if has_token(state) or _ACTIVITY.fullmatch(resource):
        reason = f"TestState does not support '{resource}' when a mock is not specified"
        raise Fault("InvalidDefinition", reason)


def _mocked_result(state: State, mock: Mock | None) -> Json:
    """Return the mocked result; None without one. Raise Fault when the state cannot have it."""
    if mock is None or mock.result is None:
        return None
    try:
        result = documents.loads(mock.result, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError:
        raise invalid("Mocked result must be valid JSON") from None
    if isinstance(state, ForkingState):
        if not isinstance(result, list):
            raise invalid("Mocked result must be an array.")
    elif isinstance(state, Task) and mock.field_validation_mode != "NONE":
        is_strict = mock.field_validation_mode == "STRICT"
        check_result(state.target.resource, result, is_strict=is_strict)
    return result


def _answer(trial: Trial, mock: Mock, configuration: Configuration, result: Json) -> None:
    """Give the state the mocked answer if it waits for one."""
    iterations, failed = trial.iterations, configuration.map_iteration_failure_count or 0
    if iterations is not None and failed > iterations:
        raise invalid(
            "Map iteration failure count must be less than or equal to the number of Map iterations"
        )
    if trial.command is None and iterations is None:
        return
    if mock.error_output is None:
        trial.succeed(result, iterations_failed=failed)
    else:
        trial.fail(
            mock.error_output.error,
            mock.error_output.cause,
            in_branch=configuration.error_caused_by_state is not None,
            iterations_failed=failed,
        )


def _told(outcome: Outcome, input: Json, level: str) -> Members:
    """Return what came of a trial as the API tells it."""
    told: Members = {"status": outcome.ending.value}
    if outcome.ending in (Ending.SUCCEEDED, Ending.CAUGHT_ERROR):
        told["output"] = _text(outcome.output)
    if outcome.failure is not None:
        told |= outcome.failure.details()
    if outcome.next is not None:
        told["nextState"] = outcome.next
    if level != "INFO":
        told["inspectionData"] = _inspected(outcome, input)
    return told


def _inspected(outcome: Outcome, input: Json) -> Members:
    inspected: Members = {"input": _text(input)}
    for name, value in outcome.data.items():
        inspected[name] = value if name in _NUMBERS else _text(value)
    if outcome.variables:
        inspected["variables"] = _text(outcome.variables)
    if outcome.retry_index is not None:
        inspected["errorDetails"] = {
            "retryIndex": outcome.retry_index,
            "retryBackoffIntervalSeconds": round(outcome.backoff_seconds),
        }
    elif outcome.catch_index is not None:
        inspected["errorDetails"] = {"catchIndex": outcome.catch_index}
    return inspected


def _text(value: Json) -> str:
    return documents.dumps(value).decode()


def _input(text: str) -> Json:
    try:
        input = documents.loads(text, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise invalid_input(str(error)) from None
    if exceeds(input):
        raise invalid_input(f"the input is larger than {PAYLOAD_BYTES_MAX} bytes")
    return input


def _variables(text: str) -> dict[str, Json]:
    variables = _parsed("variables", text)
    if not isinstance(variables, dict):
        raise invalid("variables must be a JSON object")
    return variables


def _items(text: str | None, state: State) -> list[Json] | None:
    """Return the items in what a Map's ItemReader is said to have read, in the form of its source.

    API reference, TestStateConfiguration: the data are given "as found in its original source".
    """
    if text is None:
        return None
    reader = state.reader if isinstance(state, DistributedMap) else None
    try:
        return [*read_text(text, {} if reader is None else reader.config, "mapItemReaderData")]
    except BadItems as error:
        raise invalid(str(error)) from None


def _parsed(name: str, text: str) -> Json:
    try:
        return documents.loads(text, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError as error:
        raise invalid(f"{name} must be valid JSON: {error}") from None
