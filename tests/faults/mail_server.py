"""An SMTP server that fails on purpose: so many times in each way, at each verb.

It speaks for itself, without a library, because it has to fail where libraries do not let it: in
place of the greeting, in the middle of a handshake, between the final dot and the reply. Mails that
it takes are written down as by every sink, before they are answered.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from tests.e2e.sink import MailSink, read_mail

USERNAME: Final = "countersign"
PASSWORD: Final = "a-password-of-the-fault-runs-only"

GREETING, EHLO, STARTTLS, AUTH = "greeting", "EHLO", "STARTTLS", "AUTH"
MAIL, RCPT, DATA, DOT = "MAIL", "RCPT", "DATA", "final dot"
VERBS: Final = (GREETING, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, DOT)
TIMEOUT, DROP, BROKEN_TLS = "timeout", "drop", "broken TLS"
REPLIES: Final = {
    "421": "421 4.3.2 closing for maintenance",
    "45x": "451 4.3.0 come back later",
    "55x": "550 5.1.1 no, and never",
}
KINDS: Final = (*REPLIES, TIMEOUT)
FINAL_AT: Final = (RCPT, DATA, DOT)
"""Where 55x is about the address or the mail, and so for good (see `service/mail/errors.py`)."""
FAULT_SHARE: Final = 0.3
"""Of the times that a verb is passed while faults are left for it."""
GROUPS_SHARE: Final = 0.5
"""Of the conversations in which commands may come in groups (PIPELINING, RFC 2920)."""
LINE_BYTES_MAX: Final = 1_048_576

Cell: TypeAlias = tuple[str, str]
"""A verb, and how it fails."""

CELLS: Final[tuple[Cell, ...]] = (
    *((verb, kind) for verb in VERBS for kind in KINDS),
    (STARTTLS, BROKEN_TLS),
    (DOT, DROP),
)


class HungUp(Exception):
    """The conversation is over."""


class FaultyServer(MailSink):
    """A sink behind STARTTLS and AUTH, with a stock of faults. Nothing fails once it is used up."""

    def __init__(self, record: Path, tls: ssl.SSLContext, chance: random.Random, each: int) -> None:
        super().__init__(record)
        self.left: Counter[Cell] = Counter(dict.fromkeys(CELLS, each))
        self.injected: Counter[Cell] = Counter()
        self.unanswered: Counter[str] = Counter()  # mails taken, by Message-ID, and nobody told
        self.unanswered_at: list[float] = []
        self.refusals: Mapping[str, asyncio.Future[None]] = defaultdict(asyncio.Future)
        self._tls = tls
        self._random = chance

    @property
    def url(self) -> str:
        return f"smtp://{USERNAME}:{PASSWORD}@127.0.0.1:{self.port}"

    @property
    def faults_left(self) -> int:
        """Return how many faults have not happened yet."""
        return self.left.total()

    def drop_faults(self) -> None:
        """Take everything from now on."""
        self.left.clear()

    async def start(self) -> None:
        """Listen: the first time on any port, later on the same one again."""
        self._server = await asyncio.start_server(
            self._converse, "127.0.0.1", self.port, limit=LINE_BYTES_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.transport  # of which STARTTLS makes another one, over this
        self._transports.add(connection)
        with suppress(HungUp, OSError, ssl.SSLError, asyncio.IncompleteReadError):
            await Conversation(self, reader, writer).run()
        self._transports.discard(connection)
        connection.abort()

    def draw(self, verb: str) -> str | None:
        """Return how this passing of a verb fails; None when it does not."""
        kinds = [kind for (at, kind), left in self.left.items() if at == verb and left]
        if not kinds or self._random.random() >= FAULT_SHARE:
            return None
        kind = self._random.choice(kinds)
        self.left[verb, kind] -= 1
        self.injected[verb, kind] += 1
        return kind

    def draw_groups(self) -> bool:
        """Return whether a conversation takes commands in groups."""
        return self._random.random() < GROUPS_SHARE

    def refuse(self, recipient: str) -> None:
        """Note that a mail to this address was refused for good."""
        if not self.refusals[recipient].done():
            self.refusals[recipient].set_result(None)

    async def take(self, recipient: str, content: bytes) -> str:
        """Write a mail down; return its Message-ID."""
        mail = read_mail(recipient, content)
        await self.keep(mail)
        return mail.message_id

    def leave_unanswered(self, message_id: str) -> None:
        """Note that a mail was taken whose sender does not know it."""
        self.unanswered[message_id] += 1
        self.unanswered_at.append(time.monotonic())


class Conversation:
    """One connection, from the greeting to whatever ends it."""

    def __init__(
        self, server: FaultyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._recipient = ""
        self._is_refused = False  # MAIL or RCPT of the mail at hand
        self._told = ""  # the Message-ID of a mail that the last reply took

    async def run(self) -> None:
        """Answer command after command. Raises HungUp."""
        try:
            await self._answer(GREETING, "220 faulty.example ESMTP")
            while line := (await self._reader.readline()).decode().strip():
                self._told = ""
                verb, _, argument = line.partition(" ")
                await self._obey(verb.upper(), argument)
        finally:
            if self._told:  # whoever has heard a reply says at least QUIT
                self._server.leave_unanswered(self._told)

    async def _obey(self, verb: str, argument: str) -> None:
        if verb == "EHLO":
            is_plain = self._writer.get_extra_info("sslcontext") is None
            extension = "STARTTLS" if is_plain else "AUTH PLAIN"
            groups = "250-PIPELINING\r\n" if self._server.draw_groups() else ""
            await self._answer(
                EHLO, f"250-faulty.example\r\n250-8BITMIME\r\n{groups}250 {extension}"
            )
        elif verb == "STARTTLS":
            await self._start_tls()
        elif verb == "AUTH":
            await self._answer(AUTH, "235 2.7.0 welcome")
        elif verb == "MAIL":
            self._is_refused = not await self._answer(MAIL, "250 ok")
        elif verb == "RCPT":
            self._recipient = argument.partition("<")[2].partition(">")[0]
            if self._is_refused:
                await self._say("503 5.5.1 no sender")
            else:
                self._is_refused = not await self._answer(RCPT, "250 ok")
        elif verb == "DATA":
            if self._is_refused:
                await self._take_nothing()
            elif await self._answer(DATA, "354 go ahead"):
                await self._take()
        elif verb == "QUIT":
            raise HungUp
        else:  # HELO after an EHLO that failed, RSET after a mail that did
            await self._say("250 ok")

    async def _start_tls(self) -> None:
        kind = self._server.draw(STARTTLS)
        if kind == BROKEN_TLS:
            await self._say("220 ready\r\nbut this is no handshake")
            raise HungUp
        if await self._fail(STARTTLS, kind):
            return
        await self._say("220 ready")
        # Else asyncio warns of a connection that ends while hands are shaken.
        self._writer._protocol._over_ssl = True  # type: ignore[attr-defined]
        try:
            await self._writer.start_tls(self._server._tls)
        except AttributeError as error:  # what Python 3.11 makes of a connection that has ended
            raise HungUp from error

    async def _take(self) -> None:
        """Read a mail, and take it or fail at its final dot."""
        raw = await self._reader.readuntil(b"\r\n.\r\n")
        kind = self._server.draw(DOT)
        if kind != DROP and await self._fail(DOT, kind):
            return
        content = raw[:-3].replace(b"\r\n..", b"\r\n.")
        self._told = await self._server.take(self._recipient, content)
        if kind == DROP:
            raise HungUp
        await self._say("250 taken")

    async def _take_nothing(self) -> None:
        """Go on although nobody is left to write to, as RFC 2920 3.1 allows to a group's DATA."""
        await self._say("354 go ahead")
        if await self._reader.readline() != b".\r\n":
            raise HungUp
        await self._say("554 5.5.1 no recipients")

    async def _answer(self, verb: str, regular: str) -> bool:
        """Give the regular reply unless a fault is due; tell whether it was given."""
        if await self._fail(verb, self._server.draw(verb)):
            return False
        await self._say(regular)
        return True

    async def _fail(self, verb: str, kind: str | None) -> bool:
        """Fail in this way; False when there is none."""
        if kind is None:
            return False
        if kind == TIMEOUT:
            await self._reader.read()  # until the other side has waited long enough
            raise HungUp
        if kind == "55x" and verb in FINAL_AT:
            self._server.refuse(self._recipient)
        await self._say(REPLIES[kind])
        if kind == "421" or verb == GREETING:
            raise HungUp
        return True

    async def _say(self, reply: str) -> None:
        self._writer.write(f"{reply}\r\n".encode())
        await self._writer.drain()
