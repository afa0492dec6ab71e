"""No row takes its neighbours down: one culprit of each kind in a batch, and every other is
answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service import metrics
from service.engine.ports import (
    Answer,
    Effect,
    EffectHandler,
    ExecutionAlreadyExists,
    Key,
    Rejected,
    Unavailable,
)
from service.engine.queue import BATCH_UNITS_MAX
from tests.engine.harness import Bench, bench, definition, task
from tests.engine.harness import Handlers as MadeUp

WAITING = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})


def account(key: Key, **changed: object) -> Effect:
    """Return the effect that inserts an account, with some columns changed."""
    columns = {
        "bucket": key.bucket,
        "id": key.id,
        "address": f"{key.id}@example.org",
        "identity_key": f"{key.id}@example.org",
        "identity_version": 1,
        "name": None,
        "locale": None,
        "data": "{}",
    }
    assert changed.keys() <= columns.keys()
    return Effect("insert_account", tuple((columns | changed).values()))


def splits() -> float:
    return sum(
        sample.value
        for metric in metrics.BATCH_SPLITS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"name": "Ada\0"}, Rejected, id="NUL"),
        pytest.param({"name": "Ada \ud800"}, Rejected, id="lone surrogate"),
        pytest.param({"identity_key": os.urandom(8192).hex()}, Rejected, id="oversized"),
        pytest.param({"identity_version": 70_000}, Rejected, id="out of range"),
    ],
)
async def test_of_200_starts_with_one_bad_row_199_are_stored(
    fresh_database: str, changed: dict[str, object], reason: type[Exception]
) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", WAITING)
        before = splits()
        keys = [b.key(n) for n in range(BATCH_UNITS_MAX)]
        culprit = 77
        outcomes = await asyncio.gather(
            *(
                b.engine.start(
                    "rest",
                    str(key.id),
                    {},
                    key=key,
                    effects=[account(key, **(changed if n == culprit else {}))],
                )
                for n, key in enumerate(keys)
            ),
            return_exceptions=True,
        )
        assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [
            culprit
        ]
        assert isinstance(outcomes[culprit], reason)
        assert await _count(b, "select count(*) from executions") == BATCH_UNITS_MAX - 1
        assert await _count(b, "select count(*) from accounts") == BATCH_UNITS_MAX - 1
        assert splits() > before, "the culprit was to share a batch"


async def test_of_200_starts_with_a_taken_name_199_are_stored(fresh_database: str) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", WAITING)
        taken = await b.start("rest")
        keys = [b.key(n) for n in range(BATCH_UNITS_MAX)]
        outcomes = await asyncio.gather(
            *(
                b.engine.start(
                    "rest",
                    str(taken.id if n == 0 else key.id),
                    {},
                    key=key,
                    effects=[account(key)],
                )
                for n, key in enumerate(keys)
            ),
            return_exceptions=True,
        )
        assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [0]
        assert isinstance(outcomes[0], ExecutionAlreadyExists)
        assert await _count(b, "select count(*) from accounts") == BATCH_UNITS_MAX - 1


async def test_two_owners_of_one_address_in_a_batch_of_200_are_decided_and_198_go_their_way(
    fresh_database: str,
) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", WAITING)
        keys = [b.key(0) for _ in range(BATCH_UNITS_MAX)]
        for n, key in enumerate(keys):
            address = "twice@example.org" if n in (3, 150) else f"{n}@example.org"
            await b.engine.start(
                "rest", str(key.id), {}, key=key, effects=[account(key, identity_key=address)]
            )
        rows = await asyncio.gather(
            *(b.engine.request(Effect("verify_account", (*key, 1))) for key in keys)
        )
        statuses = [row["status"] for row in rows if row is not None]
        assert sorted((statuses[3], statuses[150])) == ["superseded", "verified"]
        assert statuses.count("verified") == BATCH_UNITS_MAX - 1


async def test_a_locked_row_holds_up_nobody_else_of_its_batch(fresh_database: str) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", WAITING)
        keys = []
        for n in range(BATCH_UNITS_MAX):
            key = b.key(n)
            await b.engine.start("rest", str(key.id), {}, key=key, effects=[account(key)])
            keys.append(key)
        locked = keys[120]
        async with _lock(fresh_database, locked):
            asked = [
                asyncio.ensure_future(b.engine.request(Effect("verify_account", (*key, 1))))
                for key in keys
            ]
            done, waiting = await asyncio.wait(asked, timeout=1.5)
            assert len(done) == BATCH_UNITS_MAX - 1
            assert waiting == {asked[120]}
        row = await asked[120]
        assert row is not None
        assert row["status"] == "verified"


async def test_a_row_that_stays_locked_answers_its_caller_unavailable(fresh_database: str) -> None:
    async with bench(fresh_database) as b:
        await b.publish("rest", WAITING)
        key = b.key()
        await b.engine.start("rest", str(key.id), {}, key=key, effects=[account(key)])
        async with _lock(fresh_database, key):
            with pytest.raises(Unavailable):
                await b.engine.request(Effect("verify_account", (*key, 1)))
        row = await b.engine.request(Effect("verify_account", (*key, 1)))
        assert row is not None
        assert row["status"] == "verified"


async def test_an_effect_of_a_task_that_the_database_refuses_fails_that_task_only(
    fresh_database: str,
) -> None:

    def insert(input: object, task: object) -> Effect:
        assert isinstance(input, dict)
        return account(Key(0, task.execution.id), name=input["name"])  # type: ignore[attr-defined]

    handlers = MadeUp(effects={"insert": EffectHandler(insert, lambda row: Answer("done"))})
    text = definition(
        "Insert",
        Insert=task(
            "insert",
            End=True,
            Catch=[{"ErrorEquals": ["Rejected"], "Next": "Caught"}],
        ),
        Caught={"Type": "Pass", "Result": "caught", "End": True},
    )
    async with bench(fresh_database, handlers) as b:
        await b.publish("insert", text)
        keys = await asyncio.gather(
            *(b.start("insert", {"name": "Ada\0" if n == 5 else "Ada"}) for n in range(50))
        )
        rows = [await b.ended(key) for key in keys]
        assert [row["output"] for n, row in enumerate(rows) if n != 5] == ['"done"'] * 49
        assert rows[5]["output"] == '"caught"'


async def _count(b: Bench, statement: str) -> int:
    connection = await asyncpg.connect(b.database.dsn)
    try:
        count: int = await connection.fetchval(statement)
        return count
    finally:
        await connection.close()


@asynccontextmanager
async def _lock(url: str, key: Key) -> AsyncIterator[None]:
    """Hold the lock of an account's row, as a slow statement of somebody else would."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "select from accounts where bucket = $1 and id = $2 for update", key.bucket, key.id
    )
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()
