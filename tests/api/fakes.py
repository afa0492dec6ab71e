"""Stand-ins for the parts behind the ports: they record what they were asked, and do as told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service.accounts.address import parse_address
from service.accounts.directory import AccountView, NotPending, Page
from service.accounts.signup import Begun, SignupRequest, Verification
from service.accounts.tokens import UnknownToken

ID = UUID("01938c4e-7a00-7abc-8def-0123456789ab")
OTHER_ID = UUID("01938c4e-7a00-7abc-8def-0123456789ac")
SECRET = "bearer-secret-of-the-signup"
TOKEN = "link-token_of-the-mail"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class FakeSignups:
    """One signup, ID, whose secret is SECRET and whose link has TOKEN."""

    current: str | None = "pending"
    decision: str = "verified"
    error: Exception | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)

    async def begin(self, request: SignupRequest) -> Begun:
        self._called("begin", request)
        return Begun(ID, SECRET)

    async def status(self, account_id: UUID, secret: str) -> str | None:
        self._called("status", (account_id, secret))
        return self.current if (account_id, secret) == (ID, SECRET) else None

    async def verify(self, token: str) -> Verification:
        self._called("verify", token)
        if token != TOKEN:
            raise UnknownToken("the token's signature is wrong")
        return Verification(ID, self.decision)

    def _called(self, name: str, argument: Any) -> None:
        self.calls.append((name, argument))
        if self.error is not None:
            raise self.error


@dataclass
class FakeDirectory:
    """Accounts by id, and what was asked."""

    accounts: dict[UUID, AccountView] = field(default_factory=dict)
    next_cursor: str | None = None
    error: Exception | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)

    async def list(
        self, *, email: str | None, status: str | None, cursor: str | None, limit: int
    ) -> Page:
        self._called("list", (email, status, cursor, limit))
        if email is not None:
            parse_address(email)
        return Page([*self.accounts.values()], self.next_cursor)

    async def get(self, id: UUID) -> AccountView | None:
        self._called("get", id)
        return self.accounts.get(id)

    async def verify(self, id: UUID) -> AccountView | None:
        self._called("verify", id)
        account = self.accounts.get(id)
        if account is not None and account.status == "expired":
            raise NotPending(account.status)
        return account

    async def erase(self, id: UUID) -> bool:
        self._called("erase", id)
        return self.accounts.pop(id, None) is not None

    def _called(self, name: str, argument: Any) -> None:
        self.calls.append((name, argument))
        if self.error is not None:
            raise self.error


@dataclass
class FakeProbe:
    """Reasons as a test sets them, and how often they were asked for."""

    hard: dict[str, str] = field(default_factory=dict)
    soft: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    async def reasons(self) -> dict[str, str]:
        self.asked += 1
        return self.hard

    async def soft_reasons(self) -> dict[str, str]:
        return self.soft


MESSAGE = {
    "id": "1",
    "to": "ada@example.org",
    "subject": "Confirm your address",
    "text": "…",
    "html": "<p>…</p>",
    "received_at": "2026-11-22T12:00:00Z",
}


class FakeInbox:
    """One caught mail."""

    def messages(self) -> list[dict[str, Any]]:
        return [MESSAGE]

    def render_page(self) -> str:
        return "<!doctype html><title>Inbox</title>"
