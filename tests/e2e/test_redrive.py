"""A poisoned execution, its handler mended and redeployed, redriven by the SDK: to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import boto3
import pytest
from botocore.config import Config

from tests.e2e.process import Replica, base_environment, until

pytestmark = pytest.mark.e2e

ROLE: Final = "arn:aws:iam::000000000000:role/r"
LEASE_SECONDS: Final = "1"
FLOW: Final = """{
  "StartAt": "First",
  "States": {
    "First": {"Type": "Task", "Resource": "%sgood", "ResultPath": "$.first", "Next": "Second"},
    "Second": {"Type": "Task", "Resource": "%sbad", "End": true}
  }
}"""
ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function:"
HANDLERS: Final = """
import os
from service.tasks import handler

@handler
async def good(input):
    with open(os.environ["RECORD"], "a") as record:
        record.write("good\\n")
    return 1

@handler
async def bad(input):
    {deed}
"""


def client(replica: Replica) -> Any:
    return boto3.client(
        "stepfunctions",
        endpoint_url=replica.ops,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(proxies={}, retries={"max_attempts": 1}),
    )


async def test_a_poisoned_execution_succeeds_once_its_handler_is_mended_and_it_is_redriven(
    tmp_path: Path,
    start_replica: Callable[..., Awaitable[Replica]],
    database: asyncpg.Connection,
) -> None:
    module, record = tmp_path / "own_handlers.py", tmp_path / "record"
    module.write_text(HANDLERS.format(deed="os._exit(3)"))
    replica = await start_replica(
        HANDLERS="own_handlers",
        RECORD=str(record),
        LEASE_SECONDS=LEASE_SECONDS,
        PYTHONPATH=f"{base_environment()['PYTHONPATH']}:{tmp_path}",
    )
    sdk = client(replica)
    machine = sdk.create_state_machine(name="flow", definition=FLOW % (ARN, ARN), roleArn=ROLE)[
        "stateMachineArn"
    ]
    arn = sdk.start_execution(stateMachineArn=machine, name="one", input='{"n": 1}')["executionArn"]

    async def has_failed() -> bool:
        if replica.has_ended:
            replica.kill()
            await replica.start()
        return bool(await database.fetchval("select status = 'FAILED' from executions"))

    await until(has_failed, "the culprit's end", seconds=60.0)
    module.write_text(HANDLERS.format(deed="return input"))
    replica.kill()
    await replica.start()
    sdk = client(replica)
    shown = sdk.describe_execution(executionArn=arn)
    assert (shown["error"], shown["redriveStatus"]) == ("Engine.WorkerLost", "REDRIVABLE")
    assert "stopDate" in shown

    redriven = await asyncio.to_thread(partial(sdk.redrive_execution, executionArn=arn))

    async def has_succeeded() -> Any:
        shown = await asyncio.to_thread(partial(sdk.describe_execution, executionArn=arn))
        return shown if shown["status"] != "RUNNING" else None

    shown = await until(has_succeeded, "the end of what was redriven")
    assert (shown["status"], shown["output"]) == ("SUCCEEDED", '{"n":1,"first":1}')
    assert (shown["redriveCount"], shown["redriveDate"]) == (1, redriven["redriveDate"])
    assert record.read_text() == "good\n"  # what had succeeded was not repeated
    with pytest.raises(sdk.exceptions.ExecutionNotRedrivable):
        sdk.redrive_execution(executionArn=arn)
