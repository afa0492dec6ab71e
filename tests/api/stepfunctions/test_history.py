"""The history of an execution, by the page, either way round."""

from __future__ import annotations

from typing import Any

import pytest

from service.api.stepfunctions import history as module
from tests.api.stepfunctions.conftest import ROLE, Api
from tests.engine.harness import definition, task

FLOW = definition(
    "Make",
    Make={"Type": "Pass", "Result": {"n": 3}, "Next": "Double"},
    Double=task("double", Next="End"),
    End={"Type": "Succeed"},
)
TYPES = [
    "ExecutionStarted",
    "PassStateEntered",
    "PassStateExited",
    "TaskStateEntered",
    "LambdaFunctionScheduled",
    "LambdaFunctionStarted",
    "LambdaFunctionSucceeded",
    "TaskStateExited",
    "SucceedStateEntered",
    "SucceedStateExited",
    "ExecutionSucceeded",
]


@pytest.fixture
async def execution(api: Api) -> str:
    """Return the ARN of an execution that has ended, in several steps."""
    arn = await api.start(await api.create("flow", FLOW), input='{"from": "test"}')
    await api.ended(arn)
    return arn


async def walk(api: Api, arn: str, **members: Any) -> list[list[int]]:
    """Return the ids of each page's events until there is no next page."""
    pages, token = [], {}
    while True:
        page = await api.call("GetExecutionHistory", executionArn=arn, **members, **token)
        pages.append([event["id"] for event in page["events"]])
        if "nextToken" not in page:
            return pages
        token = {"nextToken": page["nextToken"]}


async def test_events_are_shaped_as_the_service_shapes_them(api: Api, execution: str) -> None:
    events = (await api.call("GetExecutionHistory", executionArn=execution))["events"]
    assert [event["type"] for event in events] == TYPES
    assert all(isinstance(event.pop("timestamp"), float) for event in events)
    assert events[0] == {
        "id": 1,
        "previousEventId": 0,
        "type": "ExecutionStarted",
        "executionStartedEventDetails": {
            "input": '{"from":"test"}',
            "inputDetails": {"truncated": False},
            "roleArn": ROLE,
        },
    }
    assert events[-1] == {
        "id": 11,
        "previousEventId": 10,
        "type": "ExecutionSucceeded",
        "executionSucceededEventDetails": {
            "output": '{"doubled":6}',
            "outputDetails": {"truncated": False},
        },
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 12, 1000])
async def test_pages_of_any_size_hold_every_event_once(
    api: Api, execution: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    ids = list(range(1, 12))
    pages = [ids[at : at + size] for at in range(0, 11, size)]
    assert await walk(api, execution, maxResults=size) == pages
    ids.reverse()
    back = [ids[at : at + size] for at in range(0, 11, size)]
    assert await walk(api, execution, maxResults=size, reverseOrder=True) == back


async def test_a_page_ends_early_when_its_events_are_large(
    api: Api, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES_MAX", 600)
    pages = await walk(api, execution)
    assert len(pages) > 2
    assert [id for page in pages for id in page] == list(range(1, 12))


async def test_execution_data_may_be_left_out(api: Api, execution: str) -> None:
    page = await api.call("GetExecutionHistory", executionArn=execution, includeExecutionData=False)
    details = [
        value for event in page["events"] for value in event.values() if isinstance(value, dict)
    ]
    assert {name for one in details for name in one} == {"name", "resource", "roleArn"}


async def test_a_token_serves_its_own_execution_and_direction_only(
    api: Api, execution: str
) -> None:
    token = (await api.call("GetExecutionHistory", executionArn=execution, maxResults=1))[
        "nextToken"
    ]
    other = await api.start(execution_machine(execution))
    invalid = ("InvalidToken", "Invalid Token: 'Invalid token'")
    for members in ({"executionArn": other}, {"executionArn": execution, "reverseOrder": True}):
        assert await api.error("GetExecutionHistory", nextToken=token, **members) == invalid


def execution_machine(arn: str) -> str:
    return arn.replace(":execution:", ":stateMachine:").rpartition(":")[0]
