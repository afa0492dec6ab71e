"""Executions that did not succeed are redriven: once each time, from where they stood."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from service.asl import ExecutionError, Json
from service.documents import loads
from service.engine import map_run, map_runs, quarantine, worker
from service.engine.committer import REJECTED
from service.engine.map_ports import Wanted
from service.engine.ports import (
    Answer,
    Contended,
    Effect,
    EffectHandler,
    ExecutionNotRedrivable,
    Key,
    Overloaded,
    Rejected,
    Task,
    Unavailable,
)
from service.engine.redrive import REDRIVABLE_DAYS, TOKENS_MAX
from tests.engine.harness import Handlers, definition, task
from tests.engine.maps import EXCEEDED, each, only, runs, statuses
from tests.engine.small import Small, small, until

FAILING = definition(
    "First",
    First=task("first", Next="Then"),
    Then=task("then", End=True),
)


class Trouble:
    """Functions of which one fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.handlers = Handlers({"first": self.first, "then": self.then, "odd": self.odd})

    async def first(self, input: Json, task: Task) -> Json:
        return {"first": input}

    async def then(self, input: Json, task: Task) -> Json:
        if not self.is_mended:
            raise ExecutionError("Broken", "as yet")
        return input

    async def odd(self, input: Json, task: Task) -> Json:
        assert isinstance(input, int)
        if input % 2 and not self.is_mended:
            raise ExecutionError("Odd", str(input))
        return input

    def performed(self, name: str) -> int:
        return sum(function == name for function, _, _ in self.handlers.performed)


async def test_redriven_execution_goes_on_from_the_state_that_failed() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow", {"n": 1})
        failed = await s.ended(key)
        assert (failed.status, failed.error, failed.cause) == ("FAILED", "Broken", "as yet")
        trouble.is_mended = True
        redriven_at = await s.engine.redrive(key, "token")
        at = await s.ended(key)
        assert (at.status, at.output, at.error, at.cause, at.document) == (
            "SUCCEEDED",
            '{"first":{"n":1}}',
            None,
            None,
            None,
        )
        assert (trouble.performed("first"), trouble.performed("then")) == (1, 2)
        assert s.row(key).redrive_count == 1
        assert s.row(key).redrives == (("token", redriven_at),)
        keys = {key_ for function, key_, _ in trouble.handlers.performed if function == "then"}
        assert len(keys) == 1  # a redrive is one more try of the same entry
        assert (await s.types(key)).count("TaskStateEntered") == 2


async def test_an_execution_that_runs_or_has_succeeded_is_not_redriven() -> None:
    rest = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})
    passes = only({"Type": "Pass", "End": True})
    async with small(machines={"rest": rest, "pass": passes}) as s:
        running, succeeded = await s.start("rest"), await s.start("pass")
        await s.ended(succeeded)
        for key in (running, succeeded, s.key()):
            with pytest.raises(ExecutionNotRedrivable):
                await s.engine.redrive(key, "token")


