"""What a run is judged by: what clients were told, what the mail server took, what the rows hold.

The three are kept apart by who wrote them (a client, an SMTP server's file, the database at rest),
so that no fault of the engine's own books can hide itself. `Ledger.count` compares them:

* lost: acknowledged, and has no decided account, no execution that ended as it should, or not every
  mail that its course calls for;
* dup_db: a database effect that happened more than once. The database itself notes every change of
  an account, whoever makes it (`audit.py`); and no answer to a command stands twice in a history;
* resurrected: verified and deleted, in whichever two of the places;
* stuck: RUNNING with `due_at` over a minute past, or with neither due time nor live owner (there
  are no task tokens yet, which would be the third thing to wait for);
* history: ids that are not 1..n, a broken chain of `previousEventId`, or a replay that ends
  elsewhere than the row (`replay.py`);
* dup_mail: a Message-ID delivered more than once. `unexplained` are those that nothing accounts
  for: neither a takeover of the execution from an owner whose lease had run out (`audit.py` notes
  each, and each accounts for one repeat), nor an attempt that timed out by the state's own
  TimeoutSeconds (by the history; each accounts for one repeat of that state's mail), nor a fault
  between the two deliveries in what all replicas need. That one of them was killed or stopped in
  between is no excuse: in a run of kills one always was.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import asyncpg

from service.asl import About, HistoryEvent, StateMachine, compile_definition
from service.documents import loads
from service.engine.arns import Arns
from service.engine.history import unpack
from tests.e2e.sink import Delivery
from tests.e2e.visitors import Signup
from tests.faults.audit import CHANGED_TWICE, TAKEOVERS, VERIFIED_AND_EXPIRED
from tests.faults.replay import Ending, replay

ON_ITS_WAY_SECONDS: Final = 0.5
"""A mail that was sent when something broke may reach the sink's eyes so much later."""
OVERDUE_SECONDS: Final = 60.0
CULPRITS_MAX: Final = 5
"""How many of those that are counted are named."""
AT_ONCE: Final = 500

FAULTS: Final = ("lost", "dup_db", "unexplained", "resurrected", "stuck", "history")

_TASK_ENTERED: Final = "TaskStateEntered"
_TIMED_OUT: Final = "LambdaFunctionTimedOut"
_FROM_OUTSIDE: Final = ("ExecutionAborted", "ExecutionTimedOut", "ExecutionFailed")
_HISTORIES: Final = """
select e.id, e.machine, e.name, e.definition, e.input, e.started_at, e.status, e.output, e.error,
    e.cause, h.events
from executions as e
left join lateral (
    select array_agg(events order by first_event_id) as events
    from history where bucket = e.bucket and execution_id = e.id
) as h on true
where $1::integer = 1 or abs(hashtext(e.id::text)) % $1 = 0
"""
_STUCK: Final = """
select e.id::text from executions as e
where e.status = 'RUNNING'
and (
    e.due_at < clock_timestamp() - make_interval(secs => $1)
    or (e.due_at is null and not exists (
        select from workers as w
        where w.id = e.owner
        and w.heartbeat_at >= clock_timestamp() - make_interval(secs => w.lease_seconds)
    ))
)
"""


class Fault(NamedTuple):
    """From when to when something was broken that all replicas need, by the sink's clock."""

    began: float
    ended: float


class Repeat(NamedTuple):
    """A mail that came again, and when it came the time before."""

    message_id: str
    first: float
    again: float


@dataclass
class Counts:
    """What the ledger found, and some of whom it found it at."""

    executions: int = 0
    verified: int = 0
    expired: int = 0
    lost: int = 0
    dup_db: int = 0
    dup_mail: int = 0
    unexplained: int = 0
    resurrected: int = 0
    stuck: int = 0
    history: int = 0
    histories_replayed: int = 0
    culprits: dict[str, list[str]] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, int]:
        """Return the counts that must be nought, where they are not."""
        return {name: n for name in FAULTS if (n := getattr(self, name))}

    def line(self) -> dict[str, object]:
        """Return the counts as part of a run's line."""
        return {name: value for name, value in vars(self).items() if name != "culprits"}

    def blame(self, name: str, culprits: Sequence[str]) -> int:
        """Name some of those that are counted under `name`, and return how many there are."""
        if culprits:
            self.culprits[name] = [
                *self.culprits.get(name, []),
                *sorted(culprits)[:CULPRITS_MAX],
            ]
        return len(culprits)


class Played(NamedTuple):
    """What the histories showed, by account or execution."""

    answered_twice: list[str]
    broken: list[str]
    deleted: set[str]
    welcomed: set[str]
    by_key: dict[str, str]  # executions, by the idempotency keys of their tasks
    timeouts: Counter[str]  # attempts that timed out, by the same keys
    count: int


