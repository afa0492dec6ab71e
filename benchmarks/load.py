"""The load: signups as visitors make them, every second one verified right after its answer.

The closed loop finds the limit: each client signs up again as soon as it is answered. It says
little of latency, since a client that waits asks nothing meanwhile; the open loop, which asks at
fixed moments whatever the answers do, is where latency is looked at.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from benchmarks.counters import Counters
from benchmarks.ends import Ends
from benchmarks.options import Options

SAMPLE_SECONDS: Final = 0.5
"""How often the service's counters are read: each reading costs it some 2 ms."""

OPEN_LOOP_PER_SECOND: Final = 20
OPEN_LOOP_SECONDS: Final = 20.0
"""Four hundred workflows: a 99th percentile of a hundred would be the worst of them."""

WARM_UP_CLIENTS: Final = 20
WARM_UP_ROUNDS: Final = 25
DRAIN_SECONDS_MAX: Final = 60.0
"""Without a single end in so long, the executions still open are taken for lost."""


class Client(Protocol):
    """One visitor after the other. Every method raises when the answer is not the expected one."""

    async def signup(self, email: str) -> UUID:
        """Return the id of the signup."""
        ...

    async def verify(self, account_id: UUID) -> None:
        """Return once the service has answered `verified`."""
        ...


class Target(Protocol):
    """The service under load."""

    async def client(self) -> Client: ...

    async def ended(self) -> float:
        """Return how many executions have ended."""
        ...

    async def counters(self) -> Counters: ...


@dataclass(slots=True)
class Ledger:
    """What the service has acknowledged, kept outside of it."""

    acknowledged: list[UUID] = field(default_factory=list)
    verified: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Visit:
    """One signup, and its verification if it was its turn. Seconds by `time.perf_counter`."""

    account_id: UUID
    is_verified: bool
    asked_at: float
    answer_seconds: float


@dataclass(slots=True)
class Calm:
    """What the open loop found, in seconds: of answers, and of workflows beyond their wait."""

    answers: list[float] = field(default_factory=list)
    overheads: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Saturation:
    """What the closed loop found: seconds of answers; how many had begun, and ended, at moments
    that are seconds since it began.
    """

    answers: list[float] = field(default_factory=list)
    begun: list[tuple[float, float]] = field(default_factory=list)
    ended: list[tuple[float, float]] = field(default_factory=list)


class Load:
    """The visitors of one target, and the ledger of all they were told."""

    def __init__(self, target: Target, options: Options, *, verifies: bool = True) -> None:
        """Prepare visitors, every second one of whom verifies unless none does."""
        self.ledger = Ledger()
        self._verifies = verifies
        self._target = target
        self._options = options
        self._numbers = itertools.count(1)
        self._ended = 0.0

    async def warm_up(self) -> None:
        """Bring plans, caches and connections into use."""
        clients = await self._clients(WARM_UP_CLIENTS)
        for _ in range(WARM_UP_ROUNDS):
            await asyncio.gather(*(self._visit(client) for client in clients))

    async def visits(self, count: int) -> None:
        """Let so many visitors come, as many at once as there are clients."""
        left = iter(range(count))

        async def visit(client: Client) -> None:
            for _ in left:
                await self._visit(client)

        await asyncio.gather(*map(visit, await self._clients(self._options.clients)))

    async def open_loop(self, ends: Ends) -> Calm:
        """Sign up at fixed moments, and follow each workflow to its end."""
        found = Calm()
        clients = await self._clients(int(OPEN_LOOP_PER_SECOND * OPEN_LOOP_SECONDS))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                moment = began + number / OPEN_LOOP_PER_SECOND
                await asyncio.sleep(moment - time.perf_counter())
                group.create_task(self._follow(client, found, ends))
        return found

    async def closed_loop(self) -> Saturation:
        """Keep every client busy for the time given."""
        found = Saturation()
        clients = await self._clients(self._options.clients)
        begun_before, ended_before = len(self.ledger.acknowledged), await self.count()
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(self._keep_visiting(client, found, began))
            moment = 0.0
            while moment <= self._options.seconds:
                ended = await self.count() - ended_before
                moment = time.perf_counter() - began
                found.ended.append((moment, ended))
                found.begun.append((moment, len(self.ledger.acknowledged) - begun_before))
                await asyncio.sleep(SAMPLE_SECONDS)
        return found

    async def _clients(self, number: int) -> list[Client]:
        return [await self._target.client() for _ in range(number)]

    async def _keep_visiting(self, client: Client, found: Saturation, began: float) -> None:
        while time.perf_counter() - began < self._options.seconds:
            if len(self.ledger.acknowledged) - self._ended < self._options.in_flight_max:
                found.answers.append((await self._visit(client)).answer_seconds)
            else:
                await asyncio.sleep(SAMPLE_SECONDS)

    async def _follow(self, client: Client, found: Calm, ends: Ends) -> None:
        visit = await self._visit(client)
        found.answers.append(visit.answer_seconds)
        wait_seconds = 0.0 if visit.is_verified else self._options.wait_seconds
        async with asyncio.timeout(wait_seconds + DRAIN_SECONDS_MAX):
            ended_at = await ends.of(visit.account_id)
        found.overheads.append(ended_at - visit.asked_at - wait_seconds)

    async def _visit(self, client: Client) -> Visit:
        number = next(self._numbers)
        is_verified = self._verifies and number % 2 == 0
        asked_at = time.perf_counter()
        account_id = await client.signup(f"visitor{number}@example.org")
        answer_seconds = time.perf_counter() - asked_at
        self.ledger.acknowledged.append(account_id)
        if is_verified:
            await client.verify(account_id)
            self.ledger.verified.add(account_id)
        return Visit(account_id, is_verified, asked_at, answer_seconds)

    async def count(self) -> float:
        """Return how many executions have ended."""
        self._ended = await self._target.ended()
        return self._ended

    async def drain(self) -> None:
        """Return when everything acknowledged has ended, or nothing ends any more."""
        last, changed_at = -1.0, time.perf_counter()
        while await self.count() < len(self.ledger.acknowledged):
            if self._ended != last:
                last, changed_at = self._ended, time.perf_counter()
            if time.perf_counter() - changed_at > DRAIN_SECONDS_MAX:
                return
            await asyncio.sleep(SAMPLE_SECONDS)


def percentile(seconds: Sequence[float], share: float) -> float:
    """Return the value that this share of the sample does not exceed; the sample is not empty."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