async def test_what_kept_nothing_or_ended_long_ago_is_not_redriven() -> None:
    async with small(Trouble().handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow")
        at = await s.ended(key)
        assert at.stopped_at is not None
        s.store.put(key, stopped_at=at.stopped_at - timedelta(days=REDRIVABLE_DAYS))
        with pytest.raises(ExecutionNotRedrivable):
            await s.engine.redrive(key)
        s.store.put(key, stopped_at=at.stopped_at, document=None)
        with pytest.raises(ExecutionNotRedrivable):
            await s.engine.redrive(key)
        assert s.at(key) == replace(at, document=None)


async def test_a_token_redrives_once() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow")
        await s.ended(key)
        first = await s.engine.redrive(key, "a")
        await s.ended(key)
        assert await s.engine.redrive(key, "a") == first
        assert s.row(key).redrive_count == 1
        second = await s.engine.redrive(key, "b")
        await s.ended(key)
        assert second > first
        assert (s.row(key).redrive_count, await s.engine.redrive(key, "a")) == (2, first)
        for n in range(TOKENS_MAX):
            await s.engine.redrive(key, f"c{n}")
            await s.ended(key)
        assert len(s.row(key).redrives) == TOKENS_MAX
        assert await s.engine.redrive(key, "a") > second  # forgotten by now


async def test_many_who_redrive_an_execution_at_once_redrive_it_once() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow")
        await s.ended(key)
        trouble.is_mended = True
        answers = await asyncio.gather(
            *(s.engine.redrive(key, f"t{n}") for n in range(8)), return_exceptions=True
        )
        assert sum(isinstance(answer, ExecutionNotRedrivable) for answer in answers) == 7
        await s.ended(key)
        assert (s.row(key).redrive_count, trouble.performed("then")) == (1, 2)


async def test_lost_answer_is_given_when_it_is_asked_for_again() -> None:
    """The redrive was stored; the connection broke before anybody heard of it."""
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}, lease_seconds=0.3) as s:
        key = await s.start("flow")
        await s.ended(key)
        trouble.is_mended = True
        s.store.faults["redriven"].append(Unavailable("gone"))
        with pytest.raises(Unavailable):
            await s.engine.redrive(key, "token")
        assert (s.at(key).status, s.row(key).redrive_count) == ("RUNNING", 1)
        assert await s.engine.redrive(key, "token") == s.row(key).redrives[0][1]
        assert (await s.ended(key)).status == "SUCCEEDED"  # the next heartbeat finds it
        assert s.row(key).redrive_count == 1


async def test_nothing_is_redriven_into_a_memory_that_is_full() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow")
        at = await s.ended(key)
        s.engine._worker.tenures.limit = 0
        with pytest.raises(Overloaded):
            await s.engine.redrive(key)
        assert s.at(key) == at


async def test_locked_row_is_no_reason_to_fail_the_execution() -> None:
    async with small(Trouble().handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow")
        await s.ended(key)
        s.store.faults["redrive"].append(Contended("locked"))
        with pytest.raises(Unavailable):
            await s.engine.redrive(key)


async def test_process_that_dies_after_its_commit_leaves_the_redrive_to_another() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}, lease_seconds=0.2) as s:
        key = await s.start("flow", {"n": 1})
        await s.ended(key)
        trouble.is_mended = True
        nobody = s.engine.new_id(0)
        (claim,) = await s.store.redrive(nobody, [key])
        at = await s.ended(key)
        assert (at.status, claim.redrive_count) == ("SUCCEEDED", 1)
        assert (await s.types(key)).count("ExecutionRedriven") == 1


async def test_redriven_execution_that_is_given_back_unplayed_is_heard_of_by_a_signal() -> None:
    rest = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})

    async with small(machines={"flow": rest}) as s:
        key = await s.start("flow")
        await until(lambda: s.at(key).due_at is not None)
        await s.engine.stop(key)
        await s.store.redrive(s.engine.new_id(0), [key])
        s.store.put(key, owner=None, due_at=s.row(key).started_at + timedelta(days=1))
        signal = Effect("get_account", tuple(key))
        await s.engine.request(signal, signal=lambda row: key)
        at = await s.ended(key)
        assert at.status == "SUCCEEDED"
        assert await s.types(key) == [
            "ExecutionStarted",
            "WaitStateEntered",
            "ExecutionAborted",
            "ExecutionRedriven",
            "WaitStateExited",
            "ExecutionSucceeded",
        ]


async def test_redriven_execution_can_be_stopped_and_redriven_again() -> None:
    rest = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})
    async with small(machines={"flow": rest}) as s:
        key = await s.start("flow")
        for n in range(3):
            await s.engine.stop(key)
            await s.engine.redrive(key, str(n))
        await s.engine.stop(key)
        types = await s.types(key)
        assert types[2:] == [*(["ExecutionAborted", "ExecutionRedriven"] * 3), "ExecutionAborted"]


