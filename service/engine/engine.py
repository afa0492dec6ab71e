"""The engine: starts, signals, stops and redrives executions; opens and closes the parts that run
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog

from service import metrics
from service.asl import Json, Stopped
from service.asl.values import PAYLOAD_BYTES_MAX, exceeds
from service.engine.arns import Arns
from service.engine.claimer import POLL_SECONDS, Claimer
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.express import Express
from service.engine.ids import new_id
from service.engine.map_ports import EngineStore, ItemFiles
from service.engine.map_runs import MapRuns
from service.engine.ports import (
    Contended,
    Effect,
    ExecutionDoesNotExist,
    ExecutionNotRedrivable,
    InvalidExecutionInput,
    Key,
    Overloaded,
    Pulses,
    Unavailable,
)
from service.engine.rescuer import Rescuer
from service.engine.turn import Request, Surroundings
from service.engine.worker import Worker

log = structlog.get_logger()

SWEEP_SECONDS: Final = 60.0
TIDY_SECONDS: Final = 600.0
REFRESH_SECONDS: Final = 5.0
ROWS_AT_ONCE: Final = 1_000
CANCEL_SECONDS: Final = 1.0
RELEASE_DELAYS_SECONDS: Final = (0.0, 0.1, 0.4)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can set of the engine."""

    lease_seconds: float = 30.0
    shutdown_seconds: float = 10.0
    retention_days: int = 30


