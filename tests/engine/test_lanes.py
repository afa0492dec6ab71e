"""Two committers side by side: what hits one leaves the other alone, and neither loses nor doubles
anything of the other's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from service.asl import Json
from service.engine.clock import DatabaseClock
from service.engine.lanes import LANES
from service.engine.ports import (
    Checkpoint,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Task,
    Unavailable,
)
from service.store.memory import MemoryTransaction
from tests.engine.harness import Handlers, definition, task
from tests.engine.small import FaultyStore, Small, small, until

RESTING = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})
WORKING = definition("Work", Work=task("work", End=True))


class LaneStore(FaultyStore):
    """A store that knows which lane a transaction is of, and can fail or hold up that one alone."""

    def __init__(self) -> None:
        super().__init__(DatabaseClock())
        self.down: set[int] = set()  # lanes that find no database
        self.lost: defaultdict[int, deque[Exception]] = defaultdict(deque)  # raised once committed
        self.answers = [asyncio.Event() for _ in range(LANES)]  # what is committed is answered then
        for answer in self.answers:
            answer.set()
        self.met: list[set[int]] = []  # the buckets of each transaction

    @asynccontextmanager
    async def transaction(self, lock_patience_ms: int = 200) -> AsyncIterator[MemoryTransaction]:
        met: set[int] = set()
        self.met.append(met)
        async with super().transaction(lock_patience_ms) as tx:
            self._watch(tx, met)
            yield tx
        (lane,) = {bucket % LANES for bucket in met}
        await self.answers[lane].wait()
        if self.lost[lane]:
            raise self.lost[lane].popleft()

    def _watch(self, tx: MemoryTransaction, met: set[int]) -> None:
        insert, lock, apply, save = tx.insert, tx.lock, tx.apply, tx.save

        def meet(buckets: set[int]) -> None:
            met.update(buckets)
            if self.down & {bucket % LANES for bucket in buckets}:
                raise Unavailable("this lane's connection is cut")

        async def inserted(
            rows: Sequence[NewExecution], *, is_all: bool = False
        ) -> Mapping[Key, bool]:
            meet({row.first.key.bucket for row in rows})
            return await insert(rows, is_all=is_all)

        async def locked(fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
            meet({key.bucket for key, _ in fences})
            return await lock(fences)

        async def applied(effects: Sequence[Effect]) -> object:
            meet({effect.row[0] for effect in effects if isinstance(effect.row[0], int)})
            return await apply(effects)

        async def saved(rows: Sequence[Checkpoint], history: Sequence[HistoryRow]) -> object:
            meet({row.key.bucket for row in (*rows, *history)})
            return await save(rows, history)

        tx.insert, tx.lock = inserted, locked  # type: ignore[method-assign]
        tx.apply, tx.save = applied, saved  # type: ignore[method-assign, assignment]


class Work:
    """A task that ends when it may, and how often it was performed for each bucket."""

    def __init__(self) -> None:
        self.performed: Counter[int] = Counter()
        self.may_end = asyncio.Event()

    def handlers(self) -> Handlers:
        return Handlers({"work": self.run})

    async def run(self, input: Json, task: Task) -> Json:
        self.performed[task.execution.bucket] += 1
        await self.may_end.wait()
        return {}


async def start(s: Small, machine: str, bucket: int) -> Key:
    key = s.key(bucket)
    await s.engine.start(machine, str(key.id), {}, key=key)
    return key


async def test_an_outage_of_one_lane_does_not_hold_up_the_other_and_loses_nothing() -> None:
    store, work = LaneStore(), Work()
    async with small(work.handlers(), store=store, machines={"work": WORKING}) as s:
        cut, fine = [await start(s, "work", bucket) for bucket in (0, 1)]
        await until(lambda: work.performed.total() == 2)
        store.down = {0}
        work.may_end.set()
        await s.ended(fine)
        assert s.row(cut).is_running
        store.down = set()
        await s.ended(cut)
        assert work.performed == {0: 1, 1: 1}


async def test_a_start_in_doubt_in_one_lane_is_decided_while_one_of_the_other_is_under_way() -> (
    None
):
    store, work = LaneStore(), Work()
    async with small(work.handlers(), store=store, machines={"work": WORKING}) as s:
        store.answers[1].clear()
        store.lost[0].append(Unavailable("cut after the commit"))
        keys = [s.key(bucket) for bucket in (0, 1)]
        in_doubt, under_way = [
            asyncio.ensure_future(s.engine.start("work", str(key.id), {}, key=key)) for key in keys
        ]
        await in_doubt
        assert s.row(keys[1]).is_running, "its row was there to be met by the other lane"
        assert not under_way.done()
        store.answers[1].set()
        await under_way
        work.may_end.set()
        assert [(await s.ended(key)).status for key in keys] == ["SUCCEEDED", "SUCCEEDED"]
        assert work.performed == {0: 1, 1: 1}


async def test_a_step_that_one_lane_commits_while_the_other_reconciles_performs_nothing_again() -> (
    None
):
    store, work, quick = LaneStore(), Work(), asyncio.Event()

    async def first(input: Json, task: Task) -> Json:
        await quick.wait()
        return {}

    branches: Json = [
        {"StartAt": name, "States": {name: task(name, End=True)}} for name in ("first", "work")
    ]
    text = definition("Both", Both={"Type": "Parallel", "Branches": branches, "End": True})
    handlers = Handlers({"work": work.run, "first": first})
    async with small(handlers, store=store, machines={"both": text, "rest": RESTING}) as s:
        key = await start(s, "both", 1)
        await until(lambda: work.performed.total() == 1)
        store.answers[1].clear()
        epoch = s.at(key).epoch
        quick.set()
        await until(lambda: s.at(key).epoch > epoch)  # committed, and its worker not told yet
        store.lost[0].append(Unavailable("cut after the commit"))
        await start(s, "rest", 0)
        store.answers[1].set()
        work.may_end.set()
        assert (await s.ended(key)).status == "SUCCEEDED"
        assert work.performed == {1: 1}


async def test_a_close_waits_for_both_lanes() -> None:
    store, work = LaneStore(), Work()
    async with small(
        work.handlers(), store=store, shutdown_seconds=5.0, machines={"work": WORKING}
    ) as s:
        keys = [await start(s, "work", bucket) for bucket in (0, 1)]
        await until(lambda: work.performed.total() == 2)
        for answer in store.answers:
            answer.clear()
        work.may_end.set()
        closing = asyncio.ensure_future(s.engine.close())
        for lane, key in enumerate(keys):
            await s.ended(key)
            assert not closing.done()
            store.answers[lane].set()
        await closing
        assert work.performed == {0: 1, 1: 1}


async def test_a_lane_that_swallows_its_cancellation_does_not_keep_a_close_from_ending() -> None:
    class Deaf(FaultyStore):
        is_deaf = False

        @asynccontextmanager
        async def transaction(
            self, lock_patience_ms: int = 200
        ) -> AsyncIterator[MemoryTransaction]:
            try:
                await asyncio.sleep(3600 if self.is_deaf else 0)
            except asyncio.CancelledError:
                raise Unavailable("cut as it was cancelled") from None
            async with super().transaction(lock_patience_ms) as tx:
                yield tx

    store = Deaf(DatabaseClock())
    async with small(store=store, shutdown_seconds=0.01, machines={"rest": RESTING}) as s:
        store.is_deaf = True
        asked = asyncio.ensure_future(start(s, "rest", 0))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await s.engine.close()
        assert isinstance(asked.exception(), Unavailable)


async def test_a_transaction_meets_the_buckets_of_one_lane_and_signals_with_its_own() -> None:
    store = LaneStore()
    async with small(store=store, machines={"rest": RESTING}) as s:
        keys = [s.key(bucket) for bucket in range(16)]

        async def signalled(key: Key) -> None:
            look = Effect("get_account", (*key,))
            await s.engine.start("rest", str(key.id), {}, key=key)
            await s.engine.request(look, signal=lambda row: key)

        await asyncio.gather(*map(signalled, keys))
        assert [(await s.ended(key)).status for key in keys] == ["SUCCEEDED"] * len(keys)
        assert set().union(*store.met) == set(range(16))
        assert all(len({bucket % LANES for bucket in met}) == 1 for met in store.met)
