"""The database of one run: made for it, looked into by it, dropped after it."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import psutil  # type: ignore[import-untyped]

from service.demo.postgres import EmbeddedPostgres
from service.engine.ids import bucket_of

SETTINGS: Final = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "500",
}
"""Of the embedded server: room enough that no checkpoint of its own falls into a run."""

SCRATCH_DIR: Final = Path(__file__).parent.parent / "build"


@asynccontextmanager
async def embedded_server() -> AsyncIterator[str]:
    """Start a server whose data lie on the checkout's disk, and remove them in the end.

    Yields the URL of its maintenance database.
    """
    data_dir = _scratch()
    try:
        async with EmbeddedPostgres(data_dir, settings=SETTINGS) as server:
            yield server.dsn
    finally:
        _remove(data_dir)


def _scratch() -> Path:
    SCRATCH_DIR.mkdir(exist_ok=True)
    data_dir = Path(tempfile.mkdtemp(prefix="bench-", dir=SCRATCH_DIR))
    data_dir.chmod(0o755)  # root's server runs as another user
    return data_dir


def _remove(data_dir: Path) -> None:
    cluster = data_dir / "cluster"
    if cluster.is_symlink():  # placed where that other user can go
        shutil.rmtree(cluster.resolve().parent)
    shutil.rmtree(data_dir)


class BenchDatabase:
    """A fresh database on a server, inside `async with`, and one connection to it."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._name = f"countersign_bench_{secrets.token_hex(4)}"
        self.url = urlsplit(server_url)._replace(path=f"/{self._name}").geturl()
        self.connection: Any = None

    async def __aenter__(self) -> Self:
        await self._on_server(f"create database {self._name}")
        self.connection = await asyncpg.connect(self.url)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.connection.close()
        await self._on_server(f"drop database {self._name} with (force)")

    async def _on_server(self, statement: str) -> None:
        connection = await asyncpg.connect(self._server_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def has_ended(self, account_id: UUID) -> bool:
        """Tell whether the execution of this account is stored as ended."""
        status = await self.connection.fetchval(
            "select status from executions where bucket = $1 and id = $2",
            bucket_of(account_id),
            account_id,
        )
        return status not in (None, "RUNNING")

    async def rests(self, account_id: UUID) -> bool:
        """Tell whether the execution of this account waits for nothing but time."""
        due_at = await self.connection.fetchval(
            "select due_at from executions where bucket = $1 and id = $2",
            bucket_of(account_id),
            account_id,
        )
        return due_at is not None

    async def result(self, id: UUID) -> tuple[str, str]:
        """Return the status and the output of an execution."""
        row = await self.connection.fetchrow(
            "select status, output from executions where bucket = $1 and id = $2", bucket_of(id), id
        )
        return row["status"], row["output"]

    async def outcomes(self) -> dict[UUID, tuple[str, str]]:
        """Return the status of every account and of its execution."""
        rows = await self.connection.fetch(
            "select a.id, a.status, e.status as execution "
            "from accounts a join executions e using (bucket, id)"
        )
        return {row["id"]: (row["status"], row["execution"]) for row in rows}

    async def checkpoint(self) -> None:
        """Have the server write a checkpoint, so that each run begins at the same point of it.

        Left out where this role may not: the WAL is then a little less.
        """
        with suppress(asyncpg.InsufficientPrivilegeError):
            await self.connection.execute("checkpoint")

    async def keep_autovacuum_out(self) -> None:
        """Have the server's own vacuum pass over all tables there are."""
        tables = await self.connection.fetch(
            "select oid::regclass::text as name from pg_class "
            "where relkind = 'r' and relnamespace = 'public'::regnamespace"
        )
        for row in tables:
            await self.connection.execute(
                f"alter table {row['name']} set (autovacuum_enabled = off)"
            )

    async def usage(self) -> tuple[int, int]:
        """Return the transaction ids and the bytes of WAL that the server has used so far."""
        row = await self.connection.fetchrow(
            "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid, "
            "(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal"
        )
        return row["xid"], row["wal"]

    async def transactions(self) -> int:
        """Return how many transactions have ended in this database."""
        ended: int = await self.connection.fetchval(
            "select xact_commit + xact_rollback from pg_stat_database "
            "where datname = current_database()"
        )
        return ended

    async def version(self) -> str:
        """Return the server's version, such as 18.4."""
        version: str = await self.connection.fetchval("show server_version")
        return version.split()[0]

    async def local_server(self) -> tuple[Path, int] | None:
        """Return the server's data folder and its first process; None if it runs elsewhere."""
        try:
            folder = Path(await self.connection.fetchval("show data_directory"))
            pid = int((folder / "postmaster.pid").read_text().splitlines()[0])
            is_server = psutil.Process(pid).name().startswith("postgres")
        except (asyncpg.InsufficientPrivilegeError, OSError, psutil.Error):
            return None
        return (folder, pid) if is_server else None