async def test_step_with_effects_is_performed_once_more_inside_its_transaction() -> None:
    is_mended = False

    def effect(input: Json, task: Task) -> Effect:
        if not is_mended:
            raise ExecutionError("Broken", None)
        return Effect("get_account", tuple(task.execution))

    handlers = Handlers(effects={"look": EffectHandler(effect, lambda row: Answer(None))})
    async with small(handlers, machines={"flow": only(task("look", End=True))}) as s:
        key = await s.start("flow")
        assert (await s.ended(key)).error == "Broken"
        is_mended = True
        await s.engine.redrive(key)
        assert (await s.ended(key)).status == "SUCCEEDED"
        assert s.answered("get_account") == 1


async def test_what_its_end_decided_is_asked_for_at_the_next_end_as_well() -> None:
    asked: list[Key] = []

    def on_ended(name: str, key: Key) -> Effect:
        asked.append(key)
        return Effect("delete_unverified_account", tuple(key))

    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}, on_ended=on_ended) as s:
        key = await s.start("flow")
        await s.ended(key)
        trouble.is_mended = True
        await s.engine.redrive(key)
        await s.ended(key)
        assert s.answered("delete_unverified_account") == 2


# Poison


async def test_poisoned_execution_is_redriven_with_its_counts_begun_anew() -> None:
    trouble = Trouble()
    trouble.is_mended = True
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        hold = asyncio.Event()

        async def hangs(input: Json, task: Task) -> Json:
            await hold.wait()
            return input

        trouble.handlers.coroutines["then"] = hangs
        key = await s.start("flow")
        await until(lambda: trouble.performed("then") == 1)
        # As after workers that were lost, one after another, each at this step.
        s.store.put(
            key, owner=None, claims=3, quarantined=quarantine.DEATHS_MAX, epoch=s.at(key).epoch + 1
        )
        s.store.make_due(key)
        at = await s.ended(key)
        assert (at.status, at.error) == ("FAILED", quarantine.POISONED)
        hold.set()
        await s.engine.redrive(key)
        at = await s.ended(key)
        assert (at.status, s.row(key).claims, s.row(key).quarantined) == ("SUCCEEDED", 0, 0)


async def test_buried_execution_keeps_its_checkpoint_and_goes_on_from_it() -> None:
    trouble = Trouble()
    trouble.is_mended = True
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        hold = asyncio.Event()

        async def hangs(input: Json, task: Task) -> Json:
            await hold.wait()
            return input

        trouble.handlers.coroutines["then"] = hangs
        key = await s.start("flow", {"n": 1})
        await until(lambda: trouble.performed("then") == 1)
        stood = s.at(key).document
        assert await s.store.bury(key, s.at(key).epoch, worker.UNREADABLE, "no")
        assert (s.at(key).status, s.at(key).document) == ("FAILED", stood)
        assert stood is not None
        assert loads(stood)["s"] == "RUNNING"  # type: ignore[index, call-overload]
        hold.set()
        await s.engine.redrive(key)
        at = await s.ended(key)
        assert (at.status, at.output) == ("SUCCEEDED", '{"first":{"n":1}}')
        assert (await s.types(key)).count("ExecutionRedriven") == 1


# Distributed Maps


@pytest.mark.parametrize("type_", ["STANDARD", "EXPRESS"])
async def test_only_children_that_failed_run_again_and_the_run_is_the_same(type_: str) -> None:
    trouble = Trouble()
    item = task("odd", End=True)
    # A tolerance that is exceeded by the last of them, so that all have ended when it is.
    flow = only(each(item, type_, ToleratedFailureCount=1, MaxConcurrency=1))
    async with small(trouble.handlers, machines={"all": flow}) as s:
        key = await s.start("all", [0, 1, 2, 3])
        assert (await s.ended(key)).error == EXCEEDED
        assert (statuses(s), runs(s)) == ({"SUCCEEDED": 2, "FAILED": 2}, [("FAILED", 4)])
        (run,) = s.store.map_runs.rows
        trouble.is_mended = True
        await s.engine.redrive(key)
        at = await s.ended(key)
        assert (at.status, at.output) == ("SUCCEEDED", "[0,1,2,3]")
        assert (statuses(s), runs(s)) == ({"SUCCEEDED": 4}, [("SUCCEEDED", 4)])
        assert [*s.store.map_runs.rows] == [run]
        assert s.store.map_runs.rows[run].redrives == 1
        assert trouble.performed("odd") == 6
        types = await s.types(key)
        assert types[types.index("ExecutionRedriven") :] == [
            "ExecutionRedriven",
            "MapRunRedriven",
            "MapRunSucceeded",
            "MapStateSucceeded",
            "MapStateExited",
            "ExecutionSucceeded",
        ]


