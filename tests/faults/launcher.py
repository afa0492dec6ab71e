"""`serve` in a process that ends itself by SIGKILL at a named point of a named state.

The service has no hooks for this. What its engine reaches through a port (the store and its
transaction, the dispatch of a task, the mail transport) is wrapped here before the process begins
to serve; everything between the ports is what runs in production.

FAULT_KILL_AT is `point:place:nth`. A place is a state of the flow, or one of the two effects that a
visitor asks for, SIGNUP and VERIFY. The points, and when a place is passed at each:

* after_claim, after_rescue: a claim of an execution that stands in this state has been committed,
  and nothing is done with it yet;
* before_task: a handler, or the statement of an effect, is about to run for this state;
* after_250: the mail server has taken this state's mail, and nobody knows yet;
* before_commit: everything that the step writes which enters this state is written, but the COMMIT,
  or about to be by the statement that is a transaction of its own;
* after_commit: it is committed, and nobody knows yet.

FAULT_FAIL_FIRST is the name of a task state whose first attempt fails before it begins, so that
executions wait in this state for their Retry and are claimed there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from service.asl import About, RunTask, TaskFailed
from service.asl.checkpoint import from_checkpoint
from service.cli import main
from service.documents import loads
from service.engine.dispatch import Dispatch
from service.engine.history import unpack
from service.engine.ports import Claim, Due, Effect, HistoryRow
from service.mail import SmtpTransport
from service.store.executions import PostgresStore, PostgresTransaction
from service.tasks import Registry

KILL_AT: Final = "FAULT_KILL_AT"
FAIL_FIRST: Final = "FAULT_FAIL_FIRST"
SIGNUP: Final = "SIGNUP"
VERIFY: Final = "VERIFY"
EFFECTS: Final = {
    "insert_account": SIGNUP,
    "verify_account": VERIFY,
    "get_account": "GetAccount",
    "delete_unverified_account": "DeleteUnverifiedAccount",
}

_state: ContextVar[str] = ContextVar("state")
_places: ContextVar[list[str]] = ContextVar("places")


@dataclass
class Fuse:
    """Where this process is to end, and how often it has come by."""

    point: str
    place: str
    nth: int
    passed: int = field(default=0, init=False)

    @classmethod
    def read(cls, text: str) -> Fuse:
        """Return what `point:place:nth` says."""
        point, place, nth = text.split(":")
        return cls(point, place, int(nth))

    def passes(self, point: str, places: Iterable[str]) -> None:
        """Note that executions pass a point; at the one that is meant, end as by a power cut."""
        if point != self.point:
            return
        for place in places:
            self.passed += place == self.place
            if self.passed >= self.nth:
                os.kill(os.getpid(), signal.SIGKILL)


def state_of(claim: Claim) -> str:
    """Return the state in which a claimed execution of one line of control stands."""
    assert claim.checkpoint is not None, claim.key
    about = About("", claim.name, claim.started_at, None, "", "", claim.machine)
    (frame,) = from_checkpoint(loads(claim.checkpoint), about).frames.values()
    return frame.state


def states_entered(rows: Sequence[HistoryRow]) -> list[str]:
    """Return the states that the steps of a transaction enter."""
    return [
        str(event.details["name"])
        for row in rows
        for event in unpack(row.events)
        if event.type.endswith("StateEntered") and event.details is not None
    ]


def wrap_claims(fuse: Fuse) -> None:
    """Pass the points at which executions have just become this worker's."""

    claim_due, rescue = PostgresStore.claim_due, PostgresStore.rescue

    async def claim(store: PostgresStore, *arguments: Any) -> Due:
        due = await claim_due(store, *arguments)
        fuse.passes("after_claim", map(state_of, due.claims))
        return due

    async def rescued(store: PostgresStore, *arguments: Any) -> Sequence[Claim]:
        claims = await rescue(store, *arguments)
        fuse.passes("after_rescue", map(state_of, claims))
        return claims

    PostgresStore.claim_due = claim
    PostgresStore.rescue = rescued


