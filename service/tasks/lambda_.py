"""Functions that no local handler has: called at LAMBDA_ENDPOINT, by the Invoke API of AWS Lambda.

What went wrong there becomes an error as Step Functions names it (guide, "Handling errors";
recordings): a function's own error by its type, with the payload as the cause, which is its raw
text for a function called by its ARN and compact JSON for lambda:invoke; the API's by its
exception; what never reached it as Lambda.SdkClientException.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid4

import aiohttp
from yarl import URL

from service import documents
from service.asl import ExecutionError, Json
from service.asl.errors import DATA_LIMIT_EXCEEDED, ReportedError
from service.engine.ports import Answer, CoroutineHandler, Task

INVOKE_SECONDS_MAX: Final = 900.0
"""Lambda developer guide, "Quotas": the longest timeout of a function."""

CONNECT_SECONDS_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 256
ANSWER_BYTES_MAX: Final = 6_291_456
"""Lambda developer guide, "Quotas": the largest answer of a function that is waited for."""

_REQUEST_ID: Final = "x-amzn-RequestId"
_NO_TYPE: Final = "The cause could not be determined because Lambda did not return an error type."


@dataclass(frozen=True, slots=True)
class Invocation:
    """What lambda:invoke is asked for besides the payload."""

    function: str  # name, partial or full ARN, as the definition or the input has it
    kind: str = "RequestResponse"
    log_type: str | None = None
    qualifier: str | None = None
    client_context: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint answered."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        found = (value for key, value in self.headers if key.lower() == name.lower())
        return next(found, None)

    @property
    def request_id(self) -> str:
        """The endpoint's name for the request, or one of ours."""
        return self.header(_REQUEST_ID) or str(uuid4())

    @property
    def has_failed(self) -> bool:
        """Whether the function ended with an error of its own."""
        return self.header("X-Amz-Function-Error") is not None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class LambdaEndpoint:
    """A client of one endpoint, with kept connections."""

    def __init__(self, url: str) -> None:
        """Take the base URL; nothing is opened before the first invocation."""
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    def function(self, arn: str) -> CoroutineHandler:
        """Return the handler of a Resource that is a function's ARN: its result is the payload."""
        invocation = Invocation(arn)

        async def run(input: Json, task: Task) -> Answer:
            reply = await self._invoke(invocation, documents.dumps(input), task, arn)
            if reply.has_failed:
                raise _failure(reply, reply.text)
            return Answer(_payload(reply))

        return CoroutineHandler(run)

    def invocation(self, invocation: Invocation) -> CoroutineHandler:
        """Return the handler of lambda:invoke: its result holds the payload and what came with it.

        Observed: the function is called without a payload for null, and then gets {}.
        """

        async def run(input: Json, task: Task) -> Answer:
            body = b"" if input is None else documents.dumps(input)
            reply = await self._invoke(invocation, body, task, "lambda")
            payload = _payload(reply)
            if reply.has_failed:
                raise _failure(reply, documents.dumps(payload).decode())
            answer = wrapped(
                payload, reply.headers, status=reply.status, request_id=reply.request_id
            )
            if invocation.log_type == "Tail":
                answer["LogResult"] = reply.header("X-Amz-Log-Result") or ""
            return Answer(answer)

        return CoroutineHandler(run)

    async def close(self) -> None:
        """Close the kept connections."""
        if self._session is not None:
            await self._session.close()

    async def _invoke(self, invocation: Invocation, body: bytes, task: Task, origin: str) -> Reply:
        """Return the reply. `origin` is who the service says gave too large a result."""
        try:
            reply = await self._post(invocation, body, task.idempotency_key, origin)
        except (
            aiohttp.ConnectionTimeoutError
        ) as error:  # a TimeoutError, too, but nothing was asked
            raise _client_exception(error) from error
        except TimeoutError as error:
            cause = f"no answer within {INVOKE_SECONDS_MAX:g} seconds"
            raise ExecutionError("Lambda.ClientExecutionTimeoutException", cause) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _client_exception(error) from error
        if reply.status >= 300:
            raise _refusal(reply)
        return reply

    async def _post(self, invocation: Invocation, body: bytes, key: UUID, origin: str) -> Reply:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                timeout=aiohttp.ClientTimeout(
                    total=INVOKE_SECONDS_MAX, connect=CONNECT_SECONDS_MAX
                ),
            )
        name = quote(invocation.function, safe="")
        url = f"{self._url}/2015-03-31/functions/{name}/invocations"
        if invocation.qualifier is not None:
            url += f"?Qualifier={quote(invocation.qualifier, safe='')}"
        headers = _headers(invocation, key)
        async with self._session.post(
            URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
        ) as response:
            content = await _read(response, origin)
            return Reply(response.status, list(response.headers.items()), content)


