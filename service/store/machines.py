"""The engine's `DefinitionStore` on Postgres: definitions, and which one each machine takes."""

from __future__ import annotations

from collections.abc import Mapping

from service.engine.ports import Current, Published
from service.store.database import Database, Session


class DefinitionRows:
    """Definitions are kept for ever, since an execution may be pinned to any."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def currents(self) -> Mapping[str, Current]:
        """Return what new executions of every machine take, by the machine's name."""
        rows = await self._database.fetch("list_machines")
        return {row["name"]: Current(row["current"], row["role_arn"]) for row in rows}

    async def current(self, name: str) -> tuple[bytes, str] | None:
        """Return SHA-256 and text of what a machine's new executions take; None: unknown."""
        row = await self._database.first("current_definition", name)
        return None if row is None else (row["sha256"], row["text"])

    async def definition(self, sha256: bytes) -> str | None:
        """Return the text of a definition."""
        row = await self._database.first("definition", sha256)
        text: str | None = row["text"] if row else None
        return text

    async def publish_file(
        self, name: str, file: str, text: str, sha256: bytes, *, edited: bool
    ) -> Published:
        """Make a file's text the machine's current one, unless it is an older build's.

        `edited`: the file changed while this process watched it, which is an operator's wish in any
        case. Otherwise a text that was published before and is not current is an older build's, in
        the middle of a rolling deploy.
        """
        async with self._database.transaction() as session:
            await session.fetch("keep_definition", sha256, text)
            if await session.first("add_machine", name, sha256, file) is not None:
                await session.fetch("keep_publication", name, sha256)
                return Published(True, sha256)
            current, is_filed = await self._lock(session, name)
            if is_filed and current == sha256:
                return Published(False, current)
            row = await session.first("is_published", name, sha256)
            if is_filed and row is not None and row["is_published"] and not edited:
                return Published(False, current)
            await session.fetch("set_machine", name, sha256, file)
            await session.fetch("keep_publication", name, sha256)
            return Published(True, sha256)

    async def _lock(self, session: Session, name: str) -> tuple[bytes, bool]:
        """Return the machine's current SHA-256, and whether a file publishes it already."""
        row = await session.first("lock_machine", name)
        assert row is not None, f"{name} was there a moment ago, and rows of machines stay"
        return row["current"], row["is_filed"]
