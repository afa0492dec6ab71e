"""Those who sign up and verify while things break, and what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from tests.e2e.process import Replica
from tests.e2e.visitors import Answer, Signup
from tests.faults.cluster import Cluster

CLICK_SECONDS_MAX: Final = 0.5
"""What a prompt visitor takes to follow the link."""
RACE_SECONDS: Final = 0.3
"""How close to the end of the wait the others click: verify and delete then meet."""
PROMPT_OF: Final = 10
"""Of so many visitors one clicks when the wait ends; of the others every second clicks promptly."""
FAILURES_MAX: Final = 20
"""How many visitors' troubles are kept to be shown."""


class Guests:
    """People who ask until they are answered; what they are told goes into the ledger.

    One succeeds when told what there was to hope for: 202 for a signup, 200 for a link; for a link
    that may be followed too late 410 will do.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.tried = self.succeeded = 0
        self.failures: list[str] = []
        self._cluster = cluster
        self._random = cluster.stage.random
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def success(self) -> float:
        """Return the share of operations that succeeded."""
        return self.succeeded / self.tried if self.tried else 0.0

    @property
    def present(self) -> int:
        """Return how many visitors are still to get an answer, a mail, or their moment to click."""
        return len(self._tasks)

    def begin(self, visit: Coroutine[Any, Any, None]) -> None:
        """Let somebody come, whose troubles are noted."""
        task = asyncio.create_task(self.noted(visit))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def over(self) -> None:
        """Return when every visitor has got every answer."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def noted(self, visit: Coroutine[Any, Any, None]) -> None:
        """Return when a visit is over; note an answer that is not to be expected, or none."""
        try:
            await visit
        except Exception as error:
            if len(self.failures) < FAILURES_MAX:
                self.failures.append(f"{type(error).__name__}: {error}")

    async def sign_up(
        self, email: str, *, gets_link: bool = True, at: Replica | None = None
    ) -> Signup:
        """Sign up, at any replica unless told; one who gets no link is not held to have an account.

        Raises ValueError.
        """
        self.tried += 1
        answer = await self._insist("/signup", {"email": email}, at)
        if answer.status != 202:
            raise ValueError(f"{email}: a signup answered with {answer.status}: {answer.body}")
        self.succeeded += 1
        signup = Signup(email, answer.body["id"], answer.body["secret"])
        if gets_link:
            self._cluster.ledger.acknowledged[signup.id] = signup
        return signup

    async def verify(self, signup: Signup, after: float = 0.0, *, may_be_late: bool) -> None:
        """Follow the link so many seconds after it came. Raises ValueError."""
        self.tried += 1
        token = (await self._cluster.sink.link(signup.id)).token
        await asyncio.sleep(after)
        verdict = verdict_of(await self._insist("/verify", {"token": token}))
        self._cluster.ledger.verdicts[signup.id] = verdict
        self.succeeded += may_be_late or verdict == "verified"

    async def _insist(
        self, path: str, body: dict[str, object], at: Replica | None = None
    ) -> Answer:
        replicas = self._cluster.replicas if at is None else [at]
        return await self._cluster.visitors.insist(replicas, path, body, choice=self._random)


class Crowd(Guests):
    """Visitors of whom every second one verifies, most of them promptly, some as the wait ends."""

    def __init__(self, cluster: Cluster, wait_seconds: float) -> None:
        super().__init__(cluster)
        self._wait_seconds = wait_seconds
        self._count = 0

    def send(self, delay: float) -> None:
        """Send in one more visitor after so many seconds."""
        late = self._random.uniform(-RACE_SECONDS, RACE_SECONDS)
        click = self._random.uniform(0, CLICK_SECONDS_MAX)
        self.begin(self._visit(self._next(), delay, click, self._wait_seconds + late))

    async def visit(self) -> None:
        """Send in one more visitor now, who clicks at once, and return when it has every answer."""
        await self.noted(self._visit(self._next(), 0.0, 0.0, self._wait_seconds))

    def send_around(self, moment: float, visitors: int, volley_seconds: float) -> None:
        """Send in so many around a moment from now: half of them in the volley just before it, the
        other half at any time until a while after it.
        """
        for n in range(visitors):
            if n % 2 == 0:
                self.send(max(0.0, moment - self._random.uniform(0, volley_seconds)))
            else:
                self.send(self._random.uniform(0, moment + 1.0))

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    async def _visit(self, n: int, delay: float, click: float, late: float) -> None:
        await asyncio.sleep(delay)
        signup = await self.sign_up(f"visitor-{n}@example.org")
        if n % PROMPT_OF == 0:
            await self.verify(signup, late, may_be_late=True)
        elif n % 2 == 0:
            await self.verify(signup, click, may_be_late=False)


def verdict_of(answer: Answer) -> str:
    """Return what a link's answer says of the account. Raises ValueError when it says nothing."""
    if answer.status == 200:
        return "verified"
    if (answer.status, answer.body.get("code")) == (410, "expired"):
        return "expired"
    raise ValueError(f"a link answered with {answer.status}: {answer.body}")
