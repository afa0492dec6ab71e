"""A Distributed Map over ten thousand items, each a child execution that passes its item on."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

from benchmarks.circumstances import circumstances, tell
from benchmarks.database import BenchDatabase
from benchmarks.inproc import InprocTarget, open_inproc
from benchmarks.meter import Meter
from benchmarks.options import Mail, Options
from service.asl import compile_definition
from service.engine.ids import key_of

ITEMS: Final = 10_000
ROUNDS: Final = 3
WARM_UP_ITEMS: Final = 500
POLL_SECONDS: Final = 0.005
LOOK_SECONDS_MAX: Final = 120.0

Children = Literal["STANDARD", "EXPRESS"]
NAMES: Final[dict[str, Children]] = {"map": "STANDARD", "map_express": "EXPRESS"}


async def map_lines(
    options: Options, server_url: str, _mail: Mail
) -> AsyncIterator[dict[str, object]]:
    """Yield a line for each kind of child. Raises RuntimeError for a run that does not succeed."""
    items = options.scaled(ITEMS)
    for name, children in NAMES.items():
        async with BenchDatabase(server_url) as database:
            with tempfile.TemporaryDirectory() as folder:
                async with open_inproc(options, "none", database, Path(folder)) as (target, pids):
                    await _publish(target, children)
                    await _run(target, database, WARM_UP_ITEMS)
                    tell(f"{name}: {ROUNDS} runs of {items} items")
                    meter = Meter(database, pids)
                    await meter.begin()
                    seconds = [await _run(target, database, items) for _ in range(ROUNDS)]
                    await meter.end()
            yield {
                "name": name,
                "scale": options.scale,
                "items": items,
                "items_per_s": round(items / sorted(seconds)[ROUNDS // 2], 1),
                "items_per_s_rounds": [round(items / each, 1) for each in seconds],
                **meter.figures(items * ROUNDS),  # an item is a workflow here
                **circumstances(),
                "postgres": await database.version(),
            }


async def _publish(target: InprocTarget, children: Children) -> None:
    each = {
        "Type": "Map",
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": children},
            "StartAt": "Same",
            "States": {"Same": {"Type": "Pass", "End": True}},
        },
        "End": True,
    }
    machine = compile_definition(json.dumps({"StartAt": "Each", "States": {"Each": each}}))
    await target.engine.definitions.publish_file("each", "each.asl.json", machine, edited=True)


async def _run(target: InprocTarget, database: BenchDatabase, items: int) -> float:
    """Return the seconds from the request to the end of the execution, as the database has it."""
    id = target.engine.new_id(0)
    began = time.perf_counter()
    await target.engine.start("each", str(id), list(range(items)), key=key_of(id))
    while not await database.has_ended(id):
        await asyncio.sleep(POLL_SECONDS)
        if time.perf_counter() - began > LOOK_SECONDS_MAX:
            raise RuntimeError(f"{items} items did not end within {LOOK_SECONDS_MAX:g} s")
    seconds = time.perf_counter() - began
    status, output = await database.result(id)
    if status != "SUCCEEDED" or json.loads(output) != list(range(items)):
        raise RuntimeError(f"{items} items: {status}")
    return seconds
