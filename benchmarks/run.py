"""One run: a fresh database, the load, and the line of figures that comes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID

from benchmarks.circumstances import circumstances, tell
from benchmarks.counters import BATCH_ROWS, BATCH_SECONDS, BATCHES, MAILS, Counters, rate
from benchmarks.database import BenchDatabase
from benchmarks.ends import told_of_ends
from benchmarks.load import OPEN_LOOP_PER_SECOND, Calm, Ledger, Load, Saturation, Target, percentile
from benchmarks.meter import Meter
from benchmarks.options import Mail, Options

Opened: TypeAlias = AbstractAsyncContextManager[tuple[Target, list[int]]]
Opener: TypeAlias = Callable[[Options, Mail, BenchDatabase, Path], Opened]
"""Opens the service; yields it and the pids of its processes, none when it is in this one."""

LOST_SHOWN_MAX: Final = 10


async def run(
    name: str, opener: Opener, options: Options, server_url: str, mail: Mail
) -> dict[str, Any]:
    """Return the figures of whole workflows, `lost` being acknowledged signups that were lost.

    Raises RuntimeError when the service answers anything but what it should.
    """
    async with BenchDatabase(server_url) as database:
        with tempfile.TemporaryDirectory() as folder:
            async with opener(options, mail, database, Path(folder)) as (target, pids):
                load = Load(target, options)
                tell(f"{name}: warming up")
                await load.warm_up()
                await load.drain()
                tell(f"{name}: {OPEN_LOOP_PER_SECOND} signups a second")
                async with told_of_ends(database.url) as ends:
                    calm = await load.open_loop(ends)
                tell(f"{name}: {options.clients} clients for {options.seconds:g} s")
                meter = Meter(database, pids)
                before = await target.counters()
                await meter.begin()
                found = await load.closed_loop()
                await load.drain()
                await meter.end()
                after = await target.counters()
        return {
            "name": name,
            "processes": options.processes,
            "mail": mail,
            **_speed(found, options),
            "open_loop": _calm(calm),
            **meter.figures(len(found.answers)),
            **_batches(before, after, len(found.answers)),
            "lost": report_lost(name, load.ledger, await database.outcomes()),
            **told(options),
            "postgres": await database.version(),
        }


def report_lost(name: str, ledger: Ledger, outcomes: Mapping[UUID, tuple[str, str]]) -> int:
    """Return how many acknowledged signups did not end as they should have, and name some.

    That is verified for whom the service answered so, expired for all others, and the execution
    succeeded for both.
    """
    lost = [
        account_id
        for account_id in ledger.acknowledged
        if outcomes.get(account_id)
        != ("verified" if account_id in ledger.verified else "expired", "SUCCEEDED")
    ]
    tell(f"{name}: LOST={len(lost)} of {len(ledger.acknowledged)} acknowledged")
    for account_id in lost[:LOST_SHOWN_MAX]:
        tell(f"{name}: lost {account_id}")
    return len(lost)


def _speed(found: Saturation, options: Options) -> dict[str, object]:
    begin, end = options.window
    return {
        "workflows": len(found.answers),
        "workflows_per_s": round(rate(found.ended, begin, end), 1),
        "starts_per_s": round(rate(found.begun, begin, end), 1),
        "ack_ms": milliseconds(found.answers),
    }


def _calm(calm: Calm) -> dict[str, object]:
    return {
        "signups_per_s": OPEN_LOOP_PER_SECOND,
        "ack_ms": milliseconds(calm.answers),
        "start_to_done_minus_wait_ms": milliseconds(calm.overheads),
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds."""
    return {f"p{share}": round(1000 * percentile(seconds, share / 100), 2) for share in (50, 99)}


def _batches(before: Counters, after: Counters, workflows: int) -> dict[str, object]:
    batches = after[BATCHES] - before[BATCHES]
    return {
        "rows_per_batch": round((after[BATCH_ROWS] - before[BATCH_ROWS]) / batches, 1),
        "batch_ms": round(1000 * (after[BATCH_SECONDS] - before[BATCH_SECONDS]) / batches, 2),
        "mails_per_workflow": round((after[MAILS] - before[MAILS]) / workflows, 2),
    }


def told(options: Options) -> dict[str, object]:
    """Return what the load was told to be, and the circumstances."""
    return {
        "seconds": options.seconds,
        "wait_s": options.wait_seconds,
        "clients": options.clients,
        "in_flight_max": options.in_flight_max,
        **circumstances(),
    }
