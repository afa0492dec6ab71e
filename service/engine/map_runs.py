"""The runs of Distributed Maps in this process: performed, heard of, and stopped with their owners.

A run that its execution no longer waits for (it was stopped or timed out, a branch was given up)
ends as ABORTED, and its children with it. That is done after the commit that says so. What a crash
or an outage prevents then is made up for: when an execution is taken up from its row, and by the
sweep for executions that are over and runs whose children were not all stopped.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from service.asl import Execution, MapRunFailed, RunMap, Status, Stopped
from service.asl.errors import RUNTIME
from service.engine.arns import Arns
from service.engine.express import Express
from service.engine.ids import CHILDREN_MAX, child_key, map_run_key, run_of
from service.engine.map_ports import EngineStore, ItemFiles, Wanted
from service.engine.map_run import Forsaken, MapRun, Parts
from service.engine.ports import Contended, Key, Overloaded, Unavailable
from service.engine.turn import Tenure
from service.engine.worker import BROKEN_DELAY_SECONDS, Worker

log = structlog.get_logger()

STOPPED_AT_ONCE: Final = 500
RUNS_TO_STOP_MAX: Final = 10_000
"""Runs that wait to be stopped; the sweep finds those beyond."""

FORSAKEN_CAUSE: Final = "The map run was stopped."
RETRY_SECONDS: Final = 1.0
# After which children that could not be taken up are stopped once more: long enough for one that
# cannot be read to be claimed in between, and so in the end to be buried.
UNREADABLE_DELAY_SECONDS: Final = 2 * BROKEN_DELAY_SECONDS
# A run that another process drives may start one more slice before it learns that it was stopped.
SETTLE_SECONDS: Final = 2.5


class MapRuns:
    """The `MapPerformer` of a worker."""

    def __init__(
        self,
        worker: Worker,
        store: EngineStore,
        express: Express,
        arns: Arns,
        files: ItemFiles | None,
    ) -> None:
        self._worker = worker
        self._store = store
        self._maps = store.map_runs
        self._parts = Parts(worker, store, express, arns, files, self._stop_children)
        self._under_way: dict[Key, MapRun] = {}
        self._to_stop: asyncio.Queue[Wanted] = asyncio.Queue(RUNS_TO_STOP_MAX)

    # What the worker asks and tells (MapPerformer)

    async def perform(self, tenure: Tenure, command: RunMap) -> None:
        """Have a map's children run, and deliver what comes of it."""
        while True:
            run = MapRun(tenure, command, self._parts)
            self._under_way[run.key] = run
            try:
                event = await run.to_the_end()
            except Forsaken:
                # The execution has ended or is another worker's: then this falls out of its batch.
                log.info("map_run_forsaken", map_run=str(run.key.id))
                self._worker.deliver(tenure, MapRunFailed(command.id, RUNTIME, FORSAKEN_CAUSE))
                return
            except (Unavailable, Contended, Overloaded) as error:
                log.warning("map_run_interrupted", map_run=str(run.key.id), reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                self._worker.give_back(tenure, error)
                return
            else:
                self._worker.deliver(tenure, event)
                return
            finally:
                if self._under_way.get(run.key) is run:
                    del self._under_way[run.key]

    def heard(self, child: Key, status: Status) -> None:
        """Take note that a child execution has ended, in this process."""
        run = self._under_way.get(run_of(child))
        if run is not None:
            run.heard(child, status)

    def settled(self, tenure: Tenure, after: Execution) -> None:
        """Take note of a step: what it no longer waits for is stopped."""
        still_open = {command.id for command in after.open_maps}
        for command in tenure.execution.open_maps:
            if command.id not in still_open:
                run = map_run_key(command.entered_at, tenure.key, command.id)
                self._stop_later(Wanted(run, command.redrives))

    async def tidy_after(self, tenure: Tenure) -> None:
        """Stop what an execution, taken up from its row, no longer waits for."""
        try:
            under_way = await self._maps.of(tenure.key, self._worker.id)
        except (Unavailable, Contended) as error:
            # Whatever it is, the next one to take up the execution looks again.
            log.warning("map_runs_not_tidied", execution=str(tenure.key.id), reason=str(error))
            return
        # Looked at after the runs: one that began meanwhile is open by now.
        execution = tenure.execution
        still_open = {command.id for command in (*execution.open_maps, *execution.remaining_maps)}
        for command_id, run in under_way.items():
            if command_id not in still_open and self._worker.holds(tenure):
                self._stop_later(run)

    # Stopping

    async def run(self) -> None:
        """Stop runs that nobody waits for, one after another, until cancelled."""
        while True:
            run = await self._to_stop.get()
            try:
                await self._stop(run)
            except (Unavailable, Contended, Overloaded) as error:
                log.warning("map_run_not_stopped", map_run=str(run.key.id), reason=str(error))
            except Exception:
                log.exception("map_run_not_stopped", map_run=str(run.key.id))

    async def sweep(self, limit: int) -> None:
        """Stop runs whose execution is over, or whose stop was cut off. Raises Unavailable."""
        for run in await self._maps.forsaken(limit):
            self._stop_later(run)

    def _stop_later(self, run: Wanted) -> None:
        if not self._to_stop.full():
            self._to_stop.put_nowait(run)

    async def _stop(self, run: Wanted) -> None:
        """End a run as ABORTED with its children, unless it has ended by itself or was redriven.

        Until it is noted that they have been stopped, the sweep finds the run again.
        """
        if await self._maps.abort(run):
            await self._stop_children(run)
            asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._stop_later, run)
        elif await self._maps.status(run.key) is Status.ABORTED:
            await self._stop_children(run)
            await self._maps.stopped(run.key)

    async def _stop_children(self, run: Wanted) -> None:
        """Stop every child that runs, wherever it does, unless the run is redriven meanwhile."""
        first, last = child_key(run.key, 0).id, child_key(run.key, CHILDREN_MAX - 1).id
        while True:
            with self._worker.tenures.taking(run.key):
                claims = await self._store.seize_children(
                    self._worker.id, run, first, last, STOPPED_AT_ONCE
                )
                await self._worker.adopt(claims, Stopped())
            if not claims:
                return
            first = min(claim.key.id for claim in claims)  # those before have ended: very many
            ended = await asyncio.gather(*(self._worker.ended(claim.key) for claim in claims))
            if not any(ended):
                await asyncio.sleep(UNREADABLE_DELAY_SECONDS)
