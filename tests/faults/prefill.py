"""Any number of waiting signups, written straight into the tables as the engine leaves them.

One signup really takes place. When its execution waits, its rows are read, and each of the others
is a copy of them: with an id, an address and so a bucket of its own wherever they occur, and with
all its moments shifted by the same amount, so that its wait ends when it shall.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from service.accounts.address import identity_bucket, parse_address
from service.asl import About
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from service.asl.execution import OpenWait
from service.documents import dumps_own, loads
from service.engine.history import compress, text_of, unpack
from service.engine.ids import new_id

STEPS: Final = 600
"""Different moments in the time over which the waits end: texts are made once for each of them."""
COPIED_AT_ONCE: Final = 5_000

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Rows:
    """The rows of one signup at rest, as its database gives them."""

    account: Mapping[str, Any]
    execution: Mapping[str, Any]
    history: list[Mapping[str, Any]]


@dataclass(frozen=True)
class Mould:
    """What all copies of one shift share: their moments, and texts with the original's id."""

    started_at: datetime
    created_at: datetime
    due_at: datetime
    checkpoint: bytes
    history: list[bytes]  # the text of each row


async def read_rows(database: asyncpg.Connection, id: str) -> Rows:
    """Return the rows of a signup whose execution is at rest."""
    account = await database.fetchrow("select * from accounts where id = $1", id)
    execution = await database.fetchrow("select * from executions where id = $1", id)
    history = await database.fetch(
        "select * from history where execution_id = $1 order by first_event_id", id
    )
    return Rows(dict(account), dict(execution), [dict(row) for row in history])


async def fill(
    database: asyncpg.Connection, original: Rows, count: int, first_due: datetime, spread: timedelta
) -> None:
    """Write so many copies, whose waits end evenly over a time from `first_due` on."""
    earliest = first_due - original.execution["due_at"]
    moulds = [_mould(original, earliest + spread * step / STEPS) for step in range(STEPS)]
    for begin in range(0, count, COPIED_AT_ONCE):
        copies = list(_copies(original, moulds, range(begin, min(count, begin + COPIED_AT_ONCE))))
        async with database.transaction():
            for table, columns, place in (
                ("accounts", original.account, 0),
                ("executions", original.execution, 1),
            ):
                await database.copy_records_to_table(
                    table, columns=list(columns), records=[copy[place] for copy in copies]
                )
            await database.copy_records_to_table(
                "history",
                columns=list(original.history[0]),
                records=[row for copy in copies for row in copy[2]],
            )
    for table in ("accounts", "executions", "history"):
        await database.execute(f"analyze {table}")


def _mould(original: Rows, shift: timedelta) -> Mould:
    row = original.execution
    # Nothing but the moments of a checkpoint is touched, and they do not depend on what it is of.
    about = About("", row["name"], row["started_at"] + shift, loads(row["input"]), "", "", "")
    execution = from_checkpoint(loads(row["checkpoint"]), about)
    for frame in execution.frames.values():
        frame.entered_at += shift
        assert isinstance(frame.open, OpenWait), frame
        frame.open = OpenWait(frame.open.due_at + shift)
    return Mould(
        row["started_at"] + shift,
        original.account["created_at"] + shift,
        row["due_at"] + shift,
        dumps_own(to_checkpoint(execution)),
        [_shifted(history["events"], shift) for history in original.history],
    )


def _shifted(packed: bytes, shift: timedelta) -> bytes:
    """Return the text of a row of history, its events all moved in time."""
    events = unpack(packed)
    return text_of([replace(event, timestamp=event.timestamp + shift) for event in events])


def _copies(
    original: Rows, moulds: list[Mould], numbers: range
) -> Iterator[tuple[Row, Row, list[Row]]]:
    """Yield the rows of copies, those of one table in the order of its original's columns."""
    original_id = str(original.execution["id"])
    was, input = original_id.encode(), original.execution["input"]
    for n in numbers:
        mould = moulds[n % STEPS]
        address = parse_address(f"waiting-{n}@example.org")
        bucket = identity_bucket(address.identity_key)
        id = new_id(mould.started_at, bucket)
        now = str(id).encode()
        account = {
            **original.account,
            "bucket": bucket,
            "id": id,
            "created_at": mould.created_at,
            "identity_key": address.identity_key,
            "address": address.canonical,
        }
        execution = {
            **original.execution,
            "bucket": bucket,
            "id": id,
            "started_at": mould.started_at,
            "name": str(id),
            "input": input.replace(original_id, str(id)),
            "due_at": mould.due_at,
            "checkpoint": mould.checkpoint.replace(was, now),
        }
        history = [
            # A million texts are changed, not read and written.
            (bucket, id, row["first_event_id"], compress(text.replace(was, now)))
            for row, text in zip(original.history, mould.history, strict=True)
        ]
        yield tuple(account.values()), tuple(execution.values()), history
