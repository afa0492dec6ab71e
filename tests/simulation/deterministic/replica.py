"""A replica of the service: the real engine, its handlers and the visitors' side, on a process.

Everything of the service is the real thing but for what an operating system and a network give it:
the clock it reads, the random bits of its ids, the pulses that wake its loops, and what is at the
other end of its connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from service.accounts.signup import Signups
from service.accounts.tokens import Tokens
from service.asl import Json
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.engine import Engine, Settings
from service.engine.ports import Answer, CoroutineHandler, Effect, EffectHandler, Key, Task
from service.engine.turn import Surroundings
from service.mail import Envelope, Mailbox, MailUnavailable, Variables
from service.store.accounts import Contact
from service.store.memory import MemoryDefinitions
from service.tasks import ACCOUNT_TASKS, EmailTasks, MailSettings, Registry, close_ended
from tests.simulation.deterministic.client import RemoteStore
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.faults import LEASE_SECONDS
from tests.simulation.deterministic.flows import (
    FAILURES_OF_THE_STUBBORN,
    HESITANT,
    PATIENT,
    TIME_SCALE,
    VERIFICATION,
    machines,
)
from tests.simulation.deterministic.network import Network
from tests.simulation.deterministic.outside import Letter, Outside
from tests.simulation.deterministic.tables import TALLY
from tests.simulation.deterministic.world import Process

SECRET: Final = b"a key of the simulation, long enough"
TOKENS: Final = Tokens([SECRET])
LINK_SECONDS_MAX: Final = 7 * 86_400
ARNS: Final = Arns()
SHUTDOWN_SECONDS: Final = 1.0


class _Time:
    """What the module `time` is to a process here."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


class _DateTime:
    """What the class `datetime` is to a process here: its clock may be wrong."""

    fromtimestamp = datetime.fromtimestamp

    @staticmethod
    def now(zone: Any) -> datetime:
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        return datetime.fromtimestamp(process.wall(), zone)


class _Secrets:
    """What the module `secrets` is to a process here: bits that follow from the seed."""

    @staticmethod
    def randbits(n: int) -> int:
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        return process.world.random.getrandbits(n)


@contextmanager
def simulated_machine() -> Iterator[None]:
    """Have the engine read the clocks and the random bits of simulated machines."""
    with (
        patch("service.engine.clock.time", _Time),
        patch("service.engine.clock.datetime", _DateTime),
        patch("service.engine.ids.secrets", _Secrets),
    ):
        yield


