"""A crowd that signs up and verifies while things break, and what its members were told."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.e2e.visitors import Signup
from tests.faults.cluster import Cluster

CLICK_SECONDS_MAX: Final = 0.5
"""What a prompt visitor takes to follow the link."""
RACE_SECONDS: Final = 0.3
"""How close to the end of the wait the others click: verify and delete then meet."""
PROMPT_OF: Final = 10
"""Of so many visitors one clicks when the wait ends; of the others every second clicks promptly."""
FAILURES_MAX: Final = 20
"""How many visitors' troubles are kept to be shown."""


class Crowd:
    """Visitors, each a task: every second one of them verifies.

    One succeeds when it is told what it hoped for: 202 for the signup, 200 for a prompt click. Who
    clicks as the wait ends may hear either, and only that the rows agree with it is asked.
    """

    def __init__(self, cluster: Cluster, wait_seconds: float) -> None:
        self.tried = self.succeeded = 0
        self.failures: list[str] = []
        self._cluster = cluster
        self._random = cluster.stage.random
        self._wait_seconds = wait_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    @property
    def success(self) -> float:
        """Return the share of operations that succeeded."""
        return self.succeeded / self.tried if self.tried else 0.0

    @property
    def present(self) -> int:
        """Return how many visitors are still to get an answer, a mail, or their moment to click."""
        return len(self._tasks)

    def send(self, delay: float) -> None:
        """Send in one more visitor after so many seconds."""
        n, self._count = self._count, self._count + 1
        late = self._random.uniform(-RACE_SECONDS, RACE_SECONDS)
        click = self._random.uniform(0, CLICK_SECONDS_MAX)
        task = asyncio.create_task(self._visit(n, delay, click, self._wait_seconds + late))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def visit(self) -> None:
        """Send in one more visitor now, who clicks at once, and return when it has every answer."""
        n, self._count = self._count, self._count + 1
        await self._visit(n, 0.0, 0.0, self._wait_seconds)

    def send_around(self, moment: float, visitors: int, volley_seconds: float) -> None:
        """Send in so many around a moment from now: half of them in the volley just before it, the
        other half at any time until a while after it.
        """
        for n in range(visitors):
            if n % 2 == 0:
                self.send(max(0.0, moment - self._random.uniform(0, volley_seconds)))
            else:
                self.send(self._random.uniform(0, moment + 1.0))

    async def over(self) -> None:
        """Return when every visitor has got every answer."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _visit(self, n: int, delay: float, click: float, late: float) -> None:
        await asyncio.sleep(delay)
        try:
            await self._sign_up(n, click, late)
        except Exception as error:  # an answer that is none of those to be expected, or none at all
            self._note(f"visitor {n}: {type(error).__name__}: {error}")

    async def _sign_up(self, n: int, click: float, late: float) -> None:
        email = f"visitor-{n}@example.org"
        self.tried += 1
        status, body = await self._insist("/signup", {"email": email})
        if status != 202:
            raise ValueError(f"a signup answered with {status}: {body}")
        self.succeeded += 1
        signup = Signup(email, body["id"], body["secret"])
        self._cluster.ledger.acknowledged[signup.id] = signup
        if n % 2 == 0:
            await self._verify(signup, click, late, is_prompt=n % PROMPT_OF != 0)

    async def _verify(self, signup: Signup, click: float, late: float, *, is_prompt: bool) -> None:
        """Follow the link, at once or when the wait ends; either verdict is right then."""
        self.tried += is_prompt
        token = (await self._cluster.sink.link(signup.id)).token
        await asyncio.sleep(click if is_prompt else late)
        status, body = await self._insist("/verify", {"token": token})
        if (status, body.get("code", "verified")) not in ((200, "verified"), (410, "expired")):
            raise ValueError(f"a link answered with {status}: {body}")
        verdict = "verified" if status == 200 else "expired"
        self._cluster.ledger.verdicts[signup.id] = verdict
        self.succeeded += is_prompt and status == 200

    async def _insist(self, path: str, body: dict[str, object]) -> tuple[int, dict[str, str]]:
        answer = await self._cluster.visitors.insist(
            self._cluster.replicas, path, body, choice=self._random
        )
        return answer.status, answer.body

    def _note(self, trouble: str) -> None:
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(trouble)
