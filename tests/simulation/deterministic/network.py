"""The network between the processes: every message takes its time, and some meet a fault.

`call` is the one way in which a replica reaches anything outside itself, so it is also the one
place where faults at messages strike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from service.engine.ports import Contended
from tests.simulation.deterministic.faults import (
    DATABASE,
    DROP,
    KILL_AFTER,
    KILL_BEFORE,
    LATE,
    LOSE,
    REFUSE,
    SLOW,
    SLOW_ANSWER,
    STOP_AFTER,
    STOP_BEFORE,
    TWICE,
    Fault,
    Schedule,
)
from tests.simulation.deterministic.world import Process, World

Reply: TypeAlias = Callable[[Any, Exception | None], None]
Act: TypeAlias = Callable[[Reply], None]
Gone: TypeAlias = Callable[[str], Exception]
"""Make the error that a caller sees when its call has come to nothing, as far as it can tell."""


EVERYBODY: Final = -2

Struck: TypeAlias = tuple[Fault, str, float]
"""A fault, whom it hit, and when."""


class Connection(Protocol):
    """What keeps its messages in order."""

    arrives_at: float  # when the last message sent on it does


class Network:
    """Carries calls, and lets faults happen to them."""

    def __init__(self, world: World, schedule: Schedule) -> None:
        self.world = world
        self.schedule = schedule
        self.struck: list[Struck] = []
        self.on_fault: Callable[[Fault], None] = lambda fault: None
        self._cut: dict[int, float] = {}  # until when a replica reaches no database

    def cut(self, replica: int, seconds: float) -> None:
        """Let a replica, or EVERYBODY, reach no database for a while."""
        self._cut[replica] = max(self._cut.get(replica, 0.0), self.world.now + seconds)

    def is_cut(self, process: Process) -> bool:
        """Tell whether this process reaches no database now."""
        until = max(self._cut.get(EVERYBODY, 0.0), self._cut.get(process.replica, 0.0))
        return until > self.world.now

    async def call(
        self, place: str, act: Act, gone: Gone, connection: Connection | None = None
    ) -> Any:
        """Send a message and return its answer; `gone` makes the error of one that was lost."""
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        call = _Call(self, process, place, act, gone, connection)
        if place in DATABASE and self.is_cut(process):
            self.world.say(process.name, f"{place}: no way to the database")
            await asyncio.sleep(self.world.latency())
            raise gone("connection refused")
        fault = self.schedule.strike(place)
        if fault is None:
            call.send()
        else:
            self.note(fault, process)
            call.suffer(fault)
        return await call.answer

    def note(self, fault: Fault, process: Process) -> None:
        """Write down that a fault hit somebody."""
        self.struck.append((fault, process.name, self.world.now))
        self.world.say(process.name, f"meets: {fault}")
        self.on_fault(fault)


class _Call:
    """One message and its answer."""

    def __init__(
        self,
        network: Network,
        process: Process,
        place: str,
        act: Act,
        gone: Gone,
        connection: Connection | None,
    ) -> None:
        self.answer = process.create_future()
        self._network = network
        self._world = network.world
        self._process = process
        self._place = place
        self._act = act
        self._gone = gone
        self._connection = connection

    def send(self, extra_seconds: float = 0.0) -> None:
        """Let it arrive, and its answer come back."""
        self._send(self._world.latency() + extra_seconds, self._reply)

    def _send(self, seconds: float, reply: Reply) -> None:
        if self._connection is not None:
            self._connection.arrives_at = self._world.now + seconds
        self._world.after(seconds, lambda: self._act(reply))

    def suffer(self, fault: Fault) -> None:
        """Let a fault happen to it."""
        kind, seconds = fault.kind, fault.seconds
        if kind == KILL_BEFORE:
            self._process.kill()
        elif kind == KILL_AFTER:
            self._after(lambda value, error: self._process.kill())
        elif kind == STOP_BEFORE:
            self._process.pause(seconds)
            self.send(seconds)
        elif kind == STOP_AFTER:
            self._after(lambda value, error: self._stop_with(value, error, seconds))
        elif kind == DROP:
            self._fail(seconds)
        elif kind == LOSE:
            self._after(lambda value, error: self._fail(0.0))
        elif kind == LATE:
            self._fail(0.0)
            self._send(seconds, _nobody)
        elif kind == SLOW:
            self.send(seconds)
        elif kind == SLOW_ANSWER:
            self._after(lambda value, error: self._reply(value, error, seconds))
        elif kind == REFUSE:
            self._settle(None, Contended("canceling statement due to lock timeout"))
        else:
            assert kind == TWICE, fault
            self.send()
            self.send(self._world.latency())

    def _after(self, then: Reply) -> None:
        self._send(self._world.latency(), then)

    def _stop_with(self, value: Any, error: Exception | None, seconds: float) -> None:
        self._process.pause(seconds)
        self._reply(value, error)

    def _fail(self, seconds: float) -> None:
        self._world.after(
            self._world.latency() + seconds,
            lambda: self._settle(None, self._gone("connection lost")),
        )

    def _reply(self, value: Any, error: Exception | None, extra_seconds: float = 0.0) -> None:
        seconds = self._world.latency() + extra_seconds
        self._world.after(seconds, lambda: self._settle(value, error))

    def _settle(self, value: Any, error: Exception | None) -> None:
        outcome = "answered" if error is None else type(error).__name__
        self._world.say(self._process.name, f"{self._place}: {outcome}")
        self._process.call_soon(_resolve, self.answer, value, error)


def _resolve(answer: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _nobody(value: Any, error: Exception | None) -> None:
    """Hear an answer that nobody waits for any more."""
