"""The pool and its transactions, and the one place where Postgres's errors become the engine's.

Every error becomes one of three (see `engine.ports`), by what can be done about it. `Unavailable`:
the database does not answer, and whether a commit took place may be unknown; the connection is
thrown away, so that the pool finds a server that came back, or another one after a failover, by
itself. `Contended`: a lock; try again. `Rejected`: a value; do not.

Behind a transaction pooler (PgBouncer) two statements outside a transaction may run on different
servers, where neither a prepared statement nor a setting of the first is known to the second. There
everything runs in a transaction that begins with its own settings, and nothing is prepared by name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import asyncpg

from service import metrics
from service.engine.ports import Contended, Rejected, Unavailable
from service.store.queries import Queries, all_queries

CONNECT_SECONDS: Final = 5.0
# Longer than any lock is waited for, shorter than a lease: a silent server is given up in time.
COMMAND_SECONDS: Final = 10.0
# For a connection of the pool, all of which may be busy.
ACQUIRE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 300.0
CLOSE_SECONDS: Final = 5.0
# What `settle` and `begin_pooled` set; a test holds them to it.
LOCK_PATIENCE_MS: Final = 200

Row: TypeAlias = Mapping[str, Any]
Pooler: TypeAlias = Literal["off", "transaction"]

# How asyncpg says that a connection or the pool has gone; other InterfaceErrors are our mistakes.
_CLOSED: Final = re.compile(r"\bclos(ed|ing)\b|released back to the pool")

# SQLSTATE classes and codes, PostgreSQL manual, appendix A.
_UNAVAILABLE: Final = (
    "08",  # connection exception
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "57P",  # shutting down, crashed, starting up, database dropped
    "58",  # system error
    "25006",  # read-only: a primary that is a standby by now
    "25P03",  # this transaction was idle too long: the process was stopped inside it
    "28",  # wrong password or role
    "3D000",  # no such database
)
_CONTENDED: Final = ("55P03", "40P01", "40001", "57014")
_REJECTED: Final = ("22", "23", "54")  # data, integrity, and over a limit of the server's


class Session:
    """One transaction's connection. Statements go by name, with their parameters in order."""

    def __init__(self, connection: Any, queries: Queries) -> None:
        self._connection = connection
        self._queries = queries

    async def fetch(self, name: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a statement. Raises Unavailable, Contended, Rejected."""
        with translated():
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
        with translated():
            tag: str = await self._connection.execute(text, timeout=seconds)
        return tag


class Database:
    """A pool of at most `pool_size` connections to one database."""

    def __init__(self, dsn: str, *, pool_size: int = 10, pooler: Pooler = "off") -> None:
        self.dsn = dsn
        self.is_pooled = pooler == "transaction"
        self._pool_size = pool_size
        self._queries = all_queries()
        self._pool: Any = None

    async def open(self) -> None:
        """Open the pool and see that the database answers. Raises Unavailable; may be repeated."""
        if self._pool is None:
            with translated():
                self._pool = await asyncpg.create_pool(
                    self.dsn,
                    min_size=0,  # so that it opens without a database, and loses none to an outage
                    max_size=self._pool_size,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                    command_timeout=COMMAND_SECONDS,
                    timeout=CONNECT_SECONDS,
                    statement_cache_size=0 if self.is_pooled else 256,
                    init=None if self.is_pooled else self._settle,
                    reset=_keep,
                )
        await self.fetch("ping")

    async def close(self) -> None:
        """Close the pool; connections still in use after CLOSE_SECONDS are cut off."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    def use(self) -> tuple[int, int]:
        """Return how many connections are busy and how many are idle."""
        if self._pool is None:
            return 0, 0
        idle: int = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle

    async def fetch(self, name: str, *parameters: object) -> Sequence[Row]:
        """Return the rows of a statement that is its own transaction. Raises as `Session.fetch`."""
        if self.is_pooled:
            async with self.transaction() as session:
                return await session.fetch(name, *parameters)
        async with self._connection() as connection:
            return await Session(connection, self._queries).fetch(name, *parameters)

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
        async with self._connection() as connection:
            session = Session(connection, self._queries)
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

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Lend a connection; one that failed is cut off, so that the pool makes another."""
        pool = self._pool
        if pool is None:
            raise Unavailable("the database is not open")
        with translated(), metrics.POOL_WAIT_SECONDS.time():
            connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
        try:
            yield connection
        except Unavailable as error:
            # Another server may answer the next one. Not after a timeout, or a cancellation: there
            # asyncpg is stopping the statement, whose locks would outlive the connection.
            if not isinstance(error.__cause__, TimeoutError):
                with suppress(asyncpg.InterfaceError):  # gone already
                    connection.terminate()
            raise
        finally:
            # Rolls back what is open; cuts the connection off if that takes too long.
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await pool.release(connection, timeout=CLOSE_SECONDS)

    async def _settle(self, connection: Any) -> None:
        await Session(connection, self._queries).run("settle")


async def database_time(database: Database) -> datetime:
    """Return the database's clock. Raises Unavailable."""
    (row,) = await database.fetch("ping")
    now: datetime = row["now"]
    return now


async def _keep(connection: Any) -> None:
    """Leave a returned connection as it is: its settings are for life, and no round trip is due."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise Unavailable, Contended or Rejected for what asyncpg and the network raise."""
    try:
        yield
    except asyncpg.InvalidCachedStatementError as error:
        # The schema changed under a prepared statement; asyncpg has forgotten it by now.
        raise Contended(_words(error)) from error
    except asyncpg.PostgresError as error:
        kind = _kind(str(error.sqlstate))
        if kind is None:
            raise
        raise kind(_words(error)) from error
    except asyncpg.InterfaceError as error:
        if _CLOSED.search(str(error)) is None:
            raise
        raise Unavailable(_words(error)) from error
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        raise Unavailable(_words(error)) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise Rejected(_words(error)) from error


def _kind(sqlstate: str) -> type[Unavailable | Contended | Rejected] | None:
    if sqlstate.startswith(_UNAVAILABLE):
        return Unavailable
    if sqlstate in _CONTENDED:
        return Contended
    return Rejected if sqlstate.startswith(_REJECTED) else None


def _words(error: Exception) -> str:
    """Return the error's class and message, without its detail, which may quote a visitor."""
    if isinstance(error, UnicodeEncodeError):
        return f"{type(error).__name__}: {error.reason}"
    if isinstance(error, asyncpg.DataError) and getattr(error, "severity", None) is None:
        # Raised by asyncpg before anything is sent; its message quotes the whole parameter.
        return f"{type(error).__name__}: a parameter has no encoding as its type"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
