"""R10: a mail server that fails in every way at every verb, and one that is away for ten minutes.

A cell is a verb and how it fails: 421, 451, 550 or silence at each of them from the greeting to the
final dot; a handshake that is none; and a connection that drops after the final dot, when the mail
is taken and the sender cannot know. Each cell happens so many times, drawn at random while visitors
sign up, half of whom verify. Then the server goes away for ten minutes, of which the flow's scaled
intervals make seconds, and stays away until everybody who signs up meanwhile is answered.

What must hold: the ledger; and that signups need no mail server to be answered. A mail that a 550
refused (to RCPT, DATA or the final dot) goes the way of the flow's Catch for MailRefused, and
nothing else does. Every other mail is delivered in the end; and more than once at most as often as
the server took it without telling, under the same Message-ID.

It is the real service, with shorter timeouts (see `mail_launcher.py`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.e2e.process import until
from tests.e2e.visitors import PATIENCE_SECONDS
from tests.faults.cluster import FLOW_SECONDS, Cluster, open_cluster
from tests.faults.crowd import Guests
from tests.faults.mail_server import CELLS, FINAL_AT, FaultyServer
from tests.faults.run import Outcome, Run, Stage
from tests.mail.certificate import server_context

LAUNCHER: Final = (sys.executable, "-m", "tests.faults.mail_launcher")
OUTAGE_SECONDS: Final = 600
LINK_SECONDS_MAX: Final = 900.0
"""A mail may fail many times in a row, each after a timeout and a pause."""


@dataclass(frozen=True)
class Size:
    """How much of it. `visitors_max` are enough to meet all faults."""

    each: int
    visitors_max: int
    at_once: int
    outage_visitors: int
    replicas: int
    wait_seconds: float


class Correspondents(Guests):
    """Visitors, so many at once, until the server has no faults left."""

    def __init__(self, cluster: Cluster, server: FaultyServer) -> None:
        super().__init__(cluster)
        self._server = server

    async def come_until_all_failed(self, visitors_max: int, at_once: int) -> None:
        """Send visitors in as long as there are faults left, or until they are too many."""
        numbers = iter(range(visitors_max))

        async def one_after_another() -> None:
            for n in numbers:
                if not self._server.faults_left:
                    return
                await self.noted(self._visit(f"visitor-{n}@example.org", is_verifying=n % 2 == 0))

        await asyncio.gather(*(one_after_another() for _ in range(at_once)))

    async def come_in_an_outage(self, visitors: int, seconds: float) -> None:
        """Send visitors in while the server is away: for so long, and until each has its answer."""
        await self._server.stop()
        answered = self._cluster.ledger.acknowledged
        expected = len(answered) + visitors
        for n in range(visitors):
            self.begin(self._visit(f"patient-{n}@example.org", is_verifying=n % 2 == 0))
        await asyncio.sleep(seconds)
        with suppress(AssertionError):  # each of those who were not answered says so itself
            await until(lambda: len(answered) == expected, "every answer", seconds=PATIENCE_SECONDS)
        await self._server.start()
        await self.over()

    async def _visit(self, email: str, *, is_verifying: bool) -> None:
        """Sign up; follow the link, or learn that none will come."""
        signup = await self.sign_up(email)
        link = asyncio.ensure_future(self._server.link(signup.id, seconds=LINK_SECONDS_MAX))
        refusal = self._server.refusals[email]
        await asyncio.wait({link, refusal}, return_when=asyncio.FIRST_COMPLETED)
        if not link.done():
            link.cancel()
            return
        await link
        if is_verifying:
            # Too late is whoever's link came long before its sender learnt that it had.
            await self.verify(signup, may_be_late=True)


async def play(stage: Stage, size: Size) -> Outcome:
    """Let everything fail, then let the server be away, and count."""
    async with (
        _server(stage, size.each) as server,
        open_cluster(
            stage, replicas=0, wait_seconds=size.wait_seconds, SMTP_URL=server.url
        ) as cluster,
    ):
        cluster.sink = server
        for _ in range(size.replicas):
            await cluster.add_replica(command=LAUNCHER)
        crowd = Correspondents(cluster, server)
        await crowd.come_until_all_failed(size.visitors_max, size.at_once)
        stage.tell(f"{server.injected.total()} faults, {server.faults_left} left")
        left = +server.left
        server.drop_faults()
        outage_seconds = OUTAGE_SECONDS * size.wait_seconds / FLOW_SECONDS
        await crowd.come_in_an_outage(size.outage_visitors, outage_seconds)
        return await _judge(cluster, server, crowd, left)


def _server(stage: Stage, each: int) -> FaultyServer:
    tls = server_context(stage.folder)
    return FaultyServer(stage.folder / "faulty.jsonl", tls, stage.random, each)


async def _judge(
    cluster: Cluster, server: FaultyServer, crowd: Guests, left: Counter[tuple[str, str]]
) -> Outcome:
    complaints = list(crowd.failures)
    complaints += [f"never happened, of {verb}, {kind}: {n}" for (verb, kind), n in left.items()]
    await cluster.come_to_rest()
    refused = {email for email, refusal in server.refusals.items() if refusal.done()}
    cluster.ledger.unreachable |= refused
    for at in server.unanswered_at:
        cluster.ledger.note_fault(at, at)
    caught = await _caught(cluster)
    addresses = {signup.id: signup.email for signup in cluster.ledger.acknowledged.values()}
    failed = {addresses[id]: error for id, error in caught.items()}
    complaints += [
        f"{email} {'was refused' if email in refused else 'was not'}, its flow caught {error}"
        for email in sorted(refused | failed.keys())
        if (error := failed.get(email)) != ("MailRefused" if email in refused else None)
    ]
    delivered = Counter(mail.message_id for mail in server.recorded())
    complaints += [
        f"{id} was delivered {times} times, of which {server.unanswered[id]} were not answered"
        for id, times in delivered.items()
        if times > 1 + server.unanswered[id]
    ]
    figures = {
        "cells": len(CELLS),
        "faults": server.injected.total(),
        "faults_least_of_a_cell": min(server.injected[cell] for cell in CELLS),
        "refused": len(refused),
        "refusals": sum(server.injected[verb, "55x"] for verb in FINAL_AT),
        "taken_and_not_answered": server.unanswered.total(),
        "mails": delivered.total(),
    }
    return Outcome(await cluster.count(), crowd.success, figures, complaints)


async def _caught(cluster: Cluster) -> dict[str, str]:
    """Return the errors that flows caught, by account."""
    async with cluster.connected() as database:
        rows = await database.fetch(
            "select id::text, output from executions where output like '%\"failure\"%'"
        )
    return {row["id"]: json.loads(row["output"])["failure"]["Error"] for row in rows}


_FULL: Final = Size(
    each=1_000,
    visitors_max=60_000,
    at_once=1_000,
    outage_visitors=1_000,
    replicas=2,
    wait_seconds=20.0,
)
_SMALL: Final = Size(
    each=2,
    visitors_max=2_000,
    at_once=40,
    outage_visitors=10,
    replicas=1,
    wait_seconds=2.0,
)

RUN: Final = Run("R10", "a mail server that fails in every way", _SMALL, _FULL, play)
