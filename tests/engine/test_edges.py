"""What must not happen to the engine, whatever happens around it: nothing acknowledged is lost,
no effect runs twice, no loop dies, nobody waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest

from service.asl import Execution, Json, Signalled, StateMachine
from service.engine import committer
from service.engine import turn as turns
from service.engine.clock import DatabaseClock
from service.engine.engine import Engine
from service.engine.ports import (
    Answer,
    Claim,
    Contended,
    Effect,
    EffectHandler,
    ExecutionAlreadyExists,
    Key,
    Task,
    Unavailable,
)
from service.engine.quarantine import DEATHS_MAX
from service.engine.turn import Tenure
from tests.engine.harness import Handlers, definition, task
from tests.engine.small import FaultyStore, Small, small, until

SLOW = task("slow", End=True)
LONG_WAIT = {"Type": "Wait", "Seconds": 3600, "Next": "After"}
AFTER = task("after", End=True)
LAST_WAIT = {"Type": "Wait", "Seconds": 3600, "End": True}
RESTING = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})
TWO_WAITS = definition(
    "First",
    First={"Type": "Wait", "Seconds": 3600, "Next": "Second"},
    Second={"Type": "Wait", "Seconds": 3600, "End": True},
)


async def nothing(input: Json, task: Task) -> Json:
    return {}


def look(input: Json, task: Task) -> Effect:
    return Effect("get_account", (*task.execution,))


def ping() -> Effect:
    return Effect("get_account", (0, UUID(int=0)))


LOOK = EffectHandler(look, lambda row: Answer({}))


# Nothing runs twice


@pytest.mark.parametrize("goes_on", ["at rest", "in memory"])
async def test_the_effects_of_a_start_in_doubt_run_once(goes_on: str) -> None:
    handlers = Handlers({"after": nothing}, {"look": LOOK})
    rest = {"Rest": LONG_WAIT, "After": AFTER} if goes_on == "at rest" else {"Rest": AFTER}
    text = definition("Look", Look=task("look", Next="Rest"), **rest)
    async with small(handlers, machines={"flow": text}) as s:
        s.store.faults["committed"].append(Unavailable("cut after the commit"))
        key = await s.start("flow")
        if goes_on == "in memory":
            await s.ended(key)
            assert [function for function, _, _ in handlers.performed] == ["after"]
        assert s.answered("get_account") == 1


async def test_a_signal_ends_one_wait_though_the_definition_was_not_at_hand() -> None:
    async with small(machines={"flow": TWO_WAITS}) as s:
        key = await s.start("flow")
        s.engine.definitions._compiled.clear()
        await s.engine.request(ping(), signal=lambda row: key)
        await until(lambda: s.at(key).owner is None)
        assert (await s.types(key))[1:] == [
            "WaitStateEntered",
            "WaitStateExited",
            "WaitStateEntered",
        ]


async def test_a_signal_in_the_batch_of_its_start_leaves_the_row_at_rest() -> None:
    async with small(machines={"flow": TWO_WAITS}) as s:
        key = s.key()
        await asyncio.gather(
            s.engine.start("flow", str(key.id), {}, key=key),
            s.engine.request(ping(), signal=lambda row: key),
        )
        row = s.row(key)
        assert (row.at.owner, row.is_signalled) == (None, False)
        assert (await s.types(key))[1:] == [
            "WaitStateEntered",
            "WaitStateExited",
            "WaitStateEntered",
        ]


async def test_an_effect_of_a_branch_that_is_over_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "STEPS_IN_PLACE_MAX", 1)
    branches: Json = [
        {"StartAt": name, "States": {name: task(name, End=True)}} for name in ("look", "missing")
    ]
    text = definition("Both", Both={"Type": "Parallel", "Branches": branches, "End": True})
    async with small(Handlers(effects={"look": LOOK}), machines={"flow": text}) as s:
        key = await s.start("flow")
        assert (await s.ended(key)).error == "Lambda.ResourceNotFoundException"
        assert s.answered("get_account") == 0


async def test_a_closing_worker_keeps_its_lease_while_it_finishes() -> None:
    is_running, may_end = asyncio.Event(), asyncio.Event()

    async def slow(input: Json, task: Task) -> Json:
        is_running.set()
        await may_end.wait()
        return "done"

    handlers = Handlers({"slow": slow})
    text = definition("Slow", Slow=task("slow", End=True))
    async with (
        small(handlers, lease_seconds=0.4, shutdown_seconds=5.0, machines={"flow": text}) as s,
        small(handlers, store=s.store, lease_seconds=0.4, machines={"flow": text}),
    ):
        key = await s.start("flow")
        await is_running.wait()
        closing = asyncio.ensure_future(s.engine.close())
        beats = s.store.calls["heartbeat"]
        await until(lambda: s.store.calls["heartbeat"] > beats + 20)
        may_end.set()
        await closing
        assert s.at(key).output == '"done"'
        assert len(handlers.performed) == 1


async def test_what_is_taken_up_twice_at_once_is_performed_once() -> None:
    is_running, may_end, compiled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(input: Json, task: Task) -> Json:
        is_running.set()
        await may_end.wait()
        return {}

    handlers = Handlers({"slow": slow})
    text = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "Next": "Slow"}, Slow=SLOW)
    async with small(handlers, machines={"flow": text}) as s:
        key, worker = await s.start("flow"), s.engine._worker
        pinned = s.engine.definitions.pinned

        async def late(sha256: bytes) -> StateMachine:
            await compiled.wait()
            return await pinned(sha256)

        s.engine.definitions.pinned = late  # type: ignore[method-assign]
        s.engine.definitions.cached = lambda sha256: None  # type: ignore[method-assign]
        # Both lanes find the row after an outage, and neither knows of the other.
        claim = s.store.claim(key, s.engine.id)
        taken = [asyncio.ensure_future(worker.adopt([claim], *e)) for e in ([Signalled()], [])]
        await asyncio.sleep(0)
        compiled.set()
        await asyncio.gather(*taken)
        await is_running.wait()
        may_end.set()
        assert (await s.ended(key)).status == "SUCCEEDED"
        assert len(handlers.performed) == 1
        assert s.store.calls["committed"] == 3  # the start, the end of the wait, and the end


# No loop dies, no culprit stalls the others


async def test_the_quarantine_lane_outlives_a_locked_row() -> None:
    async with small(lease_seconds=0.5, machines={"flow": RESTING}) as s:
        key = await s.start("flow")
        s.store.faults["quarantine"] += [Contended("lock timeout"), ValueError("a surprise")]
        s.store.make_due(key, claims=4, quarantined=DEATHS_MAX)
        assert (await s.ended(key)).error == "Engine.WorkerLost"
        assert s.engine.reasons() == {}


@pytest.mark.parametrize("error", [Contended("cancelled"), ValueError("a surprise")])
async def test_the_committer_outlives_whatever_reconciling_raises(error: Exception) -> None:
    async with small(machines={"flow": RESTING}) as s:
        s.store.faults["commit"].append(Unavailable("cut before the commit"))
        s.store.faults["owned"].append(error)
        key = await s.start("flow")
        assert s.at(key).owner is None
        assert s.engine.reasons() == {}


async def test_whoever_is_told_of_a_committed_effect_cannot_stop_the_committer() -> None:
    def fail(row: Mapping[str, object] | None) -> None:
        raise ValueError("a surprise")

    async with small(machines={"flow": RESTING}) as s:
        first = await s.start("flow", {}, replace(ping(), committed=fail))
        second = await s.start("flow")
        assert {s.at(first).owner, s.at(second).owner} == {None}
        assert s.engine.reasons() == {}


async def test_a_signalled_execution_that_the_engine_fails_at_does_not_hold_up_its_caller() -> None:
    def fail(name: str, key: Key) -> Effect | None:
        raise ValueError("a surprise")

    async with small(machines={"flow": RESTING}, on_ended=fail) as s:
        key = await s.start("flow")
        async with asyncio.timeout(3):
            await s.engine.request(ping(), signal=lambda row: key)
        await until(lambda: s.at(key).due_at is not None and s.at(key).owner is None)
        assert s.row(key).is_signalled


@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_nothing_is_left_to_be_decided_once_a_task_has_acknowledged_it(
    is_acknowledged: bool,
) -> None:
    seen = EffectHandler(lambda input, task: ping(), lambda row: Answer({}, is_acknowledged))
    handlers = Handlers(effects={"seen": seen})
    flow = definition("Seen", Seen=task("seen", Next="After"), After=AFTER)
    last = Effect("delete_unverified_account", (0, UUID(int=2)))
    async with small(handlers, machines={"flow": flow}, on_ended=lambda name, key: last) as s:
        await s.ended(await s.start("flow"))
        assert s.answered("delete_unverified_account") == (not is_acknowledged)


async def test_a_signalled_execution_whose_effect_is_refused_does_not_refuse_its_caller() -> None:
    def refused(input: Json, task: Task) -> Effect:
        return Effect("insert_account", (*task.execution, "a\0", "a", 1, None, None, "{}"))

    handlers = Handlers(effects={"refused": EffectHandler(refused, lambda row: Answer({}))})
    text = definition("Rest", Rest=LONG_WAIT, After=task("refused", End=True))
    async with small(handlers, machines={"flow": text}) as s:
        key = await s.start("flow")
        await s.engine.request(ping(), signal=lambda row: key)
        assert (await s.ended(key)).error == "Rejected"


async def test_one_unreadable_execution_does_not_keep_its_neighbours_from_being_claimed() -> None:
    async with small(machines={"flow": RESTING}) as s:
        broken, sound = [await s.start("flow") for _ in range(2)]
        s.store.faults["let_go"].append(Contended("lock timeout"))
        due = s.engine._clock.now()
        await s.store._turn.acquire()  # so that both fall due in one claim
        document = s.at(sound).document
        assert document is not None
        s.store.put(broken, due_at=due, document=b"{")
        s.store.put(sound, due_at=due, document=_due_at_once(document))
        s.store._turn.release()
        s.engine._timers.due.set()
        assert (await s.ended(sound)).output == "{}"


async def test_a_unit_that_breaks_every_connection_is_left_alone_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "CONTENDED_DELAY_SECONDS", 0.01)

    def deadly(effects: Sequence[Effect]) -> Exception | None:
        is_there = any(effect.row == (0, UUID(int=13)) for effect in effects)
        return Unavailable("the server closed the connection") if is_there else None

    async with small(machines={"flow": RESTING}) as s:
        s.store.refuse = deadly
        asked = [
            asyncio.ensure_future(s.engine.request(Effect("get_account", (0, UUID(int=n)))))
            for n in range(20)
        ]
        done, waiting = await asyncio.wait(asked, timeout=3)
        answers = [one for one in asked if one in done and one.exception() is None]
        assert len(answers) == 19
        assert not waiting - {asked[13]}
        with pytest.raises(Unavailable):
            await asked[13]


async def test_hints_do_not_read_all_that_is_in_flight_again() -> None:
    async with small() as s:
        await until(lambda: s.store.calls["heartbeat"] == 1)
        for n in range(2, 7):
            s.engine.nudge()
            await until(lambda n=n: s.store.calls["heartbeat"] == n)  # type: ignore[misc]
        assert s.store.calls["owned"] <= 1


async def test_more_effects_in_a_row_than_one_transaction_takes_run_once_each() -> None:
    count = 2 * turns.EFFECT_ROUNDS_MAX + 3
    states = {f"S{n}": task("look", Next=f"S{n + 1}") for n in range(count - 1)}
    states[f"S{count - 1}"] = task("look", End=True)
    async with small(
        Handlers(effects={"look": LOOK}), machines={"flow": definition("S0", **states)}
    ) as s:
        key = await s.start("flow")
        assert (await s.ended(key)).status == "SUCCEEDED"
        assert s.answered("get_account") == count


async def test_a_wide_map_of_effects_and_coroutines_does_each_once() -> None:
    items = 300
    handlers = Handlers({"after": nothing}, {"look": LOOK})
    one = {"StartAt": "Look", "States": {"Look": task("look", Next="After"), "After": AFTER}}
    text = definition("All", All={"Type": "Map", "ItemProcessor": one, "End": True})
    async with small(handlers, machines={"flow": text}) as s:
        key = s.key()
        await s.engine.start("flow", "wide", [{} for _ in range(items)], key=key)
        await until(lambda: not s.row(key).is_running, seconds=8)
        assert s.at(key).status == "SUCCEEDED"
        assert s.answered("get_account") == items
        assert len({key for _, key, _ in handlers.performed}) == len(handlers.performed) == items


# Nobody waits for ever


async def test_a_caller_is_answered_when_the_engine_closes_on_it() -> None:
    async with small(shutdown_seconds=0.01, machines={"flow": RESTING}) as s:
        s.store.may_begin.clear()
        asked = [
            asyncio.ensure_future(s.start("flow")),
            asyncio.ensure_future(s.engine.request(ping())),
        ]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(s.engine.close())
        done, _ = await asyncio.wait(asked, timeout=3)
        assert [type(one.exception()) for one in done] == [Unavailable, Unavailable]
        await closing


async def test_a_start_that_was_admitted_before_the_close_is_answered_after_it() -> None:
    may_go_on = asyncio.Event()

    async with small(machines={"flow": RESTING}) as s:
        current = s.engine.definitions.current

        async def late(name: str) -> object:
            await may_go_on.wait()
            return await current(name)

        s.engine.definitions.current = late  # type: ignore[method-assign, assignment]
        asked = asyncio.ensure_future(s.start("flow"))
        await asyncio.sleep(0)
        await s.engine.close()
        may_go_on.set()
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable):
                await asked


async def test_a_key_is_started_once() -> None:
    async with small(machines={"flow": RESTING}) as s:
        key = s.key()
        async with asyncio.timeout(3):
            first, second = await asyncio.gather(
                s.engine.start("flow", "one", {}, key=key),
                s.engine.start("flow", "two", {}, key=key),
                return_exceptions=True,
            )
        assert not isinstance(first, BaseException)
        assert isinstance(second, ExecutionAlreadyExists)
        assert s.row(key).name == "one"


async def test_a_lease_is_given_up_though_a_row_was_locked_for_a_moment() -> None:
    is_running = asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        await asyncio.Event().wait()
        return {}

    text = definition("Endless", Endless=task("endless", End=True))
    async with small(
        Handlers({"endless": endless}), shutdown_seconds=0.01, machines={"flow": text}
    ) as s:
        key = await s.start("flow")
        await is_running.wait()
        s.store.faults["release"].append(Contended("lock timeout"))
    assert s.at(key).owner is None
    assert s.at(key).due_at is not None
    assert s.engine.id not in s.store.workers


async def test_a_close_ends_though_the_lease_cannot_be_given_up() -> None:
    async with small() as s:
        s.store.faults["release"] += [Contended("lock timeout")] * 100
        async with asyncio.timeout(5):
            await s.engine.close()
        s.store.faults["release"].clear()


async def test_a_stop_that_could_not_be_stored_is_not_answered_as_done() -> None:
    async with small(machines={"flow": RESTING}) as s:
        key = await s.start("flow")
        s.engine.definitions._compiled.clear()
        s.engine.definitions._store.definition = _unavailable  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await s.engine.stop(key)
        assert s.row(key).is_running


async def test_a_stop_that_the_close_overtakes_is_not_answered_as_done() -> None:
    async with small(shutdown_seconds=0.01, machines={"flow": RESTING}) as s:
        key = await s.start("flow")
        s.store.may_begin.clear()
        stopping = asyncio.ensure_future(s.engine.stop(key))
        await until(lambda: s.at(key).owner is not None)
        await s.engine.close()
        with pytest.raises(Unavailable):
            await stopping
        assert s.row(key).is_running


async def test_a_stop_of_a_locked_row_is_to_be_asked_again() -> None:
    async with small(machines={"flow": RESTING}) as s:
        key = await s.start("flow")
        s.store.faults["seize"].append(Contended("lock timeout"))
        with pytest.raises(Unavailable):
            await s.engine.stop(key)
        await s.engine.stop(key)
        assert s.at(key).status == "ABORTED"


# Nothing stays where it should not


async def test_a_wait_that_was_claimed_too_early_goes_back_to_its_own_due_time() -> None:
    async with small(machines={"flow": RESTING}) as s:
        key = await s.start("flow")
        due_at = s.at(key).due_at
        s.store.make_due(key)
        s.engine._timers.due.set()
        await until(lambda: s.at(key).epoch >= 3)
        assert (s.at(key).owner, s.at(key).due_at) == (None, due_at)


async def test_a_signal_goes_on_at_once_though_memory_holds_what_the_execution_was() -> None:
    async with small(
        Handlers({"after": nothing}),
        machines={"flow": definition("Rest", Rest=LONG_WAIT, After=AFTER)},
    ) as s:
        key = await s.start("flow")
        _remember(s.engine, key, s)
        await s.engine.request(ping(), signal=lambda row: key)
        assert (await s.ended(key)).status == "SUCCEEDED"


class SlowAnswers(FaultyStore):
    """A store whose answers are under way until a test lets them arrive."""

    def __init__(self, clock: DatabaseClock) -> None:
        super().__init__(clock)
        self.may_read = asyncio.Event()
        self.has_read = asyncio.Event()
        self.may_arrive = asyncio.Event()
        self.may_be_taken = asyncio.Event()
        self.may_begin_alone = asyncio.Event()

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        await self.may_read.wait()
        return await super().owned(owner)

    async def claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        claims = await super().claim_owned(owner, keys)
        self.has_read.set()
        await self.may_arrive.wait()
        return claims

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        claims = await super().seize(owner, keys)
        await self.may_be_taken.wait()
        return claims

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        stood = await super().quarantine(key, epoch, by)
        await self.may_begin_alone.wait()
        return stood


@dataclass
class Work:
    """A handler that goes on when a test lets it."""

    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    flow: str = definition("Work", Work=task("work", Next="Rest"), Rest=LAST_WAIT)

    async def run(self, input: Json, task: Task) -> Json:
        await self.may_end.wait()
        return {}


@asynccontextmanager
async def at_work(work: Work, store: SlowAnswers) -> AsyncIterator[tuple[Small, Key]]:
    """Yield an engine, and an execution whose work is under way in it."""
    handlers = Handlers({"work": work.run})
    async with small(handlers, store=store, machines={"flow": work.flow}) as s:
        key = await s.start("flow")
        await until(lambda: handlers.performed)
        yield s, key


async def test_a_start_while_memory_is_compared_with_the_rows_is_performed_once() -> None:
    # Found by the simulation (D1), in a story without faults: the row was read as nobody's.
    work, store = Work(), SlowAnswers(DatabaseClock())
    handlers = Handlers({"work": work.run})
    async with small(handlers, store=store, machines={"flow": work.flow}) as s:
        compared = asyncio.create_task(s.engine._worker.reconcile())
        await asyncio.sleep(0)
        await s.start("flow")
        await until(lambda: handlers.performed)
        store.may_read.set()
        store.may_arrive.set()
        await compared
        await asyncio.sleep(0)
        assert (store.has_read.is_set(), len(handlers.performed)) == (False, 1)


async def test_a_row_read_before_its_step_was_committed_is_not_taken_up_after_it() -> None:
    # Found by the simulation (D1): its mail was sent again when that answer came after the step.
    work, store = Work(), SlowAnswers(DatabaseClock())
    store.may_read.set()
    async with at_work(work, store) as (s, key):
        worker = s.engine._worker
        # As if it were claimed, and the answer under way.
        worker.tenures.forget(worker.tenures.get(key))
        compared = asyncio.create_task(worker.reconcile())
        await store.has_read.wait()
        await worker.adopt([s.store.as_claim(key)])
        work.may_end.set()
        await until(lambda: s.at(key).due_at is not None)
        store.may_arrive.set()
        await compared
        await asyncio.sleep(0)
        assert (s.engine.in_flight, len(s.handlers.performed)) == (0, 2)


@pytest.mark.parametrize("is_elsewhere", [True, False])
@pytest.mark.parametrize("in_doubt", [lambda key: False, lambda key: True])
async def test_what_is_taken_to_be_stopped_is_not_performed_again_before_the_stop(
    in_doubt: Callable[[Key], bool], is_elsewhere: bool
) -> None:
    # Found by the simulation (D1): another replica was performing it, whose owner had just changed.
    store = SlowAnswers(DatabaseClock())
    store.may_read.set()
    store.may_arrive.set()
    async with at_work(Work(), store) as (s, key):
        worker = s.engine._worker
        epoch = s.at(key).epoch
        if is_elsewhere:
            worker.tenures.forget(worker.tenures.get(key))
            store.put(key, owner=UUID(int=1))
        stopped = asyncio.create_task(s.engine.stop(key, "Gone"))
        await until(lambda: s.at(key).epoch > epoch)
        for _ in range(3):  # heartbeats, while the answer is under way
            await worker.reconcile(in_doubt)
        assert (s.at(key).owner, len(s.handlers.performed)) == (s.engine.id, 1)
        store.may_be_taken.set()
        await stopped
        assert (await s.ended(key)).status == "ABORTED"
        assert len(s.handlers.performed) == 1


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_suspect_that_is_stopped_before_it_begins_does_not_begin(has_ended: bool) -> None:
    store = SlowAnswers(DatabaseClock())
    store.may_be_taken.set()
    async with at_work(Work(), store) as (s, key):
        worker = s.engine._worker
        worker.tenures.forget(worker.tenures.get(key))
        # As if its worker had died with it.
        store.make_due(key, owner=None, epoch=s.at(key).epoch + 1, claims=1)
        s.engine._timers.due.set()
        await until(lambda: s.row(key).quarantined == 1)
        if not has_ended:
            store.may_begin.clear()
        stopped = asyncio.create_task(s.engine.stop(key, "Gone"))
        await until(stopped.done if has_ended else lambda: key in worker.tenures)
        store.may_begin_alone.set()
        await until(lambda: not worker.quarantine.suspects)
        store.may_begin.set()
        await stopped
        assert (await s.ended(key)).status == "ABORTED"
        assert len(s.handlers.performed) == 1


async def test_what_a_stop_took_and_never_heard_of_is_taken_up() -> None:
    work, store = Work(), SlowAnswers(DatabaseClock())
    store.may_read.set()
    store.may_arrive.set()
    async with at_work(work, store) as (s, key):
        epoch = s.at(key).epoch
        stopped = asyncio.create_task(s.engine.stop(key, "Gone"))
        await until(lambda: s.at(key).epoch > epoch)
        stopped.cancel()
        with suppress(asyncio.CancelledError):
            await stopped
        await s.engine._worker.reconcile()
        await until(lambda: len(s.handlers.performed) == 2)
        work.may_end.set()
        await until(lambda: s.at(key).due_at is not None)


async def test_what_an_outage_left_is_taken_up_while_something_else_is_being_taken() -> None:
    store = SlowAnswers(DatabaseClock())
    store.may_read.set()
    store.may_arrive.set()
    async with at_work(Work(), store) as (s, key):
        worker = s.engine._worker
        worker.tenures.forget(worker.tenures.get(key))
        with worker.tenures.taking(s.key(2)), worker.tenures.taking(key):
            with worker.tenures.taking(key):
                await worker.reconcile()
            await worker.reconcile()
            assert key not in worker.tenures
        with worker.tenures.taking(s.key(2)):
            await worker.reconcile()
        await until(lambda: len(s.handlers.performed) == 2)
        assert key in worker.tenures


async def test_a_row_that_was_taken_anew_since_it_was_read_is_not_taken_up() -> None:
    store = SlowAnswers(DatabaseClock())
    store.may_read.set()
    async with at_work(Work(), store) as (s, key):
        worker = s.engine._worker
        worker.tenures.forget(worker.tenures.get(key))  # as after an outage

        async def owned(owner: UUID) -> Sequence[tuple[Key, int]]:
            rows = await FaultyStore.owned(store, owner)
            store.put(key, epoch=s.at(key).epoch + 1)  # by a stop whose answer is under way
            return rows

        store.owned = owned  # type: ignore[method-assign]
        store.may_arrive.set()
        await worker.reconcile()
        await asyncio.sleep(0.01)
        assert (store.has_read.is_set(), len(s.handlers.performed)) == (True, 1)


async def test_a_signal_to_what_another_took_meanwhile_leaves_out_its_step_in_the_same_batch() -> (
    None
):
    # Found by the simulation (D1): the history of both steps was lost with the one left out.
    may_end = asyncio.Event()

    async def work(input: Json, task: Task) -> Json:
        if task.execution.bucket:
            await may_end.wait()
        return {}

    flow = definition("Work", Work=task("work", Next="Rest"), Rest=LONG_WAIT, After=AFTER)
    handlers = Handlers({"work": work, "after": nothing})
    async with small(handlers, machines={"flow": flow}) as s:
        model, key = await s.start("flow"), s.key(2)
        await until(lambda: s.at(model).due_at is not None)
        await s.engine.start("flow", str(key.id), {}, key=key)
        await until(lambda: len(handlers.performed) == 2)
        s.store.may_begin.clear()
        before = asyncio.create_task(s.engine.request(ping()))  # holds up what comes after it
        await until(lambda: s.engine._worker.lanes.committers[0]._under_way)
        may_end.set()
        await until(lambda: s.engine._worker.tenures.get(key).is_queued)
        signal = asyncio.create_task(s.engine.request(ping(), signal=lambda row: key))
        await asyncio.sleep(0)
        _go_on_elsewhere(s, key, model)
        s.store.may_begin.set()
        await asyncio.gather(before, signal)
        assert (await s.ended(key)).status == "SUCCEEDED"
        assert await s.types(key) == [
            "ExecutionStarted",
            *_of_a_task,
            "WaitStateEntered",
            "WaitStateExited",
            *_of_a_task,
            "ExecutionSucceeded",
        ]


_of_a_task = (
    "TaskStateEntered",
    "LambdaFunctionScheduled",
    "LambdaFunctionStarted",
    "LambdaFunctionSucceeded",
    "TaskStateExited",
)


@pytest.mark.parametrize("task_ends", ["before the signal is noticed", "after it"])
async def test_a_signal_that_another_process_stored_loses_nothing_of_the_task_under_way(
    task_ends: str,
) -> None:
    may_end = asyncio.Event()

    async def slow(input: Json, task: Task) -> Json:
        await may_end.wait()
        return {"slow": True}

    work = task("slow", Next="Rest")
    rest = {"Type": "Wait", "Seconds": 3600, "End": True}
    handlers = Handlers({"slow": slow})
    async with small(handlers, machines={"flow": definition("Work", Work=work, Rest=rest)}) as s:
        key = await s.start("flow")
        await until(lambda: handlers.performed)
        s.store.put(key, is_signalled=True)
        if task_ends == "after it":
            s.engine._worker.nudge(key)
            await until(lambda: not s.row(key).is_signalled)
        may_end.set()
        at = await s.ended(key)
        assert (at.output, s.row(key).is_signalled) == ('{"slow":true}', False)
        assert len(handlers.performed) == 1
        assert (await s.types(key))[-3:] == [
            "WaitStateEntered",
            "WaitStateExited",
            "ExecutionSucceeded",
        ]


def _remember(engine: Engine, key: Key, s: Small) -> None:
    """Leave in memory what another worker has taken over while this one was stopped."""
    worker = engine._worker
    machine = engine.definitions.cached(s.row(key).definition)
    assert machine is not None
    about = worker.about("flow", str(key.id), {}, s.row(key).started_at)
    worker.tenures.add(Tenure(key, 1, machine, str(key.id), Execution.new(about)))


def _go_on_elsewhere(s: Small, key: Key, model: Key) -> None:
    """Let an execution's row stand as if another worker had taken it as far as its model is."""
    at = s.at(model)
    s.store.put(key, epoch=at.epoch + 1, owner=None, due_at=at.due_at, document=at.document)
    for (owner, first_event_id), events in list(s.store.history.items()):
        if owner == model:
            s.store.history[key, first_event_id] = events


def _due_at_once(document: bytes) -> bytes:
    """Return the checkpoint of a lone Wait with its moment in the past."""
    head, _, tail = document.partition(b'"W":')
    return head + b'"W":0' + tail[len(tail.split(b"}")[0]) :]


async def _unavailable(sha256: bytes) -> str | None:
    raise Unavailable("the database does not answer")
