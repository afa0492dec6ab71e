"""Mails by SMTP to a sink in a process of its own: what one costs, and workflows with them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email.utils import make_msgid
from typing import Final

from benchmarks.circumstances import circumstances, tell
from benchmarks.inproc import open_inproc
from benchmarks.meter import cpu_seconds, loops_per_cpu_ms
from benchmarks.options import HOST, WAIT_SECONDS_SHIPPED, Mail, Options
from benchmarks.run import run
from benchmarks.sink import sink_for
from service.mail import Envelope, SmtpTransport, Templates, Variables, parse_mailbox

MAILS: Final = 10_000
WARM_UP_MAILS: Final = 500
SENDERS: Final = 64
LINK: Final = "https://example.org/verify?id=01a20555-69b7-763f-a557-eebe76f5d164#token=" + "x" * 43


async def smtp_lines(
    options: Options, server_url: str, _mail: Mail
) -> AsyncIterator[dict[str, object]]:
    """Yield a line for mails alone and one for workflows. Raises RuntimeError."""
    yield await _mails(options)
    yield await run("smtp", open_inproc, options, server_url, "sink")


async def _mails(options: Options) -> dict[str, object]:
    """Return what writing a mail and handing it over costs, the database left out."""
    mails = options.scaled(MAILS)
    async with sink_for("sink") as port:
        transport = SmtpTransport(HOST, port, "none")
        await transport.open()
        writer = _Writer(transport)
        await writer.send(WARM_UP_MAILS)
        tell(f"mails: {mails}")
        loops = [loops_per_cpu_ms()]
        cpu, began = cpu_seconds(os.getpid()), time.perf_counter()
        await writer.send(mails)
        cpu, seconds = cpu_seconds(os.getpid()) - cpu, time.perf_counter() - began
        loops.append(loops_per_cpu_ms())
        await transport.close()
    return {
        "name": "mails",
        "scale": options.scale,
        "mails": mails,
        "mails_per_s": round(mails / seconds, 1),
        "cpu_us_per_mail": round(1_000_000 * cpu / mails, 1),
        "loops_per_cpu_ms": round(sum(loops) / len(loops)),
        **circumstances(),
    }


class _Writer:
    """Writes verification mails as their task does, and sends them."""

    def __init__(self, transport: SmtpTransport) -> None:
        self._transport = transport
        self._templates = Templates.load()
        self._sender = parse_mailbox("Example <noreply@example.org>")

    async def send(self, mails: int) -> None:
        """Send so many, a few at once."""
        numbers = iter(range(mails))
        await asyncio.gather(*(self._send_some(numbers) for _ in range(SENDERS)))

    async def _send_some(self, numbers: Iterator[int]) -> None:
        variables = Variables(
            product="Example", name=None, link=LINK, expires_in_seconds=WAIT_SECONDS_SHIPPED
        )
        for number in numbers:
            recipient = f"visitor{number}@example.org"
            envelope = Envelope(
                message_id=make_msgid(domain="example.org"),
                date=datetime.now(UTC),
                sender=self._sender,
                recipient=recipient,
            )
            message = self._templates.render("verification", None, variables, envelope)
            await self._transport.send(self._sender.address, recipient, message)
