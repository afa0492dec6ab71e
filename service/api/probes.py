"""Health: is the process alive, and can it do its work now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp import web

from service.api.answers import answer_json
from service.asl.values import Json

READINESS_KEPT_SECONDS: Final = 1.0
"""An answer is kept this long, or strangers could query the database through the public port."""

PROBE_SECONDS_MAX: Final = 3.0
"""Shorter than the patience of the usual load balancer, which is 5 seconds."""

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Probe(Protocol):
    """What readiness is made of. A reason is a part's name and a sentence; none: no trouble."""

    async def reasons(self) -> Mapping[str, str]:
        """Return why no work can be done now: the database, its schema, the engine's loops."""
        ...

    async def soft_reasons(self) -> Mapping[str, str]:
        """Return what is wrong and does not keep signups from being taken: SMTP."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """One look at the parts."""

    reasons: Mapping[str, str]
    soft_reasons: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        return not self.reasons


@dataclass(slots=True)
class Health:
    """Asks a probe, not more often than READINESS_KEPT_SECONDS and one question at a time."""

    probe: Probe
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: Readiness | None = None
    _asked_at: float = 0.0

    async def readiness(self) -> Readiness:
        """Return what the probe said last, or says now. A probe that hangs is a reason, too."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._last is None or now - self._asked_at >= READINESS_KEPT_SECONDS:
                self._last = await self._ask()
                self._asked_at = now
            return self._last

    async def _ask(self) -> Readiness:
        try:
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                return Readiness(await self.probe.reasons(), await self.probe.soft_reasons())
        except TimeoutError:
            return Readiness({"probe": f"no answer within {PROBE_SECONDS_MAX:g} seconds"}, {})


async def live(request: web.Request) -> web.Response:
    """Answer that the process answers: no restart would bring back a lost database."""
    return answer_json({"status": "live"})


def ready(health: Health, *, with_reasons: bool) -> Handler:
    """Return the handler that answers 200 or 503, and on the ops port also why."""

    async def handler(request: web.Request) -> web.Response:
        readiness = await health.readiness()
        answer: dict[str, Json] = {"status": "ready" if readiness.is_ready else "unready"}
        if with_reasons:
            answer["reasons"] = dict(readiness.reasons)
            answer["soft_reasons"] = dict(readiness.soft_reasons)
        return answer_json(answer, status=200 if readiness.is_ready else 503)

    return handler
