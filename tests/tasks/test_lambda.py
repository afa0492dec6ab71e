"""Functions at LAMBDA_ENDPOINT: what is asked there, and what comes of each answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp import web

from service.api.server import serve_app
from service.asl import ExecutionError, Json, TaskFailed, compile_definition
from service.engine.ports import Answer, CoroutineHandler, Task
from service.tasks import LambdaEndpoint, Registry, lambda_
from tests.engine.harness import definition
from tests.engine.harness import task as task_state
from tests.tasks.calls import ARN, IDEMPOTENCY_KEY, INVOKE, command, perform

REQUEST_ID = "0f6b8b3e-0000-4000-8000-00000000cafe"
RAISED = '{"errorMessage": "no", "errorType": "Sad", "requestId": "r", "stackTrace": []}'


@dataclass
class Functions:
    """An endpoint that answers as it is told, and notes what it was asked."""

    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.raw_path, dict(request.headers), await request.text()))
        headers = {"x-amzn-RequestId": REQUEST_ID, **self.headers}
        return web.Response(
            status=self.status,
            text=self.body,
            headers=headers,
            content_type="application/json",
        )


@pytest.fixture
def functions() -> Functions:
    return Functions()


async def _here(input: Json, task: Task) -> Answer:
    return Answer({"here": input})


@pytest.fixture
async def registry(functions: Functions) -> AsyncIterator[Registry]:
    app = web.Application()
    app.router.add_post("/{path:.*}", functions.answer)
    served = await serve_app(app, "127.0.0.1", 0, shutdown_seconds=1)
    endpoint = LambdaEndpoint(f"http://127.0.0.1:{served.port}/base/")
    yield Registry(
        {"here": CoroutineHandler(_here)},
        region="us-east-1",
        account="000000000000",
        elsewhere=endpoint,
    )
    await endpoint.close()
    await served.close()


async def call(registry: Registry, resource: str, parameters: Json = None) -> Json:
    return (await perform(registry.resolve(command(resource, parameters)))).output


async def failure(registry: Registry, resource: str, parameters: Json = None) -> Any:
    with pytest.raises(ExecutionError) as raised:
        await call(registry, resource, parameters)
    return raised.value.error, raised.value.cause


def invoke(**members: Json) -> dict[str, Json]:
    return {"FunctionName": "there", **members}


async def test_a_function_is_called_by_its_arn_with_its_input(
    registry: Registry, functions: Functions
) -> None:
    functions.body = '{"n":0.0, "big": 12345678901234567890}'
    assert await call(registry, f"{ARN}there:live", {"n": 1}) == {
        "n": 0.0,
        "big": 12345678901234567890,
    }
    ((path, headers, body),) = functions.asked
    arn = f"{ARN}there:live".replace(":", "%3A")
    assert path == f"/base/2015-03-31/functions/{arn}/invocations"
    assert body == '{"n":1}'
    assert headers["X-Amz-Invocation-Type"] == "RequestResponse"
    assert headers["Idempotency-Key"] == str(IDEMPOTENCY_KEY)


async def test_an_invocation_is_wrapped_with_what_the_endpoint_really_said(
    registry: Registry, functions: Functions
) -> None:
    functions.headers = {"X-Amz-Executed-Version": "7"}
    functions.body = "0.0"
    output = await call(registry, INVOKE, invoke(Payload={"n": 1}))
    assert isinstance(output, dict)
    metadata: Any = output.pop("SdkHttpMetadata")
    assert output == {
        "ExecutedVersion": "7",
        "Payload": 0.0,
        "SdkResponseMetadata": {"RequestId": REQUEST_ID},
        "StatusCode": 200,
    }
    assert metadata["HttpStatusCode"] == 200
    assert metadata["HttpHeaders"]["x-amzn-RequestId"] == REQUEST_ID
    assert metadata["AllHttpHeaders"]["x-amzn-RequestId"] == [REQUEST_ID]


async def test_every_parameter_of_an_invocation_goes_where_the_api_has_it(
    registry: Registry, functions: Functions
) -> None:
    functions.status, functions.body = 202, ""
    functions.headers = {"X-Amz-Log-Result": "bG9n"}
    output = await call(
        registry,
        INVOKE,
        invoke(InvocationType="Event", LogType="Tail", Qualifier="a b", ClientContext="e30="),
    )
    assert isinstance(output, dict)
    assert (output["Payload"], output["StatusCode"], output["LogResult"]) == ({}, 202, "bG9n")
    ((path, headers, _),) = functions.asked
    assert path == "/base/2015-03-31/functions/there/invocations?Qualifier=a%20b"
    assert headers["X-Amz-Invocation-Type"] == "Event"
    assert headers["X-Amz-Log-Type"] == "Tail"
    assert headers["X-Amz-Client-Context"] == "e30="


@pytest.mark.parametrize(
    ("payload", "body"),
    [
        (None, ""),
        ("0.0", "0.0"),
        ('"text"', '"text"'),
        ("{}", "{}"),
        ("no JSON", '"no JSON"'),
        ([1, None], "[1,null]"),
    ],
)
async def test_a_payload_that_is_json_text_reaches_the_function_as_its_value(
    registry: Registry, functions: Functions, payload: Json, body: str
) -> None:
    await call(registry, INVOKE, invoke(Payload=payload))
    assert functions.asked[0][2] == body


async def test_a_functions_error_has_the_payload_as_its_cause(
    registry: Registry, functions: Functions
) -> None:
    functions.headers, functions.body = {"X-Amz-Function-Error": "Unhandled"}, RAISED
    assert await failure(registry, f"{ARN}there") == ("Sad", RAISED)
    compact = json.dumps(json.loads(RAISED), separators=(",", ":"))
    assert await failure(registry, INVOKE, invoke()) == ("Sad", compact)


async def test_an_error_without_a_type_is_unknown(registry: Registry, functions: Functions) -> None:
    functions.headers = {"X-Amz-Function-Error": "Unhandled"}
    functions.body = '{"errorMessage":"out of memory"}'
    assert await failure(registry, f"{ARN}there") == (
        "Lambda.Unknown",
        "The cause could not be determined because Lambda did not return an error type. "
        'Returned payload: {"errorMessage":"out of memory"}',
    )


@pytest.mark.parametrize(
    ("status", "type", "code"),
    [
        (404, "ResourceNotFoundException", "ResourceNotFoundException"),
        (404, "ResourceNotFoundException:http://x", "ResourceNotFoundException"),
        (429, None, "TooManyRequestsException"),
        (500, None, "ServiceException"),
        (502, "EC2ThrottledException", "EC2ThrottledException"),
        (403, None, "AWSLambdaException"),
        (302, None, "AWSLambdaException"),
    ],
)
async def test_what_the_api_refuses_is_named_by_its_exception(
    registry: Registry, functions: Functions, status: int, type: str | None, code: str
) -> None:
    functions.status, functions.body = status, '{"Type":"User","Message":"It is so"}'
    functions.headers = {} if type is None else {"X-Amzn-ErrorType": type}
    assert await failure(registry, INVOKE, invoke()) == (
        f"Lambda.{code}",
        f"It is so (Service: AWSLambda; Status Code: {status}; Error Code: {code}; "
        f"Request ID: {REQUEST_ID}; Proxy: null)",
    )


async def test_an_endpoint_that_is_not_there_is_a_client_exception() -> None:
    endpoint = LambdaEndpoint("http://127.0.0.1:9")
    registry = Registry({}, region="r", account="a", elsewhere=endpoint)
    error, cause = await failure(registry, f"{ARN}there")
    await endpoint.close()
    assert error == "Lambda.SdkClientException"
    assert cause.startswith("Unable to execute HTTP request: ")


async def test_an_endpoint_that_is_not_reached_in_time_is_a_client_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(*_: object, **__: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(aiohttp.resolver.DefaultResolver, "resolve", resolve)
    monkeypatch.setattr(lambda_, "CONNECT_SECONDS_MAX", 0.05)
    endpoint = LambdaEndpoint("http://far.example.org")
    registry = Registry({}, region="r", account="a", elsewhere=endpoint)
    error, cause = await failure(registry, f"{ARN}there")
    await endpoint.close()
    assert error == "Lambda.SdkClientException"
    assert cause.startswith("Unable to execute HTTP request: ")


async def test_an_answer_beyond_every_limit_is_not_read_to_its_end(
    registry: Registry, functions: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_, "ANSWER_BYTES_MAX", 1000)
    functions.body = json.dumps("x" * 2000)
    error, cause = await failure(registry, INVOKE, invoke())
    assert error == "States.DataLimitExceeded"
    assert cause == (
        "The state/task 'lambda' returned a result with a size exceeding the maximum number of "
        "bytes service limit."
    )


async def test_a_local_handler_wins(registry: Registry, functions: Functions) -> None:
    assert await call(registry, f"{ARN}here", 1) == {"here": 1}
    wrapped = await call(registry, INVOKE, {"FunctionName": "here", "LogType": "Tail"})
    assert isinstance(wrapped, dict)
    assert (wrapped["Payload"], wrapped["LogResult"]) == ({"here": {}}, "")
    assert functions.asked == []


def test_no_function_is_missing_when_there_is_an_endpoint(registry: Registry) -> None:
    machine = compile_definition(definition("A", A=task_state("there", End=True)))
    assert registry.missing(machine) == []


@pytest.mark.parametrize("name", ["InvocationType", "LogType", "Qualifier", "ClientContext"])
def test_a_parameter_that_no_header_can_hold_fails_the_task(registry: Registry, name: str) -> None:
    for value in (1, "a\r\nb"):
        resolved = registry.resolve(command(INVOKE, invoke(**{name: value})))
        assert isinstance(resolved, TaskFailed)
        assert resolved.error == "States.Runtime"
        assert resolved.cause is not None
        assert resolved.cause.startswith(f"{name}: ")
