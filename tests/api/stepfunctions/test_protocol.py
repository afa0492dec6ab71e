"""What surrounds every action: the target, the body, its types and bounds, and faults of ours."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from service.api import OpsDeps, create_ops_app
from service.api.stepfunctions import BODY_BYTES_MAX, Members
from service.asl import Json
from service.engine.ports import Overloaded, Rejected, Unavailable
from tests.api.conftest import Answer, Open, Port
from tests.api.fakes import FakeDirectory, FakeProbe

TARGET = "AWSStepFunctions.Echo"


async def echo(members: Members) -> Members:
    return members


class Failing:
    """An action that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, members: Members) -> Members:
        raise self.error


async def open_with(open_port: Open, error: Exception | None = None) -> Port:
    action = echo if error is None else Failing(error)
    deps = OpsDeps(FakeDirectory(), FakeProbe(), actions={"Echo": action})
    return await open_port(create_ops_app(deps))


async def post(port: Port, body: bytes, **headers: str) -> Answer:
    return await port.ask(
        "POST", "/", data=io.BytesIO(body), headers={"X-Amz-Target": TARGET, **headers}
    )


async def test_an_answer_has_the_protocols_type_and_an_id(open_port: Open) -> None:
    answer = await post(await open_with(open_port), b'{"n": 12345678901234567890}')
    assert (answer.status, answer.body) == (200, b'{"n":12345678901234567890}')
    assert answer.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert answer.headers["x-amzn-RequestId"]


async def test_no_body_is_no_members(open_port: Open) -> None:
    assert (await post(await open_with(open_port), b"")).json == {}


@pytest.mark.parametrize("target", ["", "Echo", "AWSStepFunctions.Gone", "DynamoDB_20120810.Echo"])
async def test_an_action_that_is_none(open_port: Open, target: str) -> None:
    answer = await post(await open_with(open_port), b"{}", **{"X-Amz-Target": target})
    assert (answer.status, answer.json["__type"]) == (400, "UnknownOperationException")
    assert repr(target) in answer.json["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff", b"{}{}", b"[" * 300])
async def test_a_body_that_is_no_json_object(open_port: Open, body: bytes) -> None:
    answer = await post(await open_with(open_port), body)
    assert (answer.status, answer.json["__type"]) == (400, "SerializationException")


async def test_a_body_may_hold_the_largest_definition_and_no_more(open_port: Open) -> None:
    port = await open_with(open_port)
    definition: Json = {"definition": '"' * 1_048_576}
    assert (await post(port, json.dumps(definition).encode())).json == definition
    answer = await post(port, b" " * (BODY_BYTES_MAX + 1))
    assert (answer.status, answer.json["__type"]) == (413, "RequestEntityTooLargeException")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unavailable("the database does not answer"), 503, "ServiceUnavailable"),
        (Overloaded("too much"), 503, "ServiceUnavailable"),
        (Rejected("a NUL"), 400, "ValidationException"),
        (RuntimeError("secret"), 500, "InternalFailure"),
    ],
)
async def test_what_goes_wrong_here_has_a_name_that_sdks_know(
    open_port: Open, error: Exception, status: int, code: str
) -> None:
    answer = await post(await open_with(open_port, error), b"{}")
    assert (answer.status, answer.json["__type"]) == (status, code)
    assert "secret" not in answer.text


async def test_the_host_may_have_the_prefix_that_sdks_add(open_port: Open) -> None:
    port = await open_with(open_port)
    for host in ("sync-localhost:8081", "sync-127.0.0.1"):
        assert (await post(port, b"{}", Host=host)).status == 200
    refused = await post(port, b"{}", Host="sync-example.org")
    assert (refused.status, refused.json["__type"]) == (403, "AccessDeniedException")


async def test_a_page_of_another_site_may_start_nothing(open_port: Open) -> None:
    answer = await post(await open_with(open_port), b"{}", Origin="https://example.org")
    assert (answer.status, answer.json["__type"]) == (403, "AccessDeniedException")


async def test_many_requests_go_side_by_side(open_port: Open) -> None:
    port = await open_with(open_port)
    bodies = [json.dumps({"n": n}).encode() for n in range(50)]
    answers = await asyncio.gather(*(post(port, body) for body in bodies))
    assert [answer.json["n"] for answer in answers] == list(range(50))
