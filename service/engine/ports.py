"""What the engine needs from outside, and the values that cross that border.

`store` satisfies `Store` and `Transaction` structurally; `tasks` provides the handlers. A
`Transaction` is one database transaction for the steps of many executions; its methods are called
in the order in which they stand here. Every method of a store raises `Unavailable` when the
database does not answer (connection lost or refused, server shutting down), `Contended` for a lock
not granted in time or a deadlock, `Rejected` for data the database refuses.

The values that nearly every step makes have their constructors written out, as those of the
language have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID, uuid5

from service.asl import Json, RunTask, StateMachine, Status, TaskFailed

BUCKETS: Final = 256


class Unavailable(Exception):
    """The database does not answer. Whether the last commit took place may be unknown."""

    retry_after_seconds: ClassVar[float] = 2.0


class Overloaded(Exception):
    """A bounded queue is full; nothing was stored."""

    retry_after_seconds: ClassVar[float] = 1.0


class Contended(Exception):
    """A lock was not granted in time, or a deadlock was broken: worth another try."""


class Rejected(Exception):
    """The database refuses a value (SQLSTATE class 22 or 23, or text that has no encoding)."""


class InvalidExecutionInput(Exception):
    """The input is no JSON that an execution can begin with."""


class ExecutionAlreadyExists(Exception):
    """Another execution of this machine has the name."""


class ExecutionDoesNotExist(Exception):
    """No execution has this key."""


class ExecutionNotRedrivable(Exception):
    """The execution runs, has succeeded, or has kept nothing to go on from."""


class StateMachineDoesNotExist(Exception):
    """No machine has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no state machine is named {name!r}")
        self.name = name


class Key(NamedTuple):
    """Where an execution lives. Every key begins with its bucket (0-255)."""

    bucket: int
    id: UUID


@dataclass(init=False, slots=True)
class Effect:
    """One row for a statement in `sql/queries` that shares the checkpoint's transaction.

    The statement takes `$1::int[]`, the ordinals of the rows, and then one array for each member of
    `row`, and returns at most one row for each ordinal, beginning with it. The first member is the
    bucket of what the row is about.
    """

    query: Final[str]
    row: Final[tuple[object, ...]]
    # Told of the returned row once it is committed: for what must not be counted twice.
    committed: Callable[[Mapping[str, object] | None], None] | None = field(compare=False)

    def __init__(
        self,
        query: str,
        row: tuple[object, ...],
        committed: Callable[[Mapping[str, object] | None], None] | None = None,
    ) -> None:
        self.query = query
        self.row = row
        self.committed = committed


class Claim(NamedTuple):
    """An execution's row as it was when this worker came to own it."""

    key: Key
    epoch: int
    machine: str
    definition: bytes
    name: str
    input: str
    started_at: datetime
    checkpoint: bytes | None
    is_signalled: bool
    claims: int  # since the last checkpoint, this one included
    quarantined: int  # times it was begun in the quarantine lane since the last checkpoint
    claimed_at: datetime  # by the database's clock
    redrive_count: int = 0
    redriven_at: datetime | None = None  # the last time


@dataclass(init=False, slots=True)
class Checkpoint:
    """Where an execution stands after a step. `owner` None: it leaves this worker's memory."""

    key: Final[Key]
    epoch: Final[int]  # the row's new epoch
    status: Final[Status]
    due_at: Final[datetime | None]
    owner: Final[UUID | None]
    # None when there is nothing to go on from: it has succeeded, mostly.
    document: Final[bytes | None]
    output: Final[str | None]
    error: Final[str | None]
    cause: Final[str | None]
    stopped_at: Final[datetime | None]
    was_signalled: Final[bool]  # the row's mark as the step found it, which the checkpoint clears

    def __init__(
        self,
        key: Key,
        epoch: int,
        status: Status,
        due_at: datetime | None,
        owner: UUID | None,
        document: bytes | None,
        output: str | None,
        error: str | None,
        cause: str | None,
        stopped_at: datetime | None,
        was_signalled: bool = False,
    ) -> None:
        self.key = key
        self.epoch = epoch
        self.status = status
        self.due_at = due_at
        self.owner = owner
        self.document = document
        self.output = output
        self.error = error
        self.cause = cause
        self.stopped_at = stopped_at
        self.was_signalled = was_signalled


