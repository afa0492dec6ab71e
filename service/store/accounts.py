"""Accounts beside the committer: for mails, for the visitor's status, for the operator.

What decides an account (verified, expired) is never done here but by the effects in
`sql/queries/accounts.sql`, in the transaction of the execution or signal that follows from it.
Erasing is the operator's word over both.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from service.asl import Status
from service.engine.ports import Contended, Key, Overloaded
from service.store.database import Database, Row
from service.store.effects import columns_of

CONTACTS_AT_ONCE: Final = 200
CONTACTS_WAITING_MAX: Final = 20_000

_FIRST: Final = Key(0, UUID(int=0))


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom a mail goes to. `owner`: another account has verified the address."""

    address: str | None
    identity_key: str | None
    name: str | None
    locale: str | None
    status: str
    links: int
    owner: UUID | None


@dataclass(frozen=True, slots=True)
class Account:
    """A row of the operator's list. An expired or erased one has nothing of the person."""

    bucket: int
    id: UUID
    status: str
    address: str | None
    name: str | None
    locale: str | None
    data: str | None  # JSON text
    links: int
    created_at: datetime
    decided_at: datetime | None


class Accounts:
    """Every method raises Unavailable when the database does not answer, Contended for a lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: OrderedDict[Key, asyncio.Future[Contact | None]] = OrderedDict()
        self._reader: asyncio.Task[None] | None = None

    async def status(self, bucket: int, id: UUID) -> str | None:
        """Return pending, verified, superseded or expired; None for an account that is not kept."""
        row = await self._database.first("account_status", bucket, id)
        status: str | None = row["status"] if row else None
        return status

    async def contact(self, key: Key) -> Contact | None:
        """Return whom to write to; None for an account that is not kept.

        Calls that come while another's read is under way share the next read. Raises Overloaded
        when too many wait.
        """
        wanted = self._wanted.get(key)
        if wanted is None:
            if len(self._wanted) >= CONTACTS_WAITING_MAX:
                raise Overloaded(f"{CONTACTS_WAITING_MAX} mails wait for their account")
            wanted = self._wanted[key] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_contacts())
        # Shielded: the future is shared, and one caller's cancellation is not the others'.
        return await asyncio.shield(wanted)

    async def _read_contacts(self) -> None:
        try:
            while self._wanted:
                size = min(len(self._wanted), CONTACTS_AT_ONCE)
                batch = dict(self._wanted.popitem(last=False) for _ in range(size))
                await self._answer(batch)
        finally:
            self._reader = None

    async def _answer(self, batch: dict[Key, asyncio.Future[Contact | None]]) -> None:
        try:
            rows = await self._database.fetch("contacts", *columns_of(batch))
        except BaseException as error:
            for wanted in batch.values():
                wanted.set_exception(error)
                wanted.exception()  # looked at, in case all who asked were cancelled
            if not isinstance(error, Exception):
                raise
            return
        found = {Key(row["bucket"], row["id"]): _contact(row) for row in rows}
        for key, wanted in batch.items():
            wanted.set_result(found.get(key))

    async def claim_notice(self, bucket: int, identity_key: str) -> bool:
        """Return whether the owner of the address may be told of a signup: True once a day."""
        return await self._database.first("claim_notice", bucket, identity_key) is not None

    async def get(self, bucket: int, id: UUID) -> Account | None:
        """Return an account; None for one that is not kept."""
        row = await self._database.first("account", bucket, id)
        return None if row is None else Account(**row)

    async def page(
        self,
        identity_key: str | None,
        status: str | None,
        after: Key | None,
        limit: int,
    ) -> Sequence[Account]:
        """Return at most `limit` accounts behind `after`, in the order of (bucket, id).

        With `identity_key` only those of one address, with `status` only those; None stands for
        all.
        """
        position = after or _FIRST
        if identity_key is None:
            rows = await self._database.fetch("list_accounts", *position, status, limit)
        else:
            rows = await self._database.fetch(
                "list_accounts_of_address", identity_key, position.id, status, limit
            )
        return [Account(**row) for row in rows]

    async def erase(self, bucket: int, id: UUID) -> bool:
        """Erase the person, and what the execution of this id keeps of them; False: unknown.

        The caller has stopped the execution: a running one keeps what it works on. Raises Contended
        when it runs all the same, since somebody redrove it meanwhile.
        """
        async with self._database.transaction() as session:
            execution = await session.first("hold_execution", bucket, id)
            if execution is not None and execution["status"] == Status.RUNNING:
                raise Contended("the execution runs")
            row = await session.first("lock_account", bucket, id)
            if row is None:
                return False
            await session.fetch("erase_account", bucket, id)
            await session.fetch("disown_address", bucket, row["identity_key"], id)
            await session.fetch("erase_execution", bucket, id)
            await session.fetch("erase_history", bucket, id)
        return True

    async def tombstones(self, days: int, limit: int) -> int:
        """Delete up to `limit` accounts that expired more than `days` ago; return how many."""
        return len(await self._database.fetch("delete_tombstones", days, limit))


def _contact(row: Row) -> Contact:
    owner = row["owner"]
    return Contact(
        address=row["address"],
        identity_key=row["identity_key"],
        name=row["name"],
        locale=row["locale"],
        status=row["status"],
        links=row["links"],
        owner=None if owner == row["id"] else owner,
    )