async def test_children_that_were_stopped_and_those_never_started_run_at_the_redrive() -> None:
    trouble = Trouble()
    flow = only(each(task("odd", End=True), MaxConcurrency=1))
    async with small(trouble.handlers, machines={"all": flow}) as s:
        key = await s.start("all", [0, 1, 2, 3])
        assert (await s.ended(key)).error == EXCEEDED
        assert statuses(s) == {"SUCCEEDED": 1, "FAILED": 1}
        trouble.is_mended = True
        await s.engine.redrive(key)
        assert (await s.ended(key)).output == "[0,1,2,3]"


async def test_children_that_fail_again_are_not_redriven_twice_by_one_redrive() -> None:
    trouble = Trouble()
    flow = only(each(task("odd", End=True), ToleratedFailureCount=0))
    async with small(trouble.handlers, machines={"all": flow}) as s:
        key = await s.start("all", [1])
        for count in (1, 2, 3):
            await s.ended(key)
            assert trouble.performed("odd") == count
            (child,) = (row for row in s.store.executions.values() if "/" in row.machine)
            assert child.redrive_count == count - 1
            await s.engine.redrive(key)
        trouble.is_mended = True


async def test_run_that_is_performed_anew_after_a_crash_redrives_no_child_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    trouble = Trouble()
    flow = only(each(task("odd", End=True), ToleratedFailureCount=1, MaxConcurrency=1))
    async with small(trouble.handlers, machines={"all": flow}, lease_seconds=0.3) as s:
        key = await s.start("all", [1, 3, 5])
        await s.ended(key)
        s.store.faults["committed"].append(Unavailable("gone"))
        await s.engine.redrive(key)
        await s.ended(key)
        assert max(row.redrive_count for row in s.store.executions.values()) == 1


async def test_stopped_run_is_redriven_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_runs, "SETTLE_SECONDS", 0.0)
    hold = asyncio.Event()

    async def waits(input: Json, task: Task) -> Json:
        await hold.wait()
        return input

    flow = only(each(task("waits", End=True)))
    async with small(Handlers({"waits": waits}), machines={"all": flow}) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: statuses(s) == {"RUNNING": 2} and len(s.handlers.performed) == 2)
        await s.engine.stop(key)
        await until(lambda: statuses(s) == {"ABORTED": 2})
        await until(lambda: not any(s.store.map_runs.is_open(r) for r in s.store.map_runs.rows))
        hold.set()
        await s.engine.redrive(key)
        assert (await s.ended(key)).output == "[1,2]"
        assert runs(s) == [("SUCCEEDED", 2)]


async def test_run_that_is_redriven_before_it_was_stopped_is_not_stopped_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold, may_stop = asyncio.Event(), asyncio.Event()

    async def waits(input: Json, task: Task) -> Json:
        await hold.wait()
        return input

    stop = map_runs.MapRuns._stop

    async def later(self: map_runs.MapRuns, run: object) -> None:
        await may_stop.wait()
        await stop(self, run)  # type: ignore[arg-type]

    monkeypatch.setattr(map_runs.MapRuns, "_stop", later)
    flow = only(each(task("waits", End=True)))
    async with small(Handlers({"waits": waits}), machines={"all": flow}) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: len(s.handlers.performed) == 2)
        await s.engine.stop(key)
        await s.engine.redrive(key)
        await until(lambda: s.store.map_runs.rows and _redrives(s) == [1])
        may_stop.set()
        await asyncio.sleep(0)
        hold.set()
        assert (await s.ended(key)).output == "[1,2]"


def _redrives(s: Small) -> list[int]:
    return [row.redrives for row in s.store.map_runs.rows.values()]


