"""Plays a story: three replicas, a database, a mail server and visitors, until all is at rest."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from service.asl import Status
from service.engine.ports import Key
from service.store.memory import MemoryDefinitions
from tests.simulation.deterministic.books import Books
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.faults import (
    CLOCK,
    DROP,
    FAULTS_END_AT,
    KILL,
    KILL_BEFORE,
    OUTAGE,
    PARTITION,
    STEP,
    STOP,
    STOP_BEFORE,
    TERMINATE,
    TWICE,
    Fault,
    Schedule,
)
from tests.simulation.deterministic.flows import machines
from tests.simulation.deterministic.judge import Judge, Verdict, waits_for_nobody
from tests.simulation.deterministic.network import EVERYBODY, Network
from tests.simulation.deterministic.outside import Outside
from tests.simulation.deterministic.replica import Node, simulated_machine
from tests.simulation.deterministic.story import Story
from tests.simulation.deterministic.tables import at_once
from tests.simulation.deterministic.visitors import Visitors
from tests.simulation.deterministic.world import NoEnd, Process, World

REPLICAS: Final = 3
RESTART_SECONDS: Final = (0.05, 2.5)
REST_SECONDS_MAX: Final = 90.0
"""After the last fault, within which everything has to come to its end."""

LOOK_SECONDS: Final = 0.05
"""How often it is looked whether everything has come to its end: that is a look at every row."""

REST_SECONDS: Final = 0.2
"""In which nothing may happen any more, once everything has come to its end."""


@dataclass(frozen=True)
class Play:
    """What came of a story."""

    story: Story
    verdict: Verdict
    trace: int
    seconds: float  # of the world's own
    steps: int
    struck: Counter[tuple[str, str]]
    seen: Counter[str]
    lines: list[str] = field(default_factory=list)


def play(story: Story, *, is_verbose: bool = False) -> Play:
    """Play a story and judge it."""
    around = asyncio._get_running_loop()
    try:
        with quiet(), simulated_machine():
            return _Stage(story, is_verbose).play()
    finally:
        asyncio._set_running_loop(around)


@contextmanager
def quiet() -> Iterator[None]:
    """Have the engine write no log for a while: it is not judged by what it says of itself."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=_Silent)
    try:
        yield
    finally:
        structlog.configure(**before)


_Silent: Final = structlog.make_filtering_bound_logger(logging.CRITICAL)


