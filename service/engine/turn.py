"""One execution's share of a batch: what its events make of it, before and inside the transaction.

A turn can be played any number of times, since a batch is tried again when its connection breaks
and split when one of its rows is refused: `prepare` starts from the last committed state, and
nothing outside the turn changes until `Worker` is told that the commit took place. It takes the
execution as far as the language alone can and leaves in `wanted` which database effects it wants;
`answered` feeds their rows back in and goes on likewise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

import structlog

from service.asl import (
    NO_SHARE,
    STEP_SHARE,
    TASK_FAILED,
    Event,
    Execution,
    ExecutionError,
    HistoryEvent,
    Json,
    Random,
    RunTask,
    Signalled,
    StateMachine,
    Status,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
)
from service.asl.checkpoint import to_checkpoint
from service.asl.errors import CAUSE_CHARACTERS_MAX, ERROR_CHARACTERS_MAX
from service.documents import dumps_own
from service.engine.history import pack
from service.engine.ports import (
    Checkpoint,
    Clock,
    CoroutineHandler,
    Effect,
    EffectHandler,
    Handlers,
    HistoryRow,
    Key,
    NewExecution,
    Task,
)

# Rounds of effects in one transaction; what is asked for after that waits for the next batch.
EFFECT_ROUNDS_MAX: Final = 8
# What one turn may do in place (answers without a handler, timers already past) before it must wait
# for another batch.
STEPS_IN_PLACE_MAX: Final = 64

log = structlog.get_logger()

OnEnded: TypeAlias = Callable[[str, Key], Effect | None]
"""What an execution of this name leaves to be decided when it ends, however it ends.

