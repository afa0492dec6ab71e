"""Distributed Maps that are stopped, cut off or left to others: no child is lost or left behind."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from service.asl import Json, Status
from service.engine import committer, map_run, map_runs, worker
from service.engine.ids import child_index
from service.engine.map_ports import Wanted
from service.engine.ports import (
    Contended,
    Key,
    NewExecution,
    Rejected,
    Task,
    Unavailable,
)
from service.store.memory import MemoryTransaction
from tests.engine.harness import Handlers, definition, task
from tests.engine.maps import EXCEEDED, PASS, each, only, runs, statuses
from tests.engine.small import small, until


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
        await until(lambda: one.engine.in_flight == 0)
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
        seize, cut = s.store.seize_children, asyncio.Event()

        async def cut_off(*asked: Any) -> Any:
            cut.set()
            raise Unavailable("cut while its children were being stopped")

        s.store.seize_children = cut_off  # type: ignore[method-assign]
        await s.engine.stop(key)
        await cut.wait()
        s.store.seize_children = seize  # type: ignore[method-assign]
        assert (statuses(s), runs(s)) == ({"RUNNING": 2}, [("ABORTED", None)])
        await s.engine._sweep()
        await until(lambda: statuses(s) == {"ABORTED": 2})


async def test_children_taken_to_be_stopped_are_not_performed_again_before_the_stop() -> None:
    performed: Counter[Json] = Counter()

    async def work(input: Json, task: Task) -> Json:
        assert isinstance(input, int)
        performed[input] += 1
        await asyncio.Event().wait()
        return input

    machines = {"all": only(each(task("work", End=True)))}
    async with small(Handlers({"work": work}), machines=machines) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: performed.total() == 2)
        seize, may_arrive = s.store.seize_children, asyncio.Event()

        async def slow(*asked: Any) -> Any:
            claims = await seize(*asked)
            await may_arrive.wait()
            return claims

        epochs = {child: s.at(child).epoch for child in s.store.executions if child != key}
        s.store.seize_children = slow  # type: ignore[method-assign]
        await s.engine.stop(key)
        await until(lambda: all(s.at(child).epoch > epoch for child, epoch in epochs.items()))
        await s.engine._worker.reconcile()
        assert performed == {1: 1, 2: 1}
        may_arrive.set()
        await until(lambda: statuses(s) == {"ABORTED": 2})
        assert performed == {1: 1, 2: 1}


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
        await s.engine._worker.lanes.drained()
        s.store.make_due(key, owner=None, epoch=s.at(key).epoch + 1, claims=1)
        s.engine._timers.due.set()
        await until(lambda: tries == 2)
        await s.engine._worker.lanes.drained()
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


async def test_a_child_that_was_not_stored_is_started_in_its_place_when_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "CONTENDED_TRIES_MAX", 1)
    monkeypatch.setattr(map_runs, "RETRY_SECONDS", 0.01)
    insert, locked = MemoryTransaction.insert, [True]

    async def locking(
        tx: MemoryTransaction, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
        if locked[0] and '"b"' in [row.input for row in rows]:
            locked[0] = len(rows) > 1
            raise Contended("lock timeout")
        return await insert(tx, rows)

    monkeypatch.setattr(MemoryTransaction, "insert", locking)
    async with small(machines={"all": only(each())}) as s:
        at = await s.ended(await s.start("all", ["a", "b", "c"]))
        assert (at.status, at.output) == ("SUCCEEDED", '["a","b","c"]')
        assert (statuses(s), runs(s)) == ({"SUCCEEDED": 3}, [("SUCCEEDED", 3)])


async def test_stopping_the_execution_cancels_its_express_children() -> None:
    is_running, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return input

    machines = {"all": only(each(task("endless", End=True), "EXPRESS"))}
    async with small(Handlers({"endless": endless}), machines=machines) as s:
        key = await s.start("all", [1])
        await is_running.wait()
        await s.engine.stop(key)
        async with asyncio.timeout(3):
            await cancelled.wait()


async def test_a_run_is_looked_at_once_more_before_it_counts_as_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_runs, "SETTLE_SECONDS", 0.01)
    item: Json = {"Type": "Wait", "Seconds": 3600, "End": True}
    async with small(machines={"all": only(each(item))}) as s:
        key = await s.start("all", [1])
        await until(lambda: statuses(s) == {"RUNNING": 1})
        (row,) = s.store.map_runs.rows.values()
        await s.engine.stop(key)
        await until(lambda: row.status is Status.ABORTED)
        assert row.stopped_at is None
        await until(lambda: row.stopped_at is not None)


async def test_children_still_being_stored_when_the_run_fails_are_stopped_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "SLICE", 1)
    insert, may_be_stored = MemoryTransaction.insert, asyncio.Event()

    async def refusing(
        tx: MemoryTransaction, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
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
        seize, asked = s.store.seize_children, list[int]()

        async def noted(owner: UUID, run: Wanted, first: UUID, last: UUID, limit: int) -> Any:
            asked.append(child_index(first))
            return await seize(owner, run, first, last, limit)

        s.store.seize_children = noted  # type: ignore[method-assign]
        await s.engine.stop(key)
        await until(lambda: statuses(s) == {"ABORTED": 6})
        await until(lambda: len(asked) == 4)
        assert asked == [0, 0, 2, 4]


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
        await s.store.map_runs.abort(Wanted(run, 0))
        at = await s.ended(key)
        assert (at.error, at.cause) == ("States.Runtime", "The map run was stopped.")
