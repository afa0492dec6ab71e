"""What a workflow writes to the log of the database, a checkpoint between its start and wake-up.

After a checkpoint the first change of a page logs the whole page, and between a signup and its end
thirty minutes later a server makes several; without one in between, half of the cost is not seen.
So: all begin, half of them verify, a checkpoint, and the other half wake up.

Autovacuum, which comes once a minute or not, is kept out and a vacuum at the end told apart.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.circumstances import tell
from benchmarks.database import BenchDatabase
from benchmarks.inproc import open_inproc
from benchmarks.load import Load
from benchmarks.meter import Meter
from benchmarks.options import Options
from benchmarks.run import report_lost, told

WORKFLOWS: Final = 20_000
"""What a service of 70 signups a second begins in the five minutes between two checkpoints."""

SIGNUPS_PER_SECOND_MIN: Final = 500
"""The slowest machine that still has them all begun before the first of them wakes up."""

VACUUM_SECONDS_MAX: Final = 300.0


async def run_wal(options: Options, server_url: str) -> dict[str, object]:
    """Return the line. Raises RuntimeError if a signup woke up before the checkpoint."""
    workflows = 2 * options.scaled(WORKFLOWS // 2)
    options = replace(options, wait_seconds=max(2.0, workflows / SIGNUPS_PER_SECOND_MIN))
    async with BenchDatabase(server_url) as database:
        with tempfile.TemporaryDirectory() as folder:
            async with open_inproc(options, "none", database, Path(folder)) as (target, pids):
                load = Load(target, options)
                meter = Meter(database, pids)
                tell(f"wal: {workflows} signups, which wait for {options.wait_seconds:g} s")
                await database.keep_autovacuum_out()
                await meter.begin()
                ended = await load.count()
                await load.visits(workflows)
                _, wal_begun = await database.usage()
                await database.checkpoint()
                if await load.count() - ended > workflows // 2:
                    raise RuntimeError("a signup woke up before all had begun: try a lower --scale")
                await load.drain()
                await meter.end()
                _, wal_ended = await database.usage()
                await database.connection.execute("vacuum", timeout=VACUUM_SECONDS_MAX)
                _, wal_vacuumed = await database.usage()
        return {
            "name": "wal",
            "scale": options.scale,
            "workflows": workflows,
            **meter.figures(workflows),
            "wal_bytes_before_checkpoint": round((wal_begun - meter.wal_at_begin) / workflows),
            "wal_bytes_of_vacuum": round((wal_vacuumed - wal_ended) / workflows),
            "lost": report_lost("wal", load.ledger, await database.outcomes()),
            **told(options),
            "postgres": await database.version(),
        }
