"""Replies reach their reader one for each time it asks, however their bytes arrive."""

import asyncio
from collections.abc import Callable

import pytest

from service.mail.replies import Replies

REPLIES = [b"250-one\r\n250 1\r\n", b"354 two\r\n", b"no reply at all\n", b"\r\n", b"250\r\n"]


class Wire(asyncio.Transport):
    """A connection that a test plays, and what the reader at its end gets to see."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = False
        self.read: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.replies = Replies(self, _Reader(self))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def abort(self) -> None:
        self.is_cut = True
        self.replies.connection_lost(None)

    async def ask(self, seconds: float = 60.0) -> None:
        """Ask, and give what is kept the time to be handed over."""
        self.replies.ask(seconds)
        await asyncio.sleep(0)


class _Reader(asyncio.Protocol):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def data_received(self, data: bytes) -> None:
        self._wire.read.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.ends.append(exc)


@pytest.mark.parametrize("size", [1, 2, 7, 11, 1_000])
async def test_replies_come_one_by_one_in_whatever_pieces_they_arrive(size: int) -> None:
    wire, sent = Wire(), b"".join(REPLIES)
    for start in range(0, len(sent), size):
        wire.replies.data_received(sent[start : start + size])
    for count in range(1, len(REPLIES) + 1):
        await wire.ask()
        assert wire.read == REPLIES[:count]
    assert not wire.replies.is_ahead


async def test_reply_that_completes_while_another_look_is_due_is_the_only_one() -> None:
    wire = Wire()
    wire.replies.data_received(b"250 o")
    wire.replies.ask(60.0)
    wire.replies.data_received(b"ne\r\n250 two\r\n")
    await asyncio.sleep(0)
    assert wire.read == [b"250 one\r\n"]
    assert wire.replies.is_ahead


async def test_end_comes_after_the_replies_that_came_before_it_and_once() -> None:
    wire, lost = Wire(), ConnectionResetError()
    wire.replies.data_received(b"250 one\r\n550 two\r\n25")
    wire.replies.connection_lost(lost)
    seen = []
    for _ in range(4):
        await wire.ask()
        seen.append((len(wire.read), list(wire.ends)))
    assert seen == [(1, []), (2, []), (2, [lost]), (2, [lost])]


async def test_end_of_an_idle_connection_is_told_at_once() -> None:
    wire = Wire()
    wire.replies.connection_lost(None)
    assert wire.ends == [None]


async def test_late_reply_ends_the_connection_and_one_in_time_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    looks: list[tuple[float, Callable[[], None]]] = []
    loop = asyncio.get_running_loop()
    wire = Wire()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: now)
        patch.setattr(loop, "call_at", lambda at, look: looks.append((at, look)) or _Handle(at))
        wire.replies.ask(20.0)
        wire.replies.data_received(b"250 ok\r\n")
        now = 119.0
        wire.replies.ask(60.0)
        now = 120.0
        looks[-1][1]()  # the timer set for the first reply: the second has until 179
        now = 179.0
        assert not wire.is_cut
        looks[-1][1]()
    assert [at for at, _ in looks] == [120.0, 179.0]
    assert (wire.is_cut, wire.replies.is_late, wire.ends) == (True, True, [None])


class _Handle:
    def __init__(self, at: float) -> None:
        self._at = at

    def when(self) -> float:
        return self._at

    def cancel(self) -> None:
        pass
