"""kill -9 in the middle of a Distributed Map: every item is done, and no child is started twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from tests.e2e.process import Replica, until

pytestmark = pytest.mark.e2e

ITEMS: Final = 600
KILLS: Final = 4
BATCH: Final = 3

HANDLERS: Final = """
import asyncio
from service.tasks import handler

@handler
async def work(input):
    await asyncio.sleep(0.02)
    return sum(input["Items"])
"""


def flow(bucket: str) -> str:
    """Return a definition that reads items, works at batches of them, and writes the results."""
    work = "arn:aws:lambda:us-east-1:000000000000:function:work"
    states = {
        "Pause": {"Type": "Wait", "Seconds": 1, "Next": "Work"},
        "Work": {"Type": "Task", "Resource": work, "End": True},
    }
    each = {
        "Type": "Map",
        "Label": "each",
        "MaxConcurrency": 60,
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSONL"},
            "Parameters": {"Bucket": bucket, "Key": "items.jsonl"},
        },
        "ItemBatcher": {"MaxItemsPerBatch": BATCH},
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject",
            "Parameters": {"Bucket": bucket, "Prefix": "out"},
            "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSON"},
        },
        "ItemProcessor": {
            "StartAt": "Pause",
            "States": states,
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        },
        "End": True,
    }
    return json.dumps({"StartAt": "Each", "States": {"Each": each}})


async def call(replica: Replica, action: str, **members: Any) -> dict[str, Any]:
    headers = {"X-Amz-Target": f"AWSStepFunctions.{action}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replica.ops}/", json=members, headers=headers) as answer,
    ):
        body: dict[str, Any] = await answer.json(content_type=None)
        assert answer.status == 200, body
        return body


@pytest.mark.parametrize(
    ("replica_count", "lease_seconds"), [(1, 0.5), (2, 1.5)], ids=["one_process", "two_replicas"]
)
async def test_kills_in_the_middle_of_a_run_lose_nothing_and_start_nothing_twice(
    make_replica: Callable[..., Replica],
    fresh_database: str,
    database: asyncpg.Connection,
    tmp_path: Path,
    replica_count: int,
    lease_seconds: float,
) -> None:
    bucket = tmp_path / "buckets" / "data"
    bucket.mkdir(parents=True)
    (bucket / "items.jsonl").write_text("".join(f"{n}\n" for n in range(ITEMS)))
    (tmp_path / "mapwork.py").write_text(HANDLERS)
    replicas = [
        make_replica(
            fresh_database,
            LEASE_SECONDS=str(lease_seconds),
            WAIT_TIME_SCALE="0.1",
            BUCKETS_DIR=str(bucket.parent),
            HANDLERS="mapwork",
        )
        for _ in range(replica_count)
    ]
    for replica in replicas:
        replica.environment["PYTHONPATH"] += f":{tmp_path}"
        await replica.start()
    replica = replicas[0]
    role = "arn:aws:iam::000000000000:role/r"
    machine = await call(
        replica, "CreateStateMachine", name="flow", definition=flow("data"), roleArn=role
    )
    started = await call(replica, "StartExecution", stateMachineArn=machine["stateMachineArn"])

    async def children() -> int:
        return int(await database.fetchval("select count(*) from executions where machine ~ '/'"))

    chance = random.Random(7)
    for kill in range(KILLS):
        target = ITEMS // BATCH * (kill + 1) // (KILLS + 1)
        await until(lambda target=target: _reaches(children, target), f"child {target}")
        await asyncio.sleep(chance.uniform(0, 0.1))
        killed = replicas[kill % replica_count]
        killed.kill()
        await killed.start()

    async def over() -> dict[str, Any] | None:
        shown = await call(replica, "DescribeExecution", executionArn=started["executionArn"])
        return None if shown["status"] == "RUNNING" else shown

    shown = await until(over, "the end of the run", seconds=60)
    assert shown["status"] == "SUCCEEDED", shown
    assert await children() == ITEMS // BATCH
    manifest = json.loads(
        (bucket / json.loads(shown["output"])["ResultWriterDetails"]["Key"]).read_text()
    )
    (written,) = manifest["ResultFiles"]["SUCCEEDED"]
    sums = [n + n + 1 + n + 2 for n in range(0, ITEMS, BATCH)]
    assert json.loads((bucket / written["Key"]).read_text()) == sums
    assert await database.fetchval("select items from map_runs where status = 'SUCCEEDED'") == ITEMS
    # Each child began once, whoever went on with it: its history has one first event.
    doubled = """
        select count(*) from history h join executions e on e.id = h.execution_id
        where h.first_event_id = 1 and e.machine ~ '/'
    """
    assert await database.fetchval(doubled) == ITEMS // BATCH


async def _reaches(count: Callable[[], Any], target: int) -> bool:
    return bool(await count() >= target)
