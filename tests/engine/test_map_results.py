"""Items of Distributed Maps that are read, and results that are gathered or written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from uuid import UUID

import pytest

from service.asl import ExecutionError, Json, Status
from service.asl.commands import ReadItems
from service.asl.errors import ITEM_READER_FAILED
from service.engine import map_items, map_results
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.ids import child_index, map_run_key, new_id
from service.engine.map_ports import Child
from service.engine.ports import Key
from service.store.memory_map_runs import MemoryMapRuns
from tests.engine.harness import Handlers, task
from tests.engine.maps import EXCEEDED, each, fail_the_odd, only, runs
from tests.engine.small import small, until
from tests.engine.test_express import NOON


async def test_counting_items_ends_with_whoever_asked() -> None:
    read = 0

    def endless() -> Iterator[Json]:
        nonlocal read
        while True:
            read += 1
            yield None

    counting = asyncio.ensure_future(map_items.count(endless()))
    await until(lambda: read > map_items.COUNTED_AT_ONCE)
    counting.cancel()
    async with asyncio.timeout(5):
        await asyncio.get_running_loop().shutdown_default_executor()
    assert read % map_items.COUNTED_AT_ONCE == 0


class Files:
    """Items that come from nowhere, and what was written, by key."""

    def __init__(self, items: Iterable[Json] = (), error: ExecutionError | None = None) -> None:
        self._items = list(items)
        self._error = error
        self.written: dict[str, bytes] = {}

    def items(self, reader: ReadItems) -> Iterator[Json]:
        yield from self._items
        if self._error is not None:
            raise self._error

    def write(self, bucket: str, key: str, chunks: Iterable[bytes]) -> int:
        self.written[f"{bucket}:{key}"] = b"".join(chunks)
        return len(self.written[f"{bucket}:{key}"])


READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket": "b", "Key": "k"},
}
WRITER = {
    "Resource": "arn:aws:states:::s3:putObject",
    "Parameters": {"Bucket": "out", "Prefix": "a/b"},
}


async def test_items_are_read_and_a_percentage_is_one_of_all_of_them() -> None:
    state = each(task("odd", End=True), ItemReader=READER, ToleratedFailurePercentage=50)
    files = Files(range(6))
    async with small(
        Handlers({"odd": fail_the_odd}), machines={"all": only(state)}, files=files
    ) as s:
        at = await s.ended(await s.start("all"))
        assert at.output == "[0,2,4]"
        assert runs(s) == [("SUCCEEDED", 6)]


async def test_items_that_cannot_be_read_fail_the_run_with_the_readers_error() -> None:
    error = ExecutionError(ITEM_READER_FAILED, "torn")
    machines = {"all": only(each(ItemReader=READER))}
    async with small(machines=machines, files=Files([1, 2], error)) as s:
        at = await s.ended(await s.start("all"))
        assert (at.status, at.error, at.cause) == ("FAILED", ITEM_READER_FAILED, "torn")


async def test_without_a_folder_a_reader_and_a_writer_fail_by_their_names() -> None:
    machines = {"in": only(each(ItemReader=READER)), "out": only(each(ResultWriter=WRITER))}
    async with small(machines=machines) as s:
        for machine, error in (("in", ITEM_READER_FAILED), ("out", "States.ResultWriterFailed")):
            at = await s.ended(await s.start(machine, [1]))
            cause = "No folder stands for S3 buckets: BUCKETS_DIR is not set"
            assert (at.status, at.error, at.cause) == ("FAILED", error, cause)


async def test_results_are_written_by_their_kind_with_a_manifest() -> None:
    state = each(task("odd", End=True), ResultWriter=WRITER, ToleratedFailureCount=1)
    files = Files()
    async with small(
        Handlers({"odd": fail_the_odd}), machines={"all": only(state)}, files=files
    ) as s:
        key = await s.start("all", [2, 3])
        at = await s.ended(key)
        ((run_key, _),) = s.store.map_runs.rows.items()
        folder = f"a/b/{run_key.id}"
        arn = f"arn:aws:states:us-east-1:000000000000:mapRun:all/each:{run_key.id}"
        assert json.loads(at.output or "") == {
            "MapRunArn": arn,
            "ResultWriterDetails": {"Bucket": "out", "Key": f"{folder}/manifest.json"},
        }
        good, bad = (f"{folder}/{kind}_0.json" for kind in ("SUCCEEDED", "FAILED"))
        assert json.loads(files.written[f"out:{folder}/manifest.json"]) == {
            "DestinationBucket": "out",
            "MapRunArn": arn,
            "ResultFiles": {
                "FAILED": [{"Key": bad, "Size": len(files.written[f"out:{bad}"])}],
                "PENDING": [],
                "SUCCEEDED": [{"Key": good, "Size": len(files.written[f"out:{good}"])}],
            },
        }
        (failed,) = json.loads(files.written[f"out:{bad}"])
        assert (failed["Status"], failed["Error"], failed["Cause"]) == ("FAILED", "Odd", "3")
        (succeeded,) = json.loads(files.written[f"out:{good}"])
        del succeeded["StartDate"], succeeded["StopDate"]
        execution = "arn:aws:states:us-east-1:000000000000:execution:all/each"
        assert succeeded == {
            "ExecutionArn": f"{execution}:{run_key.id}-0",
            "Input": "2",
            "InputDetails": {"Included": True},
            "Name": f"{run_key.id}-0",
            "Output": "2",
            "OutputDetails": {"Included": True},
            "RedriveCount": 0,
            "StateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:all/each",
            "Status": "SUCCEEDED",
        }


async def test_what_was_never_started_is_pending_in_the_results_of_a_run_that_failed() -> None:
    state = each(task("odd", End=True), ResultWriter=WRITER, MaxConcurrency=1)
    files = Files()
    async with small(
        Handlers({"odd": fail_the_odd}), machines={"all": only(state)}, files=files
    ) as s:
        at = await s.ended(await s.start("all", [1, 5, 6]))
        assert at.error == EXCEEDED
        (pending,) = [text for key, text in files.written.items() if "PENDING" in key]
        assert [child["Input"] for child in json.loads(pending)] == ["5", "6"]


@pytest.mark.parametrize(
    ("transformation", "type_", "written"),
    [
        ("COMPACT", "JSON", b"[[1],2]"),
        ("FLATTEN", "JSON", b"[1,2]"),
        ("COMPACT", "JSONL", b"[1]\n2\n"),
    ],
)
async def test_results_take_the_form_that_is_asked_for(
    transformation: str, type_: str, written: bytes
) -> None:
    config = {"Transformation": transformation, "OutputType": type_}
    state = each(ResultWriter=WRITER | {"WriterConfig": config})
    files = Files()
    async with small(machines={"all": only(state)}, files=files) as s:
        assert (await s.ended(await s.start("all", [[1], 2]))).status == "SUCCEEDED"
        suffix = ".jsonl" if type_ == "JSONL" else ".json"
        (text,) = [t for k, t in files.written.items() if k.endswith(f"SUCCEEDED_0{suffix}")]
        assert text == written


async def test_a_file_of_results_that_is_long_enough_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_results, "RESULT_FILE_BYTES_MAX", 3)
    config = {"Transformation": "COMPACT", "OutputType": "JSON"}
    state, files = each(ResultWriter=WRITER | {"WriterConfig": config}), Files()
    async with small(machines={"all": only(state)}, files=files) as s:
        assert (await s.ended(await s.start("all", [1, 22, 3]))).status == "SUCCEEDED"
        written = {key.rpartition("/")[2]: text for key, text in files.written.items()}
        manifest = json.loads(written.pop("manifest.json"))
        assert written == {"SUCCEEDED_0.json": b"[1,22]", "SUCCEEDED_1.json": b"[3]"}
        listed = manifest["ResultFiles"]["SUCCEEDED"]
        assert [entry["Size"] for entry in listed] == [6, 3]


async def test_outputs_are_read_no_further_than_a_state_may_hold() -> None:
    output = json.dumps("x" * 200_000)
    run, read = map_run_key(NOON, Key(7, new_id(NOON, 7)), 3), list[int]()

    class Children(MemoryMapRuns):
        async def children(self, bucket: int, first: UUID, last: UUID, limit: int) -> list[Child]:
            read.append(child_index(first))
            return [Child(first, "n", Status.SUCCEEDED, NOON, NOON, "1", output, None, None)]

    children = Children({}, DatabaseClock(), lambda key: None)
    with pytest.raises(ExecutionError, match=r"States\.DataLimitExceeded"):
        await map_results.Results(children, Arns(), run, "m/each", "All", page=1).gathered(
            "COMPACT"
        )
    assert read == [0, 1]


async def test_results_that_are_not_written_take_their_form_in_the_output() -> None:
    config = {"Transformation": "FLATTEN", "OutputType": "JSON"}
    async with small(machines={"all": only(each(ResultWriter={"WriterConfig": config}))}) as s:
        assert (await s.ended(await s.start("all", [[1, 2], 3]))).output == "[1,2,3]"
