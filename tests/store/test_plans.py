"""Every statement fits the schema, and the hot ones go by index whatever was in the tables."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from benchmarks.copies import drop_indexes
from service.store import Database, migrate
from service.store.database import LOCK_PATIENCE_MS
from service.store.queries import all_queries
from tests.store.factories import ALICE, new_key

# Not statements that can be prepared: several in one block, or not plannable.
BLOCKS = {"settle", "begin", "begin_pooled", "commit", "rollback", "lock_schema"}
BLOCKS |= {"make_schema_migrations"}
STATEMENTS = sorted(set(all_queries()) - BLOCKS)

KEY = "executions_pkey: bucket id"
ACCOUNT = "accounts_pkey: bucket id"
RIVALS = "accounts_identity: bucket identity_key"
OWNER = "executions_owner: owner"
# What each hot statement reads its rows by: index, and columns of its condition.
HOT: dict[str, set[str]] = {
    "inserted_before": {KEY},
    "lock": {KEY},
    "standing": {KEY},
    "signal": {KEY},
    "seize.lock": {KEY},
    "seize": {KEY},
    "lock_ended": {KEY},
    "redrive": {KEY},
    "redriven_by": {KEY},
    "save": {KEY},
    "claim_due": {"executions_due: due_at due_at", "executions_due: due_at"},
    "next_due": {"executions_due: due_at"},
    "claim_owned": {KEY},
    "let_go": {KEY},
    "quarantine": {KEY},
    "owned": {OWNER},
    "release": {OWNER},
    "heartbeat": {OWNER},
    "verify_account.lock": {ACCOUNT, RIVALS},
    "verify_account": {ACCOUNT, RIVALS},
    "get_account": {ACCOUNT},
    "delete_unverified_account.lock": {ACCOUNT},
    "delete_unverified_account": {ACCOUNT},
    "account_status": {ACCOUNT},
    "contacts": {ACCOUNT, "verified_addresses_pkey: bucket identity_key"},
    "claim_notice": {"verified_addresses_pkey: bucket identity_key"},
    "read_history": {"history_pkey: bucket execution_id"},
    "page_history": {"history_pkey: bucket execution_id first_event_id"},
    "page_history_backwards": {"history_pkey: bucket execution_id first_event_id"},
    "named_execution": {"executions_name: bucket name name machine"},
    "page_executions": {"executions_machine: machine started_at"},
    "running_execution": {"executions_machine: machine"},
    "map_run_status": {"map_runs_pkey: bucket id id"},
    "redrive_map_run": {"map_runs_pkey: bucket id"},
    "map_run_redriven_at": {"map_runs_pkey: bucket id id"},
    "forget_children": {KEY},
    "end_map_run": {"map_runs_pkey: bucket id", KEY},
    "abort_map_run": {"map_runs_pkey: bucket id"},
    "map_run_children": {"executions_pkey: bucket id id"},
    "running_children": {"executions_pkey: bucket id id"},
    "ended_children": {KEY},
    "map_run_stopped": {"map_runs_pkey: bucket id"},
    "delete_closed": {KEY, "map_runs_open: bucket"},
    "delete_map_runs": {"map_runs_pkey: bucket id"},
    "forsaken_map_runs": {"map_runs_open: ", KEY},
    "map_runs_of": {"map_runs_open: bucket execution_id", KEY},
}

FILL = """
insert into executions (bucket, id, started_at, definition, machine, name, input, due_at)
select n % 256, ('019a00000000700080' || lpad(to_hex(n), 14, '0'))::uuid, now(), '\\x00', 'm',
    'n' || n, '{}', now() - n * interval '1 second'
from generate_series(1, $1::integer) as n
"""
MANY = 1_000_000
# As in production: nearly all have ended, a few wait, fewer are in a worker's hands. Not logged, as
# nothing here is to survive a crash, and the indexes are made at the end: a third of the time.
MAKE_UNLOGGED = "alter table executions set unlogged; alter table accounts set unlogged"
FILL_MANY = """
insert into executions (
    bucket, id, started_at, definition, machine, name, input, status, owner, due_at, checkpoint
)
select
    n % 256,
    id,
    now() - n * interval '1 second',
    '\\x00',
    'verification',
    id,
    '{}',
    case when n % 50 = 0 then 'RUNNING' else 'SUCCEEDED' end,
    case when n % 1000 = 0 then '019a0000-0000-7000-8000-000000000000'::uuid end,
    case when n % 50 = 0 and n % 1000 <> 0 then now() + n * interval '1 ms' end,
    case when n % 50 = 0 then '\\x00'::bytea end
from generate_series(1, $1::integer) as n
cross join lateral (
    select ('019a00000000700080' || lpad(to_hex(n), 14, '0'))::uuid as id
) as k
"""
FILL_ACCOUNTS = """
insert into accounts (bucket, id, identity_version, identity_key)
select n % 256, ('019a00000000700080' || lpad(to_hex(n), 14, '0'))::uuid, 1, 'n' || n
from generate_series(1, $1::integer) as n
"""


@pytest.fixture
async def connection(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection to a database that was never used: no table has been vacuumed yet."""
    database = Database(fresh_database)
    await database.open()
    await migrate(database)
    await database.close()
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


