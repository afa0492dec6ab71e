"""The operator's view of accounts: list, show, verify by force, erase."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from service.accounts.directory import AccountView
from service.api.answers import answer_bytes, answer_json
from service.api.application import add_handler
from service.api.bodies import validate
from service.api.ids import path_id
from service.api.ports import Directory
from service.api.problems import Problem
from service.asl.values import Json

PAGE_ACCOUNTS: Final = 50
PAGE_ACCOUNTS_MAX: Final = 200
CURSOR_CHARACTERS_MAX: Final = 512


class ListQuery(BaseModel):
    """What an operator asks for. An unknown parameter is refused, or a typo would list everyone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: Annotated[str, Field(max_length=320)] | None = None
    status: Literal["pending", "verified", "expired", "superseded"] | None = None
    cursor: Annotated[str, Field(max_length=CURSOR_CHARACTERS_MAX)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_ACCOUNTS_MAX)] = PAGE_ACCOUNTS


class Accounts:
    """The handlers of `/accounts`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def add_to(self, app: web.Application) -> None:
        """Add the handlers to the ops port's application."""
        add_handler(app, "GET", "/accounts", self.list)
        add_handler(app, "GET", "/accounts/{id}", self.show)
        add_handler(app, "POST", "/accounts/{id}/verify", self.verify)
        add_handler(app, "DELETE", "/accounts/{id}", self.erase)

    async def list(self, request: web.Request) -> web.Response:
        """Answer one page of accounts, and the cursor of the next or null."""
        query = validate(ListQuery, request.query)
        page = await self._directory.list(
            email=query.email, status=query.status, cursor=query.cursor, limit=query.limit
        )
        return answer_json(
            {"items": [_account(item) for item in page.items], "next_cursor": page.next_cursor}
        )

    async def show(self, request: web.Request) -> web.Response:
        """Answer one account."""
        id = path_id(request)
        return _known(None if id is None else await self._directory.get(id))

    async def verify(self, request: web.Request) -> web.Response:
        """Verify a pending account without its owner, and answer it."""
        id = path_id(request)
        return _known(None if id is None else await self._directory.verify(id))

    async def erase(self, request: web.Request) -> web.Response:
        """Erase a person; what stays is that there was an account."""
        id = path_id(request)
        if id is None or not await self._directory.erase(id):
            raise _unknown()
        return answer_bytes(b"", status=204)


def _known(account: AccountView | None) -> web.Response:
    if account is None:
        raise _unknown()
    return answer_json(_account(account))


def _unknown() -> Problem:
    return Problem("unknown_account", "No account has this id.")


def _account(account: AccountView) -> dict[str, Json]:
    return {
        "id": str(account.id),
        "status": account.status,
        "email": account.email,
        "name": account.name,
        "locale": account.locale,
        "data": account.data,
        "created_at": _moment(account.created_at),
        "decided_at": None if account.decided_at is None else _moment(account.decided_at),
    }


def _moment(moment: datetime) -> str:
    """Return a moment as RFC 3339 has it, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
