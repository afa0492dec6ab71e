"""What a map run's children have come to: the output of the state, or files of results.

Source: Step Functions guide, "ResultWriter": forms of results, names of files, manifest.json.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from service.asl import ExecutionError, Json, Status
from service.asl.commands import WriteResults
from service.asl.dataflow import too_large
from service.asl.errors import DATA_LIMIT_EXCEEDED, RESULT_WRITER_FAILED
from service.asl.values import PAYLOAD_BYTES_MAX, format_timestamp
from service.documents import dumps_own, loads
from service.engine.arns import Arns
from service.engine.ids import CHILDREN_MAX, child_index, child_key
from service.engine.map_items import ItemFeed
from service.engine.map_ports import Child, ItemFiles, MapRunStore
from service.engine.ports import Key

PAGE: Final = 200
"""Children read at once: with documents at their limit, 100 MiB."""

RESULT_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A file of results is written once it is this long, and another begun."""

NO_FOLDER: Final = "No folder stands for S3 buckets: BUCKETS_DIR is not set"


async def children_of(
    maps: MapRunStore, run: Key, index: int = 0, page: int = PAGE
) -> AsyncIterator[Child]:
    """Yield the children of a run, from one on, in the order of their items."""
    last = child_key(run, CHILDREN_MAX - 1).id
    while True:
        found = await maps.children(run.bucket, child_key(run, index).id, last, page)
        for child in found:
            yield child
        if len(found) < page:
            return
        index = child_index(found[-1].id) + 1


@dataclass(slots=True)
class Results:
    """Reads the children of one run that is over."""

    maps: MapRunStore
    arns: Arns
    run: Key
    machine: str  # of the children
    state: str
    page: int = PAGE

    async def gathered(self, transformation: str) -> list[Json]:
        """Return the results of the children that succeeded, in the order of the items.

        Raise ExecutionError("States.DataLimitExceeded") when they are too much for a state.
        """
        results: list[Json] = []
        size = 0
        async for child in children_of(self.maps, self.run, page=self.page):
            if child.status is not Status.SUCCEEDED:
                continue
            for result in self._forms(child, transformation):
                size += len(dumps_own(result)) + 1
                if size > PAYLOAD_BYTES_MAX:
                    raise ExecutionError(DATA_LIMIT_EXCEEDED, too_large(self.state))
                results.append(result)
        return results

    async def written(
        self, writer: WriteResults, files: ItemFiles | None, feed: ItemFeed, started: int
    ) -> Json:
        """Write the results to files and return what tells where they are.

        `feed` has the items that no child was started for, and `started` were. Raise
        ExecutionError("States.ResultWriterFailed").
        """
        if files is None:
            raise ExecutionError(RESULT_WRITER_FAILED, NO_FOLDER)
        assert writer.parameters is not None
        bucket, prefix = str(writer.parameters["Bucket"]), writer.parameters.get("Prefix")
        folder = f"{str(prefix).strip('/')}/{self.run.id}" if prefix else str(self.run.id)
        exports = {
            kind: _Export(files, bucket, f"{folder}/{kind}", writer.is_lines)
            for kind in ("FAILED", "PENDING", "SUCCEEDED")
        }
        async for child in children_of(self.maps, self.run, page=self.page):
            is_good = child.status is Status.SUCCEEDED
            forms = self._forms(child, writer.transformation if is_good else "NONE")
            await exports["SUCCEEDED" if is_good else "FAILED"].add(forms)
        while left := await feed.take(self.page):
            await exports["PENDING"].add(
                self._pending(started + offset, child.value) for offset, child in enumerate(left)
            )
            started += len(left)
        for export in exports.values():
            await export.flush()
        manifest: Json = {
            "DestinationBucket": bucket,
            "MapRunArn": self.arn,
            "ResultFiles": {kind: export.listed for kind, export in exports.items()},
        }
        key = f"{folder}/manifest.json"
        await asyncio.to_thread(files.write, bucket, key, [dumps_own(manifest)])
        return {"MapRunArn": self.arn, "ResultWriterDetails": {"Bucket": bucket, "Key": key}}

    @property
    def arn(self) -> str:
        """Return the run's ARN."""
        return self.arns.map_run(self.machine, self.run.id)

    def _forms(self, child: Child, transformation: str) -> Iterable[Json]:
        if transformation == "NONE":
            return (self._told(child),)
        output = None if child.output is None else loads(child.output)
        return output if transformation == "FLATTEN" and isinstance(output, list) else (output,)

    def _told(self, child: Child) -> Json:
        """Return a child with its metadata."""
        told: dict[str, Json] = {
            "ExecutionArn": self.arns.execution(self.machine, child.name),
            "Input": child.input,
            "InputDetails": {"Included": True},
            "Name": child.name,
            "RedriveCount": child.redrive_count,
            "StartDate": format_timestamp(child.started_at),
            "StateMachineArn": self.arns.machine(self.machine),
            "Status": child.status.value,
        }
        if child.output is not None:
            told |= {"Output": child.output, "OutputDetails": {"Included": True}}
        for name, value in (("Error", child.error), ("Cause", child.cause)):
            if value is not None:
                told[name] = value
        if isinstance(child.stopped_at, datetime):
            told["StopDate"] = format_timestamp(child.stopped_at)
        return told

    def _pending(self, index: int, input: Json) -> Json:
        """Return a child that was never started."""
        name = child_name(self.run, index)
        return {
            "ExecutionArn": self.arns.execution(self.machine, name),
            "Input": dumps_own(input).decode(),
            "InputDetails": {"Included": True},
            "Name": name,
            "StateMachineArn": self.arns.machine(self.machine),
            "Status": "PENDING",
        }


def child_name(run: Key, index: int) -> str:
    """Return the name of a run's child: its bucket can be told from it."""
    return f"{run.id}-{index}"


@dataclass(slots=True)
class _Export:
    """The files of one kind of results."""

    files: ItemFiles
    bucket: str
    stem: str
    is_lines: bool
    listed: list[Json] = field(default_factory=list)
    _waiting: list[bytes] = field(default_factory=list)
    _waiting_bytes: int = 0

    async def add(self, results: Iterable[Json]) -> None:
        for result in results:
            self._waiting.append(dumps_own(result))
            self._waiting_bytes += len(self._waiting[-1])
            if self._waiting_bytes >= RESULT_FILE_BYTES_MAX:
                await self.flush()

    async def flush(self) -> None:
        """Write what waits, if anything does."""
        if not self._waiting:
            return
        key = f"{self.stem}_{len(self.listed)}.json" + ("l" if self.is_lines else "")
        begin, between, end = (b"", b"\n", b"\n") if self.is_lines else (b"[", b",", b"]")
        text = begin + between.join(self._waiting) + end
        self._waiting, self._waiting_bytes = [], 0
        size = await asyncio.to_thread(self.files.write, self.bucket, key, [text])
        self.listed.append({"Key": key, "Size": size})