class Chance:
    """The language's random numbers."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def bits(self, n: int) -> int:
        return self._random.getrandbits(n)

    def uniform(self) -> float:
        return self._random.random()


class Ticks:
    """The engine's `Pulses`, on the process's own timers."""

    def __init__(self, process: Process, clock: DatabaseClock) -> None:
        self.due = asyncio.Event()
        self._process = process
        self._clock = clock
        self._pulses: list[tuple[float, asyncio.Event]] = []
        self._armed: datetime | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        for seconds, pulse in self._pulses:
            self._repeat(seconds, pulse)

    def close(self) -> None:
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()

    def every(self, name: str, seconds: float, pulse: asyncio.Event | None = None) -> asyncio.Event:
        pulse = pulse or asyncio.Event()
        self._pulses.append((seconds, pulse))
        if self._is_open:
            self._repeat(seconds, pulse)
        return pulse

    def arm(self, due_at: datetime) -> None:
        if self._armed is not None and self._armed <= due_at:
            return
        self._armed = due_at
        if self._timer is not None:
            self._timer.cancel()
        seconds = max((due_at - self._clock.now()).total_seconds(), 0.005)
        self._timer = self._process.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._armed = None
        self.due.set()

    def _repeat(self, seconds: float, pulse: asyncio.Event) -> None:
        def tick() -> None:
            if self._is_open:
                pulse.set()
                self._process.call_later(seconds, tick)

        self._process.call_later(seconds, tick)


class _Templates:
    """Writes mails that a visitor can read at a glance."""

    def render(
        self, kind: str, locale: str | None, variables: Variables, envelope: Envelope
    ) -> bytes:
        token = (variables.link or "").rpartition("token=")[2]
        return Letter(kind, envelope.message_id, envelope.recipient, token).to_bytes()


@dataclass
class _Post:
    """The `Transport`: a mail server across the network, which is asked over and over again."""

    network: Network
    outside: Outside

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        await self.network.call(
            "mail",
            lambda reply: self.outside.take_mail(process, message, reply),
            MailUnavailable,
        )


@dataclass
class _Contacts:
    """The reads behind a mail and behind a signup."""

    store: RemoteStore

    async def contact(self, key: Key) -> Contact | None:
        answer = await self.store.ask("contact", key)
        if answer is None:
            return None
        row, owner = answer
        return Contact(
            row.address, row.identity_key, row.name, row.locale, row.status, row.links, owner
        )

    async def claim_notice(self, bucket: int, identity_key: str) -> bool:
        return False  # one a day at most, and none is as good


class FunctionUnavailable(Exception):
    """A function was called and nothing came of it, as far as its caller can tell."""


class Flaky(Exception):
    """The function fails at first."""


class Node:
    """One life of a replica, from its start to its death."""

    def __init__(
        self,
        process: Process,
        network: Network,
        server: ModelDatabase,
        outside: Outside,
        definitions: MemoryDefinitions,
        hint: Callable[[UUID], None],
    ) -> None:
        self.process = process
        self._network = network
        self._outside = outside
        clock = DatabaseClock()
        self.clock = clock
        self.store = RemoteStore(process, network, server)
        known = Definitions(definitions)
        for name, machine in machines().items():
            known.take(name, machine, None)
        surroundings = Surroundings(
            self._registry(clock), clock, Chance(process.world.random), TIME_SCALE, close_ended
        )
        self.engine = Engine(
            self.store,
            known,
            surroundings,
            clock,
            Settings(LEASE_SECONDS, SHUTDOWN_SECONDS),
            ARNS,
            Ticks(process, clock),
            hint=hint,
        )
        self.signups = {
            name: Signups(
                self.engine,
                None,  # type: ignore[arg-type]  # no visitor asks how things stand
                TOKENS,
                clock,
                workflow=name,
                link_seconds_max=LINK_SECONDS_MAX,
            )
            for name in (VERIFICATION, PATIENT, HESITANT)
        }

    def _registry(self, clock: DatabaseClock) -> Registry:
        mails = EmailTasks(
            _Contacts(self.store),
            TOKENS,
            _Templates(),  # type: ignore[arg-type]
            _Post(self._network, self._outside),
            clock,
            MailSettings(Mailbox(None, "service@example.com"), "https://example.com", 86_400),
        )
        functions: Mapping[str, Callable[[Json, Task], Awaitable[Answer]]] = {
            "work": self._work,
            "flaky": self._flaky,
        }
        return Registry(
            {
                **ACCOUNT_TASKS,
                **mails.handlers(),
                **{name: CoroutineHandler(run) for name, run in functions.items()},
                "tally": lambda input: EffectHandler(_tally, _tallied),
            },
            region="us-east-1",
            account="000000000000",
        )

    async def _work(self, input: Json, task: Task) -> Answer:
        await self._network.call(
            "function",
            lambda reply: self._outside.take_call(self.process, task, reply),
            FunctionUnavailable,
        )
        return Answer({"worked": True})

    async def _flaky(self, input: Json, task: Task) -> Answer:
        await self._work(input, task)
        if task.attempt < FAILURES_OF_THE_STUBBORN:
            raise Flaky(f"attempt {task.attempt}")
        return Answer({"attempt": task.attempt})


def _tally(input: Json, task: Task) -> Effect:
    return Effect(TALLY, (*task.execution, task.entered_event_id))


def _tallied(row: Mapping[str, object] | None) -> Answer:
    assert row is not None
    return Answer({"times": row["times"]})  # type: ignore[dict-item]
