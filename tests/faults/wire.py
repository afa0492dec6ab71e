"""As much of PostgreSQL's protocol as it takes to see a commit go by, and its answer.

PostgreSQL manual, "Message Formats". A connection begins with packets that have no type, of which
all but the StartupMessage are requests for another transport; a message has a type, and a length
that counts itself.

A transaction is committed by the simple query COMMIT; one statement outside of a transaction block
by the Sync that comes after it ("Extended Query"). Whether there is a block, the server says
whenever it is ready for the next.
"""

from __future__ import annotations

import re
import struct
from typing import Final, Literal, TypeAlias

_LENGTH: Final = struct.Struct("!I")
_PROTOCOL_3: Final = 3
MESSAGE_BYTES_MAX: Final = 1 << 26
_WRITES: Final = re.compile(
    rb"\b(insert into|delete from|(?<!for )(?<!for no key )update)\s", re.IGNORECASE
)
# Not counted is what affected no row: nothing of it was there to commit.
_WROTE: Final = re.compile(rb"COMMIT|(INSERT 0|UPDATE|DELETE|SELECT) [1-9][0-9]*")

CommittedBy: TypeAlias = Literal["commit", "statement"]


class Messages:
    """Cuts a stream, given in pieces, into (type, body); packets without a type have b"" for it."""

    def __init__(self, *, begins_untyped: bool) -> None:
        self._is_untyped = begins_untyped
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """Return the messages that this piece completes."""
        self._buffer += piece
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> tuple[bytes, bytes] | None:
        type_bytes = 0 if self._is_untyped else 1
        if len(self._buffer) < type_bytes + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, type_bytes)
        assert _LENGTH.size <= length <= MESSAGE_BYTES_MAX, "out of step with the protocol"
        end = type_bytes + length
        if len(self._buffer) < end:
            return None
        kind = bytes(self._buffer[:type_bytes])
        body = bytes(self._buffer[type_bytes + _LENGTH.size : end])
        del self._buffer[:end]
        if self._is_untyped:
            self._is_untyped = int.from_bytes(body[:2]) != _PROTOCOL_3
        return kind, body


class Conversation:
    """Follows a connection without TLS: what the client sends that commits, and what comes of it.

    The client waits for each answer before it goes on, and has one portal at a time, as asyncpg.
    """

    def __init__(self) -> None:
        self._asked = Messages(begins_untyped=True)
        self._answered = Messages(begins_untyped=False)
        self._writing: set[bytes] = set()  # names of prepared statements
        self._bound = b""
        self._has_written = False  # since the last Sync
        self._is_idle = False
        self._has_failed = False  # since the server was last ready, and
        self._has_committed = False

    def ask(self, piece: bytes) -> CommittedBy | None:
        """Return what commits something, if anything in this piece of the client's does."""
        commits = [self._commits(*message) for message in self._asked.feed(piece)]
        return next(filter(None, commits), None)

    def answer(self, piece: bytes) -> bool | None:
        """Return whether something was committed, if this piece of the server's settles that."""
        settled = [self._settles(*message) for message in self._answered.feed(piece)]
        return next((each for each in settled if each is not None), None)

    def _commits(self, kind: bytes, body: bytes) -> CommittedBy | None:
        match kind:
            case b"Q":
                return "commit" if is_commit(body) else None
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self._writing.discard(name)
                if writes(text):
                    self._writing.add(name)
            case b"B":
                _, self._bound, _ = body.split(b"\0", 2)
            case b"E":
                self._has_written |= self._bound in self._writing
            case b"S":
                has_written, self._has_written = self._has_written, False
                return "statement" if has_written and self._is_idle else None
        return None

    def _settles(self, kind: bytes, body: bytes) -> bool | None:
        match kind:
            case b"C":
                self._has_committed |= _WROTE.fullmatch(body, 0, len(body) - 1) is not None
            case b"E":
                self._has_failed = True
            case b"Z":
                has_committed = self._has_committed and not self._has_failed
                self._is_idle = body == b"I"
                self._has_failed = self._has_committed = False
                return has_committed
        return None


def is_commit(text: bytes) -> bool:
    """Tell whether a simple query is COMMIT, which ends a transaction."""
    return text.rstrip(b"\0; \n").strip().lower() == b"commit"


def writes(text: bytes) -> bool:
    """Tell whether a statement inserts, updates or deletes; to lock rows is not to write."""
    return _WRITES.search(text) is not None
