"""What all tests share: a PostgreSQL server for the session, an empty database for a test."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import pytest

from service.demo.postgres import EmbeddedPostgres

# Machines differ too much in speed for a deadline; a failure prints what repeats it.
hypothesis.settings.register_profile("suite", deadline=None, print_blob=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """Yield the URL of a server's maintenance database: TEST_DATABASE_URL, or an embedded one."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    data_dir = Path(tempfile.mkdtemp(prefix="countersign-test-"))
    # What a test needs of fsync is its place in the code, not its wait for the disk.
    server = EmbeddedPostgres(data_dir, settings={"fsync": "off"})
    try:
        yield asyncio.run(server.start())
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(data_dir)


@pytest.fixture
async def fresh_database(database_url: str) -> AsyncIterator[str]:
    """Yield the URL of a database that is empty, this test's own, and dropped after it."""
    name = f"test_{uuid.uuid4().hex}"
    await _execute(database_url, f"create database {name}")
    try:
        yield urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    finally:
        await _execute(database_url, f"drop database {name} with (force)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
