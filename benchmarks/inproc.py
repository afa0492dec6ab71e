"""The whole service in this process, driven past its HTTP ports: the engine's own limit."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr
from pathlib import Path
from typing import IO
from uuid import UUID

from benchmarks.counters import Counters, read_counters
from benchmarks.database import BenchDatabase
from benchmarks.mails import service_with
from benchmarks.options import SECRET_KEY, Mail, Options, service_environment
from benchmarks.sink import sink_for
from service import metrics
from service.accounts import Tokens, parse_address
from service.accounts.signup import SignupRequest
from service.app import Service
from service.config import load_config
from service.engine.engine import Engine
from service.log import configure


class InprocTarget:
    """The service's own objects, called as the HTTP port calls them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tokens = Tokens([SECRET_KEY.encode()])
        # The counters are the process's: another service may have been in it before.
        self._ended_before = _ended()

    @property
    def engine(self) -> Engine:
        """Return the engine inside the service."""
        return self._service.engine

    async def client(self) -> InprocTarget:
        """Return this: there is no connection to tell visitors apart."""
        return self

    async def signup(self, email: str) -> UUID:
        """Return the id of the signup."""
        request = SignupRequest(parse_address(email), name=None, locale=None, data={})
        return (await self._service.signups.begin(request)).id

    async def verify(self, account_id: UUID) -> None:
        """Follow the first link. Raises RuntimeError unless that verified the account."""
        verification = await self._service.signups.verify(self._tokens.link_token(account_id, 1))
        if verification.status != "verified":
            raise RuntimeError(f"{account_id}: answered {verification.status}, not verified")

    async def ended(self) -> float:
        """Return how many executions have ended, read where it is counted: it is asked often."""
        return _ended() - self._ended_before

    async def counters(self) -> Counters:
        """Return the service's counters."""
        return read_counters(metrics.render()[0].decode())


def _ended() -> float:
    return sum(
        sample.value for metric in metrics.EXECUTIONS_ENDED.collect() for sample in metric.samples
    )


@asynccontextmanager
async def open_inproc(
    options: Options, mail: Mail, database: BenchDatabase, _folder: Path
) -> AsyncIterator[tuple[InprocTarget, list[int]]]:
    """Yield the target, and no process but this one; the log goes nowhere."""
    async with sink_for(mail) as smtp_port:
        environment = service_environment(options, database_url=database.url, smtp_port=smtp_port)
        config = load_config(environment)
        _silence()
        service = service_with(config, mail)
        try:
            await service.open()
            yield InprocTarget(service), []
        finally:
            await service.close()


@functools.cache
def _silence() -> IO[str]:
    """Have the log written as a service writes it, to a file that nobody reads; return that.

    Once, and never closed: a logger keeps the stream that it wrote to first.
    """
    nowhere = tempfile.TemporaryFile("w")  # noqa: SIM115 - see above
    with redirect_stderr(nowhere):
        configure("json", "info")
    return nowhere
