"""The worker: the executions in this process's memory, what is performed for them, and what comes
of it.

An execution is in memory only while something is performed for it. It comes in by a start, a claim,
a rescue or a signal, and leaves when it waits for nothing but time, ends, or turns out to be
another worker's. While it is here every event goes into its inbox, and whatever is in the inbox
when its committer has room becomes one turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from service import metrics
from service.asl import (
    About,
    Event,
    Execution,
    Json,
    RunTask,
    Signalled,
    Started,
    StateMachine,
    Status,
    TaskFailed,
    TaskHeartbeat,
    TimerFired,
)
from service.asl.checkpoint import from_checkpoint
from service.documents import dumps, loads
from service.engine.arns import Arns, label_of, owner_machine
from service.engine.batch import Concerns
from service.engine.dispatch import Dispatch
from service.engine.lanes import Lanes
from service.engine.map_performer import NO_MAP_RUNS, MapPerformer
from service.engine.ports import (
    Claim,
    Contended,
    CoroutineHandler,
    Effect,
    ExecutionAlreadyExists,
    Key,
    Machines,
    Signalling,
    Store,
    Task,
    Unavailable,
)
from service.engine.quarantine import SUSPECT_FROM_CLAIMS, Quarantine
from service.engine.turn import NewRow, Request, Surroundings, Tenure, Turn

log = structlog.get_logger()

TENURES_MAX: Final = 10_000
BROKEN_DELAY_SECONDS: Final = 5.0
HEARTBEATS_PER_TIMEOUT: Final = 3
UNREADABLE: Final = "Engine.Unreadable"
UNREADABLE_CAUSE: Final = "the checkpoint or its definition cannot be read; the log tells why"


class Worker:
    """Owns executions; the `Outcomes` of its committers."""

    def __init__(
        self,
        id: UUID,
        store: Store,
        machines: Machines,
        surroundings: Surroundings,
        arns: Arns,
        *,
        tenures_max: int = TENURES_MAX,
        dispatch: Dispatch | None = None,
    ) -> None:
        self.id = id
        self.surroundings = surroundings
        self.lanes = Lanes(store, id, self)
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.rested: Callable[[datetime], None] = lambda due_at: None  # arms the engine's timer
        self.hinted: Callable[[UUID], None] = lambda owner: None  # tells another worker of a signal
        self.map_runs: MapPerformer = NO_MAP_RUNS
        self._store = store
        self._machines = machines
        self._arns = arns
        self._dispatch = dispatch or Dispatch()
        self.tenures_max = tenures_max
        self._tenures: dict[Key, Tenure] = {}
        self.quarantine = Quarantine(store, self._adopt, self._bury, self._note_room)
        # For each question under way: what has left memory since, and in which epoch.
        self._departures: list[dict[Key, int]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._leaves_maps = False

    # What comes in

    @property
    def slots(self) -> int:
        """Return how many more executions may be claimed now."""
        return self.tenures_max - len(self._tenures) - len(self.quarantine.suspects)

    @property
    def in_flight(self) -> int:
        """Return how many executions are in memory."""
        return len(self._tenures)

    def about(self, machine: str, name: str, input: Json, started_at: datetime) -> About:
        """Return what the context object tells of an execution."""
        return About(
            arn=self._arns.execution(machine, name),
            name=name,
            started_at=started_at,
            input=input,
            role_arn=self._machines.role_arn(owner_machine(machine)) or self._arns.role,
            machine_arn=self._arns.machine(machine),
            machine_name=machine,
        )

    def start(
        self,
        definition: StateMachine,
        about: About,
        key: Key,
        effects: Sequence[Effect] = (),
    ) -> asyncio.Future[None]:
        """Start an execution; the future is done once it is stored, or tells why it is not.

        Raises ExecutionAlreadyExists for a key that is in memory.
        """
        tenure = Tenure(key, 0, definition, about.name, Execution.new(about))
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        new = NewRow(dumps(about.input).decode(), stored)
        self.begin(tenure, Turn(tenure, [Started()], self.surroundings, new=new, effects=effects))
        return stored

    def begin(self, tenure: Tenure, turn: Turn) -> None:
        """Take in a new execution whose first turn this is.

        When memory is full it is stored all the same, and left to whoever has room to claim it.
        Raises ExecutionAlreadyExists for a key that is in memory.
        """
        if tenure.key in self._tenures:
            raise ExecutionAlreadyExists(tenure.name)
        tenure.is_left = self.slots <= 0
        tenure.is_queued = True
        self._tenures[tenure.key] = tenure
        self._note_room()
        self.lanes.submit(turn)

    async def still_standing(self, asked: Awaitable[Sequence[Claim]]) -> Sequence[Claim]:
        """Return those claims of the store's answer that still stand when it arrives.

        While it is under way another answer may bring the same row into memory, where it goes on
        and leaves again. Taken up from the older one, it would be performed twice.
        """
        left: dict[Key, int] = {}
        self._departures.append(left)
        try:
            claims = await asked
        finally:
            self._departures = [other for other in self._departures if other is not left]
        return [claim for claim in claims if claim.epoch >= left.get(claim.key, 0)]

    async def adopt(
        self, claims: Sequence[Claim], *events: Event, are_suspects: bool = False
    ) -> None:
        """Take in claimed executions and go on with each where its checkpoint stands.

        `are_suspects`: their former worker may have died of one of them.
        """
        for claim in claims:
            self.surroundings.clock.observe(claim.claimed_at)
            if self._is_held(claim, events):
                continue
            if (are_suspects or claim.claims >= SUSPECT_FROM_CLAIMS) and not events:
                self.quarantine.add(claim)
                self._note_room()
            else:
                await self._adopt(claim, *events)

    def _is_held(self, claim: Claim, events: Sequence[Event]) -> bool:
        """Tell whether a claim, or a later one, is in memory; then the events happen to that."""
        held = self._tenures.get(claim.key)
        if held is None or held.epoch < claim.epoch:
            return False
        for event in events:
            self.deliver(held, event)
        return True

    async def _adopt(self, claim: Claim, *events: Event, is_alone: bool = False) -> Tenure | None:
        try:
            machine = await self._machines.pinned(claim.definition)
            if self._is_held(claim, events):
                return None  # taken up meanwhile: each lane looks for what an outage left behind
            tenure = self._tenure(claim, machine)
            tenure.is_alone = is_alone
            self._replace(tenure)
            self._go_on(tenure, claim.is_signalled, events)
        except Unavailable:
            return None  # the row is ours and not in memory: the next reconciliation finds it
        except Exception as error:
            held = self._tenures.get(claim.key)
            if held is not None and held.epoch == claim.epoch:
                self._forget(held)
            await self._let_go(claim.key, claim.epoch, error)
            return None
        if tenure.machine.labels:
            self._spawn(self.map_runs.tidy_after(tenure))
        return tenure

    def _go_on(self, tenure: Tenure, is_signalled: bool, events: Sequence[Event]) -> None:
        """Deliver what has happened meanwhile; without any, perform what is open and needs no
        commit.
        """
        due_at, now = tenure.execution.due_at, self.surroundings.clock.now()
        tenure.inbox += events
        if due_at is not None and due_at <= now:
            metrics.WAKE_UP_LATENESS_SECONDS.observe((now - due_at).total_seconds())
            tenure.inbox.append(TimerFired())
        if tenure.inbox or is_signalled or not self._perform(tenure):
            self._queue(tenure)

    def deliver(self, tenure: Tenure, event: Event) -> None:
        """Let an event happen to an execution in memory; too late is no error."""
        if self.holds(tenure):
            tenure.inbox.append(event)
            self._queue(tenure)

    def nudge(self, key: Key) -> None:
        """Look at an execution's row again: a signal was stored there."""
        tenure = self._tenures.get(key)
        if tenure is not None:
            self._queue(tenure)

    def _queue(self, tenure: Tenure) -> None:
        if tenure.is_queued:
            return
        tenure.is_queued = True
        events, tenure.inbox = tenure.inbox, []
        self.lanes.submit(Turn(tenure, events, self.surroundings))

    def _tenure(self, claim: Claim, machine: StateMachine) -> Tenure:
        assert claim.checkpoint is not None, f"{claim.key}: a running row without a checkpoint"
        about = self.about(claim.machine, claim.name, loads(claim.input), claim.started_at)
        execution = from_checkpoint(loads(claim.checkpoint), about)
        label = label_of(claim.machine)
        if label is not None:
            machine = machine.processor(label)
        return Tenure(claim.key, claim.epoch, machine, claim.name, execution)

    def _replace(self, tenure: Tenure) -> None:
        former = self._tenures.get(tenure.key)
        if former is not None:
            tenure.inbox += former.inbox
            self._forget(former)
        self._tenures[tenure.key] = tenure
        self._note_room()

    # What the committer tells (Outcomes)

    def holds(self, tenure: Tenure) -> bool:
        return self._tenures.get(tenure.key) is tenure

    def committed(self, turn: Turn) -> None:
        tenure = turn.tenure
        held = self._tenures.get(tenure.key)
        if held is not tenure:
            if held is not None and held.epoch >= turn.epoch:
                return  # taken up again from the row that this turn, or a later one, wrote
            self._replace(tenure)
        if tenure.machine.labels:
            self.map_runs.settled(tenure, turn.execution)
        tenure.epoch = turn.epoch
        tenure.execution = turn.execution
        tenure.is_queued = False
        if tenure.execution.status is not Status.RUNNING:
            self._ended(tenure)
        elif turn.due_at is not None:
            self._forget(tenure)
            self.rested(turn.due_at)
        else:
            self._carry_on(tenure)

    def _carry_on(self, tenure: Tenure) -> None:
        execution = tenure.execution
        still_open = {command.id for command in execution.open_tasks}
        still_open |= {command.id for command in execution.open_maps}
        for command_id in [id for id in tenure.performing if id not in still_open]:
            tenure.performing.pop(command_id).cancel()
        if tenure.is_alone:
            tenure.over.set()
        if self._leaves_maps and not tenure.inbox and _waits_for_maps_alone(execution):
            self._forget(tenure)
        elif not self._perform(tenure) or tenure.inbox:
            self._queue(tenure)

    def _ended(self, tenure: Tenure) -> None:
        execution = tenure.execution
        machine = metrics.bounded("machine", execution.about.machine_name)
        metrics.child(metrics.EXECUTIONS_ENDED, machine, execution.status.value).inc()
        if execution.status is not Status.SUCCEEDED:
            log.warning(
                "execution_ended",
                execution=str(tenure.key.id),
                status=execution.status.value,
                error=execution.error,
            )
        self._forget(tenure)
        if label_of(tenure.execution.about.machine_name) is not None:
            self.map_runs.heard(tenure.key, execution.status)

    def stood(self, turn: Turn) -> None:
        self.dropped(turn)
        self._spawn(self._take_up(turn.key))

    async def _take_up(self, key: Key) -> None:
        """Go on with an execution from its row, if this worker holds it."""
        try:
            await self.adopt(await self.still_standing(self._store.claim_owned(self.id, [key])))
        except (Unavailable, Contended) as error:
            # The next reconciliation finds it.
            log.warning("execution_not_taken_up", execution=str(key.id), reason=str(error))

    def lost(self, turn: Turn) -> None:
        metrics.FENCED_WRITES.inc()
        log.info("execution_lost", execution=str(turn.key.id))
        self.dropped(turn)

    def dropped(self, turn: Turn) -> None:
        if self.holds(turn.tenure):
            self._forget(turn.tenure)

    def broken(self, turn: Turn, error: Exception) -> None:
        tenure = turn.tenure
        if turn.new is not None and not turn.new.stored.done():
            turn.new.stored.set_exception(error)
        if self.holds(tenure):
            self._forget(tenure)
        if turn.new is None:
            self._spawn(self._let_go(tenure.key, tenure.epoch, error))

    def signalled(self, signalling: Signalling) -> None:
        if signalling.claim is not None:
            self._spawn(self.adopt([signalling.claim]))  # the row says that it is signalled
        elif signalling.owner == self.id:
            self.nudge(signalling.key)
        else:
            self.hinted(signalling.owner)

    def tenure(self, claim: Claim) -> Tenure | None:
        machine = self._machines.cached(claim.definition)
        if machine is None:
            return None
        try:
            return self._tenure(claim, machine)
        except Exception:
            return None  # adopted after the commit instead, where its trouble is its own

    def signal_turn(self, tenure: Tenure) -> Turn:
        return Turn(tenure, [Signalled()], self.surroundings)

    async def reconcile(self, in_doubt: Concerns = lambda key: False) -> None:
        """Make memory agree with the rows that this worker owns; what an outage left in doubt is
        decided by them.

        Of those that are `in_doubt` nothing is being committed, so turns under way count too.
        Raises Unavailable.
        """
        before = {
            key: tenure.epoch
            for key, tenure in self._tenures.items()
            if tenure.epoch and (not tenure.is_queued or in_doubt(key))
        }
        queued = self._tenures.keys() - before.keys()
        standing = dict(await self._store.owned(self.id))
        for key in before.keys() - standing.keys():
            tenure = self._tenures.get(key)
            if tenure is not None and tenure.epoch == before[key]:
                self._forget(tenure)
        for key in queued & standing.keys():
            tenure = self._tenures.get(key)
            if in_doubt(key) and tenure is not None and not tenure.epoch:
                tenure.epoch = standing[key]  # its start was committed after all
        accounted_for = queued | {claim.key for claim in self.quarantine.suspects}
        strange: dict[Key, Tenure | None] = {}
        for key, epoch in standing.items():
            held = self._tenures.get(key)
            if key in accounted_for or before.get(key) == epoch:
                continue
            # What has come into memory or gone on since is newer than what was read.
            if held is None or (
                held.epoch == before.get(key) and (not held.is_queued or in_doubt(key))
            ):
                strange[key] = held
        if strange:
            claims = await self.still_standing(self._store.claim_owned(self.id, [*strange]))
            await self.adopt([c for c in claims if self._tenures.get(c.key) is strange[c.key]])

    # What is performed

    def _perform(self, tenure: Tenure) -> bool:
        """Perform what is open and not yet under way; False when there is something that only a
        turn can answer.
        """
        maps = tenure.execution.open_maps
        is_complete = bool(tenure.execution.open_tasks or maps)  # else it is to be put to rest
        for run in maps:
            if run.id not in tenure.performing:
                tenure.performing[run.id] = asyncio.ensure_future(
                    self.map_runs.perform(tenure, run)
                )
        for command in tenure.execution.open_tasks:
            if command.id in tenure.performing:
                continue
            resolved = self.surroundings.handlers.resolve(command)
            handler = None if isinstance(resolved, TaskFailed) else resolved[0]
            if isinstance(resolved, TaskFailed) or not isinstance(handler, CoroutineHandler):
                is_complete = False
                continue
            input = resolved[1]
            task = tenure.task(command)
            if command.heartbeat_seconds is not None:
                task = task._replace(heartbeat=self._heartbeat(tenure, command))
            tenure.performing[command.id] = asyncio.ensure_future(
                self._perform_one(tenure, command, handler, input, task)
            )
        self._set_timer(tenure)
        return is_complete

    async def _perform_one(
        self, tenure: Tenure, command: RunTask, handler: CoroutineHandler, input: Json, task: Task
    ) -> None:
        event = await self._dispatch.perform(command, handler, input, task)
        # It stays in `performing` until a checkpoint has its answer: while another turn of this
        # execution is being committed the command is still open, and would be performed again.
        self.deliver(tenure, event)

    def _heartbeat(self, tenure: Tenure, command: RunTask) -> Callable[[], None]:
        """Return what a handler calls to show that it is alive; more often than the timeout needs
        is not passed on.
        """
        assert command.heartbeat_seconds is not None, command
        loop = asyncio.get_running_loop()
        interval, last = command.heartbeat_seconds / HEARTBEATS_PER_TIMEOUT, loop.time()

        def beat() -> None:
            nonlocal last
            if loop.time() - last >= interval:
                last = loop.time()
                self.deliver(tenure, TaskHeartbeat(command.id))

        return beat

    def _set_timer(self, tenure: Tenure) -> None:
        """Keep the earliest timeout of an execution in memory here: its row has no due time while
        it is owned.
        """
        if tenure.timer is not None:
            tenure.timer.cancel()
            tenure.timer = None
        due_at = tenure.execution.due_at
        if due_at is not None:
            seconds = max((due_at - self.surroundings.clock.now()).total_seconds(), 0.001)
            loop = asyncio.get_running_loop()
            tenure.timer = loop.call_later(seconds, self.deliver, tenure, TimerFired())

    # What leaves

    def _forget(self, tenure: Tenure) -> None:
        """Let an execution leave memory; whatever is still performed for it is cancelled."""
        if self.holds(tenure):
            del self._tenures[tenure.key]
            for left in self._departures:
                left[tenure.key] = tenure.epoch
        if tenure.timer is not None:
            tenure.timer.cancel()
        for task in tenure.performing.values():
            task.cancel()
        tenure.performing.clear()
        tenure.over.set()
        self._note_room()

    def give_back(self, tenure: Tenure, error: Exception) -> None:
        """Put an execution back: the engine failed at something performed for it."""
        if self.holds(tenure):
            self._forget(tenure)
            self._spawn(self._let_go(tenure.key, tenure.epoch, error))

    def has(self, key: Key) -> bool:
        """Tell whether an execution is in this worker's memory."""
        return key in self._tenures

    async def _let_go(self, key: Key, epoch: int, error: Exception) -> None:
        """Put an execution back that the engine itself failed at; its claims count, so this is
        bounded.
        """
        log.error("execution_broken", execution=str(key.id), exc_info=error)
        try:
            await self._store.let_go(key, epoch, BROKEN_DELAY_SECONDS)
        except (Unavailable, Contended) as trouble:
            log.warning("execution_kept", execution=str(key.id), reason=str(trouble))

    async def _bury(self, claim: Claim) -> None:
        """End for good what cannot be read, and what it leaves to be decided."""
        if await self._store.bury(claim.key, claim.epoch, UNREADABLE, UNREADABLE_CAUSE):
            machine = metrics.bounded("machine", claim.machine)
            metrics.child(metrics.EXECUTIONS_ENDED, machine, Status.FAILED.value).inc()
            last = self.surroundings.on_ended(claim.name, claim.key)
            if last is not None:
                decided: asyncio.Future[Mapping[str, object] | None] = (
                    asyncio.get_running_loop().create_future()
                )
                self.lanes.submit(Request(last, lambda row: None, decided))
                await decided

    def _note_room(self) -> None:
        if self._tenures:
            self._is_empty.clear()
        else:
            self._is_empty.set()
        if self.slots > 0:
            self.has_room.set()
        else:
            self.has_room.clear()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def ended(self, key: Key) -> bool:
        """Return once this execution has left memory: whether that is because it has ended."""
        tenure = self._tenures.get(key)
        if tenure is None:
            return False
        await tenure.over.wait()
        return tenure.execution.status is not Status.RUNNING

    async def finished(self) -> None:
        """Return when no execution is in memory and everything is committed."""
        await self._is_empty.wait()
        await self.lanes.drained()

    def leave_maps(self) -> None:
        """Let executions leave memory that wait for map runs alone, or come to: others go on with
        them.
        """
        self._leaves_maps = True
        for tenure in list(self._tenures.values()):
            if not tenure.is_queued and _waits_for_maps_alone(tenure.execution):
                self._forget(tenure)

    def close(self) -> None:
        """Cancel what is still performed: its commands stay in their checkpoints."""
        self.lanes.close()
        for tenure in list(self._tenures.values()):
            self._forget(tenure)
        for task in self._background:
            task.cancel()


def _waits_for_maps_alone(execution: Execution) -> bool:
    return bool(execution.open_maps) and not execution.open_tasks