@dataclass
class Ledger:
    """What clients know, and what was broken when.

    `ends` are executions that were started otherwise than by a signup, and the status that each is
    to end with; `unreachable` the addresses whose mails the mail server refuses.
    """

    time_scale: float = 1.0
    acknowledged: dict[str, Signup] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def note_fault(self, began: float, ended: float | None = None) -> None:
        """Note that what all replicas need was broken from `began` to `ended`, or until now."""
        self.faults.append(Fault(began, time.monotonic() if ended is None else ended))

    async def count(
        self, database: asyncpg.Connection, deliveries: Sequence[Delivery], *, one_of: int = 1
    ) -> Counts:
        """Compare what clients were told, the mails taken, and the database, which is at rest.

        Of the histories one of so many is read, which a run of a million may ask for.
        """
        statuses = await _pairs(database, "select id::text, status from accounts")
        executions = await _pairs(database, "select id::text, status from executions")
        counts = Counts(len(executions))
        tally = Counter(statuses.values())
        counts.verified, counts.expired = tally["verified"], tally["expired"]
        counts.lost = counts.blame("lost", self._lost(statuses, executions, deliveries))
        stuck = await database.fetch(_STUCK, OVERDUE_SECONDS)
        counts.stuck = counts.blame("stuck", [row["id"] for row in stuck])
        played = await self._play(database, one_of)
        counts.histories_replayed = played.count
        counts.history = counts.blame("history", played.broken)
        changed_twice = [row["story"] for row in await database.fetch(CHANGED_TWICE)]
        counts.dup_db = counts.blame("dup_db", changed_twice + played.answered_twice)
        both = await database.fetch(VERIFIED_AND_EXPIRED)
        resurrected = {row["account"] for row in both} | self._resurrected(statuses, played)
        counts.resurrected = counts.blame("resurrected", list(resurrected))
        takeovers = await database.fetch(TAKEOVERS)
        repeated = _repeated_mails(deliveries)
        counts.dup_mail = len(repeated)
        unexplained = self._unexplained(repeated, dict(takeovers), played)
        counts.unexplained = counts.blame("unexplained", unexplained)
        return counts

    def _lost(
        self,
        statuses: dict[str, str],
        executions: dict[str, str],
        deliveries: Sequence[Delivery],
    ) -> list[str]:
        linked = {mail.account for mail in deliveries}
        welcomed = {mail.recipient for mail in deliveries if mail.is_welcome}
        reachable = {
            id: signup
            for id, signup in self.acknowledged.items()
            if signup.email not in self.unreachable
        }
        undecided = {id for id, status in statuses.items() if status in ("pending", "superseded")}
        unwelcomed = {
            id
            for id, signup in reachable.items()
            if statuses.get(id) == "verified" and signup.email not in welcomed
        }
        failed = {id for id in statuses if executions.get(id) != "SUCCEEDED"}
        absent = self.acknowledged.keys() - statuses.keys()
        # A signup whose answer was lost may find its address taken by its visitor's next try, and
        # gets no link then; one that was acknowledged is the one whose link is followed.
        unlinked = reachable.keys() - linked
        otherwise = {id for id, status in self.ends.items() if executions.get(id) != status}
        return list(absent | undecided | failed | unwelcomed | unlinked | otherwise)

    def _resurrected(self, statuses: dict[str, str], played: Played) -> set[str]:
        told_otherwise = {
            id for id, verdict in self.verdicts.items() if statuses.get(id) != verdict
        }
        verified = {id for id, status in statuses.items() if status == "verified"}
        wrongly_welcomed = (played.welcomed & statuses.keys()) - verified
        return told_otherwise | (played.deleted & verified) | wrongly_welcomed

    def _unexplained(
        self, repeated: Sequence[Repeat], takeovers: Mapping[str, int], played: Played
    ) -> list[str]:
        """Return the Message-IDs of repeats that no faults, timeouts or takeovers account for."""
        takeovers_left, timeouts_left = Counter(takeovers), Counter(played.timeouts)
        unexplained = []
        for repeat in repeated:
            if self._was_faulty(repeat):
                continue
            key = repeat.message_id.strip("<>").partition("@")[0]
            execution = played.by_key.get(key, "")
            if timeouts_left[key] > 0:
                timeouts_left[key] -= 1
            elif takeovers_left[execution] > 0:
                takeovers_left[execution] -= 1
            else:
                unexplained.append(repeat.message_id)
        return unexplained

    def _was_faulty(self, repeat: Repeat) -> bool:
        return any(
            fault.began <= repeat.again and fault.ended >= repeat.first - ON_ITS_WAY_SECONDS
            for fault in self.faults
        )

    async def _play(self, database: asyncpg.Connection, one_of: int) -> Played:
        machines = {
            bytes(row["sha256"]): compile_definition(row["text"])
            for row in await database.fetch("select sha256, text from definitions")
        }
        played, count = Played([], [], set(), set(), {}, Counter(), 0), 0
        async for row in _stream(database, one_of):
            count += 1
            id = str(row["id"])
            events = [event for packed in row["events"] or () for event in unpack(packed)]
            if _answers_twice(events):
                played.answered_twice.append(f"{id}: a command answered twice")
            problem = self._problem(row, events, machines[bytes(row["definition"])])
            if problem is not None:
                played.broken.append(f"{id}: {problem}")
            keys = _keys(row["id"], events)
            played.by_key.update(dict.fromkeys(keys.values(), id))
            played.timeouts.update(keys[entered] for entered in _timed_out(events))
            if _ends_in(events, "Deleted"):
                played.deleted.add(id)
            if _ends_in(events, "Verified"):
                played.welcomed.add(id)
        return played._replace(count=count)

    def _problem(
        self, row: asyncpg.Record, events: Sequence[HistoryEvent], machine: StateMachine
    ) -> str | None:
        if not _is_whole(events):
            ids = " ".join(f"{event.id}<{event.previous_event_id}" for event in events)
            return f"ids that are not 1..n, or a broken chain: {ids}"
        arns = Arns()
        role = (events[0].details or {}).get("roleArn") if events else None
        about = About(
            arn=arns.execution(row["machine"], row["name"]),
            name=row["name"],
            started_at=row["started_at"],
            input=loads(row["input"]),
            role_arn=str(role),
            machine_arn=arns.machine(row["machine"]),
            machine_name=row["machine"],
        )
        output = None if row["output"] is None else loads(row["output"])
        ending = Ending(row["status"], output, row["error"], row["cause"])
        return replay(machine, about, events, ending, self.time_scale)