@dataclass(init=False, slots=True)
class HistoryRow:
    """The history events of one step, as one row."""

    key: Final[Key]
    first_event_id: Final[int]
    events: Final[bytes]

    def __init__(self, key: Key, first_event_id: int, events: bytes) -> None:
        self.key = key
        self.first_event_id = first_event_id
        self.events = events


@dataclass(init=False, slots=True)
class NewExecution:
    """An execution to insert as it stands after its first step: no second write is needed for that.

    `first.owner` is the worker that goes on with it at once, without a claim; None leaves it to
    whoever claims it.
    """

    machine: Final[str]
    definition: Final[bytes]  # SHA-256 of the definition's text
    name: Final[str]
    input: Final[str]  # JSON text
    started_at: Final[datetime]
    first: Final[Checkpoint]  # of epoch 1
    history: Final[HistoryRow | None]  # of its first step
    effects: Final[Sequence[Effect]]  # which happen with it or not at all; their rows are not told

    def __init__(
        self,
        machine: str,
        definition: bytes,
        name: str,
        input: str,
        started_at: datetime,
        first: Checkpoint,
        history: HistoryRow | None = None,
        effects: Sequence[Effect] = (),
    ) -> None:
        self.machine = machine
        self.definition = definition
        self.name = name
        self.input = input
        self.started_at = started_at
        self.first = first
        self.history = history
        self.effects = effects


class Standing(NamedTuple):
    """A running execution's row, locked. `claim` is the row as it is: nothing was claimed."""

    claim: Claim
    owner: UUID | None  # None: it is at rest


@dataclass(frozen=True, slots=True)
class Signalling:
    """What became of a signal. `claim`: the execution was at rest and is ours now; else `owner` has
    it in memory.
    """

    key: Key
    owner: UUID
    claim: Claim | None


