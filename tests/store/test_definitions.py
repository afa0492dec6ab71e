"""Which text of a definition is current, in both stores alike."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from service.engine.ports import Current, Published
from service.store import Database, DefinitionRows
from service.store.memory import MemoryDefinitions

OLD, NEW = '{"StartAt":"Old"}', '{"StartAt":"New"}'
FILE = "signup.asl.json"


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


@pytest.fixture(params=["postgres", "memory"])
def definitions(request: pytest.FixtureRequest) -> Any:
    """Return each of the two stores of definitions in turn."""
    if request.param == "memory":
        return MemoryDefinitions()
    return DefinitionRows(request.getfixturevalue("database"))


async def publish(definitions: Any, text: str, *, edited: bool = False) -> Published:
    published = await definitions.publish_file("signup", FILE, text, digest(text), edited=edited)
    assert isinstance(published, Published)
    return published


async def test_new_file_is_published(definitions: Any) -> None:
    assert await definitions.currents() == {}
    assert await publish(definitions, OLD) == Published(True, digest(OLD))
    assert await definitions.currents() == {"signup": Current(digest(OLD))}
    assert await definitions.definition(digest(OLD)) == OLD
    assert await definitions.definition(digest(NEW)) is None


async def test_current_text_is_not_published_again(definitions: Any) -> None:
    await publish(definitions, OLD)
    assert await publish(definitions, OLD) == Published(False, digest(OLD))
    assert await publish(definitions, OLD, edited=True) == Published(False, digest(OLD))


async def test_text_that_was_never_there_is_published_at_start(definitions: Any) -> None:
    await publish(definitions, OLD)
    assert await publish(definitions, NEW) == Published(True, digest(NEW))
    assert await definitions.currents() == {"signup": Current(digest(NEW))}
    assert await definitions.definition(digest(OLD)) == OLD


async def test_older_build_starting_late_does_not_bring_its_text_back(definitions: Any) -> None:
    await publish(definitions, OLD)
    await publish(definitions, NEW)
    assert await publish(definitions, OLD) == Published(False, digest(NEW))
    assert await definitions.currents() == {"signup": Current(digest(NEW))}


async def test_edit_under_a_running_service_may_bring_a_text_back(definitions: Any) -> None:
    await publish(definitions, OLD)
    await publish(definitions, NEW)
    assert await publish(definitions, OLD, edited=True) == Published(True, digest(OLD))
    assert await publish(definitions, NEW) == Published(False, digest(OLD))


async def test_machines_are_apart(definitions: Any) -> None:
    await publish(definitions, OLD)
    await definitions.publish_file("resend", "r.asl.json", OLD, digest(OLD), edited=False)
    await definitions.publish_file("resend", "r.asl.json", NEW, digest(NEW), edited=False)
    assert await definitions.currents() == {
        "signup": Current(digest(OLD)),
        "resend": Current(digest(NEW)),
    }


async def test_replicas_that_start_together_publish_once(database: Database) -> None:
    replicas = [DefinitionRows(database) for _ in range(4)]
    published = await asyncio.gather(*(publish(replica, NEW) for replica in replicas))
    assert sorted(p.is_published for p in published) == [False, False, False, True]
    assert {p.current for p in published} == {digest(NEW)}


async def test_current_text_comes_with_its_digest(database: Database) -> None:
    definitions = DefinitionRows(database)
    assert await definitions.current("signup") is None
    await publish(definitions, OLD)
    assert await definitions.current("signup") == (digest(OLD), OLD)
