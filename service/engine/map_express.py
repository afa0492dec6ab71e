"""Express children of a map run: they run in memory, and are rows once they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from service.asl import About, Execution, StateMachine, Status
from service.asl.errors import CAUSE_CHARACTERS_MAX, ERROR_CHARACTERS_MAX, RUNTIME
from service.documents import dumps_own
from service.engine.committer import LOCK_PATIENCE_MS
from service.engine.express import Express
from service.engine.ports import Checkpoint, Clock, Key, NewExecution, Store
from service.engine.queue import BATCH_UNITS_MAX
from service.engine.turn import storable

BROKEN_CAUSE: Final = "the engine failed at this execution; the log tells why"


class ExpressChildren:
    """Those of one run that are under way, or have ended and are not stored yet."""

    def __init__(
        self,
        express: Express,
        store: Store,
        program: StateMachine,
        clock: Clock,
        heard: Callable[[Key, Status], None],
        changed: Callable[[], None],
    ) -> None:
        self._express = express
        self._store = store
        self._program = program
        self._clock = clock
        self._heard = heard  # told of each child that is stored
        self._changed = changed  # told when there is one to be stored
        self._under_way: set[asyncio.Task[Execution]] = set()
        self._ended: list[NewExecution] = []

    def begin(self, key: Key, about: About) -> None:
        """Start a child. Raises Overloaded."""
        task = self._express.begin(self._program, about)
        self._under_way.add(task)
        task.add_done_callback(partial(self._note, key, about))

    def cancel(self) -> None:
        """Give up what is under way: whoever goes on with the run starts it again."""
        for task in self._under_way:
            task.cancel()

    async def store(self) -> None:
        """Keep the ends of children: until then they would run again after a crash."""
        while self._ended:
            rows, self._ended = self._ended[:BATCH_UNITS_MAX], self._ended[BATCH_UNITS_MAX:]
            async with self._store.transaction(LOCK_PATIENCE_MS) as tx:
                await tx.insert(rows)
            for row in rows:
                self._heard(row.first.key, row.first.status)

    def _note(self, key: Key, about: About, task: asyncio.Task[Execution]) -> None:
        self._under_way.discard(task)
        if task.cancelled():
            return
        broken = Execution(about, Status.FAILED, error=RUNTIME, cause=BROKEN_CAUSE)
        self._ended.append(self._row(key, broken if task.exception() else task.result()))
        self._changed()

    def _row(self, key: Key, execution: Execution) -> NewExecution:
        about, is_good = execution.about, execution.status is Status.SUCCEEDED
        at = Checkpoint(
            key=key,
            epoch=1,
            status=execution.status,
            due_at=None,
            owner=None,
            document=None,
            output=dumps_own(execution.output).decode() if is_good else None,
            error=_stored(execution.error, ERROR_CHARACTERS_MAX),
            cause=_stored(execution.cause, CAUSE_CHARACTERS_MAX),
            stopped_at=self._clock.now(),
        )
        text = dumps_own(about.input).decode()
        return NewExecution(
            about.machine_name, self._program.sha256, about.name, text, about.started_at, at
        )


def _stored(text: str | None, characters_max: int) -> str | None:
    """Return a text that is not JSON in a form that a column holds: a Fail state makes any."""
    return None if text is None else storable(text, characters_max)
