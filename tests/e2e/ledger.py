"""What a run is judged by: what visitors were told, what the mail sink took, what the rows hold.

The three are kept apart by who wrote them (a client, an SMTP server's file, the database at rest),
so that no fault of the engine's own books can hide itself. `Ledger.count` compares them:

* lost: a signup that was acknowledged, or is there, and has no decided account or no execution
  that ended well; or that was acknowledged and lacks a mail that its course calls for;
* dup_db: a database effect that happened more than once;
* resurrected: verified and deleted, in whichever two of the three places;
* stuck: an execution that still runs when nothing is left to wait for;
* history: ids that are not 1..n, or a broken chain of `previousEventId`;
* dup_mail: a Message-ID delivered more than once, which only a fault between the mail server's 250
  and the commit may bring about. `unexplained` are those without such a fault in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Final

import asyncpg

from service.asl import HistoryEvent
from service.engine.history import unpack
from tests.e2e.sink import Delivery
from tests.e2e.visitors import Signup

ON_ITS_WAY_SECONDS: Final = 0.5
"""A mail that was sent when its sender was killed may reach the sink's eyes so much later."""


@dataclass
class Counts:
    """One run's result; a JSON line of the test that ran it."""

    signups: int = 0
    verified: int = 0
    expired: int = 0
    lost: int = 0
    dup_db: int = 0
    resurrected: int = 0
    stuck: int = 0
    history: int = 0
    dup_mail: int = 0
    unexplained: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """Return the counts that must be nought, where they are not."""
        names = ("lost", "dup_db", "resurrected", "stuck", "history", "unexplained")
        return {name: n for name, n in asdict(self).items() if name in names and n}


@dataclass
class Ledger:
    """What the visitors know, and when a process was killed (by the sink's clock)."""

    acknowledged: dict[str, Signup] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    kills: list[float] = field(default_factory=list)
    culprits: list[str] = field(default_factory=list)  # what `count` found lost or resurrected

    async def count(self, database: asyncpg.Connection, deliveries: Sequence[Delivery]) -> Counts:
        """Compare what visitors were told, the mails taken, and the database, which is at rest."""
        statuses = {
            str(row["id"]): row["status"]
            for row in await database.fetch("select id, status from accounts")
        }
        executions = {
            str(row["id"]): row["status"]
            for row in await database.fetch("select id, status from executions")
        }
        histories = await read_histories(database)
        tally = Counter(statuses.values())
        counts = Counts(len(statuses), verified=tally["verified"], expired=tally["expired"])
        counts.stuck = sum(status == "RUNNING" for status in executions.values())
        lost = self._lost(statuses, executions, deliveries)
        resurrected = self._resurrected(statuses, histories)
        self.culprits = sorted(lost | resurrected)
        counts.lost, counts.resurrected = len(lost), len(resurrected)
        counts.history = sum(not _is_whole(events) for events in histories.values())
        counts.dup_db = sum(map(_repeated_states, histories.values()))
        counts.dup_mail, counts.unexplained = self._repeated_mails(deliveries)
        return counts

    def _lost(
        self,
        statuses: dict[str, str],
        executions: dict[str, str],
        deliveries: Sequence[Delivery],
    ) -> set[str]:
        linked = {mail.account for mail in deliveries}
        welcomed = {mail.recipient for mail in deliveries if mail.is_welcome}
        undecided = {id for id, status in statuses.items() if status in ("pending", "superseded")}
        unwelcomed = {
            id
            for id, signup in self.acknowledged.items()
            if statuses.get(id) == "verified" and signup.email not in welcomed
        }
        failed = {id for id in statuses if executions.get(id) not in ("SUCCEEDED", "RUNNING")}
        absent = self.acknowledged.keys() - statuses.keys()
        # A signup whose answer was lost may find its address taken by its visitor's next try, and
        # gets no link then; one that was acknowledged is the one whose link is followed.
        unlinked = self.acknowledged.keys() - linked
        return absent | undecided | failed | unwelcomed | unlinked

    def _resurrected(
        self, statuses: dict[str, str], histories: dict[str, list[HistoryEvent]]
    ) -> set[str]:
        told_otherwise = {
            id for id, verdict in self.verdicts.items() if statuses.get(id) != verdict
        }
        deleted = {id for id, events in histories.items() if _ends_in(events, "Deleted")}
        welcomed = {id for id, events in histories.items() if _ends_in(events, "Verified")}
        verified = {id for id, status in statuses.items() if status == "verified"}
        return told_otherwise | (deleted & verified) | (welcomed - verified)

    def _repeated_mails(self, deliveries: Sequence[Delivery]) -> tuple[int, int]:
        times: dict[str, list[float]] = defaultdict(list)
        for mail in deliveries:
            times[mail.message_id].append(mail.at)
        pairs = [pair for each in times.values() for pair in pairwise(each)]
        unexplained = [
            (first, again)
            for first, again in pairs
            if not any(first - ON_ITS_WAY_SECONDS <= kill <= again for kill in self.kills)
        ]
        return len(pairs), len(unexplained)


async def read_histories(database: asyncpg.Connection) -> dict[str, list[HistoryEvent]]:
    """Return the history events of all executions, by id."""
    histories: dict[str, list[HistoryEvent]] = defaultdict(list)
    for row in await database.fetch(
        "select execution_id, events from history order by execution_id, first_event_id"
    ):
        histories[str(row["execution_id"])] += unpack(row["events"])
    return histories


def _is_whole(events: Sequence[HistoryEvent]) -> bool:
    """Tell whether ids count from 1 and each event follows the one before: one line of control."""
    ids = [event.id for event in events]
    follows = [event.previous_event_id for event in events]
    return ids == list(range(1, len(ids) + 1)) and follows[2:] == ids[1:-1]


def _repeated_states(events: Sequence[HistoryEvent]) -> int:
    """Return how many states were entered again: the flow has no loop."""
    entered = Counter(
        event.details["name"]
        for event in events
        if event.type.endswith("StateEntered") and event.details is not None
    )
    return sum(times - 1 for times in entered.values())


def _ends_in(events: Sequence[HistoryEvent], state: str) -> bool:
    return any(
        event.type == "SucceedStateEntered"
        and event.details is not None
        and event.details["name"] == state
        for event in events
    )
