"""The quarantine lane: executions that may be what a worker died of, one at a time.

A worker that dies takes everything in its memory down with it, and one of those executions may be
the reason. What is rescued, and whatever is claimed a second time without progress, therefore runs
here: alone in the lane, and alone in its batch, so that a culprit takes nobody with it a second
time. Only a beginning in the lane that made no progress counts against an execution, so the
innocents that were in flight beside it are not punished. After some such deaths it ends as FAILED,
where an operator sees it.

Most workers die for reasons of their own, and then those in the lane wait for one another without
need. So whoever is here for the first time is passed on soon, and goes on beside the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from service.asl import Event, Poisoned
from service.engine.ports import Claim, Store, Unavailable
from service.engine.turn import Tenure

log = structlog.get_logger()

SUSPECT_FROM_CLAIMS: Final = 2
DEATHS_MAX: Final = 3
EXAMINATION_SECONDS_MAX: Final = 60.0
FIRST_EXAMINATION_SECONDS_MAX: Final = 1.0
TROUBLE_DELAY_SECONDS: Final = 1.0
POISONED: Final = "Engine.WorkerLost"


class Adopt(Protocol):
    """Takes one claim into memory; None when that failed."""

    async def __call__(
        self, claim: Claim, *events: Event, is_alone: bool = False
    ) -> Tenure | None: ...


class Standing(Protocol):
    """Returns those claims of an answer that still stand when it arrives."""

    async def __call__(self, asked: Awaitable[Sequence[Claim]]) -> Sequence[Claim]: ...


class Quarantine:
    """The lane of one worker. It holds no more claims than the worker has slots."""

    def __init__(
        self,
        store: Store,
        standing: Standing,
        adopt: Adopt,
        bury: Callable[[Claim], Awaitable[None]],
    ) -> None:
        self.suspects: deque[Claim] = deque()
        self.left: Callable[[], None] = lambda: None  # told when the lane is shorter by one
        self._store = store
        self._standing = standing
        self._adopt = adopt
        self._bury = bury  # ends for good what cannot be read
        self._has_suspects = asyncio.Event()

    def add(self, claim: Claim) -> None:
        """Put a claim at the end of the lane."""
        self.suspects.append(claim)
        self._has_suspects.set()

    async def run(self) -> None:
        """Examine one suspect after the other until cancelled."""
        while True:
            await self._has_suspects.wait()
            self._has_suspects.clear()
            while self.suspects:
                # Whoever was never here when a worker died goes first: were it always the same one,
                # kills for whatever other reason would soon count it out.
                claim = min(self.suspects, key=lambda suspect: suspect.quarantined)
                try:
                    await self._examine(claim)
                except Unavailable:
                    await asyncio.sleep(TROUBLE_DELAY_SECONDS)
                    continue
                except Exception as error:
                    # A locked row, most likely. The lane must not die, nor wait for this one: the
                    # next reconciliation brings it back.
                    log.warning("quarantine_failed", reason=str(error))
                self.suspects.remove(claim)
                self.left()

    async def _begun(self, claim: Claim) -> Sequence[Claim]:
        """Count one more beginning; return the claim, or nothing when it is no longer the row's."""
        return [claim] if await self._store.quarantine(claim.key, claim.epoch, 1) else []

    async def _examine(self, claim: Claim) -> None:
        """Run one suspect until it makes progress, or end it after too many deaths."""
        if not await self._standing(self._begun(claim)):
            return
        if claim.quarantined > DEATHS_MAX:
            # Not even its end could be played: its checkpoint cannot be read.
            log.error("execution_buried", execution=str(claim.key.id))
            await self._bury(claim)
            return
        events: tuple[Event, ...] = ()
        if claim.quarantined == DEATHS_MAX:
            log.error("execution_poisoned", execution=str(claim.key.id), deaths=claim.quarantined)
            events = (Poisoned(POISONED, f"{claim.quarantined} workers were lost at this step"),)
        tenure = await self._adopt(claim, *events, is_alone=True)
        if tenure is None:
            return
        is_first = claim.claims < SUSPECT_FROM_CLAIMS
        seconds = FIRST_EXAMINATION_SECONDS_MAX if is_first else EXAMINATION_SECONDS_MAX
        try:
            # Not `wait_for`, which before Python 3.12 can swallow the cancellation that ends this.
            async with asyncio.timeout(seconds):
                await tenure.until_over()
        except (TimeoutError, asyncio.CancelledError) as error:
            # A slow task or a clean stop is no death: this beginning is taken back.
            await self._store.quarantine(claim.key, claim.epoch, -1)
            if isinstance(error, asyncio.CancelledError):
                raise
            # The others in the lane have waited long enough.
            if not is_first:
                log.warning("quarantine_passed_on", execution=str(claim.key.id))
        tenure.is_alone = False
