"""Workflow files: what is published of a folder, when, and what becomes of a broken edit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service import definition_files
from service.asl import InvalidDefinition, Problem, StateMachine, compile_definition
from service.definition_files import FILE_BYTES_MAX, DefinitionFiles, read_definition
from service.engine.definitions import Definitions
from service.engine.ports import (
    Contended,
    Current,
    Published,
    StateMachineDoesNotExist,
    Unavailable,
)
from service.store.memory import MemoryDefinitions
from tests.engine.harness import definition, task
from tests.engine.small import until

OLD = definition("Old", Old={"Type": "Succeed"})
NEW = definition("New", New={"Type": "Succeed"})
BROKEN = '{\n  "StartAt": "Old",\n  "States": {"Old": {"Type": "Pass", "Next": "Gone"}}\n}'


def nothing_missing(machine: StateMachine) -> Sequence[Problem]:
    return []


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_files, "WATCH_SECONDS", 0.005)


class Watched:
    """A folder, what watches it, and the definitions it publishes to."""

    def __init__(self, folder: Path, store: MemoryDefinitions | None = None) -> None:
        self.folder = folder
        self.store = store or MemoryDefinitions()
        self.definitions = Definitions(self.store)
        self.files = DefinitionFiles(folder, self.definitions, nothing_missing)

    def write(self, text: str, name: str = "flow") -> None:
        """Put a whole file in place, as an editor does."""
        whole = self.folder / f"{name}.new"
        whole.write_text(text, encoding="utf-8")
        os.replace(whole, self.folder / f"{name}.asl.json")

    async def start_at(self, name: str = "flow") -> str:
        await self.definitions.refresh()
        return (await self.definitions.current(name)).start_at

    async def takes(self, start_at: str) -> None:
        """Return once new executions take the definition that starts there."""
        sha256 = {"Old": OLD, "New": NEW}[start_at]
        wanted = compile_definition(sha256).sha256
        await until(lambda: self.definitions._currents.get("flow") == Current(wanted))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[asyncio.Task[None]]:
        watch = asyncio.ensure_future(self.files.watch())
        try:
            yield watch
            assert not watch.done(), "the watch has ended"
        finally:
            watch.cancel()
            await asyncio.wait([watch])


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_every_file_is_published_under_its_name_at_start(watched: Watched) -> None:
    watched.write(OLD, "one")
    watched.write(NEW, "two-2_B")
    (watched.folder / "README.md").write_text("not a workflow")
    await watched.files.load()
    assert [await watched.start_at(name) for name in ("one", "two-2_B")] == ["Old", "New"]
    assert set(await watched.store.currents()) == {"one", "two-2_B"}


async def test_a_broken_edit_is_refused_with_its_place_and_the_last_good_version_stays(
    watched: Watched,
) -> None:
    watched.write(OLD)
    await watched.files.load()
    with capture_logs() as lines:
        async with watched.watching():
            watched.write(BROKEN)
            await until(lambda: any(line["event"] == "definition_refused" for line in lines))
    (line,) = [line for line in lines if line["event"] == "definition_refused"]
    assert line["last_good_runs_on"] is True
    (problem,) = [one for one in line["problems"] if one.endswith("(at /States/Old/Next)")]
    assert problem.startswith("flow.asl.json:3:")
    assert await watched.start_at() == "Old"


async def test_a_mended_edit_is_published(watched: Watched) -> None:
    watched.write(BROKEN)
    await watched.files.load()
    with pytest.raises(StateMachineDoesNotExist):
        await watched.start_at()
    async with watched.watching():
        watched.write(OLD)
        await watched.takes("Old")


async def test_a_build_that_is_older_than_what_is_published_changes_nothing_at_start(
    tmp_path: Path,
) -> None:
    store = MemoryDefinitions()
    for name, text in (("first", OLD), ("second", NEW), ("third", OLD)):
        folder = tmp_path / name
        folder.mkdir()
        replica = Watched(folder, store)
        replica.write(text)
        await replica.files.load()
    assert await replica.start_at() == "New"


async def test_an_edit_back_to_an_older_text_is_published(watched: Watched) -> None:
    watched.write(OLD)
    await watched.files.load()
    async with watched.watching():
        for text, start_at in ((NEW, "New"), (OLD, "Old"), (NEW, "New")):
            watched.write(text)
            await watched.takes(start_at)


async def test_a_file_of_the_same_size_and_time_is_still_seen_to_be_another(
    watched: Watched,
) -> None:
    assert len(OLD) == len(NEW)
    watched.write(OLD)
    await watched.files.load()
    path = watched.folder / "flow.asl.json"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    async with watched.watching():
        watched.write(NEW)
        os.utime(path, ns=times)
        await watched.takes("New")


@pytest.mark.parametrize("error", [Unavailable("gone"), Contended("locked"), ValueError("a bug")])
async def test_a_publication_that_fails_is_tried_again(watched: Watched, error: Exception) -> None:
    faults = [error]
    publish = watched.store.publish_file
    watched.store.publish_file = _failing(publish, faults)  # type: ignore[method-assign]
    async with watched.watching():
        watched.write(OLD)
        await watched.takes("Old")
    assert faults == []


async def test_a_row_locked_for_a_moment_does_not_fail_the_start(watched: Watched) -> None:
    faults: list[Exception] = [Contended("locked")]
    publish = watched.store.publish_file
    watched.store.publish_file = _failing(publish, faults)  # type: ignore[method-assign]
    watched.write(OLD)
    await watched.files.load()
    assert await watched.start_at() == "Old"


def _failing(
    publish: Callable[..., Awaitable[Published]], faults: list[Exception]
) -> Callable[..., Awaitable[Published]]:
    async def failing(*arguments: object, **keywords: object) -> Published:
        if faults:
            raise faults.pop()
        return await publish(*arguments, **keywords)

    return failing


async def test_a_name_that_no_machine_can_have_is_refused(watched: Watched) -> None:
    watched.write(OLD, "not a name")
    with capture_logs() as lines:
        await watched.files.load()
    assert [(line["event"], line["file"]) for line in lines] == [
        ("definition_refused", "not a name.asl.json")
    ]
    assert await watched.store.currents() == {}


async def test_a_folder_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "missing")
    await watched.files.load()
    assert await watched.store.currents() == {}


def test_a_function_that_nothing_performs_is_a_problem_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.asl.json"
    path.write_text(definition("Work", Work=task("work", End=True)))
    problem = Problem("UNKNOWN_RESOURCE", "no handler", "/States/Work/Resource", 1, 40)
    with pytest.raises(InvalidDefinition) as caught:
        read_definition(path, lambda machine: [problem])
    assert list(caught.value.problems) == [problem]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" " * (FILE_BYTES_MAX + 1), f"larger than {FILE_BYTES_MAX} bytes"),
        (b'{"StartAt": "\xff"}', "not UTF-8: invalid start byte"),
    ],
)
def test_what_is_no_text_of_a_definition_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "flow.asl.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDefinition) as caught:
        read_definition(path, nothing_missing)
    assert [(p.message, p.line, p.column) for p in caught.value.problems] == [(message, 1, 1)]
