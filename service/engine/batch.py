"""One transaction for the steps of many executions: what it finds, plays and writes.

Nothing here outlives the transaction. The committer makes a batch for each try, and tells the
worker what came of it only once it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias
from uuid import UUID

from service.engine.ports import Claim, Effect, Key, Signalling, Transaction
from service.engine.turn import Request, Tenure, Turn, Unit

Concerns: TypeAlias = Callable[[Key], bool]
"""Which executions somebody speaks of."""


class Outcomes(Protocol):
    """What the worker is told, and asked."""

    def committed(self, turn: Turn) -> None:
        """The turn is durable: perform what it asks for."""

    def stood(self, turn: Turn) -> None:
        """The start was committed by an earlier try: go on from its row."""

    def lost(self, turn: Turn) -> None:
        """Another worker owns the execution now."""

    def dropped(self, turn: Turn) -> None:
        """The execution was not started after all."""

    def broken(self, turn: Turn, error: Exception) -> None:
        """The engine failed at this execution, not the execution itself."""

    def signalled(self, signalling: Signalling) -> None:
        """A signal was stored for an execution that this transaction did not hold."""

    def holds(self, tenure: Tenure) -> bool:
        """Tell whether this tenure is still the one in memory."""
        ...

    def tenure(self, claim: Claim) -> Tenure | None:
        """Return a tenure for a claim made inside a transaction, or None when its definition is not
        at hand.
        """
        ...

    def signal_turn(self, tenure: Tenure) -> Turn:
        """Return the turn in which a signal ends what the claimed execution waits for."""
        ...

    async def reconcile(self, in_doubt: Concerns) -> None:
        """Compare memory with the rows after an outage. Raises Unavailable while it lasts.

        Of those that are `in_doubt` no turn is being committed, so turns under way count too.
        """


class Broken(Exception):
    """The engine's own failure at one turn, inside a transaction that must be rolled back."""

    def __init__(self, turn: Turn, error: Exception) -> None:
        super().__init__(str(error))
        self.turn = turn
        self.error = error


@dataclass(slots=True)
class Batch:
    """What one transaction is for, and what it found and made."""

    owner: UUID
    outcomes: Outcomes
    turns: dict[Key, Turn]
    requests: list[Request]
    lost: list[Turn] = field(default_factory=list)
    contested: list[Turn] = field(default_factory=list)
    stood: list[Turn] = field(default_factory=list)
    claimed: list[Turn] = field(default_factory=list)
    elsewhere: list[Signalling] = field(default_factory=list)

    @classmethod
    def of(cls, units: Sequence[Unit], owner: UUID, outcomes: Outcomes) -> Batch:
        """Return the batch of these units, no two of which are turns of one execution."""
        return cls(
            owner,
            outcomes,
            {unit.key: unit for unit in units if isinstance(unit, Turn)},
            [unit for unit in units if isinstance(unit, Request)],
        )

    async def run(self, tx: Transaction) -> None:
        """Do everything but the commit. Raises Broken, and what the transaction raises."""
        await self._own(tx)
        await self._play(tx)
        turns = [*self.turns.values(), *self.claimed]
        rows = [row for turn in turns if (row := turn.changed(self.owner)) is not None]
        history = [past for turn in turns if (past := turn.history()) is not None]
        if rows:
            for key in await tx.save(rows, history):
                self.contested.append(self.turns.pop(key))

    async def _own(self, tx: Transaction) -> None:
        """Insert what is new and lock what has to be; let go what another worker has taken, and
        what is there already.
        """
        fresh = [turn for turn in self.turns.values() if turn.new is not None]
        if fresh:
            rows = [turn.row(self.owner) for turn in fresh]
            is_all = not self.requests and all(turn.is_all_inserted for turn in self.turns.values())
            standing = await tx.insert(rows, is_all=is_all)
            for turn in fresh:
                if turn.key not in standing:
                    self.lost.append(self.turns.pop(turn.key))
                elif not standing[turn.key]:
                    # Its effects were committed with it: another try would run them twice.
                    self.stood.append(self.turns.pop(turn.key))
        fenced = [turn for turn in self.turns.values() if turn.new is None and turn.needs_lock]
        if fenced:
            held = await tx.lock([(turn.key, turn.tenure.epoch) for turn in fenced])
            for turn in fenced:
                if turn.key not in held:
                    self.lost.append(self.turns.pop(turn.key))
                elif held[turn.key]:
                    _guard(turn, partial(turn.signal, has_mark=True))

    async def _play(self, tx: Transaction) -> None:
        """Run effects in rounds until no execution asks for more."""
        requests = self.requests
        for request in requests:
            request.signalled = None  # by an earlier try
        asking = [turn for turn in self.turns.values() if turn.wanted]
        while requests or asking:
            effects: list[Effect] = [request.effect for request in requests]
            for turn in asking:
                effects += turn.wanted
            rows = await tx.apply(effects)
            self._tell(asking, rows[len(requests) :])
            for request, row in zip(requests, rows, strict=False):
                request.row, request.signalled = row, request.signal(row)
            touched = await self._signal(tx, [one for one in requests if one.signalled])
            requests = []
            asking = [turn for turn in dict.fromkeys((*asking, *touched)) if turn.wanted]

    def _tell(self, asking: Sequence[Turn], rows: Sequence[Mapping[str, object] | None]) -> None:
        """Feed the rows of effects to the turns that asked for them, in their order."""
        at, turn = 0, None
        try:
            for turn in asking:
                count = len(turn.wanted)
                turn.answered(rows[at : at + count])
                at += count
        except Exception as error:
            assert turn is not None
            raise Broken(turn, error) from error

    async def _signal(self, tx: Transaction, requests: Sequence[Request]) -> list[Turn]:
        """Signal executions and return their turns here.

        Those at rest go on in this very transaction; all others are marked, and told.
        """
        keys = [request.signalled for request in requests if request.signalled]
        if not keys:
            return []
        apart = {request.signalled for request in requests if request.is_apart}
        touched, marked = [], []
        for standing in await tx.standing(keys):
            claim = standing.claim
            turn = self.turns.get(claim.key)
            if turn is not None and turn.standing_epoch != claim.epoch:
                # Its row was not locked, and is another's by now. It must not be saved beside the
                # turn that the signal leads to: one key would have two checkpoints.
                self.lost.append(self.turns.pop(claim.key))
                turn = None
            if turn is not None:
                _guard(turn, partial(turn.signal, has_mark=claim.is_signalled))
                touched.append(turn)
                continue
            tenure = None
            if standing.owner is None and claim.key not in apart:
                tenure = self.outcomes.tenure(claim)
            if tenure is None:
                marked.append(claim.key)
                continue
            turn = self.outcomes.signal_turn(tenure)
            _guard(turn, partial(turn.prepare, has_mark=claim.is_signalled))
            self.claimed.append(turn)
            touched.append(turn)
        if marked:
            self.elsewhere += await tx.signal(marked, self.owner)
        return touched


def _guard(turn: Turn, play: Callable[[], None]) -> None:
    """Play a part of a turn; what the engine fails at there is that turn's trouble alone."""
    try:
        play()
    except Exception as error:
        raise Broken(turn, error) from error
