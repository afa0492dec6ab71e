"""Those who use the service from outside: by HTTP, and again when it did not answer."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tests.e2e.process import Replica, until

REQUEST_SECONDS_MAX: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""From try to try: a crowd that was kept out must not trample on a service that comes back."""


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Signup:
    """What the answer to a signup says, and for which address it was."""

    email: str
    id: str
    secret: str


@asynccontextmanager
async def open_visitors() -> AsyncIterator[Visitors]:
    """Yield a client without limits of its own."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX),
        connector=aiohttp.TCPConnector(limit=0),
    ) as session:
        yield Visitors(session)


class Visitors:
    """A client of the service's replicas."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(
        self,
        url: str,
        json: Any = None,
        *,
        secret: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer to one request: POST with a body, GET without one."""
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        method = "GET" if json is None and form is None else "POST"
        async with self._session.request(
            method, url, json=json, data=form, headers=headers
        ) as response:
            is_json = response.content_type.endswith("json")
            body = await (response.json(content_type=None) if is_json else response.text())
            return Answer(response.status, response.headers, body)

    async def insist(
        self, replicas: Sequence[Replica], path: str, json: Any, *, choice: random.Random
    ) -> Answer:
        """Ask one replica or another, again and again, until one answers other than 503."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        pauses = itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1]))
        while True:
            try:
                answer = await self.ask(choice.choice(replicas).public + path, json)
                if answer.status != 503:
                    return answer
            except (aiohttp.ClientError, TimeoutError):
                pass  # nobody listens, or the process died before it answered
            assert loop.time() < deadline, f"no answer within {PATIENCE_SECONDS:g} s: {path}"
            await asyncio.sleep(next(pauses))

    async def sign_up(self, replica: Replica, email: str) -> Signup:
        """Sign up once; a visitor whose first try must succeed."""
        answer = await self.ask(f"{replica.public}/signup", {"email": email})
        assert answer.status == 202, answer
        return Signup(email, answer.body["id"], answer.body["secret"])

    async def verify(self, replica: Replica, token: str) -> Answer:
        """Send a link's token, as its page's button does."""
        return await self.ask(f"{replica.public}/verify", {"token": token})

    async def status(self, replica: Replica, signup: Signup) -> str:
        """Return where the signup stands, as its visitor reads it."""
        answer = await self.ask(f"{replica.public}/signup/{signup.id}", secret=signup.secret)
        assert answer.status == 200, answer
        return str(answer.body["status"])

    async def until_status(
        self, replica: Replica, signup: Signup, status: str, *, seconds: float = 30.0
    ) -> None:
        """Return when the visitor reads this status."""

        async def look() -> bool:
            return await self.status(replica, signup) == status

        await until(look, f"{signup.id} {status}", seconds=seconds)

    async def metric(self, replica: Replica, name: str) -> float:
        """Return the sum of a metric's series at this replica, 0 while it has none.

        `name` may go on with labels: `countersign_mails_total{kind="welcome"`.
        """
        answer = await self.ask(f"{replica.ops}/metrics")
        lines = [line for line in answer.body.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
