"""The pool against a real server: what is kept, what is repeated, and whose fault a failure is."""

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.mail import MailRefused, MailUnavailable, SmtpTransport, Timeouts
from service.mail.session import Server
from tests.mail.certificate import client_context, server_context
from tests.mail.server import HANG_UP, HOLD, MailServer, Received, only

SENDER = "no-reply@service.example"
ADA = "ada@example.org"
MESSAGE = b"Subject: hello\r\n\r\nHello Ada.\r\n.\r\n..\r\nBye.\r\n"
QUICK = Timeouts(connect=0.05, command=0.05, data=0.05)

Start = Callable[..., Awaitable[MailServer]]
Connect = Callable[..., Awaitable[SmtpTransport]]


@pytest.fixture(params=[False, True], ids=["one_by_one", "in_groups"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Starts servers that end with the test and take commands one by one, or in groups."""
    servers: list[MailServer] = []

    async def start(*, implicit_tls: ssl.SSLContext | None = None, **options: Any) -> MailServer:
        server = MailServer(takes_groups=request.param, **options)
        await server.start(implicit_tls=implicit_tls)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens transports that close before the servers do."""
    transports: list[SmtpTransport] = []

    async def connect(port: int, tls: Any = "none", *login: str, **options: Any) -> SmtpTransport:
        options.setdefault("tls_context", client_context())
        transport = SmtpTransport(
            "127.0.0.1", port, tls, *login, local_hostname="service.example", **options
        )
        await transport.open()
        transports.append(transport)
        return transport

    yield connect
    for transport in transports:
        await transport.close()


@pytest.fixture
async def server(start: Start) -> MailServer:
    return await start()


@pytest.fixture
async def transport(server: MailServer, connect: Connect) -> SmtpTransport:
    return await connect(server.port)


async def failure(transport: SmtpTransport, recipient: str = ADA) -> Exception:
    """Return what sending to the recipient raises."""
    with pytest.raises((MailUnavailable, MailRefused)) as caught:
        await transport.send(SENDER, recipient, MESSAGE)
    return caught.value


def described(error: Exception) -> tuple[type, Any, Any, str]:
    assert isinstance(error, MailUnavailable | MailRefused)
    return type(error), error.code, error.status, str(error)


async def turns() -> None:
    """Let both ends of the connections see what happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def scripted(replies: list[bytes]) -> AsyncIterator[int]:
    """Run a server that says these lines, one before and one after each command, and then hangs."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            writer.write(reply)
            if not await reader.readline():
                break
        await reader.read()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await turns()


@asynccontextmanager
async def answering(
    pieces: list[bytes], *answers: bytes, hangs_up: bool = False
) -> AsyncIterator[int]:
    """Run a server that takes groups. It notes each piece that arrives and says the next answer.

    After the last answer it ends the connection: at once, or when something is said.
    """

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 PIPELINING\r\n")
        for answer in answers:
            pieces.append(await reader.read(65_536))
            writer.write(answer)
        if not hangs_up:
            await reader.read(1)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await turns()


# Sending


async def test_mail_arrives_byte_for_byte(server: MailServer, transport: SmtpTransport) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    assert server.received == [Received(SENDER, ADA, MESSAGE, over_tls=False)]


async def test_connection_is_kept_for_the_next_mail(
    server: MailServer, transport: SmtpTransport
) -> None:
    for number in range(3):
        await transport.send(SENDER, f"ada{number}@example.org", MESSAGE)
    assert [mail.recipient for mail in server.received] == [
        "ada0@example.org",
        "ada1@example.org",
        "ada2@example.org",
    ]
    assert server.connections == 1


async def test_no_more_connections_than_allowed_carry_all_mails(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port, connections_max=3)
    await asyncio.gather(*(transport.send(SENDER, ADA, MESSAGE) for _ in range(20)))
    assert (len(server.received), server.connections) == (20, 3)


async def test_mails_beyond_the_waiting_room_are_told_to_come_back(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port, connections_max=1, waiters_max=2)
    results = await asyncio.gather(
        *(transport.send(SENDER, ADA, MESSAGE) for _ in range(5)), return_exceptions=True
    )
    assert [str(result) for result in results if result is not None] == [
        "2 mails are already waiting for a connection"
    ] * 2
    assert len(server.received) == 3


async def test_worn_connection_is_replaced(server: MailServer, connect: Connect) -> None:
    transport = await connect(server.port, mails_per_connection_max=2)
    for _ in range(5):
        await transport.send(SENDER, ADA, MESSAGE)
    assert (len(server.received), server.connections) == (5, 3)


async def test_idle_connection_is_ended(server: MailServer, connect: Connect) -> None:
    transport = await connect(server.port, idle_seconds_max=0.0)
    await transport.send(SENDER, ADA, MESSAGE)
    await turns()
    await transport.send(SENDER, ADA, MESSAGE)
    assert (len(server.received), server.connections) == (2, 2)


async def test_international_address_is_sent_with_smtputf8(start: Start, connect: Connect) -> None:
    server = await start(enable_SMTPUTF8=True)
    transport = await connect(server.port)
    await transport.send(SENDER, "åsa@example.org", MESSAGE)
    assert server.received == [
        Received(SENDER, "åsa@example.org", MESSAGE, False, ("SMTPUTF8", "BODY=8BITMIME"))
    ]


async def test_international_address_is_refused_where_the_server_cannot_take_it(
    server: MailServer, transport: SmtpTransport
) -> None:
    assert described(await failure(transport, "åsa@example.org")) == (
        MailRefused,
        550,
        "5.6.7",
        "the mail server takes no international addresses (SMTPUTF8)",
    )
    await transport.send(SENDER, ADA, MESSAGE)
    assert server.connections == 1


@pytest.mark.parametrize(
    "address",
    ["", "ada", "ada@example.org>", "a b@example.org", "ada@example.org\r\nDATA", "a@b@c"],
)
async def test_address_that_would_end_its_command_is_an_error(
    server: MailServer, transport: SmtpTransport, address: str
) -> None:
    with pytest.raises(ValueError, match="recipient: not an address that a command can carry"):
        await transport.send(SENDER, address, MESSAGE)
    with pytest.raises(ValueError, match="sender: not an address that a command can carry"):
        await transport.send(address, ADA, MESSAGE)
    assert server.connections == 0


@pytest.mark.parametrize(
    "message", [b"", b"a: b", b"a: b\n", b"a: b\r\n\nc\r\n", b"a: b\r\n.\rc\r\n", b"\n\r\r\n"]
)
async def test_message_whose_lines_end_otherwise_is_an_error(
    server: MailServer, transport: SmtpTransport, message: bytes
) -> None:
    with pytest.raises(ValueError, match="message: a line does not end in CRLF"):
        await transport.send(SENDER, ADA, message)
    assert server.connections == 0


# Groups of commands


GROUP = b"MAIL FROM:<no-reply@service.example>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n"
STUFFED = b"Subject: hello\r\n\r\nHello Ada.\r\n..\r\n...\r\nBye.\r\n.\r\n"
YES = b"250 ok\r\n"
GO_ON = b"354 go on\r\n"


async def test_server_that_takes_groups_gets_a_mail_in_two_pieces(connect: Connect) -> None:
    pieces: list[bytes] = []
    answers = (YES + YES + GO_ON, YES, b"250-1\r\n250 2\r\n" + YES + GO_ON, b"250-ok\r\n250 ok\r\n")
    async with answering(pieces, *answers) as port:
        transport = await connect(port)
        await transport.send(SENDER, ADA, MESSAGE)
        await transport.send(SENDER, ADA, b".\r\n")
        await transport.close()
    assert pieces == [GROUP, STUFFED, GROUP, b"..\r\n.\r\n"]


async def test_data_accepted_in_spite_of_a_refused_address_is_ended_empty(connect: Connect) -> None:
    pieces: list[bytes] = []
    answers = (YES + b"550 5.1.1 no\r\n" + GO_ON, YES, YES, YES + YES + GO_ON, YES)
    async with answering(pieces, *answers) as port:
        transport = await connect(port)
        assert described(await failure(transport)) == (
            MailRefused,
            550,
            "5.1.1",
            "RCPT was answered 550 5.1.1 no",
        )
        await transport.send(SENDER, ADA, MESSAGE)
        await transport.close()
    assert pieces == [GROUP, b".\r\n", b"RSET\r\n", GROUP, STUFFED]


async def test_first_refusal_of_a_group_is_the_one_that_counts(connect: Connect) -> None:
    pieces: list[bytes] = []
    no = b"503 5.5.1 no sender\r\n554 5.5.1 no recipient\r\n"
    async with answering(pieces, b"451 4.3.0 later\r\n" + no, YES) as port:
        transport = await connect(port)
        error = await failure(transport)
        await transport.close()
    assert described(error) == (
        MailUnavailable,
        451,
        "4.3.0",
        "MAIL was answered 451 4.3.0 later",
    )
    assert pieces == [GROUP, b"RSET\r\n"]


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_refusal_counts_though_the_rest_of_its_group_is_not_answered(
    connect: Connect, hangs_up: bool
) -> None:
    async with answering([], YES + b"550 5.1.1 no\r\n", hangs_up=hangs_up) as port:
        transport = await connect(port, timeouts=QUICK)
        assert type(await failure(transport)) is MailRefused


@pytest.mark.parametrize(
    ("answers", "verb"), [((b"",), "MAIL"), ((YES,), "RCPT"), ((YES + YES,), "DATA")]
)
async def test_group_that_is_not_answered_in_time_is_unavailable(
    connect: Connect, answers: tuple[bytes, ...], verb: str
) -> None:
    async with answering([], *answers) as port:
        transport = await connect(port, timeouts=QUICK)
        error = await failure(transport)
    assert str(error) == f"{verb} failed: SMTPReadTimeoutError: the mail server does not answer"


async def test_reply_that_nobody_asked_for_is_not_taken_for_the_mail_s(connect: Connect) -> None:
    async with answering([], YES + YES + GO_ON + YES) as port:
        transport = await connect(port)
        error = await failure(transport)
    assert described(error)[3] == (
        "DATA failed: SMTPException: the mail server has answered what was not asked"
    )


async def test_connection_on_which_the_server_spoke_unasked_is_replaced(connect: Connect) -> None:
    pieces: list[bytes] = []
    async with answering(pieces, YES + YES + GO_ON, YES + b"421 4.4.2 idle\r\n") as port:
        transport = await connect(port)
        await transport.send(SENDER, ADA, MESSAGE)
        await transport.send(SENDER, ADA, MESSAGE)
        await transport.close()
    assert pieces == [GROUP, STUFFED, GROUP, STUFFED]


async def test_server_that_speaks_without_end_is_cut_off(connect: Connect) -> None:
    async with answering([], b"250-and so on\r\n" * 5_000) as port:
        transport = await connect(port)
        error = await failure(transport)
    assert str(error) == "MAIL failed: SMTPServerDisconnected: Connection lost"


# Replies


@pytest.mark.parametrize(
    ("verb", "reply", "kind", "status"),
    [
        ("MAIL", "451 4.3.0 try again later", MailUnavailable, "4.3.0"),
        ("MAIL", "421 4.3.2 shutting down", MailUnavailable, "4.3.2"),
        ("MAIL", "550 5.7.1 sender not allowed", MailUnavailable, "5.7.1"),
        ("MAIL", "530 authentication required", MailUnavailable, None),
        ("RCPT", "450 4.2.1 greylisted", MailUnavailable, "4.2.1"),
        ("RCPT", "421 4.7.0 too many connections", MailUnavailable, "4.7.0"),
        ("RCPT", "452 4.2.2 mailbox full", MailUnavailable, "4.2.2"),
        ("RCPT", "550 no such user", MailRefused, None),
        ("RCPT", "550 5.1.1 no such user", MailRefused, "5.1.1"),
        ("RCPT", "501 5.1.3 bad address syntax", MailRefused, "5.1.3"),
        ("RCPT", "553 5.1.2 no such host", MailRefused, "5.1.2"),
        ("RCPT", "556 5.1.10 domain takes no mail", MailRefused, "5.1.10"),
        ("RCPT", "552 5.2.2 mailbox full", MailUnavailable, "5.2.2"),
        ("RCPT", "550 5.2.2 mailbox full", MailUnavailable, "5.2.2"),
        ("RCPT", "552 too many recipients", MailUnavailable, None),
        ("RCPT", "554 5.7.1 relay access denied", MailUnavailable, "5.7.1"),
        ("RCPT", "530 5.7.0 authentication required", MailUnavailable, "5.7.0"),
        ("RCPT", "503 5.5.1 bad sequence", MailUnavailable, "5.5.1"),
        ("DATA", "451 4.3.0 disk full", MailUnavailable, "4.3.0"),
        ("DATA", "421 4.3.2 shutting down", MailUnavailable, "4.3.2"),
        ("DATA", "554 5.7.1 looks like spam", MailRefused, "5.7.1"),
        ("DATA", "550 rejected", MailRefused, None),
        ("DATA", "552 5.3.4 too big", MailRefused, "5.3.4"),
        ("DATA", "552 5.2.2 mailbox full", MailUnavailable, "5.2.2"),
    ],
)
async def test_reply_is_told_apart_by_its_verb_code_and_status(
    start: Start, connect: Connect, verb: str, reply: str, kind: type[Exception], status: str | None
) -> None:
    server = await start()
    transport = await connect(server.port)
    server.answer(verb, reply)
    assert described(await failure(transport)) == (
        kind,
        int(reply[:3]),
        status,
        f"{verb} was answered {reply}",
    )
    assert server.received == []


@pytest.mark.parametrize(
    ("verb", "reply"),
    [("MAIL", "451 later"), ("RCPT", "550 5.1.1 no"), ("RCPT", "450 no"), ("DATA", "554 no")],
)
async def test_connection_is_kept_after_a_refusal(
    server: MailServer, transport: SmtpTransport, verb: str, reply: str
) -> None:
    server.answer(verb, reply)
    await failure(transport)
    await transport.send(SENDER, "eve@example.org", MESSAGE)
    assert [mail.recipient for mail in server.received] == ["eve@example.org"]
    assert server.connections == 1


@pytest.mark.parametrize("reply", [HANG_UP, "500 what"])
async def test_connection_that_cannot_be_reset_is_not_kept(
    server: MailServer, transport: SmtpTransport, reply: str
) -> None:
    server.answer("RCPT", "550 5.1.1 no")
    server.answer("RSET", reply)
    assert isinstance(await failure(transport), MailRefused)
    await transport.send(SENDER, ADA, MESSAGE)
    assert (len(server.received), server.connections) == (1, 2)


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
async def test_reply_s_text_names_no_address(
    server: MailServer, transport: SmtpTransport, verb: str
) -> None:
    server.answer(
        verb, "550 5.1.1 <Ada@Example.org>: User ada unknown at example.org; ask bob@example.com"
    )
    error = await failure(transport)
    text = "550 5.1.1 [address] User [address] unknown at [address]; ask [address]"
    assert str(error) == f"{verb} was answered {text}"
    assert "ada@example.org" not in "".join(traceback.format_exception(error)).lower()


async def test_reply_s_text_is_bounded(server: MailServer, transport: SmtpTransport) -> None:
    server.answer("RCPT", "550 " + "long " * 1000)
    assert str(await failure(transport)) == "RCPT was answered 550 " + "long " * 39 + "long"


# Connections that die


async def test_kept_connection_that_the_server_ended_is_replaced(
    server: MailServer, transport: SmtpTransport
) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    server.hang_up()
    await turns()
    await transport.send(SENDER, ADA, MESSAGE)
    assert (len(server.received), server.connections) == (2, 2)


@pytest.mark.parametrize("reply", [HANG_UP, "421 4.4.2 idle for too long"])
async def test_kept_connection_that_fails_at_its_first_command_is_replaced(
    server: MailServer, transport: SmtpTransport, reply: str
) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    server.answer("MAIL", reply)
    await transport.send(SENDER, ADA, MESSAGE)
    assert (len(server.received), server.connections) == (2, 2)


async def test_fresh_connection_that_fails_at_its_first_command_is_reported(
    server: MailServer, transport: SmtpTransport
) -> None:
    server.answer("MAIL", HANG_UP)
    assert type(await failure(transport)) is MailUnavailable
    assert (server.received, server.connections) == ([], 1)


async def test_kept_connection_is_replaced_once_only(
    server: MailServer, transport: SmtpTransport
) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    server.answer("MAIL", HANG_UP, HANG_UP)
    assert type(await failure(transport)) is MailUnavailable
    assert (len(server.received), server.connections) == (1, 2)


@pytest.mark.parametrize("verb", ["RCPT", "DATA"])
async def test_connection_lost_after_the_first_command_is_reported_and_not_repeated(
    server: MailServer, transport: SmtpTransport, verb: str
) -> None:
    await transport.send(SENDER, "first@example.org", MESSAGE)
    server.answer(verb, HANG_UP)
    assert type(await failure(transport)) is MailUnavailable
    # At DATA the server had taken the mail before the connection was cut: once, and not twice.
    expected = ["first@example.org", ADA] if verb == "DATA" else ["first@example.org"]
    assert [mail.recipient for mail in server.received] == expected
    assert server.connections == 1
    await transport.send(SENDER, "next@example.org", MESSAGE)
    assert server.connections == 2


async def test_cancelled_mail_leaves_no_connection_in_doubt(
    server: MailServer, transport: SmtpTransport
) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    server.answer("RCPT", HOLD)
    sending = asyncio.create_task(transport.send(SENDER, ADA, MESSAGE))
    await server.holding.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await transport.send(SENDER, "next@example.org", MESSAGE)
    assert server.received[-1].recipient == "next@example.org"
    assert server.connections == 2


async def test_server_that_is_not_there_is_unavailable(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port)
    await server.stop()
    error = await failure(transport)
    assert type(error) is MailUnavailable
    assert str(error).startswith("connecting failed: SMTPConnectError")


async def test_server_that_comes_back_is_used_again(start: Start, connect: Connect) -> None:
    server = await start()
    transport = await connect(server.port)
    server.answer("EHLO", HANG_UP)
    assert type(await failure(transport)) is MailUnavailable
    await transport.send(SENDER, ADA, MESSAGE)
    assert len(server.received) == 1


async def test_closed_transport_sends_nothing(server: MailServer, transport: SmtpTransport) -> None:
    await transport.send(SENDER, ADA, MESSAGE)
    await transport.close()
    assert str(await failure(transport)) == "the mail transport is closed"
    assert len(server.received) == 1


# Before any mail: greeting, EHLO, TLS, login


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([b"554 5.3.2 go away\r\n"], "connecting was answered 554 5.3.2 go away"),
        ([b"421 4.3.2 busy\r\n"], "connecting was answered 421 4.3.2 busy"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "connecting was answered -1 Malformed SMTP response"),
        ([], "connecting failed: SMTPConnectTimeoutError"),
        ([b"220 hello\r\n"], "EHLO failed: SMTPReadTimeoutError"),
        ([b"220 hello\r\n", b"550 no\r\n", b"550 no\r\n"], "EHLO was answered 550 no"),
        ([b"220 hello\r\n", b"250 hello\r\n"], "MAIL failed: SMTPReadTimeoutError"),
        ([b"220 hello\r\n", b"250 hi\r\n", b"250 ok\r\n"], "RCPT failed: SMTPReadTimeoutError"),
        (
            [b"220 hello\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n"],
            "DATA failed: SMTPReadTimeoutError",
        ),
        (
            [b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"],
            "DATA failed: SMTPReadTimeoutError",
        ),
    ],
)
async def test_server_that_refuses_or_hangs_is_unavailable(
    connect: Connect, script: list[bytes], message: str
) -> None:
    async with scripted(script) as port:
        transport = await connect(port, timeouts=QUICK)
        error = await failure(transport)
        assert type(error) is MailUnavailable
        assert str(error).startswith(message)


async def test_server_without_ehlo_is_greeted_with_helo(
    server: MailServer, transport: SmtpTransport
) -> None:
    server.answer("EHLO", "502 not implemented")
    await transport.send(SENDER, ADA, MESSAGE)
    assert server.commands == ["EHLO", "HELO", "MAIL", "RCPT", "DATA"]


async def test_starttls_that_is_not_offered_sends_nothing_in_plain_text(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port, "starttls", "ada", "secret")
    assert described(await failure(transport)) == (
        MailUnavailable,
        None,
        None,
        "STARTTLS is required and the mail server does not offer it",
    )
    assert server.commands == ["EHLO"]


@pytest.mark.parametrize("tls", ["starttls", "opportunistic"])
async def test_offered_starttls_is_used(
    start: Start, connect: Connect, tmp_path: Path, tls: str
) -> None:
    server = await start(tls_context=server_context(tmp_path))
    transport = await connect(server.port, tls)
    await transport.send(SENDER, ADA, MESSAGE)
    assert server.received == [Received(SENDER, ADA, MESSAGE, over_tls=True)]


async def test_implicit_tls_is_used(start: Start, connect: Connect, tmp_path: Path) -> None:
    server = await start(implicit_tls=server_context(tmp_path))
    transport = await connect(server.port, "implicit")
    await transport.send(SENDER, ADA, MESSAGE)
    assert server.received == [Received(SENDER, ADA, MESSAGE, over_tls=True)]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_certificate_that_is_not_trusted_sends_nothing(
    start: Start, connect: Connect, tmp_path: Path, tls: str
) -> None:
    context = server_context(tmp_path)
    server = await start(
        implicit_tls=context if tls == "implicit" else None,
        tls_context=context if tls == "starttls" else None,
    )
    transport = await connect(server.port, tls, tls_context=None)
    error = await failure(transport)
    assert type(error) is MailUnavailable
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert server.received == []


async def test_opportunistic_tls_does_not_ask_for_a_trusted_certificate(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    server = await start(tls_context=server_context(tmp_path))
    transport = await connect(server.port, "opportunistic", tls_context=None)
    await transport.send(SENDER, ADA, MESSAGE)
    assert [mail.over_tls for mail in server.received] == [True]


async def test_opportunistic_tls_without_an_offer_sends_in_plain_text(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port, "opportunistic")
    await transport.send(SENDER, ADA, MESSAGE)
    assert [mail.over_tls for mail in server.received] == [False]


def test_opportunistic_tls_with_a_password_is_refused() -> None:
    with pytest.raises(ValueError, match="would give the password to anyone on the line"):
        SmtpTransport("localhost", 25, "opportunistic", "ada", "secret")


async def test_login_opens_a_server_that_demands_one(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    server = await start(
        tls_context=server_context(tmp_path),
        auth_required=True,
        authenticator=only("ada", "secret"),
    )
    transport = await connect(server.port, "starttls", "ada", "secret")
    await transport.check()
    await transport.send(SENDER, ADA, MESSAGE)
    assert len(server.received) == 1


async def test_wrong_password_is_unavailable_and_not_repeated_in_the_error(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    server = await start(
        tls_context=server_context(tmp_path),
        auth_required=True,
        authenticator=only("ada", "secret"),
    )
    transport = await connect(server.port, "starttls", "ada", "mistyped")
    kind, code, status, message = described(await failure(transport))
    assert (kind, code, status) == (MailUnavailable, 535, "5.7.8")
    assert message.startswith("AUTH was answered 535 5.7.8")
    assert "mistyped" not in message


def test_password_is_not_in_what_is_shown_of_a_server() -> None:
    server = Server("h", 25, "none", "ada", "secret", "service.example", QUICK)
    assert "secret" not in repr(server)


async def test_login_where_none_is_offered_is_unavailable(
    server: MailServer, connect: Connect
) -> None:
    transport = await connect(server.port, "none", "ada", "secret")
    error = await failure(transport)
    assert type(error) is MailUnavailable
    assert str(error).startswith("AUTH failed: SMTPException")


async def test_check_speaks_to_the_server_and_sends_no_mail(
    server: MailServer, transport: SmtpTransport
) -> None:
    await transport.check()
    assert (server.commands, server.connections) == (["EHLO"], 1)


async def test_check_reports_what_fails(server: MailServer, connect: Connect) -> None:
    transport = await connect(server.port, "starttls")
    with pytest.raises(MailUnavailable, match="STARTTLS is required"):
        await transport.check()
