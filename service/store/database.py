"""A database: its statements by name, on their own or in a transaction.

Behind a transaction pooler (PgBouncer) two statements outside a transaction may run on different
servers, where neither a prepared statement nor a setting of the first is known to the second. There
everything runs in a transaction that begins with its own settings, and nothing is prepared by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from service.engine.ports import Contended, Unavailable
from service.store.errors import translated
from service.store.pool import Loan, Pool
from service.store.queries import Queries, all_queries

CONNECT_SECONDS: Final = 5.0
# Longer than any lock is waited for, shorter than a lease: a silent server is given up in time.
COMMAND_SECONDS: Final = 10.0
# More than there are statements, so that each is prepared once for a connection.
STATEMENTS_MAX: Final = 256
# What `settle` and `begin_pooled` set; a test holds them to it.
LOCK_PATIENCE_MS: Final = 200

Row: TypeAlias = Mapping[str, Any]
Pooler: TypeAlias = Literal["off", "transaction"]


class Session:
    """One transaction's connection. Statements go by name, with their parameters in order."""

    def __init__(self, connection: Any, queries: Queries) -> None:
        self._connection = connection
        self._queries = queries

    async def fetch(self, name: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a statement. Raises Unavailable, Contended, Rejected."""
        with translated:
            rows: Sequence[Row] = await self._connection.fetch(
                self._queries.text(name), *parameters
            )
        return rows

    async def first(self, name: str, *parameters: object) -> Row | None:
        """Return the first row of a statement, or None. Raises as `fetch`."""
        rows = await self.fetch(name, *parameters)
        return rows[0] if rows else None

    async def apply_effect(self, name: str, *columns: object) -> Sequence[Row]:
        """Run an effect after its companion `<name>.lock`, if it has one, with the same parameters.

        Raises KeyError for a name that is no statement, and as `fetch`.
        """
        lock = f"{name}.lock"
        if lock in self._queries:
            await self.fetch(lock, *columns)
        return await self.fetch(name, *columns)

    async def run(self, name: str) -> str:
        """Run a block of statements without parameters and return the last one's tag."""
        return await self.run_file(self._queries.text(name))

    async def run_file(self, text: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """Run the statements of a migration file."""
        with translated:
            tag: str = await self._connection.execute(text, timeout=seconds)
        return tag


class Database:
    """A pool of at most `pool_size` connections to one database."""

    def __init__(self, dsn: str, *, pool_size: int = 10, pooler: Pooler = "off") -> None:
        self.dsn = dsn
        self.is_pooled = pooler == "transaction"
        self._pool_size = pool_size
        self.queries = all_queries()
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Open the pool and see that the database answers. Raises Unavailable; may be repeated."""
        if self._pool is None:
            self._pool = Pool(self._connect, self._pool_size)
        await self.fetch("ping")

    async def close(self) -> None:
        """Close the pool; connections still in use after CLOSE_SECONDS are cut off."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def use(self) -> tuple[int, int]:
        """Return how many connections are busy and how many are idle."""
        return (0, 0) if self._pool is None else self._pool.use()

    async def fetch(self, name: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a statement that is its own transaction. Raises as `Session.fetch`."""
        if self.is_pooled:
            async with self.transaction() as session:
                return await session.fetch(name, *parameters)
        async with self.lend() as connection:
            return await Session(connection, self.queries).fetch(name, *parameters)

    async def first(self, name: str, *parameters: object) -> Row | None:
        """Return the first row of a statement that is a transaction of its own, or None."""
        rows = await self.fetch(name, *parameters)
        return rows[0] if rows else None

    @asynccontextmanager
    async def transaction(self, lock_patience_ms: int = LOCK_PATIENCE_MS) -> AsyncIterator[Session]:
        """Begin a transaction; it is committed when the block ends, rolled back when that raises.

        No lock is waited for longer than `lock_patience_ms`. Raises Unavailable also when the
        commit's answer is lost.
        """
        async with self.lend() as connection:
            session = Session(connection, self.queries)
            await session.run("begin_pooled" if self.is_pooled else "begin")
            try:
                if lock_patience_ms != LOCK_PATIENCE_MS:
                    await session.fetch("set_lock_patience", f"{lock_patience_ms}ms")
                yield session
            except Unavailable:
                raise
            except Exception:
                await session.run("rollback")
                raise
            # An aborted transaction answers COMMIT with ROLLBACK, and without an error.
            tag = await session.run("commit")
            if tag != "COMMIT":
                raise Contended(f"the transaction was aborted before its commit: {tag}")

    def lend(self) -> Loan:
        """Lend a connection for a block; one that failed is not used again. Raises Unavailable."""
        if self._pool is None:
            raise Unavailable("the database is not open")
        return self._pool.lend()

    async def _connect(self) -> Any:
        connection = await asyncpg.connect(
            self.dsn,
            command_timeout=COMMAND_SECONDS,
            timeout=CONNECT_SECONDS,
            statement_cache_size=0 if self.is_pooled else STATEMENTS_MAX,
        )
        if not self.is_pooled:
            try:
                await Session(connection, self.queries).run("settle")
            except BaseException:
                connection.terminate()
                raise
        return connection


async def database_time(database: Database) -> datetime:
    """Return the database's clock. Raises Unavailable."""
    (row,) = await database.fetch("ping")
    now: datetime = row["now"]
    return now