async def plan(connection: asyncpg.Connection, name: str, parameters: str = "") -> Any:
    """Return the plan of a prepared statement: the one it keeps, if the settings are ours."""
    text = all_queries().text(name)
    if not parameters:
        types = (await connection.prepare(text)).get_parameters()
        parameters = ", ".join(["null"] * len(types))
    await connection.execute(f"prepare planned as {text}")
    found = await connection.fetchval(f"explain (format json) execute planned ({parameters})")
    await connection.execute("deallocate planned")
    return json.loads(found)[0]["Plan"]


def reads(node: dict[str, Any]) -> Iterator[str]:
    """Yield how a plan finds rows: by index and columns, or by reading all of a table."""
    if node["Node Type"].startswith(("Index", "Bitmap Index")):
        columns = " ".join(re.findall(r"\((\w+) [<=>]", node.get("Index Cond", "")))
        index = re.sub("^history_.*_pkey", "history_pkey", node["Index Name"])
        yield f"{index}: {columns}"
    elif node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan"):
        yield f"{node['Relation Name']}: all"
    for child in node.get("Plans", ()):
        yield from reads(child)


async def test_statements_fit_the_schema(connection: asyncpg.Connection) -> None:
    refused = {}
    for name in STATEMENTS:
        try:
            await connection.prepare(all_queries().text(name))
        except asyncpg.PostgresError as error:
            refused[name] = str(error)
    assert refused == {}


@pytest.mark.parametrize("rows", [0, 1, 50])
async def test_hot_statements_go_by_index(connection: asyncpg.Connection, rows: int) -> None:
    await connection.execute(FILL.replace("$1", str(rows)))
    await connection.execute(FILL_ACCOUNTS.replace("$1", str(rows)))
    assert await hot_plans(connection) == HOT


async def test_hot_statements_go_by_index_among_a_million_rows(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(MAKE_UNLOGGED)
    tables = ("executions", "accounts")
    made = [text for table in tables for text in await drop_indexes(connection, table)]
    await connection.execute(FILL_MANY.replace("$1", str(MANY)))
    await connection.execute(FILL_ACCOUNTS.replace("$1", str(MANY)))
    await connection.execute("set maintenance_work_mem = '256MB'")
    for text in made:
        await connection.execute(text)
    assert await hot_plans(connection) == HOT


async def hot_plans(connection: asyncpg.Connection) -> dict[str, set[str]]:
    """Return what each hot statement reads its rows by, once the tables are analysed."""
    for table in ("executions", "accounts", "verified_addresses", "history"):
        await connection.execute(f"vacuum analyze {table}")
    await connection.execute(all_queries().text("begin_pooled"))
    history = f"7, '{new_key().id}'"
    page = f"{history}, 5, 10"
    parameters = {
        "read_history": history,
        "page_history": page,
        "page_history_backwards": page,
    }
    return {
        name: set(reads(await plan(connection, name, parameters.get(name, "")))) for name in HOT
    }


async def test_full_queue_is_claimed_by_index_without_any_settings(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(FILL.replace("$1", "100000"))
    await connection.execute("analyze executions")
    used = await plan(connection, "claim_due", f"100, '{ALICE}', '-infinity'")
    assert set(reads(used)) == HOT["claim_due"]


async def test_connection_and_pooled_transaction_have_the_same_settings() -> None:
    def settings(name: str) -> dict[str, str]:
        return dict(re.findall(r"set (?:local )?(\w+) = (\S+);", all_queries().text(name)))

    assert settings("settle") == settings("begin_pooled")
    assert settings("settle")["lock_timeout"] == f"'{LOCK_PATIENCE_MS}ms'"


async def test_a_start_with_its_account_is_a_start_as_any_other() -> None:
    def inserts(name: str) -> list[str]:
        return re.split(r",\n(?=\w+ as )|\nselect\n", all_queries().text(name))

    alone, together = inserts("insert_executions"), inserts("insert_account.start")
    assert len(alone) == 3
    assert together == [*alone[:2], together[2], alone[2]]


async def test_settings_of_a_pooled_transaction_end_with_it(fresh_database: str) -> None:
    database = Database(fresh_database, pool_size=1, pooler="transaction")
    await database.open()
    async with database.lend() as connection:
        before = await connection.fetchval("show enable_seqscan")
        await connection.execute(all_queries().text("begin_pooled"))
        within = await connection.fetchval("show enable_seqscan")
        await connection.execute("commit")
        after = await connection.fetchval("show enable_seqscan")
    await database.close()
    assert (before, within, after) == ("on", "off", "on")


async def test_everything_in_the_schema_says_why_it_is_there(
    connection: asyncpg.Connection,
) -> None:
    rows = await connection.fetch("""
        select c.relname
        from pg_class c
        where c.relnamespace = 'public'::regnamespace
        and (c.relkind in ('r', 'p') or c.relkind = 'i' and not exists (
            select from pg_constraint where conindid = c.oid
        ))
        and c.relname !~ '^history_[0-9]{8}'
        and c.relname !~ '^history_default_'
        and obj_description(c.oid) is null
    """)
    assert [row["relname"] for row in rows] == []
