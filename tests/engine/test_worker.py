"""What the engine does with executions, and what becomes of them when something else fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest

from service.asl import HistoryEvent, Json
from service.engine.engine import Engine
from service.engine.history import unpack
from service.engine.ports import (
    Answer,
    Effect,
    EffectHandler,
    ExecutionDoesNotExist,
    InvalidExecutionInput,
    Key,
    Task,
    Unavailable,
)
from service.store import PostgresStore
from service.store.executions import PostgresTransaction
from tests.engine.harness import Bench, Handlers, bench, definition, task

LONG_WAIT = {"Type": "Wait", "Seconds": 3600, "Next": "After"}
AFTER = task("after", End=True)


async def nothing(input: Json, task: Task) -> Json:
    return {}


async def history_of(b: Bench, key: Key) -> list[HistoryEvent]:
    rows = await b.store.read_history(key)
    return [event for row in rows for event in unpack(row)]


async def types_of(b: Bench, key: Key) -> list[str]:
    events = await history_of(b, key)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


async def test_a_task_is_performed_after_its_checkpoint_and_its_output_is_the_executions(
    fresh_database: str,
) -> None:
    seen: list[object] = []

    async def look(input: Json, task: Task) -> Json:
        row = await b.row(task.execution)
        seen.append((row["status"], row["owner"] == b.engine.id, input))
        return {"was": input}

    async with bench(fresh_database, Handlers({"look": look})) as b:
        await b.publish("look", definition("Look", Look=task("look", End=True)))
        key = await b.start("look", {"n": 1})
        row = await b.ended(key)
        assert (row["status"], row["output"]) == ("SUCCEEDED", '{"was":{"n":1}}')
        assert seen == [("RUNNING", True, {"n": 1})]
        assert await types_of(b, key) == [
            "ExecutionStarted",
            "TaskStateEntered",
            "LambdaFunctionScheduled",
            "LambdaFunctionStarted",
            "LambdaFunctionSucceeded",
            "TaskStateExited",
            "ExecutionSucceeded",
        ]


async def test_an_input_beyond_the_payload_limit_is_refused_and_nothing_stored(
    fresh_database: str,
) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", definition("Rest", Rest={"Type": "Pass", "End": True}))
        key = b.key()
        with pytest.raises(InvalidExecutionInput):
            await b.engine.start("rest", "large", "x" * 262_144, key=key)
        assert await b.database.first("execution", *key) is None


async def test_a_wait_leaves_memory_and_wakes_when_due(fresh_database: str) -> None:
    text = definition("Rest", Rest={"Type": "Wait", "Seconds": 1800, "End": True})
    async with bench(fresh_database, time_scale=0.0002) as b:
        await b.publish("rest", text)
        key = await b.start("rest")
        assert (await b.row(key))["owner"] is None
        assert (await b.ended(key))["status"] == "SUCCEEDED"


async def test_a_signal_ends_the_wait_of_an_execution_at_rest(fresh_database: str) -> None:
    async with bench(fresh_database, Handlers({"after": nothing})) as b:
        await b.publish("flow", definition("Rest", Rest=LONG_WAIT, After=AFTER))
        key = await b.start("flow")
        await b.at_rest(key)
        await b.engine.request(_ping(), signal=lambda row: key)
        assert (await b.ended(key))["status"] == "SUCCEEDED"


async def test_a_signal_while_a_task_runs_ends_the_next_wait(fresh_database: str) -> None:
    is_running, may_end = asyncio.Event(), asyncio.Event()

    async def slow(input: Json, task: Task) -> Json:
        is_running.set()
        await may_end.wait()
        return {}

    text = definition("Slow", Slow=task("slow", Next="Rest"), Rest=LONG_WAIT, After=AFTER)
    async with bench(fresh_database, Handlers({"slow": slow, "after": nothing})) as b:
        await b.publish("flow", text)
        key = await b.start("flow")
        await is_running.wait()
        await b.engine.request(_ping(), signal=lambda row: key)
        may_end.set()
        assert (await b.ended(key))["status"] == "SUCCEEDED"


async def test_a_signal_that_an_effect_has_acknowledged_ends_no_later_wait(
    fresh_database: str,
) -> None:
    def ask(input: Json, task: Task) -> Effect:
        return Effect("get_account", (*task.execution,))

    handlers = Handlers(
        {"slow": nothing},
        {"seen": EffectHandler(ask, lambda row: Answer({}, acknowledges_signal=True))},
    )
    text = definition("Seen", Seen=task("seen", Next="Rest"), Rest=LONG_WAIT, After=AFTER)
    async with bench(fresh_database, handlers) as b:
        await b.publish("flow", text)
        key = await b.start("flow")
        await b.at_rest(key)
        events = await types_of(b, key)
        assert events[-1] == "WaitStateEntered"


async def test_a_stopped_execution_is_aborted_and_its_task_cancelled(fresh_database: str) -> None:
    is_running, was_cancelled = asyncio.Event(), asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()
        return {}

    async with bench(fresh_database, Handlers({"endless": endless})) as b:
        await b.publish("flow", definition("Endless", Endless=task("endless", End=True)))
        key = await b.start("flow")
        await is_running.wait()
        await b.engine.stop(key, "Enough", "by an operator")
        row = await b.ended(key)
        assert (row["status"], row["error"], row["cause"]) == (
            "ABORTED",
            "Enough",
            "by an operator",
        )
        async with asyncio.timeout(5):
            await was_cancelled.wait()
        with pytest.raises(ExecutionDoesNotExist):
            await b.engine.stop(key)


async def test_a_timeout_holds_while_the_handler_runs(fresh_database: str) -> None:
    async def endless(input: Json, task: Task) -> Json:
        await asyncio.Event().wait()
        return {}

    flow = task("endless", TimeoutSeconds=1, End=True)
    async with bench(fresh_database, Handlers({"endless": endless})) as b:
        await b.publish("flow", definition("Endless", Endless=flow))
        row = await b.ended(await b.start("flow"))
        assert (row["status"], row["error"]) == ("FAILED", "States.Timeout")


async def test_retries_share_an_idempotency_key_and_count_attempts(fresh_database: str) -> None:
    async def failing(input: Json, task: Task) -> Json:
        if task.attempt < 2:
            raise ConnectionError("not yet")
        return "at last"

    retry: Json = [{"ErrorEquals": ["ConnectionError"], "IntervalSeconds": 1, "MaxAttempts": 5}]
    handlers = Handlers({"failing": failing})
    async with bench(fresh_database, handlers, time_scale=0.01) as b:
        await b.publish("flow", definition("Try", Try=task("failing", Retry=retry, End=True)))
        row = await b.ended(await b.start("flow"))
        assert row["output"] == '"at last"'
        keys = {key for _, key, _ in handlers.performed}
        assert len(keys) == 1
        assert [attempt for _, _, attempt in handlers.performed] == [0, 1, 2]


async def test_an_ended_execution_runs_its_last_effect_in_the_same_transaction(
    fresh_database: str,
) -> None:
    ended: list[str] = []

    def last(name: str, key: Key) -> Effect:
        ended.append(name)
        return Effect("insert_account", (*key, "a", "a", 1, None, None, "{}"))

    text = definition("Fail", Fail={"Type": "Fail", "Error": "Broken"})
    async with bench(fresh_database, on_ended=last) as b:
        await b.publish("flow", text)
        key = await b.start("flow")
        assert (await b.row(key))["status"] == "FAILED"
        assert ended == [str(key.id)]
        assert await b.database.first("account", *key) is not None


async def test_what_a_dead_worker_held_is_rescued_and_performed_again_with_the_same_key(
    fresh_database: str,
) -> None:
    is_running = asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        await asyncio.Event().wait()
        return {}

    dying, healthy = Handlers({"work": endless}), Handlers({"work": nothing})
    text = definition("Work", Work=task("work", End=True))
    async with bench(fresh_database, healthy, lease_seconds=1.0) as b:
        await b.publish("flow", text)
        async with bench(fresh_database, dying, lease_seconds=1.0) as other:
            key = await other.start("flow")
            await is_running.wait()
            await _die(other.engine)
            row = await b.ended(key)
        assert row["status"] == "SUCCEEDED"
        assert [(f, k) for f, k, _ in dying.performed] == [(f, k) for f, k, _ in healthy.performed]


async def test_a_worker_taken_for_dead_writes_nothing_more(fresh_database: str) -> None:
    is_running, may_end = asyncio.Event(), asyncio.Event()

    async def late(input: Json, task: Task) -> Json:
        is_running.set()
        await may_end.wait()
        return "late"

    async def prompt(input: Json, task: Task) -> Json:
        return "prompt"

    slow, quick = Handlers({"work": late}), Handlers({"work": prompt})
    async with (
        bench(fresh_database, quick, lease_seconds=1.0) as b,
        bench(fresh_database, slow, lease_seconds=1.0) as paused,
    ):
        await b.publish("flow", definition("Work", Work=task("work", End=True)))
        key = await paused.start("flow")
        await is_running.wait()
        await _stop_heart(paused.engine)
        row = await b.ended(key)
        may_end.set()
        await paused.engine._worker.finished()
        assert row["output"] == '"prompt"'
        assert (await b.row(key))["output"] == '"prompt"'
        assert (await types_of(b, key)).count("ExecutionSucceeded") == 1


async def test_an_execution_that_kills_its_workers_ends_in_quarantine(fresh_database: str) -> None:
    async def deadly(input: Json, task: Task) -> Json:
        await asyncio.Event().wait()
        return {}

    handlers = Handlers({"deadly": deadly})
    async with bench(fresh_database, handlers) as b:
        await b.publish("flow", definition("Deadly", Deadly=task("deadly", End=True)))
        key = await b.start("flow")
    # What claims and deaths leave behind, without the deaths.
    connection = await asyncpg.connect(fresh_database)
    await connection.execute("update executions set claims = 4, quarantined = 3, due_at = now()")
    await connection.close()
    async with bench(fresh_database, handlers) as b:
        row = await b.ended(key)
        assert (row["status"], row["error"]) == ("FAILED", "Engine.WorkerLost")


async def test_a_suspect_that_is_innocent_goes_on_and_is_counted_no_more(
    fresh_database: str,
) -> None:
    text = definition("Work", Work=task("work", Next="Rest"), Rest=LONG_WAIT, After=AFTER)
    handlers = Handlers({"work": nothing, "after": nothing})
    async with bench(fresh_database, handlers) as b:
        await b.publish("flow", text)
        key = await b.start("flow")
        await b.at_rest(key)
        connection = await asyncpg.connect(fresh_database)
        await connection.execute(
            "update executions set claims = 4, quarantined = 2, due_at = now(), signalled = true"
        )
        row = await b.ended(key)
        assert row["status"] == "SUCCEEDED"
        assert await connection.fetchrow("select claims, quarantined from executions") == (0, 0)
        await connection.close()


async def test_a_clean_stop_leaves_work_to_others_at_once(fresh_database: str) -> None:
    is_running = asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        await asyncio.Event().wait()
        return {}

    async with bench(fresh_database, Handlers({"work": nothing})) as b:
        await b.publish("flow", definition("Work", Work=task("work", End=True)))
        async with bench(fresh_database, Handlers({"work": endless})) as other:
            key = await other.start("flow")
            await is_running.wait()
        assert (await b.ended(key))["status"] == "SUCCEEDED"


class Broken(PostgresStore):
    """A store whose connection breaks at a commit, before or after it took place."""

    breaks_before = 0
    breaks_after = 0

    @asynccontextmanager
    async def transaction(self, lock_patience_ms: int = 200) -> AsyncIterator[PostgresTransaction]:
        async with super().transaction(lock_patience_ms) as tx:
            yield tx
            if self.breaks_before:
                self.breaks_before -= 1
                raise Unavailable("cut before the commit")
        if self.breaks_after:
            self.breaks_after -= 1
            raise Unavailable("cut after the commit")


@pytest.mark.parametrize("member", ["breaks_before", "breaks_after"])
async def test_a_commit_in_doubt_is_decided_by_reading(fresh_database: str, member: str) -> None:
    counted: list[object] = []

    def count(input: Json, task: Task) -> Effect:
        counted.append(None)
        return Effect("get_account", (*task.execution,))

    handlers = Handlers({"work": nothing}, {"count": EffectHandler(count, lambda row: Answer({}))})
    text = definition(
        "Work",
        Work=task("work", Next="Count"),
        Count=task("count", Next="Rest"),
        Rest={"Type": "Wait", "Seconds": 1, "Next": "Again"},
        Again=task("work", End=True),
    )
    async with bench(fresh_database, handlers, time_scale=0.1) as b:
        await b.publish("flow", text)
        store = Broken(b.database)
        for committer in b.engine._worker.lanes.committers:
            committer._store = store
        keys = []
        for _ in range(10):
            setattr(store, member, 1)
            keys.append(await b.start("flow"))
        for _ in range(20):
            setattr(store, member, getattr(store, member) + 1)
            await asyncio.sleep(0.02)
        rows = [await b.ended(key) for key in keys]
        assert {row["status"] for row in rows} == {"SUCCEEDED"}
        for key in keys:
            types = await types_of(b, key)
            assert types.count("LambdaFunctionSucceeded") == 3


async def test_the_effect_of_a_start_in_doubt_is_asked_for_once(fresh_database: str) -> None:
    rows: list[object] = []

    def note(row: object) -> Answer:
        rows.append(row)
        return Answer({})

    def insert(input: Json, task: Task) -> Effect:
        return Effect("insert_account", (*task.execution, "a", "a", 1, None, None, "{}"))

    handlers = Handlers(effects={"insert": EffectHandler(insert, note)})
    text = definition("Insert", Insert=task("insert", Next="Rest"), Rest=LONG_WAIT, After=AFTER)
    async with bench(fresh_database, handlers) as b:
        await b.publish("flow", text)
        store = Broken(b.database)
        for committer in b.engine._worker.lanes.committers:
            committer._store = store
        store.breaks_after = 1
        key = await b.start("flow")
        assert len(rows) == 1
        assert (await b.row(key))["owner"] is None
        assert (await types_of(b, key))[-1] == "WaitStateEntered"


async def _die(engine: Engine) -> None:
    """Do what kill -9 does: nothing is given up, nothing is finished."""
    for name in list(engine._loops):
        await engine._end(name)
    engine._timers.close()
    engine._worker.close()

    async def nothing_to_release(owner: object) -> int:
        return 0

    engine._store.release = nothing_to_release  # type: ignore[method-assign]


async def _stop_heart(engine: Engine) -> None:
    await engine._end("rescuer")


def _ping() -> Effect:
    return Effect("get_account", (0, UUID(int=0)))


async def test_a_clean_stop_in_quarantine_is_no_death(fresh_database: str) -> None:
    is_running = asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        await asyncio.Event().wait()
        return {}

    handlers = Handlers({"work": endless})
    async with bench(fresh_database, handlers) as b:
        await b.publish("flow", definition("Work", Work=task("work", End=True)))
        await b.start("flow")
        await is_running.wait()
    connection = await asyncpg.connect(fresh_database)
    await connection.execute("update executions set claims = 3, quarantined = 2, due_at = now()")
    is_running.clear()
    async with bench(fresh_database, handlers):
        await is_running.wait()
        assert await connection.fetchval("select quarantined from executions") == 3
    assert await connection.fetchval("select quarantined from executions") == 2
    await connection.close()


async def test_what_cannot_be_read_ends_as_failed_and_leaves_nothing_undecided(
    fresh_database: str,
) -> None:
    def last(name: str, key: Key) -> Effect:
        return Effect("insert_account", (*key, "a", "a", 1, None, None, "{}"))

    async with bench(fresh_database, on_ended=last) as b:
        await b.publish("rest", definition("Rest", Rest=LONG_WAIT, After={"Type": "Succeed"}))
        key = await b.start("rest")
        connection = await asyncpg.connect(fresh_database)
        await connection.execute(
            "update executions set checkpoint = 'nonsense', claims = 5, quarantined = 3,"
            " due_at = now()"
        )
        await b.at_rest(key)
        await connection.execute("update executions set due_at = now() where owner is null")
        row = await b.ended(key)
        assert (row["status"], row["error"]) == ("FAILED", "Engine.Unreadable")
        async with asyncio.timeout(5):
            while await b.database.first("account", *key) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await connection.close()


async def test_an_engine_closes_within_what_is_left_of_the_time_allowed(
    fresh_database: str,
) -> None:
    is_running = asyncio.Event()

    async def endless(input: Json, task: Task) -> Json:
        is_running.set()
        await asyncio.Event().wait()
        return {}

    async with bench(fresh_database, Handlers({"work": endless})) as b:
        await b.publish("flow", definition("Work", Work=task("work", End=True)))
        key = await b.start("flow")
        await is_running.wait()
        waited: list[float | None] = []
        timeout = asyncio.timeout

        def noted(delay: float | None) -> asyncio.Timeout:
            waited.append(delay)
            return timeout(delay)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.engine.engine.asyncio.timeout", noted)
            await b.engine.close(0.0)
        assert 0.0 in waited
        assert 2.0 not in waited, "the whole time, though none of it was left"
        row = await b.row(key)
        assert (row["status"], row["owner"]) == ("RUNNING", None)
