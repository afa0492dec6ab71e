"""Rows by the million: copies that the database makes of one signup that the service has written.

What has to differ differs: ids and buckets, names, addresses, and the moments of due times. All
else is as the service leaves it, so that sizes, plans and a wake-up are those of real rows.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID

import asyncpg

FILL_SETTINGS: Final = ("fsync = off", "full_page_writes = off", "synchronous_commit = off")
"""Of the server while it is filled; what is measured afterwards has them on again."""

ROWS_AT_ONCE: Final = 500_000
FILL_SECONDS_MAX: Final = 3_600.0
"""Of one statement."""

# A UUIDv7 of a millisecond, with the number of the copy in it and its bucket at the end.
_ID: Final = """(
    lpad(to_hex((extract(epoch from $2::timestamptz) * 1000)::bigint + n / 10), 12, '0')
    || '7000' || '80' || lpad(to_hex(n), 12, '0') || lpad(to_hex(n % 256), 2, '0')
)::uuid"""
_NEW: Final = "c.id::text"
_TEXT: Final = f"replace(convert_from(t.checkpoint, 'UTF8'), $1::text, {_NEW})"
_DUE: Final = "'\"W\":' || (extract(epoch from c.due_at) * 1000000)::bigint"
_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "executions": {
        "bucket": "c.bucket",
        "id": "c.id",
        "started_at": "c.at",
        "name": _NEW,
        "input": f"replace(t.input, $1::text, {_NEW})",
        "output": f"replace(t.output, $1::text, {_NEW})",
        "due_at": "c.due_at",
        "stopped_at": "t.stopped_at + (c.at - t.started_at)",
        "checkpoint": f"convert_to(regexp_replace({_TEXT}, '\"W\":\\d+', {_DUE}), 'UTF8')",
    },
    "accounts": {
        "bucket": "c.bucket",
        "id": "c.id",
        "created_at": "c.at",
        "identity_key": "replace(t.identity_key, '@', '.' || c.n || '@')",
        "address": "replace(t.address, '@', '.' || c.n || '@')",
        "decided_at": "t.decided_at + (c.at - t.created_at)",
    },
    "verified_addresses": {
        "bucket": "c.bucket",
        "account_id": "c.id",
        "identity_key": "replace(t.identity_key, '@', '.' || c.n || '@')",
        "verified_at": "c.at",
    },
    "history": {"bucket": "c.bucket", "execution_id": "c.id"},
}
_KEYS: Final = {
    "executions": "id",
    "accounts": "id",
    "verified_addresses": "account_id",
    "history": "execution_id",
}


async def copy_signup(
    connection: Any,
    template: UUID,
    numbers: range,
    *,
    began: str,
    due_at: str = "null::timestamptz",
    tables: Sequence[str] = tuple(_KEYS),
) -> None:
    """Add a copy of a signup for each number; no two calls may have a number in common.

    `began` and `due_at` are SQL for moments, of the number `n`. The ids are in the order of numbers
    and end before that of the template, so that what comes later goes to the end of each index.
    """
    base = await connection.fetchval(
        "select started_at - make_interval(secs => $2) from executions"
        " where bucket = get_byte(uuid_send($1), 15) and id = $1",
        template,
        numbers.stop / 10_000 + 1,
    )
    for table in tables:
        for first in range(numbers.start, numbers.stop, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, numbers.stop) - 1
            text = await _statement(connection, table, began, due_at)
            await connection.execute(
                text, str(template), base, template, first, last, timeout=FILL_SECONDS_MAX
            )


async def _statement(connection: Any, table: str, began: str, due_at: str) -> str:
    names = await connection.fetch(
        "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0"
        " and not attisdropped and attgenerated = '' order by attnum",
        table,
    )
    columns = [row["attname"] for row in names]
    values = [_COLUMNS[table].get(name, f"t.{name}") for name in columns]
    # Most have one row of it: not all of a table without its index need be read to find that.
    limit = "" if table == "history" else "limit 1"
    return f"""
        insert into {table} ({", ".join(columns)})
        select {", ".join(values)}
        from (select * from {table} where {_KEYS[table]} = $3 {limit}) as t
        cross join lateral (
            select n, {_ID} as id, (n % 256)::smallint as bucket, {began} as at, {due_at} as due_at
            from generate_series($4::bigint, $5::bigint) as n
        ) as c
        where $1::text is not null and $2::timestamptz is not null
    """  # noqa: S608 - names from the catalogue and from above


@asynccontextmanager
async def filling(connection: Any, *tables: str) -> AsyncIterator[None]:
    """Let tables be filled fast: no index on them and nothing safe on the disk until the end.

    The indexes are made again in their old order, as equal costs go by it. All is on the disk then,
    as far as this role may ask for that.
    """
    made = [text for table in tables for text in await drop_indexes(connection, table)]
    with suppress(asyncpg.InsufficientPrivilegeError):
        for setting in FILL_SETTINGS:
            await connection.execute(f"alter system set {setting}")
        await connection.execute("select pg_reload_conf()")
    await connection.execute("set maintenance_work_mem = '512MB'")
    yield
    for text in made:
        await connection.execute(text, timeout=FILL_SECONDS_MAX)
    with suppress(asyncpg.InsufficientPrivilegeError):
        for setting in FILL_SETTINGS:
            await connection.execute(f"alter system reset {setting.split()[0]}")
        await connection.execute("select pg_reload_conf()")
        await connection.execute("checkpoint", timeout=FILL_SECONDS_MAX)
    os.sync()  # what was written while fsync was off


async def drop_indexes(connection: Any, table: str) -> list[str]:
    """Drop a table's keys and indexes; return the statements that make them again, in order."""
    rows = await connection.fetch(
        """
        select
            i.indexrelid::regclass::text as name,
            k.conname,
            coalesce(
                'alter table ' || $1::text || ' add constraint ' || quote_ident(k.conname)
                || ' ' || pg_get_constraintdef(k.oid),
                pg_get_indexdef(i.indexrelid)
            ) as text
        from pg_index as i
        left join pg_constraint as k on k.conindid = i.indexrelid and k.contype in ('p', 'u')
        where i.indrelid = $1::text::regclass
        order by i.indexrelid
        """,
        table,
    )
    for row in rows:
        if row["conname"] is None:
            await connection.execute(f"drop index {row['name']}")
        else:
            await connection.execute(f"alter table {table} drop constraint {row['conname']}")
    return [row["text"] for row in rows]