def wrapped(
    payload: Json, headers: Sequence[tuple[str, str]], *, status: int, request_id: str
) -> dict[str, Json]:
    """Return a function's result as lambda:invoke gives it."""
    every: dict[str, Json] = {name: [] for name, _ in headers}
    first: dict[str, Json] = {}
    for name, value in headers:
        values = every[name]
        assert isinstance(values, list), values
        values.append(value)
        first.setdefault(name, value)
    version = next((v for name, v in headers if name.lower() == "x-amz-executed-version"), None)
    return {
        "ExecutedVersion": version or "$LATEST",
        "Payload": payload,
        "SdkHttpMetadata": {
            "AllHttpHeaders": every,
            "HttpHeaders": first,
            "HttpStatusCode": status,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
        "StatusCode": status,
    }


def _headers(invocation: Invocation, key: UUID) -> Mapping[str, str]:
    headers = {
        "Content-Type": "application/json",
        "X-Amz-Invocation-Type": invocation.kind,
        "Idempotency-Key": str(key),
    }
    if invocation.log_type is not None:
        headers["X-Amz-Log-Type"] = invocation.log_type
    if invocation.client_context is not None:
        headers["X-Amz-Client-Context"] = invocation.client_context
    return headers


def _client_exception(error: Exception) -> ExecutionError:
    cause = f"Unable to execute HTTP request: {error}"
    return ExecutionError("Lambda.SdkClientException", cause)


async def _read(response: aiohttp.ClientResponse, origin: str) -> bytes:
    """Return the body. Raise ExecutionError for one that is larger than any function may answer."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ReportedError(
                DATA_LIMIT_EXCEEDED,
                f"The state/task '{origin}' returned a result with a size exceeding "
                "the maximum number of bytes service limit.",
            )
    return bytes(body)


def _payload(reply: Reply) -> Json:
    """Return what a function answered; nothing at all, as of an asynchronous call, is {}."""
    if not reply.body.strip():
        return {}
    try:
        return documents.loads(reply.body, depth_max=documents.INPUT_DEPTH_MAX)
    except ValueError:
        return reply.text


def _failure(reply: Reply, cause: str) -> ExecutionError:
    """Return the error that a function ended with."""
    payload = _payload(reply)
    error = payload.get("errorType") if isinstance(payload, dict) else None
    if not isinstance(error, str) or not error:
        return ExecutionError("Lambda.Unknown", f"{_NO_TYPE} Returned payload: {cause}")
    return ExecutionError(error, cause)


def _refusal(reply: Reply) -> ExecutionError:
    """Return the error of an invocation that the API itself refused or failed at.

    Observed: "Function not found: … (Service: AWSLambda; Status Code: 404; Error Code: …; Request
    ID: …; Proxy: null)".
    """
    named = (reply.header("X-Amzn-ErrorType") or "").partition(":")[0]
    if reply.status == 429:
        named = named or "TooManyRequestsException"
    elif reply.status >= 500:
        named = named or "ServiceException"
    code = named or "AWSLambdaException"
    payload = _payload(reply)
    members = payload if isinstance(payload, dict) else {}
    message = members.get("Message") or members.get("message") or reply.text
    return ExecutionError(
        f"Lambda.{code}",
        f"{message} (Service: AWSLambda; Status Code: {reply.status}; Error Code: {code}; "
        f"Request ID: {reply.request_id}; Proxy: null)",
    )
