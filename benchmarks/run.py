"""One run: a fresh database, the load, and the line of figures that comes of it."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

from benchmarks.counters import BATCH_ROWS, BATCH_SECONDS, BATCHES, MAILS, Counters, rate
from benchmarks.database import BenchDatabase
from benchmarks.http import open_http
from benchmarks.inproc import open_inproc
from benchmarks.load import OPEN_LOOP_PER_SECOND, Calm, Ledger, Load, Saturation, Target, percentile
from benchmarks.meter import Meter
from benchmarks.options import Mail, Options
from service.asl import interpreter

Opened: TypeAlias = AbstractAsyncContextManager[tuple[Target, int | None]]
Opener: TypeAlias = Callable[[Options, Mail, BenchDatabase, Path], Opened]

BENCHMARKS: Final[Mapping[str, tuple[Opener, Mail]]] = {
    "inproc": (open_inproc, "none"),
    "http": (open_http, "sink"),
}
"""How each one opens its target, and where its mails go unless told otherwise."""

LOST_SHOWN_MAX: Final = 10


async def run(
    name: str, options: Options, server_url: str, mail: Mail | None
) -> tuple[dict[str, object], int]:
    """Run one of BENCHMARKS; return its figures and how many acknowledged signups were lost.

    Raises RuntimeError when the service answers anything but what it should.
    """
    opener, usual_mail = BENCHMARKS[name]
    mail = mail or usual_mail
    async with BenchDatabase(server_url) as database:
        with tempfile.TemporaryDirectory() as folder:
            log_path = Path(folder) / "service.log"
            async with opener(options, mail, database, log_path) as (target, service_pid):
                load = Load(target, options)
                _tell(f"{name}: warming up")
                await load.warm_up()
                _tell(f"{name}: {OPEN_LOOP_PER_SECOND} signups a second")
                calm = await load.open_loop()
                _tell(f"{name}: {options.clients} clients for {options.seconds:g} s")
                meter = Meter(database, service_pid)
                before = await target.counters()
                await meter.begin()
                found = await load.closed_loop()
                await meter.end()
                after = await target.counters()
        lost = _lost(load.ledger, await database.outcomes())
        _tell(f"{name}: LOST={len(lost)} of {len(load.ledger.acknowledged)} acknowledged")
        for account_id in lost[:LOST_SHOWN_MAX]:
            _tell(f"{name}: lost {account_id}")
        line: dict[str, object] = {
            "name": name,
            "mail": mail,
            **_speed(found, options),
            "open_loop": _calm(calm),
            **meter.figures(len(found.answers)),
            **_batches(before, after, len(found.answers)),
            "lost": len(lost),
            **_circumstances(options),
            "postgres": await database.version(),
        }
    return line, len(lost)


def _lost(ledger: Ledger, outcomes: Mapping[UUID, tuple[str, str]]) -> Sequence[UUID]:
    """Return the acknowledged signups that did not end as they should have.

    That is verified for whom the service answered so, expired for all others, and the execution
    succeeded for both.
    """
    return [
        account_id
        for account_id in ledger.acknowledged
        if outcomes.get(account_id)
        != ("verified" if account_id in ledger.verified else "expired", "SUCCEEDED")
    ]


def _speed(found: Saturation, options: Options) -> dict[str, object]:
    begin, end = options.window
    return {
        "workflows": len(found.answers),
        "workflows_per_s": round(rate(found.ended, begin, end), 1),
        "starts_per_s": round(rate(found.begun, begin, end), 1),
        "ack_ms": _milliseconds(found.answers),
    }


def _calm(calm: Calm) -> dict[str, object]:
    return {
        "signups_per_s": OPEN_LOOP_PER_SECOND,
        "ack_ms": _milliseconds(calm.answers),
        "start_to_done_minus_wait_ms": _milliseconds(calm.overheads),
    }


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": round(1000 * percentile(seconds, share / 100), 2) for share in (50, 99)}


def _batches(before: Counters, after: Counters, workflows: int) -> dict[str, object]:
    batches = after[BATCHES] - before[BATCHES]
    return {
        "rows_per_batch": round((after[BATCH_ROWS] - before[BATCH_ROWS]) / batches, 1),
        "batch_ms": round(1000 * (after[BATCH_SECONDS] - before[BATCH_SECONDS]) / batches, 2),
        "mails_per_workflow": round((after[MAILS] - before[MAILS]) / workflows, 2),
    }


def _circumstances(options: Options) -> dict[str, object]:
    return {
        "seconds": options.seconds,
        "wait_s": options.wait_seconds,
        "clients": options.clients,
        "in_flight_max": options.in_flight_max,
        "commit": commit(),
        "python": platform.python_version(),
        "core": core(),
    }


def core() -> str:
    """Return how the interpreter of the language is run: `compiled`, or `interpreted` in turn."""
    return "interpreted" if str(interpreter.__file__).endswith(".py") else "compiled"


def commit() -> str | None:
    """Return the checkout's commit, with a plus when files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    described = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