async def read_histories(database: asyncpg.Connection) -> dict[str, list[HistoryEvent]]:
    """Return the history events of all executions, by id."""
    histories: dict[str, list[HistoryEvent]] = defaultdict(list)
    for row in await database.fetch(
        "select execution_id, events from history order by execution_id, first_event_id"
    ):
        histories[str(row["execution_id"])] += unpack(row["events"])
    return histories


async def _pairs(database: asyncpg.Connection, statement: str) -> dict[str, str]:
    return {row[0]: row[1] for row in await database.fetch(statement)}


async def _stream(database: asyncpg.Connection, one_of: int) -> AsyncIterator[asyncpg.Record]:
    async with database.transaction():
        async for row in database.cursor(_HISTORIES, one_of, prefetch=AT_ONCE):
            yield row


def _is_whole(events: Sequence[HistoryEvent]) -> bool:
    """Tell whether ids count from 1 and each event is linked to an earlier one.

    Four are linked to nothing: the start, the entry into the first state, an expression that fails
    at that entry (it is linked to what the entry is linked to), and an end that came from outside
    of any state.
    """
    if [event.id for event in events] != list(range(1, len(events) + 1)):
        return False
    return all(
        0 < event.previous_event_id < event.id
        or (event.previous_event_id == 0 and (event.id <= 2 or event.type in _FROM_OUTSIDE))
        or (event.previous_event_id, event.id, event.type) == (0, 3, "EvaluationFailed")
        for event in events
    )


def _answers_twice(events: Sequence[HistoryEvent]) -> bool:
    """Tell whether some command has two answers: they would be linked to the same start."""
    starts = {event.id for event in events if event.type.endswith(("Scheduled", "Started"))}
    ends = ("Succeeded", "Failed", "TimedOut")
    answers = Counter(
        event.previous_event_id
        for event in events
        if event.previous_event_id in starts and event.type.endswith(ends)
    )
    return any(times > 1 for times in answers.values())


def _repeated_mails(deliveries: Sequence[Delivery]) -> list[Repeat]:
    times: dict[str, list[float]] = defaultdict(list)
    for mail in deliveries:
        times[mail.message_id].append(mail.at)
    return [Repeat(id, *pair) for id, each in times.items() for pair in pairwise(each)]


def _keys(id: UUID, events: Sequence[HistoryEvent]) -> dict[int, str]:
    """Return the idempotency keys of an execution's tasks, which are those of its Message-IDs, by
    the events at which their states were entered.
    """
    entered = [event.id for event in events if event.type == _TASK_ENTERED]
    return {at: str(uuid5(id, str(at))) for at in entered}


def _timed_out(events: Sequence[HistoryEvent]) -> Iterator[int]:
    """Yield, for each attempt that timed out, the event at which its state was entered."""
    entered: dict[int, int] = {}  # by the events that follow from it
    for event in events:
        is_entry = event.type == _TASK_ENTERED
        at = event.id if is_entry else entered.get(event.previous_event_id)
        if at is not None:
            entered[event.id] = at
            if event.type == _TIMED_OUT:
                yield at


def _ends_in(events: Sequence[HistoryEvent], state: str) -> bool:
    return any(
        event.type == "SucceedStateEntered"
        and event.details is not None
        and event.details["name"] == state
        for event in events
    )
