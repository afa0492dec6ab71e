"""Both ports on real sockets, with fakes behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from service.api import (
    OpsDeps,
    PublicDeps,
    create_ops_app,
    create_public_app,
    serve_app,
)
from service.api.server import Served
from tests.api.fakes import FakeDirectory, FakeInbox, FakeProbe, FakeSignups


@dataclass
class Answer:
    """An answer, read to its end."""

    status: int
    headers: aiohttp.typedefs.LooseHeaders
    body: bytes
    json: Any

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Port:
    """A port and a client of it."""

    url: str
    session: aiohttp.ClientSession
    served: Served

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(
            method, f"{self.url}{path}", allow_redirects=False, **options
        ) as answer:
            body = await answer.read()
            is_json = body and "json" in answer.content_type
            json = await answer.json(content_type=None) if is_json else None
            return Answer(answer.status, answer.headers, body, json)


Open = Callable[[aiohttp.web.Application], Awaitable[Port]]


@pytest.fixture
async def open_port() -> AsyncIterator[Open]:
    """Open an application on a free port of loopback."""
    served: list[Served] = []
    async with aiohttp.ClientSession() as session:

        async def open_port(app: aiohttp.web.Application) -> Port:
            served.append(await serve_app(app, "127.0.0.1", 0, shutdown_seconds=1))
            return Port(f"http://127.0.0.1:{served[-1].port}", session, served[-1])

        yield open_port
    for one in served:
        await one.close()


@pytest.fixture
def signups() -> FakeSignups:
    return FakeSignups()


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def probe() -> FakeProbe:
    return FakeProbe()


@pytest.fixture
def public_deps(signups: FakeSignups, probe: FakeProbe) -> PublicDeps:
    return PublicDeps(signups=signups, probe=probe, version="1.2.3")


@pytest.fixture
async def public(open_port: Open, public_deps: PublicDeps) -> Port:
    return await open_port(create_public_app(public_deps))


@pytest.fixture
def ops_deps(directory: FakeDirectory, probe: FakeProbe) -> OpsDeps:
    return OpsDeps(directory=directory, probe=probe, inbox=FakeInbox())


@pytest.fixture
async def ops(open_port: Open, ops_deps: OpsDeps) -> Port:
    return await open_port(create_ops_app(ops_deps))
