"""The model of the database: MemoryStore's rules, with locks between transactions.

A statement takes place at once, as a whole. A transaction locks what it touches until it ends: the
executions of a bucket, or its accounts. That is coarser than Postgres's rows and crosses in the
same ways: others wait for it as long as their patience goes, and two that wait for one another come
to nothing; `claim_due` and `rescue` skip what is locked, and reads see what was committed before.
What waits is kept here and goes on when the lock is free, whether or not anybody still listens: a
statement that was sent is performed, also for a process that is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any
from uuid import UUID

from service.engine.committer import LOCK_PATIENCE_MS
from service.engine.ports import (
    Checkpoint,
    Contended,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Signalling,
    Standing,
    Unavailable,
)
from service.store.executions import RELEASE_PATIENCE_MS
from service.store.memory import MemoryTransaction
from service.store.memory_accounts import EFFECTS
from tests.simulation.deterministic.network import Reply
from tests.simulation.deterministic.tables import (
    TALLY,
    Session,
    Shard,
    Tables,
    at_once,
)


class _Waiting:
    """A statement that waits for a lock."""

    def __init__(self, session: Session, go_on: Callable[[], None]) -> None:
        self.session = session
        self.go_on = go_on


class ModelDatabase(Tables):
    """The server: sessions come in, statements are performed, replies go out."""

    # Transactions

    def perform(self, session: Session, name: str, rows: Any, reply: Reply) -> None:
        """Perform a statement of a transaction, as soon as what it touches is not locked."""
        if session.is_over:
            reply(None, Unavailable("this transaction was idle too long, or its connection broke"))
            return

        def act() -> Any:
            return getattr(self, f"_{name}")(session, *rows)

        self._locked(session, self._touched(name, rows), act, reply)

    def perform_alone(self, session: Session, name: str, rows: Any, reply: Reply) -> None:
        """Perform a statement that is a transaction of its own."""

        def ended(answer: Any, error: Exception | None) -> None:
            if error is not None:
                self.abort(session)
                reply(None, error)
            else:
                self.commit(session, lambda _, trouble: reply(answer, trouble))

        self.perform(session, name, rows, ended)

    def commit(self, session: Session, reply: Reply) -> None:
        """End a transaction: what it did is there for everybody."""
        if session.is_over:
            reply(None, Unavailable("the connection is closed"))
            return
        self._end(session, is_committed=True)
        self.on_commit(session)
        reply(None, None)

    def abort(self, session: Session) -> None:
        """End a transaction as if it had never been; too late is no error."""
        if not session.is_over:
            self._end(session, is_committed=False)

    def _end(self, session: Session, *, is_committed: bool) -> None:
        session.is_over = True
        for shard in session.held:
            shard.leave(is_committed=is_committed)
        held, session.held = session.held, []
        for shard in held:
            waiting, shard.waiting = shard.waiting, []
            for one in waiting:
                one.go_on()

    def _locked(
        self, session: Session, touched: Sequence[Shard], act: Callable[[], Any], reply: Reply
    ) -> None:
        """Lock what a statement touches, in order, and perform it."""
        for shard in touched:
            if shard.holder is session:
                continue
            if shard.holder is not None:
                self._wait(
                    session, shard, lambda: self._locked(session, touched, act, reply), reply
                )
                return
            shard.take(session)
        try:
            answer = act()
        except Exception as error:
            reply(None, error)
        else:
            reply(answer, None)

    def _wait(
        self, session: Session, shard: Shard, again: Callable[[], None], reply: Reply
    ) -> None:
        def go_on() -> None:
            if session.is_over:
                reply(None, Unavailable("the connection is closed"))
            else:
                again()

        def lose_patience() -> None:
            if waiting in shard.waiting:
                shard.waiting.remove(waiting)
                self.seen["lock timeout"] += 1
                reply(None, Contended("canceling statement due to lock timeout"))

        waiting = _Waiting(session, go_on)
        shard.waiting.append(waiting)
        self.world.after(session.patience_ms / 1000, lose_patience)

    def _touched(self, name: str, rows: Any) -> list[Shard]:
        """Return what a statement of a transaction locks, in the order in which it does."""
        (values, *_) = rows
        if name == "insert":
            buckets = {row.first.key.bucket for row in values}
            accounts = {effect.row[0] for row in values for effect in row.effects}
            return [
                *(self.shard(bucket) for bucket in sorted(buckets)),
                *(self.account_shard(bucket) for bucket in sorted(accounts)),
            ]
        elif name == "lock":
            buckets = {key.bucket for key, _ in values}
        elif name in ("standing", "signal"):
            buckets = {key.bucket for key in values}
        elif name == "apply":
            writing = {e.row[0] for e in values if e.query not in (TALLY, "get_account")}
            return [self.account_shard(bucket) for bucket in sorted(writing)]
        else:
            buckets = {row.key.bucket for part in rows for row in part}
        return [self.shard(bucket) for bucket in sorted(buckets)]

    def _tx(self, bucket: int) -> MemoryTransaction:
        return MemoryTransaction(self.shard(bucket), self.clock)

    def _insert(self, session: Session, rows: Sequence[NewExecution]) -> Mapping[Key, bool]:
        standing: dict[Key, bool] = {}
        for row in rows:
            alone = replace(row, effects=())
            inserted = at_once(self._tx(row.first.key.bucket).insert([alone]))
            self.seen["start that stood"] += list(inserted.values()).count(False)
            standing |= inserted
            session.saved.append(row.first)
            if inserted.get(row.first.key):
                session.told += [] if row.history is None else [row.history]
                self._apply(session, row.effects)
        return standing

    def _lock(self, session: Session, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        held: dict[Key, bool] = {}
        for key, epoch in fences:
            held |= at_once(self._tx(key.bucket).lock([(key, epoch)]))
        self.seen["fenced write"] += len(fences) - len(held)
        self.seen["signal found by a step"] += sum(held.values())
        return held

    def _apply(
        self, session: Session, effects: Sequence[Effect]
    ) -> Sequence[Mapping[str, object] | None]:
        answers: list[Mapping[str, object] | None] = [None] * len(effects)
        # By name and then in order, as the statements would see them.
        for ordinal in sorted(range(len(effects)), key=lambda at: (effects[at].query, at)):
            effect = effects[ordinal]
            answers[ordinal] = self._effect(session, effect)
        session.applied += zip(effects, answers, strict=True)
        return answers

    def _effect(self, session: Session, effect: Effect) -> Mapping[str, object] | None:
        bucket, id, *rest = effect.row
        key = Key(bucket, id)  # type: ignore[arg-type]
        if effect.query == TALLY:
            tallies, at = self.shard(key.bucket).tallies, (key, rest[0])
            tallies[at] = tallies.get(at, 0) + 1  # type: ignore[index,arg-type]
            return {"times": tallies[at]}  # type: ignore[index]
        shard = self.account_shard(key.bucket)
        accounts = shard.accounts
        if shard.holder is not session:  # it only reads
            accounts = copy(accounts)
            accounts.rows = shard.committed_accounts  # type: ignore[assignment]
        for answer in EFFECTS[effect.query](accounts, [(0, *effect.row)]):
            return answer
        return None

    def _standing(self, session: Session, keys: Sequence[Key]) -> Sequence[Standing]:
        found = [
            one
            for key in sorted(set(keys))
            for one in at_once(self._tx(key.bucket).standing([key]))
        ]
        for standing in found:
            self.seen["signal at rest" if standing.owner is None else "signal to a step"] += 1
            due_at = self.shard(standing.claim.key.bucket).executions[standing.claim.key].at.due_at
            if due_at is not None and due_at <= self.clock.now():
                self.seen["signal beside a wake-up"] += 1
        return found

    def _signal(self, session: Session, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        return [
            one
            for key in sorted(set(keys))
            for one in at_once(self._tx(key.bucket).signal([key], owner))
        ]

    def _save(
        self, session: Session, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        refused: set[Key] = set()
        for bucket in sorted({row.key.bucket for part in (rows, history) for row in part}):
            refused |= set(
                at_once(
                    self._tx(bucket).save(
                        [row for row in rows if row.key.bucket == bucket],
                        [step for step in history if step.key.bucket == bucket],
                    )
                )
            )
        self.seen["fenced write"] += len(refused)
        session.saved += [row for row in rows if row.key not in refused]
        session.told += [step for step in history if step.key not in refused]
        return refused

    # Statements on their own

    def ask(self, who: str, name: str, arguments: Sequence[Any], reply: Reply) -> None:
        """Perform a statement that is a transaction of its own."""
        if name in ("seize", "redrive", "quarantine", "bury", "let_go", "release"):
            patience_ms = RELEASE_PATIENCE_MS if name == "release" else LOCK_PATIENCE_MS
            session = Session(who, patience_ms)

            def ended(answer: Any, error: Exception | None) -> None:
                self._end(session, is_committed=error is None)
                reply(answer, error)

            def act() -> Any:
                if name == "release":
                    return self._release(session, *arguments)
                return getattr(self, f"_{name}")(*arguments)

            self._locked(session, self._rows_of(name, arguments), act, ended)
            return
        try:
            answer = getattr(self, f"_{name}")(*arguments)
        except Exception as error:
            reply(None, error)
        else:
            reply(answer, None)

    def _rows_of(self, name: str, arguments: Sequence[Any]) -> list[Shard]:
        if name in ("seize", "redrive"):
            buckets = {key.bucket for key in arguments[1]}
        elif name == "release":
            buckets = {key.bucket for key, row in self.rows() if row.at.owner == arguments[0]}
        else:
            buckets = {arguments[0].bucket}
        return [self.shard(bucket) for bucket in sorted(buckets)]
