"""What the HTTP ports need from the parts behind them, satisfied structurally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from service.accounts.directory import AccountView, Page
from service.accounts.signup import Begun, SignupRequest, Verification
from service.asl.values import Json


class Signups(Protocol):
    """What a visitor can do. Every method raises Overloaded or Unavailable when it cannot now."""

    async def begin(self, request: SignupRequest) -> Begun:
        """Return the id and secret of a new signup, the same way whoever the address belongs to."""
        ...

    async def status(self, account_id: UUID, secret: str) -> str | None:
        """Return "pending", "verified" or "expired"; None for an unknown id or a wrong secret."""
        ...

    async def verify(self, token: str) -> Verification:
        """Return the decision: "verified", "expired" or "superseded". Raise UnknownToken."""
        ...


class Directory(Protocol):
    """What an operator can do. Every method raises Unavailable while the database is silent."""

    async def list(
        self, *, email: str | None, status: str | None, cursor: str | None, limit: int
    ) -> Page:
        """Return at most `limit` accounts. Raise BadCursor for a cursor that no page gave."""
        ...

    async def get(self, id: UUID) -> AccountView | None:
        """Return the account, or None when there is none."""
        ...

    async def verify(self, id: UUID) -> AccountView | None:
        """Return the account, verified by force; None when unknown. Raise NotPending."""
        ...

    async def erase(self, id: UUID) -> bool:
        """Erase the person; return False when there is no such account."""
        ...


class Inbox(Protocol):
    """The demo's mail catcher."""

    def messages(self) -> Sequence[Mapping[str, Json]]:
        """Return the caught mails, newest first."""
        ...

    def render_page(self) -> str:
        """Return the whole inbox as one HTML page without external parts."""
        ...