class _Stage:
    def __init__(self, story: Story, is_verbose: bool) -> None:
        self.story = story
        self.world = World(story.seed, is_verbose=is_verbose)
        self.schedule = Schedule(story.faults)
        self.network = Network(self.world, self.schedule)
        self.server = ModelDatabase(self.world)
        self.outside = Outside(self.world)
        self.definitions = _published()
        self.nodes: list[Node | None] = [None] * REPLICAS
        self.of_owner: dict[UUID, Node] = {}
        self.lives = Counter[int]()
        self._looks_at = 0.0
        self.books = Books(self.world, self.server, self.outside, self.network)
        process = Process(self.world, "outside")
        self.visitors = Visitors(process, self.network, self, self._is_committed, self._find)
        self.outside.on_letter = self.visitors.receive
        self.books.life_of = self.of_owner.get

    def __len__(self) -> int:
        return REPLICAS

    def node(self, at: int) -> Node | None:
        """Return the replica that answers there now."""
        return self.nodes[at]

    def play(self) -> Play:
        """Play to the end."""
        world = self.world
        for replica in range(REPLICAS):
            self._boot(replica)
        for fault in self.schedule.at_moments:
            world.after(fault.at, partial(self._strike, fault))
        if self.schedule.awaits_steps:
            world.before_step = self._before_step
        world.after(FAULTS_END_AT, self._end_faults)
        asyncio._set_running_loop(self.visitors.process)
        self.visitors.begin(self.story)
        busy_loop: str | None = None
        try:
            is_over = self._comes_to_rest()
        except NoEnd as error:
            is_over, busy_loop = False, str(error)
        finally:
            asyncio._set_running_loop(None)
        verdict = Judge(self.books, self.visitors.told, self.story).judge(is_over, busy_loop)
        world.end()
        return Play(
            self.story, verdict, world.trace, world.now, world.steps, self.schedule.struck,
            self.books.seen, world.lines or [],
        )  # fmt: skip

    def _comes_to_rest(self) -> bool:
        """Let time pass until nothing is left to do, and for a while nothing new comes up."""
        while self.world.run(self._is_over, FAULTS_END_AT + REST_SECONDS_MAX - self.world.now):
            self.world.run(lambda: False, REST_SECONDS)
            self._looks_at = 0.0
            if self._is_over():
                return True
        return False

    # Lives of replicas

    def _boot(self, replica: int) -> None:
        self.lives[replica] += 1
        process = Process(
            self.world,
            f"replica {replica}{'abcdefghijklmnopqrstuvwxyz'[self.lives[replica] % 26 - 1]}",
            replica,
            wall_ahead=self.world.random.choice((0.0, 0.0, -1800.0, 1800.0)),
        )
        asyncio._set_running_loop(process)
        node = Node(process, self.network, self.server, self.outside, self.definitions, self._hint)
        asyncio._set_running_loop(None)
        self.of_owner[node.engine.id] = node
        process.on_death.append(partial(self._buried, replica))
        process.call_soon(lambda: process.create_task(self._live(replica, node)))

    async def _live(self, replica: int, node: Node) -> None:
        try:
            await node.engine.open()
        except Exception as error:
            self.world.say(node.process.name, f"does not start: {error}")
            node.process.kill()
        else:
            self.nodes[replica] = node

    def _buried(self, replica: int) -> None:
        self.nodes[replica] = None
        seconds = self.world.random.uniform(*RESTART_SECONDS)
        self.world.after(seconds, lambda: self._boot(replica))

    async def _leave(self, node: Node) -> None:
        self.nodes[node.process.replica] = None
        await node.engine.close()
        node.process.kill()

    def _hint(self, owner: UUID) -> None:
        """Carry a hint: it may get lost, or arrive twice."""
        world = self.world
        node = self.of_owner.get(owner)
        fault = self.schedule.strike("hint")
        if node is None or node.process.is_dead:
            return
        self.books.seen["hint"] += 1
        times, seconds = 1, world.latency()
        if fault is not None:
            self.network.note(fault, node.process)
            times = {TWICE: 2, DROP: 0}.get(fault.kind, 1)
            seconds += fault.seconds
        for _ in range(times):
            world.after(seconds, lambda: node.process.call_soon(node.engine.nudge))

    # What goes wrong by itself

    def _before_step(self, process: Process) -> None:
        if process.replica < 0:
            return
        fault = self.schedule.strike(STEP)
        if fault is not None:
            self.network.note(fault, process)
            if fault.kind == KILL_BEFORE:
                process.kill()
            else:
                assert fault.kind == STOP_BEFORE, fault
                process.pause(fault.seconds)

    def _strike(self, fault: Fault) -> None:
        if self.schedule.is_over:
            return
        if fault.kind == OUTAGE:
            self._note(fault, self.visitors.process)
            self.network.cut(EVERYBODY, fault.seconds)
            return
        node = self.nodes[fault.replica]
        if node is None:
            return
        self._note(fault, node.process)
        deeds: dict[str, Callable[[], object]] = {
            KILL: node.process.kill,
            STOP: lambda: node.process.pause(fault.seconds),
            TERMINATE: lambda: node.process.call_soon(
                lambda: node.process.create_task(self._leave(node))
            ),
            PARTITION: lambda: self.network.cut(fault.replica, fault.seconds),
            CLOCK: lambda: node.process.set_clock(fault.seconds),
        }
        deeds[fault.kind]()

    def _note(self, fault: Fault, process: Process) -> None:
        self.schedule.struck["", fault.kind] += 1
        self.network.note(fault, process)

    def _end_faults(self) -> None:
        self.schedule.is_over = True
        self.world.before_step = None
        self.world.say("world", "nothing more goes wrong")

    # When it is over

    def _find(self, name: str) -> tuple[Key, Status] | None:
        rows = self.books.server.rows()
        return next(((key, row.at.status) for key, row in rows if row.name == name), None)

    def _is_committed(self, key: Key) -> bool:
        return key in self.server.shard(key.bucket).committed

    def _is_over(self) -> bool:
        if not self.visitors.are_done or self.world.now < self._looks_at:
            return False
        self._looks_at = self.world.now + LOOK_SECONDS
        if any(not waits_for_nobody(self.server, key, row) for key, row in self.server.rows()):
            return False
        shards = (*self.server.shards.values(), *self.server.accounts.values())
        if any(shard.holder is not None for shard in shards):
            return False
        return all(
            process.is_able and (process.replica < 0 or self._is_idle(process.replica))
            for process in self.world.processes
        )

    def _is_idle(self, replica: int) -> bool:
        node = self.nodes[replica]
        return node is None or node.engine.in_flight == 0


def _published() -> MemoryDefinitions:
    definitions = MemoryDefinitions()
    for name, machine in machines().items():
        at_once(
            definitions.publish_file(
                name, f"{name}.json", machine.text, machine.sha256, edited=True
            )
        )
    return definitions
