"""Definition files: every NAME.asl.json of a folder becomes the state machine NAME, at start and
whenever it changes.

An edit that does not compile, or calls a function that nothing here performs, is refused with its
places, and the last good version runs on. What is running stays on the definition it was started on
either way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from service.asl import InvalidDefinition, Problem, StateMachine, compile_definition
from service.engine.definitions import Definitions
from service.engine.ports import Contended

log = structlog.get_logger()

SUFFIX: Final = ".asl.json"
FILES_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 1_048_576
WATCH_SECONDS: Final = 1.0
LOCKED_DELAYS_SECONDS: Final = (0.1, 0.3, 0.6)
PROBLEMS_LOGGED_MAX: Final = 20
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was last seen: when that changes, it is read again."""

    modified_ns: int
    changed_ns: int  # also tells of another file put in place with its times kept, and of its mode
    size: int
    inode: int


def read_definition(
    path: Path, missing: Callable[[StateMachine], Sequence[Problem]]
) -> StateMachine:
    """Return the compiled definition in a file. Raises InvalidDefinition with all its problems,
    OSError.

    `missing` returns a problem for each task that nothing performs.
    """
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InvalidDefinition([_problem(f"larger than {FILE_BYTES_MAX} bytes")])
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDefinition([_problem(f"not UTF-8: {error.reason}")]) from error
    machine = compile_definition(text)
    problems = missing(machine)
    if problems:
        raise InvalidDefinition(problems)
    return machine


def _problem(message: str) -> Problem:
    return Problem("INVALID_JSON_DESCRIPTION", message, "", 1, 1)


class DefinitionFiles:
    """Watches one folder and publishes what is good in it."""

    def __init__(
        self,
        folder: Path,
        definitions: Definitions,
        missing: Callable[[StateMachine], Sequence[Problem]],
    ) -> None:
        self._folder = folder
        self._definitions = definitions
        self._missing = missing
        self._seen: dict[Path, Found] = {}

    async def load(self) -> None:
        """Publish the files as they stand at start. Raises Unavailable, Contended."""
        for path in self._changed():
            await self._publish_at_start(path)

    async def _publish_at_start(self, path: Path) -> None:
        for delay_seconds in LOCKED_DELAYS_SECONDS:
            try:
                return await self._publish(path, edited=False)
            except Contended as error:
                # Another replica publishes the same file at this moment.
                log.warning("definition_not_published", file=path.name, reason=str(error))
                await asyncio.sleep(delay_seconds)
        return await self._publish(path, edited=False)

    async def watch(self) -> None:
        """Publish every change until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for path in await asyncio.to_thread(self._changed):
                try:
                    await self._publish(path, edited=True)
                except Exception as error:
                    # Whatever it is must not end the watch: the next edit may mend it.
                    log.warning("definition_not_published", file=path.name, reason=str(error))
                    self._seen.pop(path, None)  # looked at again until it is

    def _changed(self) -> list[Path]:
        """Return the files that are new or different since they were last looked at, by name."""
        changed = []
        try:
            paths = sorted(self._folder.glob(f"*{SUFFIX}"))[:FILES_MAX]
        except OSError as error:
            log.warning("definitions_unreadable", folder=str(self._folder), reason=str(error))
            return []
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue  # replaced at this moment: there the next time
            found = Found(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if self._seen.get(path) != found:
                self._seen[path] = found
                changed.append(path)
        return changed

    async def _publish(self, path: Path, *, edited: bool) -> None:
        name = path.name.removesuffix(SUFFIX)
        if not _NAME.fullmatch(name):
            log.error("definition_refused", file=path.name, rule="a name of 1-80 of A-Za-z0-9_-")
            return
        try:
            machine = await asyncio.to_thread(read_definition, path, self._missing)
        except OSError as error:
            log.error("definition_refused", file=path.name, rule=str(error))
            return
        except InvalidDefinition as error:
            self._refuse(path, name, error.problems)
            return
        published = await self._definitions.publish_file(name, path.name, machine, edited=edited)
        if published.is_published:
            log.info("definition_published", machine=name, sha256=machine.sha256.hex())
        elif published.current != machine.sha256:
            # Another replica runs a newer build, or somebody edited the file there.
            log.warning(
                "definition_older",
                machine=name,
                sha256=machine.sha256.hex(),
                current=published.current.hex(),
            )

    def _refuse(self, path: Path, name: str, problems: Sequence[Problem]) -> None:
        log.error(
            "definition_refused",
            file=path.name,
            problems=[
                f"{path.name}:{p.line}:{p.column}: {p.code} {p.message} (at {p.pointer or '/'})"
                for p in problems[:PROBLEMS_LOGGED_MAX]
            ],
            last_good_runs_on=self._definitions.is_current(name),
        )
