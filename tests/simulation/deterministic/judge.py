"""The ledger of a play: what those outside were told, what was performed, and the rows at rest.

Counted outside the engine, as in `tests/faults/ledger.py`, and besides what is counted there: what
must hold at every commit and every time that something is performed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Final
from uuid import UUID

from service.asl import About, HistoryEvent, Status
from service.documents import loads
from service.engine.history import unpack
from service.engine.ports import Key
from service.store.memory import ExecutionRow
from tests.faults.replay import Ending, replay
from tests.simulation.deterministic.books import Books
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.faults import EFFECTS, OUTAGE, SLOW, SLOW_ANSWER, Fault
from tests.simulation.deterministic.flows import (
    BRANCHES,
    ITEMS,
    PATIENT,
    STEPS,
    STUBBORN,
    TIME_SCALE,
    machines,
)
from tests.simulation.deterministic.network import Struck
from tests.simulation.deterministic.outside import Performed
from tests.simulation.deterministic.replica import ARNS
from tests.simulation.deterministic.story import Story
from tests.simulation.deterministic.visitors import Told
from tests.simulation.deterministic.world import LATENCY_SECONDS_MAX, World

TALLIES: Final = {STEPS: 3, BRANCHES: 4, ITEMS: 3, STUBBORN: 2}
CALLS: Final = {STEPS: 1, BRANCHES: 1, ITEMS: 3, STUBBORN: 1}
ERRORS: Final = (
    "MailUnavailable", "FunctionUnavailable", "Flaky", "Unavailable", "Contended",
    "Engine.WorkerLost", "States.Timeout",
)  # fmt: skip
"""What a task of a run may fail with. Anything else is a mistake, most likely of this model."""

POISONED: Final = "Engine.WorkerLost"
DEATHS_OF_THE_POISONED: Final = 3

ON_ITS_WAY_SECONDS: Final = 1.0
"""Of an effect that reaches the outside when what went wrong with its performer is over."""

LONG: Final = timedelta(minutes=10)
"""Longer than any backoff, shorter than the wait of the patient."""


@dataclass
class Verdict:
    """What is wrong, by the ledger's names, in words; and how often a mail came twice."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    dup_mail: int = 0

    @property
    def held(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    def add(self, name: str, what: str) -> None:
        """Note something that is wrong."""
        self.wrong.setdefault(name, []).append(what)

    def __str__(self) -> str:
        return "\n".join(f"  {name}: {what}" for name, all in self.wrong.items() for what in all)


class Judge:
    """Compares the books with the database at rest."""

    def __init__(self, books: Books, told: Told, story: Story) -> None:
        self._books = books
        self._told = told
        self._story = story
        self._verdict = Verdict()
        self._server = books.server
        self._histories = {key: list(self._history(key)) for key, _ in books.server.rows()}

    def judge(self, is_over: bool, busy_loop: str | None) -> Verdict:
        """Return what is wrong."""
        add = self._verdict.add
        for name, what in self._books.wrong:
            add(name, what)
        if busy_loop is not None:
            add("stuck", busy_loop)
        if not is_over:
            add("stuck", "not everything came to rest")
        for what in self._books.outside.too_early:
            add("too early", what)
        for what in self._told.false:
            add("false", what)
        for what in self._told.unanswered:
            add("stuck", f"never answered: {what}")
        for complaint in complaints(self._books.world):
            add("complaint", complaint)
        self._count_executions()
        self._count_accounts()
        self._count_performed()
        return self._verdict

    # Executions

    def _count_executions(self) -> None:
        names = {row.name for _, row in self._server.rows()}
        for name, start in self._told.started.items():
            if name not in names:
                self._verdict.add("lost", f"{start}, acknowledged, is not there")
        for key, row in self._server.rows():
            self._books.seen["executions"] += 1
            status, name = row.at.status, f"{row.machine} {key.id}"
            self._check_history(key, row)
            if waits_for_nobody(self._server, key, row) and status is Status.RUNNING:
                continue
            if status is Status.RUNNING:
                self._verdict.add("stuck", f"{name} still runs: {_place(row)}")
                continue
            if status is not Status.SUCCEEDED and not self._may_be_poisoned(row):
                self._verdict.add("lost", f"{name} ended as {status}: {row.at.error}")
            if row.machine in TALLIES and status is Status.SUCCEEDED:
                self._check_tallies(key, row)

    def _may_be_poisoned(self, row: ExecutionRow) -> bool:
        """Tell whether enough replicas died for an execution to be taken for the reason."""
        deaths = sum("kill" in fault.kind for fault, _, _ in self._struck)
        return row.at.error == POISONED and deaths >= DEATHS_OF_THE_POISONED

    def _check_history(self, key: Key, row: ExecutionRow) -> None:
        events = self._histories[key]
        ids = [event.id for event in events]
        if ids != list(range(1, len(ids) + 1)):
            self._verdict.add("history", f"{key.id}: ids are {ids}")
            return
        for event in events:
            error = (event.details or {}).get("error")
            if event.type.endswith("Failed") and error not in ERRORS:
                self._verdict.add("complaint", f"{row.machine} {key.id}: {event.details}")
        if any(event.previous_event_id >= event.id for event in events):
            self._verdict.add("history", f"{key.id}: an event follows a later one")
        about = About(
            ARNS.execution(row.machine, row.name), row.name, row.started_at, loads(row.input),
            ARNS.role, ARNS.machine(row.machine), row.machine,
        )  # fmt: skip
        output = None if row.at.output is None else loads(row.at.output)
        ending = Ending(row.at.status.value, output, row.at.error, row.at.cause)
        problem = replay(machines()[row.machine], about, events, ending, TIME_SCALE)
        if problem is not None:
            self._verdict.add("history", f"{row.machine} {key.id}: {problem}")

    def _check_tallies(self, key: Key, row: ExecutionRow) -> None:
        tallies = self._server.shard(key.bucket).tallies
        times = {at: n for (execution, at), n in tallies.items() if execution == key}
        for at, n in times.items():
            if n > 1:
                self._verdict.add("dup_db", f"{row.machine} {key.id}: event {at} counted {n} times")
        if len(times) < TALLIES[row.machine]:
            self._verdict.add("lost", f"{row.machine} {key.id} counted {len(times)} times only")
        calls = {
            done.key
            for done in self._books.outside.performed
            if done.what == "function" and self._execution_of(done.key) == key
        }
        if len(calls) < CALLS[row.machine]:
            self._verdict.add("lost", f"{row.machine} {key.id} called {len(calls)} functions only")

    def _execution_of(self, idempotency_key: UUID) -> Key | None:
        """Return the execution whose committed history has the state that this key is of."""
        return self._books.outside.entered.get(idempotency_key, (None, ""))[0]

    # Accounts

    def _count_accounts(self) -> None:
        for id, visitor in self._told.accepted.items():
            key = Key(id.int & 255, id)
            account = self._server.account_shard(key.bucket).accounts.rows.get(key)
            if account is None:
                self._verdict.add("lost", f"{visitor}: acknowledged, has no account")
        for _, shard in sorted(self._server.accounts.items()):
            for key, account in shard.accounts.rows.items():
                self._books.seen[account.status] += 1
                self._check_account(key, account.status)

    def _check_account(self, key: Key, status: str) -> None:
        row = self._server.shard(key.bucket).committed.get(key)
        if row is None:
            self._verdict.add("lost", f"account {key.id} has no execution")
            return
        if status in ("pending", "superseded") and row.at.status is not Status.RUNNING:
            self._verdict.add("lost", f"account {key.id} is {status} at the end")
        told = self._told.verdicts.get(key.id, status)
        if told != status and (told != "superseded" or status == "verified"):
            self._verdict.add("resurrected", f"{key.id} was told {told}, is {status}")
        entered = {name for _, name in _entered(self._histories[key])}
        if "Deleted" in entered and status == "verified":
            self._verdict.add("resurrected", f"{key.id} is verified, its flow deleted it")
        if "Verified" in entered and status != "verified":
            self._verdict.add("resurrected", f"{key.id} is {status}, its flow welcomed it")
        self._check_mails(key, status, row)

    def _check_mails(self, key: Key, status: str, row: ExecutionRow) -> None:
        mails = {
            done.what
            for done in self._books.outside.performed
            if self._execution_of(done.key) == key
        }
        if row.at.status is not Status.SUCCEEDED:
            return
        if "mail verification" not in mails and not self._has_rival(key.id):
            self._verdict.add("lost", f"{key.id} was sent no link")
        if status == "verified" and "mail welcome" not in mails:
            self._verdict.add("lost", f"{key.id} is verified and not welcomed")
        if status == "expired" and "mail welcome" in mails:
            self._verdict.add("resurrected", f"{key.id} is expired and welcomed")

    def _has_rival(self, account: UUID) -> bool:
        """Tell whether somebody else asked for the address, who may own it by now.

        So may an earlier try of the same visitor, whose answer was lost.
        """
        visitor = self._told.accepted.get(account)
        asked = [other.address for other in self._story.visitors]
        accounts = sum(len(shard.accounts.rows) for shard in self._server.accounts.values())
        is_repeated = accounts > len(self._story.visitors)
        return visitor is None or asked.count(visitor.address) > 1 or is_repeated

    # What was performed

    def _count_performed(self) -> None:
        by_key: dict[UUID, list[Performed]] = {}
        for done in self._books.outside.performed:
            by_key.setdefault(done.key, []).append(done)
        for key, times in by_key.items():
            self._verdict.dup_mail += (len(times) - 1) * times[0].what.startswith("mail")
            for first, again in pairwise(times):
                if not self._is_expected(key, first, again):
                    self._verdict.add(
                        "unexplained",
                        f"{first.what} {key} by {first.by} at {first.at:.3f} "
                        f"and by {again.by} at {again.at:.3f}",
                    )

    def _is_expected(self, key: UUID, first: Performed, again: Performed) -> bool:
        """Tell whether something was performed again by right: by a state's own Retry, as the
        stubborn one's does, by a redrive in between, or for a fault.
        """
        execution = self._execution_of(key)
        if execution is None:
            return is_explained(first, again, self._struck)
        row = self._server.shard(execution.bucket).committed[execution]
        # The first may have been on its way by then.
        since, redriven = first.at - LATENCY_SECONDS_MAX, self._books.redriven.get(execution, [])
        if row.machine == STUBBORN or any(since <= at <= again.at for at in redriven):
            return True
        # Somebody may have taken it to stop it, and have performed nothing of it.
        parted = self._books.parted.get(execution, [])
        lost = [name for name, at in parted if since <= at <= again.at]
        return is_explained(first, again, self._struck, lost)

    @property
    def _struck(self) -> Sequence[Struck]:
        return self._books.network.struck

    def _history(self, key: Key) -> Iterator[HistoryEvent]:
        history = self._server.shard(key.bucket).history
        for _, events in sorted((at, e) for (k, at), e in history.items() if k == key):
            yield from unpack(events)


def is_explained(
    first: Performed, again: Performed, struck: Iterable[Struck], lost: Sequence[str] = ()
) -> bool:
    """Tell whether a fault hit either performer, one of those who had it and `lost` it to others,
    or the database, between the one and the other.

    One at a visitor's request hits neither, and a delay between replica and database is no reason
    to perform anything again for those who keep what they have.
    """
    since, parties = first.at - ON_ITS_WAY_SECONDS, (first.by, again.by, *lost)
    return any(
        (fault.kind == OUTAGE or name in (lost if _is_delay_inside(fault) else parties))
        and since <= at + fault.lasts
        and at <= again.at
        for fault, name, at in struck
    )


def _is_delay_inside(fault: Fault) -> bool:
    return fault.kind in (SLOW, SLOW_ANSWER) and fault.place not in EFFECTS


def waits_for_nobody(server: ModelDatabase, key: Key, row: ExecutionRow) -> bool:
    """Tell whether an execution has ended, or waits for a visitor who is not going to come.

    That is a patient one whose account nobody verified: its visitor asked twice, and followed the
    other link. One whose account is verified was signalled, and has no reason to wait.
    """
    if row.at.status is not Status.RUNNING:
        return True
    if row.machine != PATIENT or row.at.due_at is None or row.is_signalled:
        return False
    if row.at.due_at < server.clock.now() + LONG:
        return False  # it tries its mail again
    account = server.account_shard(key.bucket).committed_accounts.get(key)
    return account is not None and account.status != "verified"


def complaints(world: World) -> list[str]:
    """Return what asyncio had to complain of: errors that nobody looked at."""
    found = list(world.complaints)
    for process in world.lives:
        for task in process.tasks:
            # Nobody has asked for its exception: asyncio says so once the task is collected.
            if task.done() and not task.cancelled() and task._log_traceback:
                found += [f"{process.name}: {task.exception()!r}"]
    return found


def _entered(events: list[HistoryEvent]) -> Iterator[tuple[int, str]]:
    for event in events:
        if event.type.endswith("StateEntered") and event.details is not None:
            yield event.id, str(event.details["name"])


def _place(row: ExecutionRow) -> str:
    return f"due {row.at.due_at}, owner {row.at.owner}, {row.claims} claims, epoch {row.at.epoch}"
