"""The world of a run: virtual time, and processes that each have an event loop of their own.

A process runs its callbacks in the order in which asyncio would, so everything that the engine may
rely on within a process holds here, too. What is drawn from the seed is what no process can rely
on: which one goes on first, and how long each message takes. Nothing waits for the wall clock and
there are no threads: when all processes are idle, the clock jumps to whatever comes next.

A process that is killed never takes another step: its tasks stay where they stand, none of their
`finally` blocks run, and its memory is gone for everybody else. One that is stopped (SIGSTOP) finds
everything that came meanwhile when it goes on.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heappop, heappush
from inspect import CORO_CREATED, getcoroutinestate
from random import Random
from types import CoroutineType
from typing import Any, Final
from zlib import crc32

BEGAN_AT: Final = 1_767_225_600.0
"""The database's clock when a run begins: 2026-01-01."""

STEPS_MAX: Final = 400_000
"""Of all processes together. More is a loop that no longer lets time pass."""

LATENCY_SECONDS_MAX: Final = 0.05


class NoEnd(Exception):
    """The processes are busy for ever in one moment."""


class World:
    """Time, chance, and everything that happens between processes."""

    def __init__(self, seed: int, *, is_verbose: bool = False) -> None:
        self.random = Random(f"world {seed}")
        self.now = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.lives: list[Process] = []  # the dead ones, too
        self.complaints: list[str] = []
        self.trace = 0
        self.lines: list[str] | None = [] if is_verbose else None
        self.before_step: Callable[[Process], None] | None = None
        self._order = 0
        self._coming: list[tuple[float, int, Process | None, Any]] = []

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have something happen outside the processes."""
        self._push(self.now + seconds, None, callback)

    def wake(self, at: float, process: Process, handle: asyncio.Handle) -> None:
        """Let a process run a callback at a moment."""
        self._push(at, process, handle)

    def say(self, who: str, what: str) -> None:
        """Note what happened: two runs of a seed say exactly the same."""
        line = f"{self.now:11.6f} {who} {what}"
        self.trace = crc32(line.encode(), self.trace)
        if self.lines is not None:
            self.lines.append(line)

    def latency(self) -> float:
        """Return how long a message takes: mostly under two milliseconds, at times much longer."""
        drawn = self.random.random()
        return drawn * 0.002 if drawn < 0.9 else (drawn - 0.9) * 10 * LATENCY_SECONDS_MAX

    def run(self, is_over: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until it is over, which is asked whenever nobody is busy.

        Return False when it is not over after so many seconds. Raises NoEnd.
        """
        ends_at = self.now + seconds
        before = events._get_running_loop()
        try:
            while True:
                self._run_ready()
                if is_over():
                    return True
                if not self._coming or self._coming[0][0] > ends_at:
                    return False
                self._go_on()
        finally:
            events._set_running_loop(before)

    def end(self) -> None:
        """Nothing happens any more: what is left of the processes may go without a word."""
        for process in self.lives:
            process.is_dead = True
            process.ready.clear()
            for task in process.tasks:
                if not task.done() and _has_not_begun(task.get_coro()):
                    task.get_coro().close()  # it was killed before its first step
        self._coming.clear()

    def _push(self, at: float, process: Process | None, what: object) -> None:
        self._order += 1
        heappush(self._coming, (at, self._order, process, what))

    def _go_on(self) -> None:
        at, _, process, what = heappop(self._coming)
        self.now = max(self.now, at)
        if process is None:
            events._set_running_loop(None)
            what()
        elif not process.is_dead and not what._cancelled:
            process.ready.append(what)

    def _run_ready(self) -> None:
        now = self.now
        while True:
            able = [
                process
                for process in self.processes
                if process.ready and process.paused_until <= now
            ]
            if not able:
                return
            process = able[0] if len(able) == 1 else self.random.choice(able)
            events._set_running_loop(process)
            self._run_process(process)

    def _run_process(self, process: Process) -> None:
        ready = process.ready
        while ready and process.is_able:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise NoEnd(f"{process.name} does not let time pass")
            if self.before_step is not None:
                self.before_step(process)
                if not process.is_able:
                    ready.appendleft(handle)
                    return
            handle._run()


class Process(asyncio.AbstractEventLoop):
    """An operating system's process, which is to say its event loop."""

    def __init__(
        self, world: World, name: str, replica: int = -1, *, wall_ahead: float = 0.0
    ) -> None:
        self.world = world
        self.name = name
        self.replica = replica
        self.is_dead = False
        self.paused_until = 0.0
        self.ready: deque[asyncio.Handle] = deque()
        self.on_death: list[Callable[[], None]] = []
        self.on_pause: list[Callable[[], None]] = []
        self.wall_ahead = wall_ahead
        self._booted_at = world.random.uniform(0.0, 1e6)
        # Nothing of a process is ever collected while the run lasts: that would run its `finally`
        # blocks, at a moment that no seed decides.
        self.tasks: list[asyncio.Task[Any]] = []
        world.processes.append(self)
        world.lives.append(self)

    @property
    def is_able(self) -> bool:
        """Whether it can take a step."""
        return not self.is_dead and self.paused_until <= self.world.now

    def kill(self) -> None:
        """End it between two steps, as SIGKILL does."""
        if self.is_dead:
            return
        self.is_dead = True
        self.ready.clear()
        self.world.processes.remove(self)
        self.world.say(self.name, "dies")
        for told in self.on_death:
            told()

    def pause(self, seconds: float) -> None:
        """Stop it for a while, as SIGSTOP does."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)
        self.world.say(self.name, f"stands still for {seconds:.2f} s")
        self.world.after(seconds, lambda: None)  # a moment at which to look at it again
        for told in self.on_pause:
            told()

    def set_clock(self, seconds: float) -> None:
        """Set the machine's clock ahead, or back."""
        self.wall_ahead += seconds
        self.world.say(self.name, f"has its clock set by {seconds:.0f} s")

    def wall(self) -> float:
        """Return what the machine's clock shows, which may be wrong."""
        return BEGAN_AT + self.world.now + self.wall_ahead

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._booted_at + self.world.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.wake(when - self._booted_at, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it where it is: the world passes over it."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coroutine: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        number = hash((self._booted_at, len(self.tasks)))
        task = _Task(number, coroutine, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.is_dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            error = context.get("exception")
            self.world.complaints.append(f"{self.name}: {context['message']}: {error!r}")


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it is in memory."""

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], **rest: Any) -> None:
        self._number = number
        super().__init__(coroutine, **rest)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def _has_not_begun(coroutine: object) -> bool:
    """Tell whether Python would complain that it was never awaited: of its own ones, it does."""
    return isinstance(coroutine, CoroutineType) and getcoroutinestate(coroutine) == CORO_CREATED