class Transaction(Protocol):
    """One transaction. What happened inside is committed when its context manager ends without an
    exception.
    """

    async def insert(
        self, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
        """Insert executions, each with its history and effects; return the keys that stand now, and
        of each whether this call inserted it. False: an earlier commit did, whose answer was lost.

        A row whose (bucket, machine, name) another id has is left out, and so is its key.
        `is_all`: nothing else happens in this transaction.
        """
        ...

    async def lock(self, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        """Lock the rows whose epoch is still this one, in sorted order; return each one's
        `is_signalled`.
        """
        ...

    async def apply(self, effects: Sequence[Effect]) -> Sequence[Mapping[str, object] | None]:
        """Run effects, one statement for each query name; return the row of each, or None where it
        returned none.
        """
        ...

    async def standing(self, keys: Sequence[Key]) -> Sequence[Standing]:
        """Lock running executions whoever holds them, in sorted order, and return their rows.
        Unknown or ended ones are left out.
        """
        ...

    async def signal(self, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        """Mark executions that `standing` has locked as signalled, claiming for `owner` those at
        rest.
        """
        ...

    async def save(
        self, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        """Write checkpoints (clearing signal and claim counts) and append their history; return the
        keys whose checkpoint was refused, and with it the history of that key. Nothing comes after
        it in this transaction.

        Refused is what is no longer as the step found it: in the epoch before the checkpoint's, and
        marked as signalled or not. That cannot happen to a row that this transaction has locked.
        """
        ...


class Due(NamedTuple):
    """What a worker claimed because its timer was due."""

    claims: Sequence[Claim]
    next_due: datetime | None  # the earliest timer that was not, as far as it is known


class Store(Protocol):
    """The executions, outside the committer's transaction. Leases and wake-ups go by the database's
    clock.
    """

    def transaction(self, lock_patience_ms: int) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction in which no lock is waited for longer than this (Contended)."""
        ...

    async def claim_due(self, owner: UUID, limit: int) -> Due:
        """Claim at most `limit` resting executions whose timer is due, earliest first, skipping
        locked rows. `next_due` is known where some were claimed and fewer than `limit`.
        """
        ...

    async def next_due(self) -> datetime | None:
        """Return the earliest due time of all resting executions."""
        ...

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        """Return key and epoch of every row that `owner` holds: what to compare memory with after
        an outage.
        """
        ...

    async def claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Return those of the rows that `owner` holds, as they are: what to go on from after an
        ambiguous commit.
        """
        ...

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        """Claim running executions whoever holds them: their present owner is fenced. Ended ones
        are left out.
        """
        ...

    async def redrive(
        self, owner: UUID, keys: Sequence[Key], token: str | None = None
    ) -> Sequence[Claim]:
        """Have executions run again that ended without success, and claim them.

        Their checkpoints are as they were: they tell of one redrive less than the claims. Left out
        is what ended or began too long ago (see `engine.redrive`), what kept no checkpoint, and
        what this token has redriven lately.
        """
        ...

    async def redriven_by(self, key: Key, token: str) -> datetime | None:
        """Return when a token redrove an execution, if it did lately."""
        ...

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        """Raise the count of beginnings in the quarantine lane, by -1 to take one back.

        Return False when the epoch no longer stands.
        """
        ...

    async def bury(self, key: Key, epoch: int, error: str, cause: str) -> bool:
        """End an execution as FAILED that cannot be read; False when the epoch no longer stands.

        Its checkpoint stays as it is, for a redrive.
        """
        ...

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        """Renew the worker's lease; return the database's clock, the keys of its signalled
        executions and who holds any.
        """
        ...

    async def rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        """Claim at most `limit` executions whose owner's lease ran out or who has no heartbeat row
        at all.
        """
        ...

    async def let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        """Put one claim back, due after the delay, its claim count kept; False when the epoch no
        longer stands.
        """
        ...

    async def release(self, owner: UUID) -> int:
        """Give up everything `owner` holds (due at once for others) and its lease; return how many
        rows.
        """
        ...

    async def sweep(self, limit: int) -> int:
        """Make due at once RUNNING rows with neither due time nor owner (the invariant); return how
        many.
        """
        ...

    async def tidy(self, retention_days: int, limit: int) -> int:
        """Delete up to `limit` closed executions older than this, drop passed history days, make
        coming ones.
        """
        ...


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat's answer."""

    now: datetime
    signalled: Sequence[Key]
    holds: bool  # the worker itself has executions
    others_hold: bool  # so has somebody else, alive or not


class Machines(Protocol):
    """Definitions, compiled once each."""

    async def current(self, name: str) -> StateMachine:
        """Return the definition that new executions of this machine take. Raises
        StateMachineDoesNotExist.
        """
        ...

    async def pinned(self, definition: bytes) -> StateMachine:
        """Return the definition with this SHA-256, which an execution was started on."""
        ...

    def cached(self, definition: bytes) -> StateMachine | None:
        """Return a pinned definition if it is in memory: for use inside a transaction."""
        ...

    def role_arn(self, name: str) -> str | None:
        """Return the role that a machine was given, if it was."""
        ...


class Current(NamedTuple):
    """What new executions of a machine take: a definition, and the role that it was given."""

    sha256: bytes
    role_arn: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a file's content. `current` is the SHA-256 that new executions take."""

    is_published: bool
    current: bytes


class DefinitionStore(Protocol):
    """The texts of definitions, and which of them each machine's new executions take."""

    async def currents(self) -> Mapping[str, Current]:
        """Return what new executions of every machine take, by the machine's name."""
        ...

    async def definition(self, sha256: bytes) -> str | None:
        """Return the text of a definition."""
        ...

    async def publish_file(
        self, name: str, file: str, text: str, sha256: bytes, *, edited: bool
    ) -> Published:
        """Make a file's text the machine's current definition, unless that would bring back an
        older build's.

        `edited`: the file changed under a running service, which is an operator's wish in any case.
        Else the text is published only when this file never published it before.
        """
        ...


class Clock(Protocol):
    """The time that decides: never the machine's wall clock."""

    def now(self) -> datetime: ...

    def observe(self, now: datetime) -> None:
        """Be told of a moment that the database has seen: `now` never answers less again."""
        ...


class Pulses(Protocol):
    """What wakes the engine's loops: regular pulses, and one for the next due time."""

    @property
    def due(self) -> asyncio.Event:
        """Return what is set at the moment armed; whoever waits for it clears it."""
        ...

    def open(self) -> None:
        """Begin, on the running loop."""
        ...

    def close(self) -> None:
        """End; no pulse comes after this."""
        ...

    def every(self, name: str, seconds: float, pulse: asyncio.Event | None = None) -> asyncio.Event:
        """Return an event (this one, if given) that is set every so many seconds."""
        ...

    def arm(self, due_at: datetime) -> None:
        """See to it that `due` is set at this moment, if nothing earlier is armed already."""
        ...


def _nobody_listens() -> None:
    """Take a heartbeat that no timeout waits for."""


@dataclass(init=False, slots=True)
class Task:
    """What a handler is given besides its input."""

    execution: Final[Key]
    machine: Final[str]
    name: Final[str]  # the execution's
    state: Final[str]
    entered_event_id: Final[int]
    attempt: Final[int]
    heartbeat: Final[Callable[[], None]]

    def __init__(
        self,
        execution: Key,
        machine: str,
        name: str,
        state: str,
        entered_event_id: int,
        attempt: int,
        heartbeat: Callable[[], None] = _nobody_listens,
    ) -> None:
        self.execution = execution
        self.machine = machine
        self.name = name
        self.state = state
        self.entered_event_id = entered_event_id
        self.attempt = attempt
        self.heartbeat = heartbeat

    @property
    def idempotency_key(self) -> UUID:
        """Return a key that is the same for retries and repeats of one entry into the state."""
        return uuid5(self.execution.id, str(self.entered_event_id))


@dataclass(init=False, slots=True)
class Answer:
    """A handler's output. `acknowledges_signal`: it says what a signal would (see
    `asl.events.Signalled`).
    """

    output: Final[Json]
    acknowledges_signal: Final[bool]

    def __init__(self, output: Json, acknowledges_signal: bool = False) -> None:
        self.output = output
        self.acknowledges_signal = acknowledges_signal


@dataclass(frozen=True, slots=True)
class CoroutineHandler:
    """Performed after the commit, at least once, with a stable key. What it raises becomes
    TaskFailed, named by class.
    """

    run: Callable[[Json, Task], Awaitable[Answer]]


@dataclass(init=False, slots=True)
class EffectHandler:
    """Performed exactly once: inside the transaction that commits the checkpoint.

    `effect` may raise ExecutionError for input it cannot use; `answer` reads the row that the
    statement returned.
    """

    effect: Final[Callable[[Json, Task], Effect]]
    answer: Final[Callable[[Mapping[str, object] | None], Answer]]

    def __init__(
        self,
        effect: Callable[[Json, Task], Effect],
        answer: Callable[[Mapping[str, object] | None], Answer],
    ) -> None:
        self.effect = effect
        self.answer = answer


Handler: TypeAlias = CoroutineHandler | EffectHandler


class Handlers(Protocol):
    """From a task's resource to what performs it."""

    def resolve(self, command: RunTask) -> tuple[Handler, Json] | TaskFailed:
        """Return the handler and its input, or the failure when there is none.

        `arn:aws:states:::lambda:invoke` is unwrapped here, and its answer wrapped as the service
        does.
        """
        ...
