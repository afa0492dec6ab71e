"""Those outside: they ask a replica, and another one when that does not answer.

What they were told is one of the three books that a run is judged by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from service.accounts.address import parse_address
from service.accounts.signup import SignupRequest
from service.accounts.tokens import UnknownToken
from service.asl import Status
from service.engine.ids import key_of, name_bucket
from service.engine.ports import (
    ExecutionAlreadyExists,
    ExecutionDoesNotExist,
    ExecutionNotRedrivable,
    Key,
    Overloaded,
    Unavailable,
)
from tests.simulation.deterministic.faults import DROP, LATE, LOSE, SLOW, TWICE
from tests.simulation.deterministic.network import Network
from tests.simulation.deterministic.outside import Letter
from tests.simulation.deterministic.replica import Node
from tests.simulation.deterministic.story import NEVER, Start, Story, Visitor
from tests.simulation.deterministic.world import Process

PATIENCE_SECONDS: Final = 3.0
PAUSE_SECONDS: Final = 0.4
TRIES_MAX: Final = 60

Deed: TypeAlias = Callable[[Node], Awaitable[Any]]


class Replicas(Protocol):
    """Where requests go."""

    def __len__(self) -> int: ...

    def node(self, at: int) -> Node | None:
        """Return the replica that answers there now; None when there is none."""
        ...


class NotAnswered(Exception):
    """The connection was refused or broke, or the answer said to come back later."""


@dataclass
class Told:
    """What was said to those outside."""

    accepted: dict[UUID, Visitor] = field(default_factory=dict)
    verdicts: dict[UUID, str] = field(default_factory=dict)
    started: dict[str, Start] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)  # said though it was not committed


class Visitors:
    """All of them, on a process that nothing happens to."""

    def __init__(
        self,
        process: Process,
        network: Network,
        replicas: Replicas,
        is_committed: Callable[[Key], bool],
        find: Callable[[str], tuple[Key, Status] | None],
    ) -> None:
        self.told = Told()
        self.process = process
        self._network = network
        self._replicas = replicas
        self._is_committed = is_committed
        self._find = find  # an execution by its name, and how it stands
        self._busy = 0
        self._reading: dict[str, list[Visitor]] = {}
        self._mails_seen: set[str] = set()

    @property
    def are_done(self) -> bool:
        """Whether nobody outside has anything left to do."""
        return self._busy == 0

    def begin(self, story: Story) -> None:
        """Let everybody come at their time."""
        for visitor in story.visitors:
            self._do(visitor.at, self._sign_up(visitor))
        for start in story.starts:
            self._do(start.at, self._start(start))

    def receive(self, letter: Letter) -> None:
        """Bring a mail to its reader."""
        if letter.token == "" or letter.message_id in self._mails_seen:
            return
        self._mails_seen.add(letter.message_id)
        waiting = self._reading.get(letter.recipient)
        if waiting:
            visitor = waiting.pop(0)
            for n in range(visitor.clicks):
                self._do(visitor.clicks_after + n * 0.003, self._open(letter.token))

    def _do(self, after: float, deed: Awaitable[None]) -> None:
        self._busy += 1
        self.process.create_task(self._later(after, deed))

    async def _later(self, after: float, deed: Awaitable[None]) -> None:
        await asyncio.sleep(after)
        await deed
        self._busy -= 1

    # What they want

    async def _sign_up(self, visitor: Visitor) -> None:
        address = parse_address(f"visitor{visitor.address}@example.com", allow_test_domains=True)
        request = SignupRequest(address, None, None, {})
        if visitor.clicks_after != NEVER:
            self._reading.setdefault(address.canonical, []).append(visitor)

        async def sign_up(node: Node) -> UUID:
            begun = await node.signups[visitor.machine].begin(request)
            self._check(key_of(begun.id), node)
            return begun.id

        id = await self._until_answered(str(visitor), sign_up)
        if id is not None:
            self.told.accepted[id] = visitor

    async def _open(self, token: str) -> None:
        async def verify(node: Node) -> tuple[UUID, str] | None:
            try:
                verification = await node.signups["verification"].verify(token)
            except UnknownToken:
                return None
            return verification.id, verification.status

        answer = await self._until_answered("a link is opened", verify)
        if answer is not None:
            id, status = answer
            before = self.told.verdicts.setdefault(id, status)
            if {before, status} == {"verified", "expired"}:
                self.told.false.append(f"{id} was {before}, then {status}")

    async def _start(self, start: Start) -> None:
        name = f"client-{start.number}"
        machine = start.machine
        input: Any = {"items": [1, 2, 3]}

        async def begin(node: Node) -> str:
            key = key_of(node.engine.new_id(name_bucket(machine, name)))
            try:
                await node.engine.start(machine, name, input, key=key)
            except ExecutionAlreadyExists:
                return name  # by an earlier try
            self._check(key, node)
            return name

        if await self._until_answered(str(start), begin) is not None:
            self.told.started[name] = start
            if start.stopped_after != NEVER:
                await asyncio.sleep(start.stopped_after)
                await self._stop_and_redrive(start, name)

    async def _stop_and_redrive(self, start: Start, name: str) -> None:
        """Stop an execution, and redrive it until it succeeds: a request that was held up on its
        way may stop it once more.
        """

        async def stop(node: Node) -> bool:
            with suppress(ExecutionDoesNotExist):  # it has ended
                await node.engine.stop(self._found(name)[0], "Stopped")
            return True

        await self._until_answered(f"{start}: the stop", stop)
        for n in range(TRIES_MAX):
            key, status = self._found(name)
            if status is Status.SUCCEEDED:
                return
            if status is not Status.RUNNING:
                await self._until_answered(f"{start}: redrive {n}", partial(_redrive, key, str(n)))
            await asyncio.sleep(PAUSE_SECONDS)
        self.told.unanswered.append(f"{start}: it does not succeed, however often it is redriven")

    def _found(self, name: str) -> tuple[Key, Status]:
        found = self._find(name)
        assert found is not None, f"{name} was acknowledged"
        return found

    def _check(self, key: Key, node: Node) -> None:
        if not self._is_committed(key):
            self.told.false.append(f"{node.process.name} acknowledged {key.id} before its commit")

    # How they ask

    async def _until_answered(self, what: str, deed: Deed) -> Any:
        """Ask one replica after another until one answers."""
        random = self._network.world.random
        at = random.randrange(len(self._replicas))
        for _ in range(TRIES_MAX):
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await self._ask(at, deed)
            except (NotAnswered, TimeoutError):
                at = (at + 1) % len(self._replicas)
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
        self.told.unanswered.append(what)
        return None

    async def _ask(self, at: int, deed: Deed) -> Any:
        world, answer = self._network.world, self.process.create_future()

        def arrive() -> None:
            node = self._replicas.node(at)
            if node is None:
                self._settle(answer, NotAnswered("connection refused"))
            else:
                node.process.on_death.append(
                    lambda: self._settle(answer, NotAnswered("connection reset"))
                )
                node.process.call_soon(self._handle, node, deed, answer, is_heard)

        fault = self._network.schedule.strike("http")
        is_heard = fault is None or fault.kind not in (LOSE, LATE)
        seconds = world.latency()
        if fault is not None:
            self._network.note(fault, self.process)
            if fault.kind == DROP:
                return await answer
            if fault.kind == TWICE:
                world.after(world.latency(), arrive)
            if fault.kind in (SLOW, LATE):
                seconds += fault.seconds
        world.after(seconds, arrive)
        return await answer

    def _handle(self, node: Node, deed: Deed, answer: asyncio.Future[Any], is_heard: bool) -> None:
        async def handle() -> None:
            try:
                result = await deed(node)
            except (Unavailable, Overloaded) as error:
                self._settle(answer, NotAnswered(str(error)))
            else:
                if is_heard:
                    self._settle(answer, None, result)

        node.process.create_task(handle())

    def _settle(
        self, answer: asyncio.Future[Any], error: Exception | None, result: Any = None
    ) -> None:
        def settle() -> None:
            if not answer.done():
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(error)

        world = self._network.world
        world.after(world.latency(), lambda: self.process.call_soon(settle))


async def _redrive(key: Key, token: str, node: Node) -> bool:
    with suppress(ExecutionNotRedrivable):  # another request has come first
        await node.engine.redrive(key, token)
    return True
