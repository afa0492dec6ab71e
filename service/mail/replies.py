"""Replies handed to aiosmtplib one by one, each in its time.

Commands that go out in one piece (RFC 2920) may be answered in one. aiosmtplib reads the reply to
the command that waits for one and drops whatever came with it; so this stands between it and its
connection, and keeps the next reply until it is asked for.

It is also where a server is late. A timer for each reply is a third of what the conversation costs;
here one timer serves a connection, and looks when it goes off whether it was set for this reply.
"""

import asyncio
import re
from typing import Final

REPLIES_BYTES_MAX: Final = 65_536
"""What may wait here: twice what aiosmtplib takes as one reply. Who says more is cut off."""

# RFC 5321 4.2: all lines of a reply but its last have a hyphen after the code. What is no reply at
# all ends with its line as well, and aiosmtplib says what is wrong with it.
_LAST_LINE: Final = re.compile(rb"^(?!...-).*\n", re.MULTILINE)


class Replies(asyncio.Protocol):
    """Stands before another protocol and lets one reply through for each call of `ask`."""

    def __init__(self, transport: asyncio.Transport, reader: asyncio.Protocol) -> None:
        """Take the reader's place at its connection."""
        self._transport = transport
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._kept = b""
        self._is_asked = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False
        self._end: tuple[Exception | None] | None = None
        self._is_over = False
        transport.set_protocol(self)

    @property
    def is_ahead(self) -> bool:
        """Whether the server has said what nobody has asked for yet."""
        return bool(self._kept)

    @property
    def is_late(self) -> bool:
        """Whether the connection was cut because a reply did not come in time."""
        return self._is_late

    def ask(self, seconds: float) -> None:
        """Let the next reply through to the reader, which is just about to wait for it.

        If it has not come after so many seconds, the connection is cut.
        """
        if self._is_over:
            return  # The reader knows, and will not wait.
        self._is_asked = True
        if self._kept or self._end is not None:
            # Not at once: what comes before the reader waits is lost on it.
            self._loop.call_soon(self._hand_over)
        if self._end is None:
            self._due = self._loop.time() + seconds
            if self._timer is None or self._timer.when() > self._due:
                self._set_timer()

    def data_received(self, data: bytes) -> None:
        """Keep what has arrived, and hand over a reply if one is asked for."""
        self._kept += data
        if len(self._kept) > REPLIES_BYTES_MAX:
            self._transport.abort()
        elif self._is_asked:
            self._hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader, though not before it has had the replies that came in time."""
        self._end = (exc,)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_asked or not self._kept:
            self._hand_over()

    def _hand_over(self) -> None:
        last = _LAST_LINE.search(self._kept)
        if last is not None:
            if self._is_asked:
                self._is_asked = False
                reply, self._kept = self._kept[: last.end()], self._kept[last.end() :]
                self._reader.data_received(reply)
        elif self._end is not None and not self._is_over:
            self._is_over, self._is_asked = True, False
            self._reader.connection_lost(*self._end)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """Cut the connection if the reply that is asked for is late, and look later if not yet."""
        self._timer = None
        if not self._is_asked:
            return
        if self._due > self._loop.time():
            self._set_timer()
            return
        self._is_late = True
        self._transport.abort()

    def pause_writing(self) -> None:
        """Pass it on, like its contrary."""
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        self._reader.resume_writing()