Not asked when a task has acknowledged the signal, since then everything is decided.
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every turn of a process shares."""

    handlers: Handlers
    clock: Clock
    random: Random
    time_scale: float = 1.0
    on_ended: OnEnded = lambda name, key: None


class Tenure:
    """An execution in the memory of the worker that owns it, from its claim to its rest or end."""

    def __init__(
        self,
        key: Key,
        epoch: int,
        machine: StateMachine,
        name: str,
        execution: Execution,
        *,
        is_alone: bool = False,
    ) -> None:
        self.key = key
        self.epoch = epoch  # 0 until its row is known to be there
        self.machine = machine
        self.name = name
        self.execution = execution
        self.inbox: list[Event] = []
        self.performing: dict[int, asyncio.Task[None]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.is_queued = False
        self.is_left = False  # memory is full: stored, but left to whoever claims it
        self.is_alone = is_alone  # in the quarantine lane: shares its batch with nobody
        self._is_over = False
        self._over: asyncio.Event | None = None  # made for who waits, which hardly anybody does

    def task(self, command: RunTask) -> Task:
        """Return what a handler is told of the command it performs."""
        return Task(
            self.key,
            self.execution.about.machine_name,
            self.name,
            command.state,
            command.entered_event_id,
            command.attempt,
        )

    def end(self) -> None:
        """Cancel what is performed here, and tell whoever waits that it is over."""
        if self.timer is not None:
            self.timer.cancel()
        for task in self.performing.values():
            task.cancel()
        self.performing.clear()
        self.pass_on()

    def pass_on(self) -> None:
        """Tell whoever waits that it is over, or has got as far as they wait for."""
        self._is_over = True
        if self._over is not None:
            self._over.set()

    async def until_over(self) -> None:
        """Return when it is over: at once, if it is."""
        if self._over is None:
            self._over = asyncio.Event()
            if self._is_over:
                self._over.set()
        await self._over.wait()


class Asked(NamedTuple):
    """A command that an effect answers."""

    command: RunTask
    handler: EffectHandler
    effect: Effect


class Turn:
    """A step of one execution, or its first."""

    def __init__(
        self,
        tenure: Tenure,
        events: Sequence[Event],
        surroundings: Surroundings,
        *,
        new: NewRow | None = None,
        effects: Sequence[Effect] = (),
    ) -> None:
        self.tenure = tenure
        self.events = list(events)
        self.new = new
        self.tries = 0
        self.is_contested = False  # its checkpoint was refused: look at the row before, next time
        self._surroundings = surroundings
        self._effects = effects
        self._refused: dict[int, TaskFailed] = {}

    def prepare(self, *, has_mark: bool = False) -> None:
        """Play the events from the last committed state, forgetting any earlier try.

        `has_mark`: the row, seen under a lock, is marked as signalled.
        """
        tenure = self.tenure
        self.execution = tenure.execution
        self._now = self._surroundings.clock.now()
        self._history: list[HistoryEvent] = []
        self._pending = self._effects
        self._asked: list[Asked] = []
        self._applied: list[tuple[Effect, Mapping[str, object] | None]] = []
        self._deferred: set[int] = set()
        self._rounds = 0
        self._is_end_told = False
        self._inserted: Execution | None = None
        self._written: Execution | None = None
        self._events: bytes | None = None
        self._document: bytes | None = None
        self._has_mark = has_mark
        self._is_signalled = any(isinstance(event, Signalled) for event in self.events)
        self.epoch = 0  # of the row, once this turn is committed
        self.due_at: datetime | None = None  # when it is to be claimed again, if it is to be
        self._has_had_its_share = False
        for event in self.events:
            self._feed(event)
        if not self.events and self.execution.halt is not None:
            self._feed(TimerFired())
        self._settle()

    @property
    def key(self) -> Key:
        return self.tenure.key

    @property
    def standing_epoch(self) -> int:
        """Return the epoch that the row has before this turn is saved."""
        return self.tenure.epoch if self._inserted is None else 1

    @property
    def needs_lock(self) -> bool:
        """Tell whether the row is to be locked before this turn goes on.

        An effect is only for who holds the execution. Without one it is enough that the checkpoint
        is refused to whoever does not; but a turn that writes nothing has to look.
        """
        is_changed = self.execution is not self.tenure.execution
        return bool(self.wanted) or self.is_contested or self.tenure.is_alone or not is_changed

    def signal(self, *, has_mark: bool) -> None:
        """Let a signal happen to the execution; it may be the one that the row is marked with."""
        self._has_mark = has_mark
        self._is_signalled = True
        self._feed(Signalled())
        self._settle()

    def answered(self, rows: Sequence[Mapping[str, object] | None]) -> None:
        """Feed in what the effects in `wanted` returned, in their order."""
        self._applied += zip(self.wanted, rows, strict=True)
        asked, rows = self._asked, rows[len(self._pending) :]
        self._asked, self._pending = [], ()
        self._rounds += 1
        for one, row in zip(asked, rows, strict=True):
            self._feed(_answer(one, row))
        self._settle()

    def _feed(self, event: Event) -> None:
        """Let one more event happen to the execution.

        Where it stops short the turn has had its share: whatever else happens in it is taken in,
        and what that leads to is left to a later batch, or the others would wait all the same.
        """
        shared = self._surroundings
        step = advance(
            self.tenure.machine,
            self.execution,
            event,
            self._now,
            shared.random,
            time_scale=shared.time_scale,
            share=NO_SHARE if self._has_had_its_share else STEP_SHARE,
        )
        self.execution = step.execution
        self._history += step.history
        self._has_had_its_share = step.execution.halt is not None

    def _settle(self) -> None:
        """Go on as far as nothing from outside is needed; leave in `wanted` the next effects."""
        for _ in range(STEPS_IN_PLACE_MAX):
            event = self._next_in_place()
            if event is None:
                break
            self._feed(event)
        else:
            self._asked = []  # of the step before the last, which may have closed them
        has_ended = self.execution.status is not Status.RUNNING
        if has_ended and not self._pending and not self._is_end_told:
            self._is_end_told = True
            last = self._last_effect()
            self._pending = () if last is None else (last,)
        self.wanted = [*self._pending, *[asked.effect for asked in self._asked]]
        if not self._asked:
            # Most are written before their transaction begins, which holds its locks for less then.
            self._write()

    def _write(self) -> None:
        """Make the texts of where the execution stands and how it came there."""
        if self._written is self.execution:
            return
        self._written = self.execution
        self._events = pack(self._history) if self._history else None
        is_running = self.execution.status is Status.RUNNING
        self._document = dumps_own(to_checkpoint(self.execution)) if is_running else None

    def _last_effect(self) -> Effect | None:
        """Return what `on_ended` wants done, unless a task has seen to it already."""
        if self.execution.is_acknowledged:
            return None
        last = self._surroundings.on_ended(self.tenure.name, self.key)
        return None if any(effect == last for effect, _ in self._applied) else last

    def tell(self) -> None:
        """Tell those who asked for effects that their rows are committed."""
        for effect, row in self._applied:
            if effect.committed is not None:
                try:
                    effect.committed(row)
                except Exception:
                    # It is committed whatever they make of it, and others wait to hear that.
                    log.exception("committed_effect_not_counted", query=effect.query)

    def refuse(self, cause: str) -> bool:
        """Make failures of the effects the database refused; False when none was a handler's."""
        refused = {
            one.command.id: TaskFailed(one.command.id, "Rejected", cause) for one in self._asked
        }
        self._refused |= refused
        return bool(refused)

    def _next_in_place(self) -> Event | None:
        """Return an event that needs nothing from outside; put the other commands into `_asked`."""
        self._asked = []
        execution = self.execution
        for command in execution.open_tasks:
            if command.id not in self._deferred:
                failure = self._consider(command)
                if failure is not None:
                    return failure
        due_at = execution.due_at
        if due_at is not None and due_at <= self._now and execution.halt is None:
            return TimerFired()
        return None

    def _consider(self, command: RunTask) -> TaskFailed | None:
        """Ask for the command's effect, or leave it for after the commit, or say why it cannot be
        performed.
        """
        if command.id in self._refused:
            return self._refused[command.id]
        resolved = self._surroundings.handlers.resolve(command)
        if isinstance(resolved, TaskFailed):
            return resolved
        handler, input = resolved
        if isinstance(handler, CoroutineHandler) or self._rounds >= EFFECT_ROUNDS_MAX:
            self._deferred.add(command.id)
            return None
        try:
            effect = handler.effect(input, self.tenure.task(command))
        except Exception as error:
            return failure_of(command.id, error)
        self._asked.append(Asked(command, handler, effect))
        return None

    # What is written

    def row(self, owner: UUID) -> NewExecution:
        """Return the row of an execution that begins with this turn."""
        assert self.new is not None
        self._inserted = self.execution
        self.epoch = 1
        return NewExecution(
            machine=self.execution.about.machine_name,
            definition=self.tenure.machine.sha256,
            name=self.tenure.name,
            input=self.new.input,
            started_at=self.execution.about.started_at,
            first=self._checkpoint(owner),
        )

    def changed(self, owner: UUID) -> Checkpoint | None:
        """Return the checkpoint to save; None when the row may stand as it is."""
        if not self._is_signalled:
            if self.execution is self._inserted:
                return None
            if self.execution is self.tenure.execution and not self._rests():
                self.epoch = self.standing_epoch
                return None
        self.epoch = self.standing_epoch + 1
        return self._checkpoint(owner)

    def history(self) -> HistoryRow | None:
        """Return what happened in this turn; None when it is nothing."""
        self._write()
        if self._events is None:
            return None
        return HistoryRow(self.tenure.key, self._history[0].id, self._events)

    def _rests(self) -> bool:
        """Tell whether the execution waits for nothing but time, and so needs no worker."""
        return not (self.execution.open_tasks or self.execution.open_maps)

    def _checkpoint(self, owner: UUID) -> Checkpoint:
        self._write()
        execution, status = self.execution, self.execution.status
        if status is not Status.RUNNING:
            self.due_at = None
            output = _text(execution.output) if status is Status.SUCCEEDED else None
            error, cause = execution.error, execution.cause
            return Checkpoint(
                self.key, self.epoch, status, None, None, None, output, error, cause, self._now,
                self._has_mark,
            )  # fmt: skip
        if self._rests():
            self.due_at = execution.due_at
            assert self.due_at is not None, f"{self.key}: nothing is open"
        else:
            self.due_at = self._now if self.tenure.is_left else None
        kept_by = owner if self.due_at is None else None
        document = self._document
        return Checkpoint(
            self.key, self.epoch, status, self.due_at, kept_by, document, None, None, None, None,
            self._has_mark,
        )  # fmt: skip


