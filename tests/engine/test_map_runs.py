"""Distributed Maps: their children are executions, and whatever happens each item is done once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from service import metrics
from service.asl import ExecutionError, Json
from service.asl.map_run import Tally
from service.engine import map_run, map_runs
from service.engine.history import unpack
from service.engine.ids import child_index, child_key, map_run_key, new_id, run_of
from service.engine.ports import (
    Key,
    Overloaded,
    Task,
)
from tests.engine.harness import Handlers, bench, task
from tests.engine.maps import EXCEEDED, each, fail_the_odd, only, runs
from tests.engine.small import small
from tests.engine.test_express import NOON


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
        events = [e for step in await s.store.read_history(parent) for e in unpack(step)]
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


async def test_children_leave_room_in_memory_for_the_maps_within_them() -> None:
    async def echo(input: Json, task: Task) -> Json:
        return input

    inner = each(task("echo", End=True), name="Inner", Label="inner")
    outer = each(inner, name="Outer")
    async with small(Handlers({"echo": echo}), machines={"all": only(outer)}) as s:
        s.engine._worker.tenures.limit = 8
        at = await s.ended(await s.start("all", [[1, 2]] * 20))
        assert (at.status, at.output) == ("SUCCEEDED", json.dumps([[1, 2]] * 20).replace(" ", ""))


async def test_more_express_children_than_a_process_runs_at_once_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_runs, "RETRY_SECONDS", 60.0)
    async with small(machines={"all": only(each(type_="EXPRESS"))}) as s:
        s.engine._express._runs_max = 2
        assert (await s.ended(await s.start("all", [1, 2, 3, 4, 5]))).output == "[1,2,3,4,5]"


async def test_the_end_of_an_express_child_is_heard_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 60.0)

    async def later(input: Json, task: Task) -> Json:
        await asyncio.sleep(0.01)
        return input

    machines = {"all": only(each(task("later", End=True), "EXPRESS"))}
    async with small(Handlers({"later": later}), machines=machines) as s:
        assert (await s.ended(await s.start("all", [1, 2]))).output == "[1,2]"


async def test_a_run_waits_while_too_many_steps_are_to_be_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_runs, "RETRY_SECONDS", 60.0)
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    async with small(machines={"all": only(each())}) as s:
        lanes = s.engine._worker.lanes
        admit, answers = lanes.admit, [Overloaded("full"), Overloaded("full"), None]

        def answer() -> None:
            if answers and (overloaded := answers.pop()):
                raise overloaded
            admit()

        lanes.admit = answer  # type: ignore[method-assign]
        assert (await s.ended(await s.start("all", [1, 2]))).output == "[1,2]"
        assert answers == []


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
