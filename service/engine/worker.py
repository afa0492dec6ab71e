"""The worker: which executions come into this process's memory, and what happens to them there.

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
    Redriven,
    Signalled,
    Started,
    StateMachine,
    Status,
    TimerFired,
)
from service.asl.checkpoint import from_checkpoint, is_to_be_redriven
from service.documents import dumps, loads
from service.engine.arns import Arns, label_of, owner_machine
from service.engine.batch import Concerns
from service.engine.dispatch import Dispatch
from service.engine.lanes import Lanes
from service.engine.map_performer import NO_MAP_RUNS, MapPerformer
from service.engine.performer import Performer
from service.engine.ports import (
    Claim,
    Contended,
    Effect,
    ExecutionAlreadyExists,
    Key,
    Machines,
    Signalling,
    Store,
    Unavailable,
)
from service.engine.quarantine import SUSPECT_FROM_CLAIMS, Quarantine
from service.engine.tenures import TENURES_MAX, Tenures
from service.engine.turn import NewRow, Request, Surroundings, Tenure, Turn

log = structlog.get_logger()

BROKEN_DELAY_SECONDS: Final = 5.0
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
        self.quarantine = Quarantine(store, self._still_standing, self._adopt, self._bury)
        self.tenures = Tenures(tenures_max, reserved=lambda: len(self.quarantine.suspects))
        self.quarantine.left = self.tenures.note_room
        self.rested: Callable[[datetime], None] = lambda due_at: None  # arms the engine's timer
        self.hinted: Callable[[UUID], None] = lambda owner: None  # tells another worker of a signal
        self.map_runs: MapPerformer = NO_MAP_RUNS
        self._store = store
        self._machines = machines
        self._arns = arns
        self._performer = Performer(
            surroundings,
            dispatch or Dispatch(),
            self.deliver,
            lambda tenure, run: self.map_runs.perform(tenure, run),
        )
        self._background: set[asyncio.Task[None]] = set()
        self._leaves_maps = False

    # What comes in

    def about(
        self,
        machine: str,
        name: str,
        input: Json,
        started_at: datetime,
        redrive_count: int = 0,
        redriven_at: datetime | None = None,
    ) -> About:
        """Return what the context object tells of an execution."""
        return About(
            arn=self._arns.execution(machine, name),
            name=name,
            started_at=started_at,
            input=input,
            role_arn=self._machines.role_arn(owner_machine(machine)) or self._arns.role,
            machine_arn=self._arns.machine(machine),
            machine_name=machine,
            redrive_count=redrive_count,
            redriven_at=redriven_at,
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
        if tenure.key in self.tenures:
            raise ExecutionAlreadyExists(tenure.name)
        tenure.is_left = self.tenures.slots <= 0
        tenure.is_queued = True
        self.tenures.add(tenure)
        self.lanes.submit(turn)

    async def adopt(
        self, claims: Sequence[Claim], *events: Event, are_suspects: bool = False
    ) -> None:
        """Take in claimed executions and go on with each where its checkpoint stands.

        `are_suspects`: their former worker may have died of one of them.
        """
        if claims:
            self.surroundings.clock.observe(max(claim.claimed_at for claim in claims))
        for claim in claims:
            if self._is_held(claim, events):
                continue
            if (are_suspects or claim.claims >= SUSPECT_FROM_CLAIMS) and not events:
                self.quarantine.add(claim)
                self.tenures.note_room()
            else:
                await self._adopt(claim, *events)

    async def _still_standing(self, asked: Awaitable[Sequence[Claim]]) -> Sequence[Claim]:
        return await self.tenures.still_standing(asked)

    def _is_held(self, claim: Claim, events: Sequence[Event]) -> bool:
        """Tell whether a claim, or a later one, is in memory; then the events happen to that."""
        held = self.tenures.get(claim.key)
        if held is None or held.epoch < claim.epoch:
            return False
        for event in events:
            self.deliver(held, event)
        return True

    async def _adopt(self, claim: Claim, *events: Event, is_alone: bool = False) -> Tenure | None:
        try:
            machine = self._machines.cached(claim.definition)
            if machine is None:
                machine = await self._machines.pinned(claim.definition)
            if self._is_held(claim, events):
                return None  # taken up meanwhile, from an answer that came sooner
            tenure = self._tenure(claim, machine)
            tenure.is_alone = is_alone
            self.tenures.replace(tenure)
            self._go_on(tenure, claim.is_signalled, events)
        except Unavailable:
            return None  # the row is ours and not in memory: the next reconciliation finds it
        except Exception as error:
            held = self.tenures.get(claim.key)
            if held is not None and held.epoch == claim.epoch:
                self.tenures.forget(held)
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
        if tenure.inbox or is_signalled or not self._performer.perform(tenure):
            self._queue(tenure)

    def deliver(self, tenure: Tenure, event: Event) -> None:
        """Let an event happen to an execution in memory; too late is no error."""
        if self.tenures.holds(tenure):
            tenure.inbox.append(event)
            self._queue(tenure)

    def nudge(self, key: Key) -> None:
        """Look at an execution's row again: a signal was stored there."""
        tenure = self.tenures.get(key)
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
        about = self.about(
            claim.machine,
            claim.name,
            loads(claim.input),
            claim.started_at,
            claim.redrive_count,
            claim.redriven_at,
        )
        checkpoint = loads(claim.checkpoint)
        execution = from_checkpoint(checkpoint, about)
        label = label_of(claim.machine)
        if label is not None:
            machine = machine.processor(label)
        tenure = Tenure(claim.key, claim.epoch, machine, claim.name, execution)
        if is_to_be_redriven(checkpoint, about):
            tenure.inbox.append(Redriven())
        return tenure

    # What the committer tells (Outcomes)

    def holds(self, tenure: Tenure) -> bool:
        return self.tenures.holds(tenure)

    def committed(self, turn: Turn) -> None:
        tenure = turn.tenure
        held = self.tenures.get(tenure.key)
        if held is not tenure:
            if held is not None and held.epoch >= turn.epoch:
                return  # taken up again from the row that this turn, or a later one, wrote
            self.tenures.replace(tenure)
        if tenure.machine.labels:
            self.map_runs.settled(tenure, turn.execution)
        tenure.epoch = turn.epoch
        tenure.execution = turn.execution
        tenure.is_queued = False
        if tenure.execution.status is not Status.RUNNING:
            self._ended(tenure)
        elif turn.due_at is not None:
            self.tenures.forget(tenure)
            self.rested(turn.due_at)
        else:
            self._carry_on(tenure)

    def _carry_on(self, tenure: Tenure) -> None:
        execution = tenure.execution
        self._performer.cancel_closed(tenure)
        if tenure.is_alone:
            tenure.pass_on()
        if self._leaves_maps and not tenure.inbox and _waits_for_maps_alone(execution):
            self.tenures.forget(tenure)
        elif not self._performer.perform(tenure) or tenure.inbox:
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
        self.tenures.forget(tenure)
        if label_of(tenure.execution.about.machine_name) is not None:
            self.map_runs.heard(tenure.key, execution.status)

    def stood(self, turn: Turn) -> None:
        self.dropped(turn)
        self._spawn(self._take_up(turn.key))

    async def _take_up(self, key: Key) -> None:
        """Go on with an execution from its row, if this worker holds it."""
        try:
            held = self._store.claim_owned(self.id, [key])
            await self.adopt(await self.tenures.still_standing(held))
        except (Unavailable, Contended) as error:
            # The next reconciliation finds it.
            log.warning("execution_not_taken_up", execution=str(key.id), reason=str(error))

    def lost(self, turn: Turn) -> None:
        metrics.FENCED_WRITES.inc()
        log.info("execution_lost", execution=str(turn.key.id))
        self.dropped(turn)

    def dropped(self, turn: Turn) -> None:
        if self.tenures.holds(turn.tenure):
            self.tenures.forget(turn.tenure)

    def broken(self, turn: Turn, error: Exception) -> None:
        tenure = turn.tenure
        if turn.new is not None and not turn.new.stored.done():
            turn.new.stored.set_exception(error)
        if self.tenures.holds(tenure):
            self.tenures.forget(tenure)
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
        events, tenure.inbox = [*tenure.inbox, Signalled()], []
        return Turn(tenure, events, self.surroundings)

    async def reconcile(self, in_doubt: Concerns = lambda key: False) -> None:
        """Make memory agree with the rows that this worker owns; what an outage left in doubt is
        decided by them.

        Of those that are `in_doubt` no turn is being committed, so turns under way count too. What
        is being taken is left to the answer that brings it. Raises Unavailable.
        """
        before = {
            tenure.key: tenure.epoch
            for tenure in self.tenures
            if tenure.epoch and (not tenure.is_queued or in_doubt(tenure.key))
        }
        queued = self.tenures.keys - before.keys()
        standing = dict(await self._store.owned(self.id))
        for key in before.keys() - standing.keys():
            tenure = self.tenures.get(key)
            if tenure is not None and tenure.epoch == before[key]:
                self.tenures.forget(tenure)
        for key in queued & standing.keys():
            tenure = self.tenures.get(key)
            if in_doubt(key) and tenure is not None and not tenure.epoch:
                tenure.epoch = standing[key]  # its start was committed after all
        accounted_for = queued | {claim.key for claim in self.quarantine.suspects}
        strange: dict[Key, Tenure | None] = {}
        for key, epoch in standing.items():
            held = self.tenures.get(key)
            if key in accounted_for or before.get(key) == epoch or self.tenures.is_being_taken(key):
                continue
            # What has come into memory or gone on since is newer than what was read.
            if held is None or (
                held.epoch == before.get(key) and (not held.is_queued or in_doubt(key))
            ):
                strange[key] = held
        if strange:
            claims = await self.tenures.still_standing(self._store.claim_owned(self.id, [*strange]))
            await self.adopt(
                [
                    claim
                    for claim in claims
                    if claim.epoch == standing[claim.key]  # else it is being taken by now
                    and self.tenures.get(claim.key) is strange[claim.key]
                ]
            )

    # What leaves

    def give_back(self, tenure: Tenure, error: Exception) -> None:
        """Put an execution back: the engine failed at something performed for it."""
        if self.tenures.holds(tenure):
            self.tenures.forget(tenure)
            self._spawn(self._let_go(tenure.key, tenure.epoch, error))

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
        """End what cannot be read, and what it leaves to be decided."""
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

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def ended(self, key: Key) -> bool:
        """Return once this execution has left memory: whether that is because it has ended."""
        tenure = self.tenures.get(key)
        if tenure is None:
            return False
        await tenure.until_over()
        return tenure.execution.status is not Status.RUNNING

    async def finished(self) -> None:
        """Return when no execution is in memory and everything is committed."""
        await self.tenures.is_empty.wait()
        await self.lanes.drained()

    def leave_maps(self) -> None:
        """Let executions leave memory that wait for map runs alone, or come to: others go on with
        them.
        """
        self._leaves_maps = True
        for tenure in self.tenures:
            if not tenure.is_queued and _waits_for_maps_alone(tenure.execution):
                self.tenures.forget(tenure)

    def close(self) -> None:
        """Cancel what is still performed: its commands stay in their checkpoints."""
        self.lanes.close()
        for tenure in self.tenures:
            self.tenures.forget(tenure)
        for task in self._background:
            task.cancel()


def _waits_for_maps_alone(execution: Execution) -> bool:
    return bool(execution.open_maps) and not execution.open_tasks
