"""The effects of `sql/queries/accounts.sql` on dictionaries, with the same answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from service.engine.ports import Clock, Key
from service.store.memory_table import Journal, Table

LINKS_ALIVE: Final = 3
Rows: TypeAlias = Sequence[tuple[Any, ...]]
Answers: TypeAlias = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AccountRow:
    """What the table `accounts` holds."""

    created_at: datetime
    address: str | None
    identity_key: str | None
    identity_version: int
    name: str | None
    locale: str | None
    data: str | None
    links: int = 1
    status: str = "pending"
    decided_at: datetime | None = None


class MemoryAccounts:
    """Accounts, and who owns an address."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._clock = clock
        self.rows: Table[Key, AccountRow] = Table(journal)
        self.verified_addresses: Table[tuple[int, str], UUID] = Table(journal)

    def insert(self, rows: Rows) -> Answers:
        """Add pending accounts; one that is there stays as it is."""
        for _, bucket, id, *columns in rows:
            key = Key(bucket, id)
            if key not in self.rows:
                self.rows[key] = AccountRow(self._clock.now(), *columns)
        return [{"ordinal": row[0], "id": row[2]} for row in rows]

    def verify(self, rows: Rows) -> Answers:
        """Decide pending accounts by a link that is alive; the first of an address is verified."""
        newly: set[Key] = set()
        answers: Answers = []
        for ordinal, key, n in _eligible_first(self.rows, rows):
            account = self.rows[key]
            if account.status == "pending" and _is_alive(account, n):
                self._decide(key, account, newly)
            status = self.rows[key].status
            answers.append(
                {
                    "ordinal": ordinal,
                    "status": "expired" if status == "pending" else status,
                    "newly": key in newly,
                }
            )
            newly.discard(key)
        return answers

    def _decide(self, key: Key, account: AccountRow, newly: set[Key]) -> None:
        assert account.identity_key is not None, "a pending account has its address"
        address = (key.bucket, account.identity_key)
        if address in self.verified_addresses:
            self._set(key, "superseded")
            return
        self.verified_addresses[address] = key.id
        for rival, row in list(self.rows.items()):
            if (rival.bucket, row.identity_key) == address and row.status == "pending":
                self._set(rival, "verified" if rival == key else "superseded")
        newly.add(key)

    def get(self, rows: Rows) -> Answers:
        """Return status and data."""
        return [
            {
                "ordinal": ordinal,
                "status": account.status,
                "data": account.data,
                "verified": account.status == "verified",
            }
            for ordinal, bucket, id in rows
            if (account := self.rows.get(Key(bucket, id))) is not None
        ]

    def delete_unverified(self, rows: Rows) -> Answers:
        """Turn accounts that nobody verified into tombstones."""
        answers: Answers = []
        for ordinal, bucket, id in rows:
            key = Key(bucket, id)
            account = self.rows.get(key)
            if account is None:
                continue
            is_deletable = account.status in ("pending", "superseded")
            if is_deletable:
                self._set(key, "expired")
                self.rows[key] = replace(
                    self.rows[key],
                    address=None,
                    identity_key=None,
                    name=None,
                    locale=None,
                    data=None,
                )
            status = self.rows[key].status
            answers.append({"ordinal": ordinal, "deleted": is_deletable, "status": status})
        return answers

    def _set(self, key: Key, status: str) -> None:
        self.rows[key] = replace(self.rows[key], status=status, decided_at=self._clock.now())


EFFECTS: Final[Mapping[str, Callable[[MemoryAccounts, Rows], Answers]]] = {
    "insert_account": MemoryAccounts.insert,
    "verify_account": MemoryAccounts.verify,
    "get_account": MemoryAccounts.get,
    "delete_unverified_account": MemoryAccounts.delete_unverified,
}


def _is_alive(account: AccountRow, n: int) -> bool:
    return max(0, account.links - LINKS_ALIVE) < n <= account.links


def _eligible_first(accounts: Mapping[Key, AccountRow], rows: Rows) -> list[tuple[int, Key, int]]:
    """Return the known rows, those whose link is alive first, as one statement sees them."""
    known = [
        (ordinal, Key(bucket, id), n) for ordinal, bucket, id, n in rows if (bucket, id) in accounts
    ]
    return sorted(known, key=lambda row: not _is_alive(accounts[row[1]], row[2]))
