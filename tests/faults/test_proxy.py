"""The proxy's faults, seen by a client of PostgreSQL: what arrived, what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.e2e.process import until
from tests.faults.postgres import Server, server_folder
from tests.faults.proxy import Proxy
from tests.faults.wire import Messages, is_commit

COMMIT = b"Q\0\0\0\x0bcommit\0"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with server_folder() as folder:
        server = Server(folder / "server", settings={"fsync": "off"})
        asyncio.run(server.start())
        try:
            asyncio.run(server.ask("create table kept (n int)"))
            yield server
        finally:
            asyncio.run(server.stop("immediate"))


async def test_a_proxy_passes_on_until_it_resets(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        connection = await asyncpg.connect(proxy.url)
        answered = await connection.fetchval("select repeat('x', 300000)")
        was_open = proxy.reset()
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.fetchval("select 1")
        again = await asyncpg.connect(proxy.url)
        await again.close()
    assert (len(answered), was_open) == (300_000, 1)


async def test_a_delayed_answer_comes_and_a_swallowed_one_does_not(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        connection = await asyncpg.connect(proxy.url)
        delayed, _ = await asyncio.gather(connection.fetchval("select 1"), proxy.delay(0.05))
        swallowing = asyncio.create_task(proxy.swallow(0.05))
        await asyncio.sleep(0)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.fetchval("select 1")
        was_open = await swallowing
    assert (delayed, was_open) == (1, 1)


async def test_a_commit_that_is_cut_off_takes_place_and_is_not_answered(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        connection = await asyncpg.connect(proxy.url)
        cut = asyncio.create_task(proxy.cut_at_commit(10))
        await connection.execute("begin")
        await connection.execute("insert into kept values ($1)", 1)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.execute("commit")
        assert await cut
        await until(lambda: proxy.committed, "the answer that nobody got")
        counts = (proxy.commits, proxy.committed)
    assert (counts, await server.ask("select count(*) from kept")) == ((1, 1), 1)


async def test_no_commit_within_the_time_is_no_cut(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        assert not await proxy.cut_at_commit(0.01)
        assert proxy.commits == 0


def test_messages_are_the_same_however_the_stream_is_cut() -> None:
    ssl_request = bytes.fromhex("0000000804d2162f")
    startup = bytes.fromhex("0000000900030000") + b"\0"
    stream = ssl_request + startup + COMMIT + b"Q\0\0\0\x0dselect 1\0" + b"X\0\0\0\x04"
    expected = [(b"", ssl_request[4:]), (b"", startup[4:])]
    expected += [(b"Q", b"commit\0"), (b"Q", b"select 1\0"), (b"X", b"")]
    for size in (1, 3, 8, len(stream)):
        messages = Messages(begins_untyped=True)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [m for piece in pieces for m in messages.feed(piece)] == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ((b"Q", b"commit\0"), True),
        ((b"Q", b"COMMIT;\0"), True),
        ((b"Q", b"commit prepared 'x'\0"), False),
        ((b"P", b"commit\0"), False),
        ((b"Q", b"select 1\0"), False),
    ],
)
def test_a_commit_is_the_simple_query_of_that_name(
    message: tuple[bytes, bytes], expected: bool
) -> None:
    assert is_commit(message) is expected