class NewRow:
    """What is known of an execution only at its start, and who waits to hear that it is stored."""

    def __init__(self, input: str, stored: asyncio.Future[None]) -> None:
        self.input = input
        self.stored = stored


class Request:
    """An effect from outside any execution (a visitor verifies), and perhaps a signal that comes of
    it.
    """

    def __init__(
        self,
        effect: Effect,
        signal: Callable[[Mapping[str, object] | None], Key | None],
        answer: asyncio.Future[Mapping[str, object] | None],
    ) -> None:
        self.effect = effect
        self.signal = signal
        self.answer = answer
        self.row: Mapping[str, object] | None = None
        self.signalled: Key | None = None
        # What it signals goes on in a transaction of its own: it failed in the one they shared.
        self.is_apart = False
        self.tries = 0


Unit: TypeAlias = Turn | Request


def failure_of(command_id: int, error: Exception) -> TaskFailed:
    """Return the event for what a handler raised: an ExecutionError speaks for itself, others go by
    their class.
    """
    if isinstance(error, ExecutionError):
        name, cause = error.error or TASK_FAILED, error.cause
    else:
        name, cause = type(error).__name__, _words(error)
    return TaskFailed(
        command_id,
        storable(name, ERROR_CHARACTERS_MAX),
        None if cause is None else storable(cause, CAUSE_CHARACTERS_MAX),
    )


def _words(error: Exception) -> str | None:
    try:
        return str(error)
    except Exception:
        return None  # whoever wrote the class made a mistake there, too


def storable(text: str, characters_max: int) -> str:
    """Replace what no database column holds (NUL, lone surrogates) and cut to the limit."""
    text = text[:characters_max].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode()


def _answer(asked: Asked, row: Mapping[str, object] | None) -> TaskSucceeded | TaskFailed:
    try:
        answer = asked.handler.answer(row)
    except Exception as error:
        return failure_of(asked.command.id, error)
    return TaskSucceeded(asked.command.id, answer.output, answer.acknowledges_signal)


def _text(value: Json) -> str:
    return dumps_own(value).decode()