def wrap_transactions(fuse: Fuse) -> None:
    """Pass the points before an effect, and before and after the commit of a step."""
    begin, apply, fetch = (
        PostgresStore.transaction, PostgresTransaction.apply, PostgresTransaction._fetch,
    )  # fmt: skip
    insert, save = PostgresTransaction.insert, PostgresTransaction.save

    @asynccontextmanager
    async def transaction(store: PostgresStore, *arguments: Any) -> AsyncIterator[Any]:
        places: list[str] = []
        token = _places.set(places)
        try:
            async with begin(store, *arguments) as tx:
                yield tx
                if tx._begun is not None:
                    fuse.passes("before_commit", places)
            fuse.passes("after_commit", places)
        finally:
            _places.reset(token)

    async def fetched(
        tx: PostgresTransaction, name: str, *columns: Any, is_all: bool = False
    ) -> Any:
        if is_all and tx._begun is None:
            fuse.passes("before_commit", _places.get())
        return await fetch(tx, name, *columns, is_all=is_all)

    async def inserted(tx: PostgresTransaction, rows: Any, *, is_all: bool = False) -> Any:
        queries = [effect.query for row in rows for effect in row.effects]
        asked = [EFFECTS[query] for query in queries if query in EFFECTS]
        fuse.passes("before_task", asked)
        history = [row.history for row in rows if row.history is not None]
        _places.get().extend([*asked, *states_entered(history)])
        return await insert(tx, rows, is_all=is_all)

    async def applied(tx: PostgresTransaction, effects: Sequence[Effect]) -> Any:
        asked = [EFFECTS[effect.query] for effect in effects if effect.query in EFFECTS]
        fuse.passes("before_task", asked)
        _places.get().extend(place for place in asked if place in (SIGNUP, VERIFY))
        return await apply(tx, effects)

    async def saved(tx: PostgresTransaction, rows: Any, history: Sequence[HistoryRow]) -> Any:
        _places.get().extend(states_entered(history))
        return await save(tx, rows, history)

    PostgresStore.transaction = transaction  # type: ignore[assignment, method-assign]
    PostgresTransaction._fetch = fetched  # type: ignore[method-assign]
    PostgresTransaction.insert = inserted  # type: ignore[method-assign]
    PostgresTransaction.apply = applied  # type: ignore[method-assign]
    PostgresTransaction.save = saved  # type: ignore[assignment, method-assign]


def wrap_tasks(fuse: Fuse) -> None:
    """Pass the points before a handler runs, and after the mail server has taken its mail."""
    perform, send = Dispatch.perform, SmtpTransport.send

    async def performed(dispatch: Dispatch, command: RunTask, *arguments: Any) -> Any:
        _state.set(command.state)
        fuse.passes("before_task", [command.state])
        return await perform(dispatch, command, *arguments)

    async def sent(transport: SmtpTransport, *arguments: Any) -> None:
        await send(transport, *arguments)
        fuse.passes("after_250", [_state.get()])

    Dispatch.perform = performed  # type: ignore[assignment, method-assign]
    SmtpTransport.send = sent  # type: ignore[assignment, method-assign]


def fail_first_attempts(state: str) -> None:
    """Have the first attempt at a state fail, whatever it does."""
    resolve = Registry.resolve

    def resolved(registry: Registry, command: RunTask) -> Any:
        if command.state == state and command.attempt == 0:
            return TaskFailed(command.id, "Unavailable", "the first attempt is to fail")
        return resolve(registry, command)

    Registry.resolve = resolved  # type: ignore[method-assign]


if __name__ == "__main__":
    lit = Fuse.read(os.environ.pop(KILL_AT))
    wrap_claims(lit)
    wrap_transactions(lit)
    wrap_tasks(lit)
    if FAIL_FIRST in os.environ:
        fail_first_attempts(os.environ.pop(FAIL_FIRST))
    sys.exit(main())