async def test_child_that_kept_nothing_has_failed_for_the_redriven_run() -> None:
    trouble = Trouble()
    flow = only(each(task("odd", End=True), ToleratedFailureCount=0))
    async with small(trouble.handlers, machines={"all": flow}) as s:
        key = await s.start("all", [1])
        await s.ended(key)
        (child,) = (k for k, row in s.store.executions.items() if "/" in row.machine)
        s.store.put(child, document=None)
        trouble.is_mended = True
        await s.engine.redrive(key)
        assert (await s.ended(key)).error == EXCEEDED


class Patience:
    """A function that waits until it is told, for each of the children of a map."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.handlers = Handlers({"waits": self.waits})
        self.machines = {"all": only(each(task("waits", End=True)))}

    async def waits(self, input: Json, task: Task) -> Json:
        await self.is_over.wait()
        return input


async def turns() -> None:
    """Let whatever is ready go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_stop_that_the_redrive_overtakes_stops_no_child_of_the_redriven_run() -> None:
    patience, may_stop, asked = Patience(), asyncio.Event(), list[Wanted]()
    async with small(patience.handlers, machines=patience.machines) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: len(s.handlers.performed) == 2)
        seize = s.store.seize_children

        async def slow(owner: UUID, run: Wanted, *ids: Any) -> Any:
            asked.append(run)
            if len(asked) == 1:
                await may_stop.wait()
            return await seize(owner, run, *ids)

        s.store.seize_children = slow  # type: ignore[method-assign]
        await s.engine.stop(key)
        await until(lambda: asked)
        await s.engine.redrive(key)
        await until(lambda: len(s.handlers.performed) == 4)
        may_stop.set()
        await turns()
        patience.is_over.set()
        assert (await s.ended(key)).output == "[1,2]"


async def test_run_whose_stop_was_never_noted_is_not_stopped_by_its_redrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience, stop = Patience(), map_runs.MapRuns._stop

    async def died(self: map_runs.MapRuns, run: Wanted) -> None:
        """Be a process that ends between the stop's commit and this."""

    async with small(patience.handlers, machines=patience.machines) as s:
        key = await s.start("all", [1, 2])
        await until(lambda: len(s.handlers.performed) == 2)
        with monkeypatch.context() as patched:
            patched.setattr(map_runs.MapRuns, "_stop", died)
            await s.engine.stop(key)
            await turns()
        stopped = list[Wanted]()

        async def noted(self: map_runs.MapRuns, run: Wanted) -> None:
            stopped.append(run)
            await stop(self, run)

        monkeypatch.setattr(map_runs.MapRuns, "_stop", noted)
        await s.engine.redrive(key)
        await until(lambda: _redrives(s) == [1])
        await turns()
        patience.is_over.set()
        assert (await s.ended(key)).output == "[1,2]"
        assert not [run for run in stopped if run.redrives == 0]


async def test_child_that_somebody_else_has_redriven_has_not_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(map_run, "POLL_SECONDS", 0.01)
    trouble = Trouble()
    flow = only(each(task("odd", End=True), ToleratedFailureCount=0))
    async with small(trouble.handlers, machines={"all": flow}, lease_seconds=0.3) as s:
        key = await s.start("all", [1])
        await s.ended(key)
        trouble.is_mended = True
        redrive, dead = s.store.redrive, s.engine.new_id(0)

        async def second(owner: UUID, keys: Sequence[Key], token: str | None = None) -> Any:
            if key not in keys:
                await redrive(dead, keys)
            return await redrive(owner, keys, token)

        s.store.redrive = second  # type: ignore[method-assign]
        await s.engine.redrive(key)
        assert (await s.ended(key)).output == "[1]"


async def test_history_tells_of_a_redrive_whose_first_step_is_refused() -> None:
    trouble = Trouble()
    async with small(trouble.handlers, machines={"flow": FAILING}) as s:
        key = await s.start("flow", {"n": 1})
        await s.ended(key)
        before = await s.types(key)
        s.store.faults["commit"].append(Rejected("22P05: no"))
        await s.engine.redrive(key)
        assert (await s.ended(key)).error == REJECTED
        told = (await s.types(key))[len(before) :]
        assert (told[0], told[-1]) == ("ExecutionRedriven", "ExecutionFailed")