class Engine:
    """One worker and what drives it."""

    def __init__(
        self,
        store: EngineStore,
        definitions: Definitions,
        surroundings: Surroundings,
        clock: DatabaseClock,
        settings: Settings,
        arns: Arns,
        timers: Pulses,
        *,
        hint: Callable[[UUID], None] = lambda owner: None,
        files: ItemFiles | None = None,
    ) -> None:
        self.id = new_id(clock.now(), 0)
        self.definitions = definitions
        self._store = store
        self._clock = clock
        self._surroundings = surroundings
        self._settings = settings
        self._worker = Worker(self.id, store, definitions, surroundings, arns)
        self._timers = timers
        self._worker.rested = self._timers.arm
        self._worker.hinted = hint
        self._express = Express(surroundings, self.request)
        self._map_runs = MapRuns(self._worker, store, self._express, arns, files)
        self._worker.map_runs = self._map_runs
        self._claimer = Claimer(self._worker, store, self._timers, clock)
        self._rescuer = Rescuer(self._worker, store, clock, settings.lease_seconds)
        self._beat = asyncio.Event()
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False

    # What callers ask for

    def new_id(self, bucket: int) -> UUID:
        """Return a fresh id in this bucket."""
        return new_id(self._clock.now(), bucket)

    async def start(
        self, machine: str, name: str, input: Json, *, key: Key, effects: Sequence[Effect] = ()
    ) -> datetime:
        """Start an execution; return when it began, once it is stored.

        Its effects are stored with it, or neither is.
        Raises StateMachineDoesNotExist, ExecutionAlreadyExists, InvalidExecutionInput, Overloaded,
        Unavailable, Rejected.
        """
        self._admit()
        if exceeds(input):
            raise InvalidExecutionInput(f"the input is larger than {PAYLOAD_BYTES_MAX} bytes")
        definition = await self.definitions.current(machine)
        about = self._worker.about(machine, name, input, self._clock.now())
        await self._worker.start(definition, about, key, effects)
        metrics.child(metrics.EXECUTIONS_STARTED, metrics.bounded("machine", machine)).inc()
        return about.started_at

    async def request(
        self,
        effect: Effect,
        *,
        signal: Callable[[Mapping[str, object] | None], Key | None] = lambda row: None,
    ) -> Mapping[str, object] | None:
        """Run one effect in the next batch and return its row.

        If `signal` names a key for that row, the execution is signalled in the same transaction.
        Raises Overloaded, Unavailable, Rejected.
        """
        self._admit()
        answer: asyncio.Future[Mapping[str, object] | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._worker.lanes.submit(Request(effect, signal, answer))
        return await answer

    async def stop(self, key: Key, error: str | None = None, cause: str | None = None) -> None:
        """Stop a running execution wherever it is: its present owner is fenced.

        Raises ExecutionDoesNotExist when nothing runs under this key, Overloaded, Unavailable (it
        may have been stopped all the same; asking again does no harm).
        """
        self._admit()
        with self._worker.tenures.taking(key):
            try:
                claims = await self._store.seize(self.id, [key])
            except Contended as locked:
                raise Unavailable("the execution's row stayed locked") from locked
            if not claims:
                raise ExecutionDoesNotExist(str(key.id))
            await self._worker.adopt(claims, Stopped(error, cause))
        if not await self._worker.ended(key):
            raise Unavailable("the stop could not be stored")

    async def redrive(self, key: Key, token: str | None = None) -> datetime:
        """Have an execution go on that did not succeed; return when it was redriven.

        It is stored then that it is, and whoever holds the execution goes on with it, should this
        process not come to it. A token that has redriven it lately gives the same answer once more.
        Raises ExecutionNotRedrivable, Overloaded, Unavailable (it may have been redriven all the
        same; asking again with the same token does no harm).
        """
        self._admit()
        if self._worker.tenures.slots <= 0:
            raise Overloaded(f"{self.in_flight} executions are in memory")
        try:
            claims = await self._store.redrive(self.id, [key], token)
        except Contended as locked:
            raise Unavailable("the execution's row stayed locked") from locked
        for claim in claims:
            assert claim.redriven_at is not None, key
            log.info("execution_redriven", execution=str(key.id), redrives=claim.redrive_count)
            await self._worker.adopt([claim])
            return claim.redriven_at
        redriven_at = None if token is None else await self._store.redriven_by(key, token)
        if redriven_at is None:
            raise ExecutionNotRedrivable(str(key.id))
        return redriven_at

    def nudge(self) -> None:
        """Look for signals that another replica stored for executions held here."""
        self._beat.set()

    def _admit(self) -> None:
        if self._is_closing:
            raise Unavailable("the service is shutting down")
        self._worker.lanes.admit()

    # Its life

    async def open(self) -> None:
        """Take up the lease and start the loops. Raises Unavailable."""
        await self._rescuer.open()
        await self.definitions.refresh()
        every = self._timers.every
        every("poll", POLL_SECONDS, self._timers.due)
        every("beat", self._rescuer.beat_seconds, self._beat)
        self._timers.open()
        self._run("committer", self._worker.lanes.run())
        self._run("quarantine", self._worker.quarantine.run())
        self._run("claimer", self._claimer.run())
        self._run("rescuer", self._rescuer.run(self._beat))
        self._run("map_runs", self._map_runs.run())
        self._run("sweep", self._repeat(every("sweep", SWEEP_SECONDS), self._sweep))
        self._run("tidy", self._repeat(every("tidy", TIDY_SECONDS), self._tidy))
        self._run(
            "refresh", self._repeat(every("refresh", REFRESH_SECONDS), self.definitions.refresh)
        )
        self._timers.due.set()

    @property
    def in_flight(self) -> int:
        """Return how many executions are in this process's memory."""
        return len(self._worker.tenures)

    def reasons(self) -> dict[str, str]:
        """Return why this engine is not ready, by part; nothing when it is."""
        reasons = {
            f"engine.{name}": "the loop has ended"
            for name, task in self._loops.items()
            if task.done()
        }
        if not self._loops:
            reasons["engine"] = "not open"
        elif not self._rescuer.is_alive or self._worker.lanes.is_down:
            reasons["database"] = "does not answer"
        if self._is_closing:
            reasons["engine"] = "shutting down"
        return reasons

    async def close(self, seconds: float | None = None) -> None:
        """Finish what is in flight within the time allowed, give up the rest and the lease.

        `seconds` is what is left of it when other parts have been closed before this one.
        """
        if seconds is None:
            seconds = self._settings.shutdown_seconds
        self._is_closing = True
        self._rescuer.finish()
        for name in ("claimer", "quarantine", "map_runs", "sweep", "tidy", "refresh"):
            await self._end(name)
        self._worker.leave_maps()  # a run may take hours, and starts more all the while
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._worker.finished()
        self._timers.close()
        await self._express.close(0.0)
        for name in ("rescuer", "committer"):
            await self._end(name)
        self._worker.close()
        if self._loops:  # else never opened: there is no lease, and perhaps no schema for one
            await self._give_up_lease()

    async def _give_up_lease(self) -> None:
        """Leave what is held to others at once; without this they take it when the lease ends."""
        for delay_seconds in RELEASE_DELAYS_SECONDS:
            await asyncio.sleep(delay_seconds)
            try:
                left = await self._store.release(self.id)
            except Exception as error:
                # A transaction cut off a moment ago may hold its locks for another one.
                log.warning("lease_kept", reason=str(error))
                if isinstance(error, Unavailable):
                    return
            else:
                log.info("lease_given_up", executions=left)
                return

    async def _sweep(self) -> None:
        if await self._store.sweep(ROWS_AT_ONCE):
            log.warning("invariant_mended", rule="a running row has a due time or an owner")
        await self._map_runs.sweep(ROWS_AT_ONCE)

    async def _tidy(self) -> None:
        for tidy in (self._store.tidy, self._store.map_runs.tidy):
            deleted = ROWS_AT_ONCE
            while deleted >= ROWS_AT_ONCE:
                deleted = await tidy(self._settings.retention_days, ROWS_AT_ONCE)

    async def _repeat(
        self, pulse: asyncio.Event, duty: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        while True:
            await pulse.wait()
            pulse.clear()
            try:
                await duty()
            except Unavailable as error:
                log.warning("duty_failed", duty=duty.__name__, reason=str(error))
            except Exception:
                log.exception("duty_failed", duty=duty.__name__)

    def _run(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(_report)
        self._loops[name] = task

    async def _end(self, name: str) -> None:
        task = self._loops.get(name)
        while task is not None and not task.done():
            # More than once: what a loop awaits may swallow a cancellation that meets its end.
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("loop_died", loop=task.get_name(), exc_info=task.exception())
