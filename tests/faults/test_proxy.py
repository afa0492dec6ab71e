"""The proxy's faults, seen by a client of PostgreSQL: what arrived, what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from service.store.queries import all_queries
from tests.e2e.process import until
from tests.faults.postgres import Server, server_folder
from tests.faults.proxy import Proxy
from tests.faults.wire import Conversation, Messages, is_commit, writes

STARTUP = bytes.fromhex("0000000900030000") + b"\0"


def sent(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message as it is sent."""
    return kind + (4 + len(body)).to_bytes(4) + body


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
        cut = asyncio.create_task(proxy.cut_at_commit("commit", 10))
        await connection.execute("begin")
        await connection.execute("insert into kept values ($1)", 1)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.execute("commit")
        assert await cut
        await until(lambda: proxy.committed, "the answer that nobody got")
        counts = (proxy.commits, proxy.committed)
    kept = await server.ask("select count(*) from kept where n = 1")
    assert (counts, kept) == (({"commit": 1}, {"commit": 1}), 1)


async def test_a_statement_that_is_its_own_transaction_is_cut_off_likewise(server: Server) -> None:
    insert = "insert into kept values ($1) returning n"
    async with Proxy(server.port) as proxy:
        connection = await asyncpg.connect(proxy.url)
        assert await connection.fetch(insert, 2)
        cut = asyncio.create_task(proxy.cut_at_commit("statement", 10))
        await connection.execute("begin")
        await connection.fetch(insert, 2)
        await connection.execute("commit")
        await connection.fetch("select n from kept where n = $1 for update", 2)
        with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
            await connection.fetch(insert, 2)
        assert await cut
        await until(lambda: proxy.committed, "the answer that nobody got")
        counts = (proxy.commits, proxy.committed)
    kept = await server.ask("select count(*) from kept where n = 2")
    assert (counts, kept) == (({"statement": 1}, {"statement": 1}), 3)


async def test_no_commit_within_the_time_is_no_cut(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        assert not await proxy.cut_at_commit("commit", 0.01)
        assert proxy.commits == {}


def test_messages_are_the_same_however_the_stream_is_cut() -> None:
    typed = [(b"Q", b"commit\0"), (b"Q", b"select 1\0"), (b"X", b"")]
    ssl_request = bytes.fromhex("0000000804d2162f")
    stream = ssl_request + STARTUP + b"".join(sent(*message) for message in typed)
    expected = [(b"", ssl_request[4:]), (b"", STARTUP[4:]), *typed]
    for size in (1, 3, 8, len(stream)):
        messages = Messages(begins_untyped=True)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [m for piece in pieces for m in messages.feed(piece)] == expected


@pytest.mark.parametrize("bytes_at_once", [1, 5, 1000])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([(b"C", b"INSERT 0 1\0"), (b"Z", b"I")], True),
        ([(b"C", b"SELECT 10\0"), (b"Z", b"I")], True),
        ([(b"C", b"COMMIT\0"), (b"Z", b"I")], True),
        ([(b"C", b"UPDATE 0\0"), (b"Z", b"I")], False),
        ([(b"C", b"ROLLBACK\0"), (b"Z", b"I")], False),
        ([(b"E", b"\0"), (b"Z", b"I")], False),
        ([(b"C", b"UPDATE 1\0"), (b"E", b"\0"), (b"Z", b"I")], False),
        ([(b"C", b"INSERT 0 1\0")], None),
    ],
)
def test_committed_is_what_wrote_and_had_no_error_until_the_server_was_ready(
    answer: list[tuple[bytes, bytes]], expected: bool | None, bytes_at_once: int
) -> None:
    conversation = Conversation()
    stream = b"".join(sent(*message) for message in answer)
    pieces = [stream[at : at + bytes_at_once] for at in range(0, len(stream), bytes_at_once)]
    assert [conversation.answer(piece) for piece in pieces][-1] is expected


@pytest.mark.parametrize(
    ("status", "statement", "expected"),
    [
        (b"I", b"update kept set n = $1", "statement"),
        (b"T", b"update kept set n = $1", None),
        (b"E", b"update kept set n = $1", None),
        (b"I", b"select n from kept", None),
        (b"I", b"commit", None),
    ],
)
def test_a_statement_outside_of_a_block_commits_with_its_sync_and_only_then(
    status: bytes, statement: bytes, expected: str | None
) -> None:
    conversation = Conversation()
    conversation.ask(STARTUP)
    conversation.answer(sent(b"Z", status))
    for _ in range(2):
        assert conversation.ask(sent(b"P", b"name\0" + statement + b"\0\0\0")) is None
        assert conversation.ask(sent(b"B", b"\0name\0")) is None
        assert conversation.ask(sent(b"E", b"\0\0\0\0\0")) is None
        assert conversation.ask(sent(b"S")) == expected
        assert conversation.ask(sent(b"S")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"commit\0", True),
        (b"COMMIT;\0", True),
        (b"commit prepared 'x'\0", False),
        (b"select 1\0", False),
    ],
)
def test_a_commit_is_the_simple_query_of_that_name(text: bytes, expected: bool) -> None:
    assert is_commit(text) is expected


def test_of_the_services_own_statements_those_write_that_say_so() -> None:
    reading = ["ping", "lock", "standing", "next_due", "owned", "claim_owned", "get_account"]
    writing = ["insert_executions", "insert_account.start", "save", "signal", "claim_due"]
    texts = {name: all_queries().text(name).encode() for name in reading + writing}
    assert [name for name, text in texts.items() if writes(text)] == writing
