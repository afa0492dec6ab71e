"""The engine's `Store` as a replica has it: every method is a message to the model's server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import UUID

from service.engine.committer import LOCK_PATIENCE_MS
from service.engine.map_ports import MapRunStore
from service.engine.ports import (
    Beat,
    Checkpoint,
    Claim,
    Contended,
    Due,
    Effect,
    HistoryRow,
    Key,
    NewExecution,
    Signalling,
    Standing,
    Unavailable,
)
from service.store.memory_map_runs import MemoryMapRuns
from tests.simulation.deterministic.database import ModelDatabase
from tests.simulation.deterministic.network import Network
from tests.simulation.deterministic.tables import IDLE_SECONDS_MAX, Session
from tests.simulation.deterministic.world import Process


class RemoteStore:
    """A replica's pool of connections."""

    def __init__(self, process: Process, network: Network, server: ModelDatabase) -> None:
        self.process = process
        self.network = network
        self.server = server
        self.sessions: list[Session] = []
        self.map_runs: MapRunStore = MemoryMapRuns({}, server.clock, lambda key: None)
        process.on_death.append(self._hang_up_all)
        process.on_pause.append(self._fall_silent)

    def transaction(self, lock_patience_ms: int = LOCK_PATIENCE_MS) -> RemoteTransaction:
        """Begin a transaction in which no lock is waited for longer than this."""
        return RemoteTransaction(self, lock_patience_ms)

    def hang_up(self, session: Session) -> None:
        """Close a connection: the server learns of it a moment later."""
        world = self.network.world
        # Not before what was sent on it: that arrives first, though nobody waits for its answer.
        seconds = max(session.arrives_at - world.now, 0.0) + world.latency()
        world.after(seconds, lambda: self.server.abort(session))

    def _hang_up_all(self) -> None:
        for session in self.sessions:
            if not session.is_over:
                self.hang_up(session)

    def _fall_silent(self) -> None:
        """Lose the transactions in which this process stands still for too long."""
        world, sessions = self.network.world, list(self.sessions)

        def give_up() -> None:
            if not self.process.is_able:
                for session in sessions:
                    self.server.abort(session)

        if self.process.paused_until - world.now >= IDLE_SECONDS_MAX:
            world.after(IDLE_SECONDS_MAX, give_up)

    async def ask(self, name: str, *arguments: object) -> Any:
        """Send a statement that is a transaction of its own. Raises Unavailable, Contended."""
        who = self.process.name
        return await self.network.call(
            name, lambda reply: self.server.ask(who, name, arguments, reply), Unavailable
        )

    async def claim_due(self, owner: UUID, limit: int) -> Due:
        due: Due = await self.ask("claim_due", owner, limit)
        return due

    async def next_due(self) -> datetime | None:
        due_at: datetime | None = await self.ask("next_due")
        return due_at

    async def owned(self, owner: UUID) -> Sequence[tuple[Key, int]]:
        rows: Sequence[tuple[Key, int]] = await self.ask("owned", owner)
        return rows

    async def claim_owned(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        claims: Sequence[Claim] = await self.ask("claim_owned", owner, keys)
        return claims

    async def seize(self, owner: UUID, keys: Sequence[Key]) -> Sequence[Claim]:
        claims: Sequence[Claim] = await self.ask("seize", owner, keys)
        return claims

    async def redrive(
        self, owner: UUID, keys: Sequence[Key], token: str | None = None
    ) -> Sequence[Claim]:
        claims: Sequence[Claim] = await self.ask("redrive", owner, keys, token)
        return claims

    async def redriven_by(self, key: Key, token: str) -> datetime | None:
        redriven_at: datetime | None = await self.ask("redriven_by", key, token)
        return redriven_at

    async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
        return bool(await self.ask("quarantine", key, epoch, by))

    async def bury(self, key: Key, epoch: int, error: str, cause: str) -> bool:
        return bool(await self.ask("bury", key, epoch, error, cause))

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        beat: Beat = await self.ask("heartbeat", owner, lease_seconds)
        return beat

    async def rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        claims: Sequence[Claim] = await self.ask("rescue", owner, lease_seconds, limit)
        return claims

    async def let_go(self, key: Key, epoch: int, delay_seconds: float) -> bool:
        return bool(await self.ask("let_go", key, epoch, delay_seconds))

    async def release(self, owner: UUID) -> int:
        return int(await self.ask("release", owner))

    async def sweep(self, limit: int) -> int:
        return int(await self.ask("sweep", limit))

    async def tidy(self, retention_days: int, limit: int) -> int:
        return int(await self.ask("tidy", retention_days, limit))


class RemoteTransaction:
    """A transaction on a connection, and its own context manager.

    It begins with its first statement; one that is the only one is its own commit.
    Not one by `asynccontextmanager`: a process that is killed must not roll anything back itself.
    """

    def __init__(self, store: RemoteStore, patience_ms: int) -> None:
        self._store = store
        self._session = Session(store.process.name, patience_ms)
        self._has_begun = False

    async def __aenter__(self) -> RemoteTransaction:
        self._store.sessions.append(self._session)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        server, session = self._store.server, self._session
        if not self._has_begun:
            self._store.hang_up(session)
        elif kind is None:
            await self._say("commit", lambda reply: server.commit(session, reply))
        elif issubclass(kind, Exception) and not issubclass(kind, Unavailable):
            await self._say("rollback", lambda reply: _roll_back(server, session, reply))
        elif kind is not GeneratorExit:
            self._store.hang_up(session)
        self._store.sessions.remove(session)

    async def insert(
        self, rows: Sequence[NewExecution], *, is_all: bool = False
    ) -> Mapping[Key, bool]:
        standing: Mapping[Key, bool] = await self._do("insert", rows, is_all=is_all)
        return standing

    async def lock(self, fences: Sequence[tuple[Key, int]]) -> Mapping[Key, bool]:
        held: Mapping[Key, bool] = await self._do("lock", fences)
        return held

    async def apply(self, effects: Sequence[Effect]) -> Sequence[Mapping[str, object] | None]:
        rows: Sequence[Mapping[str, object] | None] = await self._do("apply", effects)
        return rows

    async def signal(self, keys: Sequence[Key], owner: UUID) -> Sequence[Signalling]:
        signallings: Sequence[Signalling] = await self._do("signal", keys, owner)
        return signallings

    async def standing(self, keys: Sequence[Key]) -> Sequence[Standing]:
        standing: Sequence[Standing] = await self._do("standing", keys)
        return standing

    async def save(
        self, rows: Sequence[Checkpoint], history: Sequence[HistoryRow]
    ) -> Collection[Key]:
        refused: Collection[Key] = await self._do("save", rows, history, is_all=True)
        return refused

    async def _do(self, name: str, *arguments: object, is_all: bool = False) -> Any:
        server, session = self._store.server, self._session
        if is_all and not self._has_begun and session.patience_ms == LOCK_PATIENCE_MS:
            return await self._say(
                "commit", lambda reply: server.perform_alone(session, name, arguments, reply)
            )
        if not self._has_begun:
            self._has_begun = True
            await self._say("begin", lambda reply: reply(None, None))
        return await self._say(name, lambda reply: server.perform(session, name, arguments, reply))

    async def _say(self, name: str, act: Any) -> Any:
        try:
            return await self._store.network.call(name, act, Unavailable, self._session)
        except Unavailable:
            self._store.hang_up(self._session)
            raise
        except Contended:
            if name == "commit":  # the server answered it with ROLLBACK
                self._store.server.abort(self._session)
            raise


def _roll_back(server: ModelDatabase, session: Session, reply: Any) -> None:
    server.abort(session)
    reply(None, None)
