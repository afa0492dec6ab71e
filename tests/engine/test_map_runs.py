"""Distributed Maps: their children are executions, and whatever happens each item is done once."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from service import metrics
from service.asl import ExecutionError, HistoryEvent, Json, Status
from service.asl.commands import ReadItems
from service.asl.errors import ITEM_READER_FAILED
from service.asl.map_run import Tally
from service.documents import loads
from service.engine import map_items, map_run, map_runs, worker
from service.engine.ids import child_index, child_key, map_run_key, new_id, run_of
from service.engine.ports import Key, NewExecution, Rejected, Task, Unavailable
from service.store.memory import MemoryTransaction
from tests.engine.harness import Handlers, bench, definition, task
from tests.engine.small import Small, small, until
from tests.engine.test_express import NOON

PASS: Json = {"Type": "Pass", "End": True}
EXCEEDED = "States.ExceedToleratedFailureThreshold"


def each(
    state: Json = PASS, type_: str = "STANDARD", name: str = "Item", **fields: Any
) -> dict[str, Any]:
    """Return a Distributed Map whose children are one state."""
    processor = {
        "StartAt": name,
        "States": {name: state},
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": type_},
    }
    return {"Type": "Map", "ItemProcessor": processor, "Label": "each", "End": True, **fields}


def only(state: Json) -> str:
    return definition("All", All=state)  # type: ignore[arg-type]


async def fail_the_odd(input: Json, task: Task) -> Json:
    assert isinstance(input, int)
    if input % 2:
        raise ExecutionError("Odd", str(input))
    return input


def statuses(s: Small) -> Counter[str]:
    """Return how the children stand."""
    rows = s.store.executions.values()
    return Counter(row.at.status.value for row in rows if "/" in row.machine)


def runs(s: Small) -> list[tuple[str, int | None]]:
    return [(row.status.value, row.items) for row in s.store.map_runs.rows.values()]


async def test_children_process_the_items_and_their_outputs_keep_the_order() -> None:
    async with small(machines={"all": only(each())}) as s:
        key = await s.start("all", [3, 1, 2])
        at = await s.ended(key)
        assert (at.status, at.output, at.cause) == ("SUCCEEDED", "[3,1,2]", None)
        assert await s.types(key) == [
            "ExecutionStarted",
            "MapStateEntered",
            "MapStateStarted",
            "MapRunStarted",
            "MapRunSucceeded",
            "MapStateSucceeded",
            "MapStateExited",
            "ExecutionSucceeded",
        ]
        assert runs(s) == [("SUCCEEDED", 3)]


async def test_a_child_is_an_execution_of_its_own_with_a_name_an_arn_and_a_history() -> None:
    context: Json = {"Type": "Pass", "Parameters": {"c.$": "$$"}, "End": True}
    async with small(machines={"all": only(each(context))}) as s:
        parent = await s.start("all", ["item"])
        await s.ended(parent)
        ((key, child),) = [(k, r) for k, r in s.store.executions.items() if k != parent]
        run = run_of(key)
        name = f"{run.id}-0"
        assert (child.machine, child.name, child.input) == ("all/each", name, '"item"')
        assert key.bucket == parent.bucket
        output: Any = json.loads(child.at.output or "")
        arn = "arn:aws:states:us-east-1:000000000000"
        assert output["c"]["Execution"]["Id"] == f"{arn}:execution:all/each:{name}"
        assert output["c"]["StateMachine"] == {
            "Id": f"{arn}:stateMachine:all/each",
            "Name": "all/each",
        }
        assert await s.types(key) == [
            "ExecutionStarted",
            "PassStateEntered",
            "PassStateExited",
            "ExecutionSucceeded",
        ]
        steps = [loads(zlib.decompress(step)) for step in await s.store.read_history(parent)]
        events = [HistoryEvent.from_json(e) for step in steps for e in step]  # type: ignore[union-attr]
        (began,) = [event for event in events if event.type == "MapRunStarted"]
        assert began.details == {"mapRunArn": f"{arn}:mapRun:all/each:{run.id}"}


async def test_a_selector_makes_the_inputs_of_the_children_from_item_and_state() -> None:
    selector = {"n.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value", "of.$": "$.of"}
    state = each(ItemsPath="$.items", ItemSelector=selector)
    async with small(machines={"all": only(state)}) as s:
        key = await s.start("all", {"of": "x", "items": ["a", "b"]})
        assert json.loads((await s.ended(key)).output or "") == [
            {"n": 0, "v": "a", "of": "x"},
            {"n": 1, "v": "b", "of": "x"},
        ]


async def test_a_selector_that_fails_fails_the_run() -> None:
    machines = {"all": only(each(ItemSelector={"v.$": "$$.Map.Item.Value.a"}))}
    async with small(machines=machines) as s:
        key = await s.start("all", [{"a": 1}, {}])
        at = await s.ended(key)
        assert (at.status, at.error) == ("FAILED", "States.ParameterPathFailure")
        assert (await s.types(key))[-3:] == ["MapRunFailed", "MapStateFailed", "ExecutionFailed"]
        assert runs(s) == [("FAILED", 2)]


async def test_no_more_children_run_at_once_than_max_concurrency() -> None:
    most = now = 0

    async def count(input: Json, task: Task) -> Json:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return input

    machines = {"all": only(each(task("count", End=True), MaxConcurrency=3))}
    async with small(Handlers({"count": count}), machines=machines) as s:
        key = await s.start("all", list(range(10)))
        assert (await s.ended(key)).output == "[0,1,2,3,4,5,6,7,8,9]"
        assert most == 3


@pytest.mark.parametrize(
    ("fields", "items", "status", "output"),
    [
        ({}, [0, 2], "SUCCEEDED", "[0,2]"),
        ({}, [0, 1], "FAILED", None),
        ({"ToleratedFailureCount": 1}, [0, 1, 2], "SUCCEEDED", "[0,2]"),
        ({"ToleratedFailureCount": 1}, [0, 1, 3], "FAILED", None),
        ({"ToleratedFailurePercentage": 50}, [0, 1, 2, 3], "SUCCEEDED", "[0,2]"),
        ({"ToleratedFailurePercentage": 49.9}, [0, 1, 2, 3], "FAILED", None),
        ({"ToleratedFailurePercentage": 100, "ToleratedFailureCount": 0}, [1], "FAILED", None),
        ({"ToleratedFailurePercentage": 100}, [1, 3], "SUCCEEDED", "[]"),
    ],
)
async def test_a_run_fails_when_more_items_fail_than_it_tolerates(
    fields: Any, items: Json, status: str, output: str | None
) -> None:
    machines = {"all": only(each(task("odd", End=True), **fields))}
    async with small(Handlers({"odd": fail_the_odd}), machines=machines) as s:
        at = await s.ended(await s.start("all", items))
        assert (at.status, at.output) == (status, output)
        assert at.error == (None if output else EXCEEDED)


async def test_a_run_that_failed_is_caught_and_its_other_children_are_stopped() -> None:
    item: Json = {
        "StartAt": "Which",
        "States": {
            "Which": {
                "Type": "Choice",
                "Choices": [{"Variable": "$", "NumericEquals": 7, "Next": "Broken"}],
                "Default": "Slow",
            },
            "Broken": {"Type": "Fail", "Error": "Seven"},
            "Slow": {"Type": "Wait", "Seconds": 3600, "End": True},
        },
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
    }
    state = each() | {"ItemProcessor": item}
    state["Catch"] = [{"ErrorEquals": [EXCEEDED], "Next": "After"}]
    text = definition("All", All=state, After=PASS)  # type: ignore[arg-type]
    async with small(machines={"all": text}) as s:
        at = await s.ended(await s.start("all", [1, 2, 7, 3]))
        assert json.loads(at.output or "") == {
            "Error": EXCEEDED,
            "Cause": "The specified tolerated failure threshold was exceeded",
        }
        assert statuses(s) == {"FAILED": 1, "ABORTED": 3}


async def test_a_run_is_tried_again_as_another_run() -> None:
    retry = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}]
    state = each(task("once", End=True), Retry=retry)
    failures = iter([True])

    async def once(input: Json, task: Task) -> Json:
        if next(failures, False):
            raise ExecutionError("Once")
        return input

    # Its delay is over at once.
    async with small(Handlers({"once": once}), machines={"all": only(state)}, time_scale=0) as s:
        at = await s.ended(await s.start("all", [1]))
        assert (at.status, at.output) == ("SUCCEEDED", "[1]")
        assert runs(s) == [("FAILED", 1), ("SUCCEEDED", 1)]


async def test_outputs_too_large_for_a_state_fail_it() -> None:
    async with small(machines={"all": only(each())}) as s:
        at = await s.ended(await s.start("all", ["x" * 200_000]))
        assert at.status == "SUCCEEDED"
        big: Json = {"Type": "Pass", "Result": "x" * 100_000, "End": True}
        await s.publish("big", only(each(big)))
        at = await s.ended(await s.start("big", [1, 2, 3]))
        assert (at.status, at.error) == ("FAILED", "States.DataLimitExceeded")


async def test_maps_within_children_run_as_well() -> None:
    inner = each(Label="inner", name="Innermost")
    async with small(machines={"all": only(each(inner))}) as s:
        at = await s.ended(await s.start("all", [[1, 2], [], [3]]))
        assert at.output == "[[1,2],[],[3]]"
        machines = Counter(row.machine for row in s.store.executions.values())
        assert machines == {"all": 1, "all/each": 3, "all/inner": 3}


async def test_batches_share_children() -> None:
    batcher = {"MaxItemsPerBatch": 2, "BatchInput": {"to.$": "$.to"}}
    state = each(ItemsPath="$.items", ItemBatcher=batcher)
    async with small(machines={"all": only(state)}) as s:
        at = await s.ended(await s.start("all", {"to": 9, "items": [1, 2, 3]}))
        assert json.loads(at.output or "") == [
            {"BatchInput": {"to": 9}, "Items": [1, 2]},
            {"BatchInput": {"to": 9}, "Items": [3]},
        ]


async def test_a_batch_that_fails_counts_with_all_of_its_items() -> None:
    item: Json = {"Type": "Fail", "Error": "No"}
    state = each(item, ItemBatcher={"MaxItemsPerBatch": 2}, ToleratedFailureCount=1)
    async with small(machines={"all": only(state)}) as s:
        assert (await s.ended(await s.start("all", [1]))).status == "SUCCEEDED"
        assert (await s.ended(await s.start("all", [1, 2]))).error == EXCEEDED


async def test_express_children_leave_a_row_when_they_have_ended_and_no_history() -> None:
    state = each(task("odd", End=True), "EXPRESS", ToleratedFailureCount=1)
    async with small(Handlers({"odd": fail_the_odd}), machines={"all": only(state)}) as s:
        at = await s.ended(await s.start("all", [2, 3, 4]))
        assert at.output == "[2,4]"
        children = {k: r for k, r in s.store.executions.items() if r.machine == "all/each"}
        assert [r.at.error for _, r in sorted(children.items())] == [None, "Odd", None]
        assert [step for step in s.store.history if step[0] in children] == []


async def test_an_express_child_may_fail_of_what_no_column_holds() -> None:
    item: Json = {"Type": "Fail", "Error": "No\0", "Cause": "\ud800"}
    state = each(item, "EXPRESS", ToleratedFailureCount=1)
    async with small(machines={"all": only(state)}) as s:
        assert (await s.ended(await s.start("all", [1]))).output == "[]"
        (child,) = [row for row in s.store.executions.values() if row.machine == "all/each"]
        assert (child.at.error, child.at.cause) == ("No\N{REPLACEMENT CHARACTER}", "?")


async def test_stopping_the_execution_stops_the_children() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", list(range(5)))
        await until(lambda: statuses(s) == {"RUNNING": 5})
        await s.engine.stop(key)
        await until(lambda: statuses(s) == {"ABORTED": 5})
        assert runs(s) == [("ABORTED", None)]


async def test_a_stop_by_another_process_ends_a_run_that_is_still_starting_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(map_runs, "SETTLE_SECONDS", 0.2)

    async def slow(input: Json, task: Task) -> Json:
        await asyncio.sleep(0.005)
        return input

    handlers = Handlers({"slow": slow})
    machines = {"all": only(each(task("slow", End=True), MaxConcurrency=5))}
    async with (
        small(handlers, machines=machines) as one,
        small(handlers, machines=machines, store=one.store) as other,
    ):
        key = await one.start("all", list(range(2_000)))
        await until(lambda: statuses(one).total() >= 50)
        await other.engine.stop(key)
        await until(lambda: one.engine._worker.in_flight == 0)
        await until(lambda: statuses(one)["RUNNING"] == 0)
        assert one.at(key).status == "ABORTED"
        assert runs(one) == [("ABORTED", None)]
        assert statuses(one).total() < 2_000
        assert one.engine.in_flight == other.engine.in_flight == 0


async def test_children_of_an_execution_that_ended_unseen_are_stopped_by_the_sweep() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        s.store.put(key, status=Status.FAILED, owner=None, document=None)
        await s.engine._sweep()
        await until(lambda: statuses(s) == {"ABORTED": 2})


async def test_children_whose_stop_was_cut_off_are_stopped_by_the_sweep() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        running, cut = s.store.map_runs.running, asyncio.Event()

        async def cut_off(*asked: Any) -> Any:
            cut.set()
            raise Unavailable("cut while its children were being stopped")

        s.store.map_runs.running = cut_off  # type: ignore[method-assign]
        await s.engine.stop(key)
        await cut.wait()
        s.store.map_runs.running = running  # type: ignore[method-assign]
        assert (statuses(s), runs(s)) == ({"RUNNING": 2}, [("ABORTED", None)])
        await s.engine._sweep()
        await until(lambda: statuses(s) == {"ABORTED": 2})


async def test_what_an_execution_no_longer_waits_for_is_stopped_when_it_is_taken_up() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    wait: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    branch = {"StartAt": "All", "States": {"All": each(item)}}
    both = {"Type": "Parallel", "Branches": [branch], "End": True}
    async with small(machines={"both": definition("B", B=both), "wait": only(wait)}) as s:
        key = await s.start("both", [1, 2])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        other = s.at(await s.start("wait"))
        # As if the branch had been given up by a worker that died before it stopped the children.
        s.store.make_due(key, owner=None, document=other.document, epoch=s.at(key).epoch + 1)
        s.engine._timers.due.set()
        await until(lambda: statuses(s) == {"ABORTED": 2})


async def test_a_run_goes_on_after_an_outage_and_starts_nothing_twice() -> None:
    machines = {"all": only(each(task("count", End=True)))}
    counted: Counter[Json] = Counter()

    async def count(input: Json, task: Task) -> Json:
        assert isinstance(input, int)
        counted[input] += 1
        return input

    async with small(Handlers({"count": count}), machines=machines) as s:
        s.store.faults["commit"].extend([Unavailable("gone")] * 2)
        at = await s.ended(await s.start("all", list(range(30))))
        assert at.output == json.dumps(list(range(30)), separators=(",", ":"))
        assert set(counted.values()) == {1}


async def test_children_of_another_process_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", ["a", "b"])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        for child in [k for k in s.store.executions if k != key]:
            s.store.put(child, status=Status.SUCCEEDED, output='"done"', due_at=None)
        assert (await s.ended(key)).output == '["done","done"]'


async def test_a_run_that_only_waits_for_its_children_is_no_suspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", ["a", "b"])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        # As if its worker had died for the second time.
        s.store.make_due(key, owner=None, epoch=s.at(key).epoch + 1, claims=1)
        claimed = s.at(key).epoch
        s.engine._timers.due.set()
        await until(lambda: s.at(key).epoch > claimed + 1)
        assert (s.row(key).quarantined, s.row(key).claims) == (0, 0)
        for child in [k for k in s.store.executions if k != key]:
            s.store.put(child, status=Status.SUCCEEDED, output="1", due_at=None)
        assert (await s.ended(key)).output == "[1,1]"


async def test_a_run_that_dies_of_starting_children_stays_a_suspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = 0

    async def stuck(run: map_run.MapRun, children: object) -> None:
        nonlocal tries
        tries += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(map_run.MapRun, "_start", stuck)
    async with small(machines={"all": only(each())}) as s:
        key = await s.start("all", [1])
        await until(lambda: tries == 1)
        await s.engine._worker.committer.drained()
        s.store.make_due(key, owner=None, epoch=s.at(key).epoch + 1, claims=1)
        s.engine._timers.due.set()
        await until(lambda: tries == 2)
        await s.engine._worker.committer.drained()
        assert (s.row(key).quarantined, s.row(key).claims) == (1, 2)


async def test_a_run_under_way_does_not_hold_up_a_shutdown_and_is_left_to_others() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}, shutdown_seconds=60.0) as s:
        key = await s.start("all", ["a", "b"])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        await s.engine.close()
        assert (s.row(key).is_running, s.at(key).owner) == (True, None)
        assert s.at(key).due_at is not None


async def test_a_run_whose_execution_is_being_stored_does_not_hold_up_a_shutdown() -> None:
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}, shutdown_seconds=60.0) as s:
        key = await s.start("all", ["a", "b"])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        s.store.may_begin.clear()
        s.engine._worker.nudge(key)
        closing = asyncio.ensure_future(s.engine.close())
        await until(lambda: s.engine.reasons().get("engine.map_runs"))
        await asyncio.sleep(0)
        s.store.may_begin.set()
        async with asyncio.timeout(5):
            await closing
        assert (s.row(key).is_running, s.at(key).owner) == (True, None)


async def test_ended_runs_are_deleted_after_the_retention_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.engine.engine.ROWS_AT_ONCE", 1)
    async with small(machines={"all": only(each())}) as s:
        for _ in range(3):
            await s.ended(await s.start("all", [1]))
        for row in s.store.map_runs.rows.values():
            assert row.stopped_at is not None
            row.stopped_at -= timedelta(days=31)
        await s.engine._tidy()
        assert s.store.map_runs.rows == {}


async def test_a_child_that_cannot_be_read_does_not_keep_its_run_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "BROKEN_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(map_runs, "UNREADABLE_DELAY_SECONDS", 0.05)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: statuses(s) == {"RUNNING": 2})
        child = min(k for k in s.store.executions if k != key)
        s.store.put(child, document=b"nonsense")
        await s.engine.stop(key)

        def is_over() -> bool:
            s.engine._timers.due.set()  # a poll comes once a second
            return statuses(s) == {"ABORTED": 1, "FAILED": 1}

        with capture_logs():  # which saves the time of writing tracebacks
            await until(is_over)
        assert s.at(child).error == worker.UNREADABLE


async def test_children_still_being_stored_when_the_run_fails_are_stopped_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "SLICE", 1)
    insert, may_be_stored = MemoryTransaction.insert, asyncio.Event()

    async def refusing(tx: MemoryTransaction, rows: Sequence[NewExecution]) -> Mapping[Key, bool]:
        inputs = [row.input for row in rows]
        if '"refused"' in inputs:
            raise Rejected("a value that no column holds")
        if inputs == ['"fine"']:
            await may_be_stored.wait()
        return await insert(tx, rows)

    monkeypatch.setattr(MemoryTransaction, "insert", refusing)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", ["refused", "fine"])
        with suppress(TimeoutError):
            await until(lambda: runs(s) == [("FAILED", None)], 0.1)
        may_be_stored.set()
        at = await s.ended(key)
        assert (at.status, at.error) == ("FAILED", "States.Runtime")
        assert statuses(s) == {"ABORTED": 1}


async def test_children_that_have_ended_are_not_looked_at_again_by_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_runs, "STOPPED_AT_ONCE", 2)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", list(range(6)))
        await until(lambda: statuses(s) == {"RUNNING": 6})
        running, asked = s.store.map_runs.running, list[int]()

        async def noted(bucket: int, first: UUID, last: UUID, limit: int) -> Any:
            asked.append(child_index(first))
            return await running(bucket, first, last, limit)

        s.store.map_runs.running = noted  # type: ignore[method-assign]
        await s.engine.stop(key)
        await until(lambda: statuses(s) == {"ABORTED": 6})
        await until(lambda: len(asked) == 4)
        assert asked == [0, 0, 2, 4]


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


async def test_a_run_that_was_stopped_by_itself_fails_its_execution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(map_run, "CHECK_SECONDS", 0.0)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", [1])
        await until(lambda: statuses(s) == {"RUNNING": 1})
        (run,) = s.store.map_runs.rows
        await s.store.map_runs.end(run, Status.ABORTED, None)
        at = await s.ended(key)
        assert (at.error, at.cause) == ("States.Runtime", "The map run was stopped.")


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


async def test_results_that_are_not_written_take_their_form_in_the_output() -> None:
    config = {"Transformation": "FLATTEN", "OutputType": "JSON"}
    async with small(machines={"all": only(each(ResultWriter={"WriterConfig": config}))}) as s:
        assert (await s.ended(await s.start("all", [[1, 2], 3]))).output == "[1,2,3]"


def test_ids_of_children_lead_to_their_run_and_stand_in_the_order_of_the_items() -> None:
    parent = Key(7, new_id(NOON, 7))
    run = map_run_key(NOON, parent, 3)
    keys = [child_key(run, index) for index in (0, 1, 255, 256, 99_999_999)]
    assert keys == sorted(keys)
    assert {run_of(key) for key in keys} == {run}
    assert [child_index(key.id) for key in keys] == [0, 1, 255, 256, 99_999_999]
    assert {key.id.int & 255 for key in keys} == {7}
    assert {key.id.version for key in keys} == {7}
    assert map_run_key(NOON, parent, 3) == run
    assert map_run_key(NOON, parent, 4) != run


def test_a_percentage_of_items_not_yet_counted_is_not_exceeded() -> None:
    assert not Tally(None, 10.0, None, failed=5).is_exceeded
    assert Tally(None, 10.0, 49, failed=5).is_exceeded
    assert not Tally(None, 10.0, 50, failed=5).is_exceeded


async def test_thousands_of_items_are_rows_stored_in_large_batches(fresh_database: str) -> None:
    before = _commits()
    async with bench(fresh_database) as b:
        await b.publish("all", only(each()))
        row = await b.ended(await b.start("all", list(range(3_000))))
        assert row["output"] == json.dumps(list(range(3_000)), separators=(",", ":"))
        assert _commits() - before < 60


def _commits() -> float:
    (metric,) = metrics.COMMIT_BATCH_ROWS.collect()
    return next(s.value for s in metric.samples if s.name.endswith("_count"))
