"""Tests of service.tasks.execution: how a task that starts an execution asks and is answered."""

from __future__ import annotations

import pytest

from service.app import missing_handlers
from service.asl import ExecutionError, Json, TaskFailed, compile_definition
from service.engine.ports import CoroutineHandler, Overloaded, Task, Unavailable
from service.tasks import START_EXECUTION, Registry, StartRefused, execution, start_execution
from tests.engine.harness import definition
from tests.tasks.calls import IDEMPOTENCY_KEY, command, task

RESOURCE = "arn:aws:states:::states:startExecution"
MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:child"
CHILD = "arn:aws:states:us-east-1:000000000000:execution:child:one"


class Service:
    """Notes what StartExecution is asked, and answers with what is in `answers` in turn."""

    def __init__(self, *answers: Exception) -> None:
        self.asked: list[dict[str, Json]] = []
        self._answers = list(answers)

    async def start(self, members: dict[str, Json], task: Task) -> dict[str, Json]:
        assert task.idempotency_key == IDEMPOTENCY_KEY
        self.asked.append(members)
        if self._answers:
            raise self._answers.pop(0)
        return {"executionArn": CHILD, "startDate": 1767225600.123456}


def handler(service: Service) -> CoroutineHandler:
    return start_execution(service.start)


async def failure(service: Service, parameters: Json) -> ExecutionError:
    with pytest.raises(ExecutionError) as raised:
        await handler(service).run(parameters, task())
    return raised.value


async def test_the_answer_is_the_services_with_the_date_as_a_text() -> None:
    answer = await handler(Service()).run({"StateMachineArn": MACHINE}, task())
    id = str(IDEMPOTENCY_KEY)
    headers = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": id}
    assert answer.output == {
        "ExecutionArn": CHILD,
        "SdkHttpMetadata": {
            "AllHttpHeaders": {
                "Content-Type": ["application/x-amz-json-1.0"],
                "x-amzn-RequestId": [id],
            },
            "HttpHeaders": headers,
            "HttpStatusCode": 200,
        },
        "SdkResponseMetadata": {"RequestId": id},
        "StartDate": "2026-01-01T00:00:00.123Z",
    }


@pytest.mark.parametrize(
    ("input", "sent"),
    [
        ({"n": 1.0, "m": 10**30}, '{"n":1.0,"m":1000000000000000000000000000000}'),
        ([], "[]"),
        (False, "false"),
        ('{"a": 1}', '{"a": 1}'),  # a text is JSON already
        ("no JSON", "no JSON"),  # which StartExecution refuses
    ],
)
async def test_an_input_of_any_shape_is_sent_as_json(input: Json, sent: str) -> None:
    service = Service()
    await handler(service).run({"StateMachineArn": MACHINE, "Name": "n", "Input": input}, task())
    assert service.asked == [{"stateMachineArn": MACHINE, "name": "n", "input": sent}]


async def test_parameters_that_are_null_are_none() -> None:
    service = Service()
    await handler(service).run({"StateMachineArn": MACHINE, "Input": None, "Name": None}, task())
    assert service.asked == [{"stateMachineArn": MACHINE}]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"Name": "n"}, 'The field "StateMachineArn" is required but was missing'),
        ({"StateMachineArn": None}, 'The field "StateMachineArn" is required but was missing'),
        ("text", 'The field "StateMachineArn" is required but was missing'),
        ({"StateMachineArn": 5}, "The value for the field 'StateMachineArn' must be a STRING"),
        (
            {"StateMachineArn": MACHINE, "Name": {}},
            "The value for the field 'Name' must be a STRING",
        ),
        (
            {"StateMachineArn": MACHINE, "Payload": {}},
            "The field 'Payload' is not supported by Step Functions",
        ),
    ],
)
async def test_parameters_that_cannot_be_used_start_nothing(parameters: Json, reason: str) -> None:
    service = Service()
    error = await failure(service, parameters)
    assert (error.error, error.cause, service.asked) == (
        "States.Runtime",
        f"The Parameters could not be used to start the Task: [{reason}]",
        [],
    )


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("StateMachineDoesNotExist", "StepFunctions.StateMachineDoesNotExistException"),
        ("ExecutionAlreadyExists", "StepFunctions.ExecutionAlreadyExistsException"),
        ("ValidationException", "StepFunctions.ValidationException"),
    ],
)
async def test_a_refusal_is_named_as_the_services_client_names_it(code: str, name: str) -> None:
    error = await failure(Service(StartRefused(code, "Why.", 400)), {"StateMachineArn": MACHINE})
    assert (error.error, error.cause) == (
        name,
        "Why. (Service: AWSStepFunctions; Status Code: 400; "
        f"Error Code: {code}; Request ID: {IDEMPOTENCY_KEY}; Proxy: null)",
    )


async def test_what_cannot_answer_now_is_asked_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "FIRST_DELAY_SECONDS", 0.0)
    service = Service(*[Unavailable("away")] * 20, Overloaded("full"))
    answer = await handler(service).run({"StateMachineArn": MACHINE}, task())
    assert isinstance(answer.output, dict)
    assert (answer.output["ExecutionArn"], len(service.asked)) == (CHILD, 22)


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_a_resource_is_known_in_every_partition_and_by_no_other_name(partition: str) -> None:
    start = handler(Service())
    registry = Registry({}, region="", account="", services={START_EXECUTION: start})
    resource = f"arn:{partition}:states:::states:startExecution"
    assert registry.resolve(command(resource, {"a": 1})) == (start, {"a": 1})
    for other in (f"{resource}.sync", f"arn:{partition}:states:::aws-sdk:sfn:startExecution"):
        assert isinstance(registry.resolve(command(other)), TaskFailed)


def test_a_definition_that_starts_executions_lacks_nothing() -> None:
    missing = missing_handlers([], region="us-east-1", account="000000000000")
    text = definition("Start", Start={"Type": "Task", "Resource": RESOURCE, "End": True})
    assert missing(compile_definition(text)) == []
