"""The schema's migrations: numbered files, applied in order, each in a transaction of its own.

The table `schema_migrations` says which were applied, with a digest of what was in them. Replicas
that start together queue for a lock and find the work done. A migration is forward only, and safe
to run while the previous version serves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import structlog

from service.resources import resource_path
from service.store.database import Database, Session

MIGRATION_SECONDS: Final = 600.0
_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

log = structlog.get_logger()


class ChangedMigration(Exception):
    """A file that was applied to this database reads differently now."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was changed after it was applied to this database: restore the file, "
            "and put what is new into a migration of its own"
        )
        self.name = name


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str
    sha256: str


@cache
def all_migrations() -> Sequence[Migration]:
    """Return the service's own migrations, read once."""
    return read_migrations(resource_path("sql") / "migrations")


def read_migrations(folder: Path) -> Sequence[Migration]:
    """Return a folder's migrations in order. Raise ValueError for names not numbered 1..n."""
    migrations = []
    for expected, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        match = _FILE.fullmatch(path.name)
        if match is None or int(match[1]) != expected:
            raise ValueError(f"{path.name}: migration {expected} is named {expected:04}_words.sql")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        migrations.append(Migration(expected, path.name, data.decode("utf-8"), digest))
    return tuple(migrations)


async def migrate(
    database: Database, migrations: Sequence[Migration] | None = None
) -> Sequence[str]:
    """Apply what is not applied yet; return the names. Raise ChangedMigration, Unavailable.

    A newer schema than this build knows is left as it is: a migration never breaks the version
    before it.
    """
    names = []
    for migration in all_migrations() if migrations is None else migrations:
        async with database.transaction() as session:
            await session.run("lock_schema")
            await session.run("make_schema_migrations")
            if await _is_applied(session, migration):
                continue
            await session.run_file(migration.text, seconds=MIGRATION_SECONDS)
            await session.fetch(
                "keep_migration", migration.version, migration.name, migration.sha256
            )
        names.append(migration.name)
        log.info("migration_applied", migration=migration.name)
    return names


async def pending_migrations(
    database: Database, migrations: Sequence[Migration] | None = None
) -> list[str]:
    """Return the names of those not applied yet. Raise ChangedMigration, Unavailable."""
    known = all_migrations() if migrations is None else migrations
    row = await database.first("has_schema_migrations")
    if row is None or not row["is_there"]:
        return [migration.name for migration in known]
    rows = await database.fetch("applied_migrations")
    applied = {row["version"]: row["sha256"] for row in rows}
    return [migration.name for migration in known if not _stands(applied, migration)]


async def _is_applied(session: Session, migration: Migration) -> bool:
    rows = await session.fetch("applied_migrations")
    return _stands({row["version"]: row["sha256"] for row in rows}, migration)


def _stands(applied: dict[int, str], migration: Migration) -> bool:
    sha256 = applied.get(migration.version)
    if sha256 is not None and sha256 != migration.sha256:
        raise ChangedMigration(migration.name)
    return sha256 is not None
