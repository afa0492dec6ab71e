"""When the claimer asks for the next due time, and when it claims."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final
from uuid import UUID

from service.engine.claimer import Claimer
from service.engine.tenures import Tenures

NOON: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
TURNS_OF_THE_LOOP: Final = 20
"""More than a pulse takes, where nothing is waited for."""


class Scene:
    """A claimer whose store, timers, worker and clock are played, and what it does."""

    def __init__(self) -> None:
        self.due_at: int | None = None
        self.claims: list[str] = []  # their keys
        self.brought: int | None = None
        """The second of the next due time that comes with them, if one does."""
        self._now = NOON
        self._done: list[str] = []
        self._due = asyncio.Event()

    async def pulse(self, second: float) -> list[str]:
        """Let it be so many seconds after noon; return what the claimer does at a pulse then."""
        self._now, self._done = NOON + timedelta(seconds=second), []
        self._due.set()
        for _ in range(TURNS_OF_THE_LOOP):
            await asyncio.sleep(0)
        return self._done

    async def __aenter__(self) -> Scene:
        timers = SimpleNamespace(due=self._due, arm=self._arm)
        store = SimpleNamespace(next_due=self._next_due, claim_due=self._claim_due)
        tenures = Tenures(10, reserved=lambda: 0)
        worker = SimpleNamespace(id=UUID(int=1), adopt=self._adopt, tenures=tenures)
        clock = SimpleNamespace(now=lambda: self._now)
        claimer = Claimer(worker, store, timers, clock)  # type: ignore[arg-type]
        self._running = asyncio.create_task(claimer.run())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._running.cancel()

    async def _next_due(self) -> datetime | None:
        self._done.append("ask")
        return _after_noon(self.due_at)

    async def _claim_due(
        self, _owner: UUID, _limit: int
    ) -> tuple[Sequence[SimpleNamespace], object]:
        self._done.append("claim")
        keys, self.claims = self.claims, []
        return [SimpleNamespace(key=key, epoch=1) for key in keys], _after_noon(self.brought)

    async def _adopt(self, claims: Sequence[SimpleNamespace]) -> None:
        self._done += [f"adopt {claim.key}" for claim in claims]

    def _arm(self, due_at: datetime) -> None:
        self._done.append(f"arm {(due_at - NOON).seconds}")


def _after_noon(seconds: int | None) -> datetime | None:
    return None if seconds is None else NOON + timedelta(seconds=seconds)


async def test_at_the_time_that_it_knows_of_it_claims_without_asking_again() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        assert await scene.pulse(0) == ["ask", "arm 10"]
        scene.due_at, scene.claims = 30, ["a", "b"]
        assert await scene.pulse(10) == ["claim", "adopt a", "adopt b", "ask", "arm 30"]


async def test_a_time_that_claims_bring_along_is_not_asked_for() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        await scene.pulse(0)
        assert await scene.pulse(9.5) == ["ask", "arm 10"]
        scene.claims, scene.brought = ["a"], 30
        assert await scene.pulse(10) == ["claim", "adopt a", "arm 30"]


async def test_what_is_due_already_when_it_is_brought_along_is_claimed_at_once() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        await scene.pulse(0)
        await scene.pulse(9.5)
        scene.claims, scene.brought = ["a"], 10
        assert await scene.pulse(10) == ["claim", "adopt a", "claim"]


async def test_however_much_is_claimed_it_asks_once_a_second() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        await scene.pulse(0)
        assert await scene.pulse(9.5) == ["ask", "arm 10"]
        scene.claims, scene.brought, scene.due_at = ["a"], 11, 12
        assert await scene.pulse(10.5) == ["claim", "adopt a", "ask", "arm 12"]


async def test_before_that_time_it_asks_whether_an_earlier_one_has_come_up() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        await scene.pulse(0)
        scene.due_at = 5
        assert await scene.pulse(1) == ["ask", "arm 5"]


async def test_what_another_has_claimed_is_not_asked_for_again_until_the_next_pulse() -> None:
    async with Scene() as scene:
        scene.due_at = 10
        await scene.pulse(0)
        assert await scene.pulse(10) == ["claim"]
        scene.due_at = None
        assert await scene.pulse(11) == ["ask"]
