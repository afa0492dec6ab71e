"""The one place where Postgres's errors become the engine's.

Every error becomes one of three (see `engine.ports`), by what can be done about it. `Unavailable`:
the database does not answer, and whether a commit took place may be unknown; the connection is
thrown away, so that the pool finds a server that came back, or another one after a failover, by
itself. `Contended`: a lock; try again. `Rejected`: a value; do not.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Final

import asyncpg

from service.engine.ports import Contended, Rejected, Unavailable

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


class Translation:
    """Raises Unavailable, Contended or Rejected for what asyncpg and the network raise in a block.

    Not a generator, which would have to be made anew for each statement.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            translation = _translation(error)
            if translation is not None:
                raise translation from error


translated: Final = Translation()


def _translation(error: BaseException) -> Exception | None:
    """Return what an error is to the engine; None for a mistake of ours, which stays what it is."""
    kind: type[Unavailable | Contended | Rejected] | None = None
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        # The schema changed under a prepared statement; asyncpg has forgotten it by now.
        kind = Contended
    elif isinstance(error, asyncpg.PostgresError):
        kind = _kind(str(error.sqlstate))
    elif isinstance(error, asyncpg.InterfaceError):
        kind = Unavailable if _CLOSED.search(str(error)) else None
    elif isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError):
        kind = Unavailable
    elif isinstance(error, UnicodeEncodeError | OverflowError):
        kind = Rejected
    return None if kind is None else kind(_words(error))


def _kind(sqlstate: str) -> type[Unavailable | Contended | Rejected] | None:
    if sqlstate.startswith(_UNAVAILABLE):
        return Unavailable
    if sqlstate in _CONTENDED:
        return Contended
    return Rejected if sqlstate.startswith(_REJECTED) else None


def _words(error: BaseException) -> str:
    """Return the error's class and message, without its detail, which may quote a visitor."""
    if isinstance(error, UnicodeEncodeError):
        return f"{type(error).__name__}: {error.reason}"
    if isinstance(error, asyncpg.DataError) and getattr(error, "severity", None) is None:
        # Raised by asyncpg before anything is sent; its message quotes the whole parameter.
        return f"{type(error).__name__}: a parameter has no encoding as its type"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
