"""What accounts need from outside: the engine that runs their workflow, and reads of their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from service.asl import Json
from service.engine.ports import Effect, Key


class Clock(Protocol):
    """The engine's clock: the database's time, never the machine's."""

    def now(self) -> datetime:
        """Return the moment, aware."""
        ...


class Engine(Protocol):
    """The part of the engine that a signup needs.

    Every coroutine raises Overloaded or Unavailable when nothing can be decided now.
    """

    def new_id(self, bucket: int) -> UUID:
        """Return a fresh UUIDv7 in this bucket (0-255)."""
        ...

    async def start(
        self, machine: str, name: str, input: Json, *, key: Key, effects: Sequence[Effect] = ()
    ) -> object:
        """Start an execution; the rows of `effects` are inserted with it or not at all."""
        ...

    async def request(
        self,
        effect: Effect,
        *,
        signal: Callable[[Mapping[str, object] | None], Key | None] = ...,
    ) -> Mapping[str, object] | None:
        """Return the row of one effect, run in the next batch.

        The execution whose key `signal` returns is signalled in the same transaction.
        """
        ...

    async def stop(self, key: Key, error: str | None = None, cause: str | None = None) -> None:
        """Stop a running execution. Raise ExecutionDoesNotExist."""
        ...


class Contact(Protocol):
    """Whom a mail of an account goes to, as read at one moment."""

    @property
    def address(self) -> str | None:
        """Where mail goes; None once the account is decided against or erased."""
        ...

    @property
    def identity_key(self) -> str | None: ...

    @property
    def name(self) -> str | None: ...

    @property
    def locale(self) -> str | None: ...

    @property
    def status(self) -> str: ...

    @property
    def links(self) -> int:
        """The number of the newest link."""
        ...

    @property
    def owner(self) -> UUID | None:
        """The other account that has verified this address, if there is one."""
        ...


class Contacts(Protocol):
    """The reads behind a mail."""

    async def contact(self, key: Key) -> Contact | None:
        """Return whom to write to; None for an account that is not kept (any more)."""
        ...

    async def claim_notice(self, bucket: int, identity_key: str) -> bool:
        """Return whether the owner of the address may be told of a signup: once a day."""
        ...


class AccountRow(Protocol):
    """An account as it is stored."""

    @property
    def id(self) -> UUID: ...

    @property
    def status(self) -> str: ...

    @property
    def address(self) -> str | None: ...

    @property
    def name(self) -> str | None: ...

    @property
    def locale(self) -> str | None: ...

    @property
    def data(self) -> str | None:
        """JSON text."""
        ...

    @property
    def links(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def decided_at(self) -> datetime | None: ...


class Accounts(Protocol):
    """Reads and erasure of accounts, outside the engine's transaction. All raise Unavailable."""

    async def status(self, bucket: int, id: UUID) -> str | None:
        """Return pending, verified, superseded or expired; None when unknown."""
        ...

    async def get(self, bucket: int, id: UUID) -> AccountRow | None: ...

    async def page(
        self, identity_key: str | None, status: str | None, after: Key | None, limit: int
    ) -> Sequence[AccountRow]:
        """Return at most `limit` accounts behind `after`, in the order of (bucket, id)."""
        ...

    async def erase(self, bucket: int, id: UUID) -> bool:
        """Erase the person, with all their execution left; False when unknown.

        Raises Contended while the execution runs.
        """
        ...
