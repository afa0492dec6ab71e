"""The schema is brought up to date once, whoever is there to do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from service.store import ChangedMigration, Database, migrate, pending_migrations
from service.store.migrations import Migration, all_migrations, read_migrations


@pytest.fixture
async def empty(fresh_database: str) -> AsyncIterator[Database]:
    """Yield an open database without a schema."""
    database = Database(fresh_database)
    await database.open()
    yield database
    await database.close()


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.sql").write_text(text)
    return path


def _names() -> list[str]:
    return [migration.name for migration in all_migrations()]


async def test_empty_database_is_brought_up_to_date(empty: Database) -> None:
    assert await pending_migrations(empty) == _names()
    assert await migrate(empty) == _names()
    assert await pending_migrations(empty) == []
    assert await migrate(empty) == []


@pytest.mark.parametrize("pooler", ["off", "transaction"])
async def test_replicas_that_start_together_apply_each_once(
    fresh_database: str, pooler: str
) -> None:
    replicas = [Database(fresh_database, pool_size=1, pooler=pooler) for _ in range(4)]
    await asyncio.gather(*(replica.open() for replica in replicas))
    applied = await asyncio.gather(*(migrate(replica) for replica in replicas))
    await asyncio.gather(*(replica.close() for replica in replicas))
    assert sorted(name for names in applied for name in names) == _names()


async def test_later_files_are_applied_in_order(empty: Database, tmp_path: Path) -> None:
    first = "create table t (n integer); insert into t values (1);"
    await migrate(empty, read_migrations(folder(tmp_path, **{"0001_a": first})))
    more = {"0002_b": "update t set n = n + 1;", "0003_c": "update t set n = n * 10;"}
    migrations = read_migrations(folder(tmp_path, **more))
    assert await pending_migrations(empty, migrations) == ["0002_b.sql", "0003_c.sql"]
    assert await migrate(empty, migrations) == ["0002_b.sql", "0003_c.sql"]
    connection = await asyncpg.connect(empty.dsn)
    assert await connection.fetchval("select n from t") == 20
    await connection.close()


async def test_failing_file_leaves_nothing_and_those_before_it_stand(
    empty: Database, tmp_path: Path
) -> None:
    texts = {"0001_a": "create table t ();", "0002_b": "create table u (); select 1 / 0;"}
    migrations = read_migrations(folder(tmp_path, **texts))
    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty, migrations)
    assert await pending_migrations(empty, migrations) == ["0002_b.sql"]
    connection = await asyncpg.connect(empty.dsn)
    assert await connection.fetchval("select to_regclass('t') is not null") is True
    assert await connection.fetchval("select to_regclass('u') is not null") is False
    await connection.close()


async def test_changed_file_is_reported(empty: Database) -> None:
    before = Migration(1, "0001_a.sql", "create table t ();", "old")
    after = Migration(1, "0001_a.sql", "create table u ();", "new")
    await migrate(empty, [before])
    for report in (migrate(empty, [after]), pending_migrations(empty, [after])):
        with pytest.raises(ChangedMigration, match=r"0001_a\.sql was changed after"):
            await report


async def test_newer_schema_is_left_as_it_is(empty: Database) -> None:
    migrations = [Migration(n, f"000{n}.sql", f"create table t{n} ();", "x") for n in (1, 2)]
    await migrate(empty, migrations)
    assert await migrate(empty, migrations[:1]) == []
    assert await pending_migrations(empty, migrations[:1]) == []


@pytest.mark.parametrize("name", ["0002_a", "1_a", "0001-a", "0001_A"])
def test_file_out_of_order_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}\.sql: migration 1 is named 0001_words\.sql"):
        read_migrations(folder(tmp_path, **{name: "select 1;"}))
