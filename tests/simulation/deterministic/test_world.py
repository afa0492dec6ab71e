"""The simulated world: time that jumps, processes that die and stop, and a database with locks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import pytest

from service.engine.ports import Contended, Effect, Key, Unavailable
from tests.simulation.deterministic.client import RemoteStore
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.faults import LATE, LOSE, REFUSE, Fault, Schedule
from tests.simulation.deterministic.network import Network
from tests.simulation.deterministic.tables import TALLY
from tests.simulation.deterministic.world import NoEnd, Process, World

KEY = Key(7, UUID(int=7))


class Bench:
    """A world with a database and processes that a test gives something to do."""

    def __init__(self, *faults: Fault) -> None:
        self.world = World(1)
        self.network = Network(self.world, Schedule(faults))
        self.server = ModelDatabase(self.world)

    def process(self, name: str = "one") -> tuple[Process, RemoteStore]:
        process = Process(self.world, name)
        return process, RemoteStore(process, self.network, self.server)

    def begin(self, process: Process, deed: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return process.create_task(deed)

    def run(self, seconds: float = 60.0) -> None:
        self.world.run(lambda: False, seconds)

    @property
    def tallied(self) -> dict[Any, int]:
        return dict(self.server.shard(KEY.bucket).tallies)


def tally(n: int) -> Effect:
    return Effect(TALLY, (*KEY, n))


async def tallies(store: RemoteStore, n: int, hold_seconds: float = 0.0) -> None:
    async with store.transaction() as tx:
        await tx.lock([(KEY, 1)])
        await tx.apply([tally(n)])
        await asyncio.sleep(hold_seconds)


def test_an_hour_passes_in_no_time_and_timers_fire_in_order() -> None:
    bench, fired = Bench(), []
    process, _ = bench.process()
    for seconds in (3600.0, 5.0, 60.0):
        process.call_later(seconds, fired.append, seconds)
    bench.run(4000.0)
    assert (fired, bench.world.now) == ([5.0, 60.0, 3600.0], 3600.0)


def test_a_killed_process_takes_no_step_more_not_even_to_clean_up() -> None:
    bench, done = Bench(), []
    process, _ = bench.process()

    async def work() -> None:
        try:
            await asyncio.sleep(2.0)
        finally:
            done.append("cleaned up")

    bench.begin(process, work())
    bench.world.after(1.0, process.kill)
    bench.run()
    assert done == []


def test_a_stopped_process_finds_later_what_came_meanwhile() -> None:
    bench, at = Bench(), []
    process, _ = bench.process()
    process.call_later(2.0, lambda: at.append(bench.world.now))
    bench.world.after(1.0, lambda: process.pause(9.0))
    bench.run()
    assert at == [10.0]


def test_a_process_that_lets_no_time_pass_is_found_out() -> None:
    bench = Bench()
    process, _ = bench.process()

    async def work() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    task = bench.begin(process, work())
    with pytest.raises(NoEnd, match="one does not let time pass"):
        bench.run()
    assert not task.done()


def test_the_transaction_of_a_killed_process_is_rolled_back() -> None:
    bench = Bench()
    process, store = bench.process()
    bench.begin(process, tallies(store, 1, hold_seconds=5.0))
    bench.world.after(1.0, process.kill)
    bench.run()
    assert (bench.tallied, bench.server.shard(KEY.bucket).holder) == ({}, None)


@pytest.mark.parametrize(
    ("kind", "is_there"), [(LOSE, True), (LATE, True), (REFUSE, False)], ids=str
)
def test_a_commit_may_take_place_though_its_client_was_told_otherwise(
    kind: str, is_there: bool
) -> None:
    bench = Bench(Fault(kind, "commit", 1, seconds=0.5))
    process, store = bench.process()
    task = bench.begin(process, tallies(store, 1))
    bench.run()
    assert isinstance(task.exception(), Contended if kind == REFUSE else Unavailable)
    assert bench.tallied == ({(KEY, 1): 1} if is_there else {})


def test_a_transaction_waits_for_a_lock_no_longer_than_its_patience() -> None:
    bench = Bench()
    one, first = bench.process()
    two, second = bench.process("two")
    holds = bench.begin(one, tallies(first, 1, hold_seconds=5.0))

    async def later() -> None:
        await asyncio.sleep(1.0)
        await tallies(second, 2)

    waits = bench.begin(two, later())
    bench.run()
    assert holds.exception() is None
    assert isinstance(waits.exception(), Contended)
    assert bench.tallied == {(KEY, 1): 1}


def test_a_transaction_of_a_process_that_stands_still_is_ended_after_a_while() -> None:
    bench = Bench()
    process, store = bench.process()
    task = bench.begin(process, tallies(store, 1, hold_seconds=2.0))
    bench.world.after(1.0, lambda: process.pause(11.0))
    bench.run()
    assert isinstance(task.exception(), Unavailable)
    assert bench.tallied == {}
