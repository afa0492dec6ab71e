"""What an operator can do with accounts: list them, look at one, verify it by force, erase it."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from service.accounts.address import parse_address
from service.accounts.ports import AccountRow, Accounts, Clock, Engine
from service.accounts.signup import verify_account
from service.asl import Json
from service.documents import loads
from service.engine.ids import key_of
from service.engine.ports import Contended, ExecutionDoesNotExist, Key, Unavailable

ERASED: Final = "AccountErased"
"""The error of an execution that was stopped because an operator erased its account."""

ERASE_TRIES_MAX: Final = 3

_CURSOR = re.compile(
    r"[A-Za-z0-9_-]{21}[AQgw]", re.ASCII
)  # 16 bytes; the last digit has 4 spare bits

log = structlog.get_logger()


class BadCursor(ValueError):
    """No page gave this cursor."""


class NotPending(Exception):
    """The account is decided already, and not for its owner."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the account is {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as the operator sees it. A decided-against or erased one has no person left."""

    id: UUID
    status: str
    email: str | None
    name: str | None
    locale: str | None
    data: Json
    created_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some accounts, and the cursor of the next ones, if there are any."""

    items: list[AccountView]
    next_cursor: str | None


class Directory:
    """The operator's side. Every method raises Unavailable when the database does not answer."""

    def __init__(
        self, engine: Engine, accounts: Accounts, clock: Clock, *, allow_test_domains: bool = False
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._clock = clock
        self._allow_test_domains = allow_test_domains

    async def list(
        self, *, email: str | None, status: str | None, cursor: str | None, limit: int
    ) -> Page:
        """Return at most `limit` accounts, of one address or one status where these are given.

        They come by bucket and then by age: one order for all of them would need every bucket.
        Raise BadCursor for a cursor that no page gave, InvalidAddress for what is no address.
        """
        identity_key = None
        if email is not None:
            address = parse_address(email, allow_test_domains=self._allow_test_domains)
            identity_key = address.identity_key
        after = None if cursor is None else _read_cursor(cursor)
        # One row more than is shown tells whether another page follows.
        rows = await self._accounts.page(identity_key, status, after, limit + 1)
        shown = rows[:limit]
        return Page(
            items=[_view(row) for row in shown],
            next_cursor=_cursor(shown[-1].id) if len(rows) > limit else None,
        )

    async def get(self, id: UUID) -> AccountView | None:
        """Return the account, or None when none is kept under this id."""
        row = await self._accounts.get(*key_of(id))
        return None if row is None else _view(row)

    async def verify(self, id: UUID) -> AccountView | None:
        """Return the account, verified as if its visitor had opened the newest link.

        One that is verified already stays so. Return None when none is kept under this id; raise
        NotPending when it is expired or superseded, or loses its address to another at this moment.
        """
        key = key_of(id)
        row = await self._accounts.get(*key)
        if row is not None and row.status == "pending":
            await verify_account(self._engine, self._clock, key, row.links)
            row = await self._accounts.get(*key)
        if row is None:
            return None
        if row.status != "verified":
            raise NotPending(row.status)
        return _view(row)

    async def erase(self, id: UUID) -> bool:
        """Erase the person, leaving a tombstone without one; False when no such account is kept.

        The execution is stopped first, since a running one would go on to mail or write history.
        Raises Unavailable when somebody redrives it each time.
        """
        key, tries = key_of(id), 0
        while True:
            # None is left when it ended long ago, or when there never was one.
            with suppress(ExecutionDoesNotExist):
                await self._engine.stop(key, ERASED, "an operator erased the account")
            tries += 1
            try:
                is_erased = await self._accounts.erase(*key)
            except Contended as error:
                # Somebody may have redriven the execution in between.
                if tries == ERASE_TRIES_MAX:
                    raise Unavailable("the execution runs again whenever it is stopped") from error
            else:
                break
        if is_erased:
            log.info("account_erased", account=str(id))
        return is_erased


def _view(row: AccountRow) -> AccountView:
    return AccountView(
        id=row.id,
        status=row.status,
        email=row.address,
        name=row.name,
        locale=row.locale,
        data=None if row.data is None else loads(row.data),
        created_at=row.created_at,
        decided_at=row.decided_at,
    )


def _cursor(id: UUID) -> str:
    return base64.urlsafe_b64encode(id.bytes).rstrip(b"=").decode("ascii")


def _read_cursor(text: str) -> Key:
    if _CURSOR.fullmatch(text) is None:
        raise BadCursor(f"cursor: {text[:40]!r} was not given by a page")
    return key_of(UUID(bytes=base64.urlsafe_b64decode(text + "==")))
