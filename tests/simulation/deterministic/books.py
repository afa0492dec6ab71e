"""What is written down while a play goes on, and what must hold at every commit and claim."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from service.asl import Status
from service.engine.ports import Key
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.faults import KILL_AFTER, LATE, LEASE_SECONDS, LOSE, Fault
from tests.simulation.deterministic.network import Network
from tests.simulation.deterministic.outside import Outside
from tests.simulation.deterministic.replica import Node
from tests.simulation.deterministic.tables import Session
from tests.simulation.deterministic.world import World


class Books:
    """What is written down while a play goes on."""

    def __init__(
        self, world: World, server: ModelDatabase, outside: Outside, network: Network
    ) -> None:
        self.world = world
        self.server = server
        self.outside = outside
        self.network = network
        self.seen = server.seen
        self.wrong: list[tuple[str, str]] = []
        self.decided: dict[tuple[str, UUID], int] = {}
        self.parted: dict[Key, list[tuple[str, float]]] = {}  # by execution: who lost it, and when
        self.redriven: dict[Key, list[float]] = {}
        self.life_of: Callable[[UUID], Node | None] = lambda owner: None
        self._ended: set[Key] = set()
        server.on_commit = self._committed
        network.on_fault = self._struck
        server.on_claim = self._claimed
        server.on_rescue = self._rescued
        server.on_release = self._parted
        server.on_redrive = self._redriven

    def _committed(self, session: Session) -> None:
        self.outside.hear(session.told)
        self.world.say(session.who, f"commits {len(session.saved)} rows")
        for at in session.saved:
            row = self.server.shard(at.key.bucket).committed.get(at.key)
            if row is None:
                continue
            if row.at.status is Status.RUNNING:
                if row.at.due_at is None and row.at.owner is None:
                    self.wrong.append(("stuck", f"{at.key.id} has neither due time nor owner"))
                if at.key in self._ended:
                    self.wrong.append(("resurrected", f"{at.key.id} runs again after its end"))
            else:
                self._ended.add(at.key)
        for effect, answer in session.applied:
            key = UUID(str(effect.row[1]))
            if effect.query == "verify_account" and answer is not None and answer["newly"]:
                self._decide("verified", key)
            if effect.query == "delete_unverified_account" and answer and answer["deleted"]:
                self._decide("deleted", key)

    def _struck(self, fault: Fault) -> None:
        """Note in which states the executions were that a fault may have hit."""
        if fault.place == "commit" and fault.kind in (LOSE, LATE, KILL_AFTER):
            self.seen["ambiguous commit"] += 1
        for key, row in self.server.rows():
            if row.at.status is Status.RUNNING:
                self.seen[f"fault in {self.outside.place.get(key, 'the first step')}"] += 1

    def _decide(self, how: str, account: UUID) -> None:
        times = self.decided[how, account] = self.decided.get((how, account), 0) + 1
        if times > 1:
            self.wrong.append(("dup_db", f"{account} was {how} {times} times"))

    def _claimed(self, key: Key, owner: UUID | None) -> None:
        """See that nothing is claimed as due that somebody has."""
        self.seen["claim"] += 1
        if owner is not None:
            self.wrong.append(("claimed twice", f"{key.id} at {self.world.now:.3f} s"))

    def _rescued(self, key: Key, owner: UUID) -> None:
        """See that nobody is taken for dead who only could not reach the database for a while."""
        self.seen["rescue"] += 1
        former = self.life_of(owner)
        self.world.say("database", "lets an execution be rescued")
        self._parted(key, owner)
        if former is None or former.process.is_dead:
            return
        self.seen["rescue of the living"] += 1
        if not self._was_away(former):
            self.wrong.append(
                ("hasty", f"{former.process.name} was rescued at {self.world.now:.3f} s, alive")
            )

    def _parted(self, key: Key, owner: UUID) -> None:
        former = self.life_of(owner)
        if former is not None:
            self.parted.setdefault(key, []).append((former.process.name, self.world.now))

    def _redriven(self, key: Key) -> None:
        self._ended.discard(key)
        self.redriven.setdefault(key, []).append(self.world.now)

    def _was_away(self, node: Node) -> bool:
        """Tell whether something of its own kept a replica from its heartbeats in time.

        An outage that all had is no such thing: they wait for one another to come back.
        """
        since = self.world.now - 3 * LEASE_SECONDS - 0.5
        return any(
            name == node.process.name and at + fault.lasts >= since
            for fault, name, at in self.network.struck
        )
