"""As much of PostgreSQL's protocol as it takes to see a COMMIT go by, and its answer.

PostgreSQL manual, "Message Formats". A connection begins with packets that have no type, of which
all but the StartupMessage are requests for another transport; a message has a type, and a length
that counts itself.
"""

from __future__ import annotations

import struct
from typing import Final

_LENGTH: Final = struct.Struct("!I")
_PROTOCOL_3: Final = 3
MESSAGE_BYTES_MAX: Final = 1 << 26


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


def is_commit(message: tuple[bytes, bytes]) -> bool:
    """Tell whether a client's message is the simple query COMMIT, which ends a transaction."""
    kind, body = message
    return kind == b"Q" and body.rstrip(b"\0; \n").strip().lower() == b"commit"


def is_committed(message: tuple[bytes, bytes]) -> bool:
    """Tell whether a server's message says that a COMMIT took place."""
    return message == (b"C", b"COMMIT\0")
