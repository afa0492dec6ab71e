"""R12: PostgreSQL's disk is full for a while, by turns the one of its data and the one of its WAL.

A full data disk makes statements fail (53100). A full WAL disk is worse: PostgreSQL panics when it
needs the next segment, recovers, and panics again, or ends; it is started again, as an init system
would, once there is room. The disks are file systems of their own in memory, which takes root
(`disk.py`).

What must hold: while the disk is full signups are answered with 503 in time; once it is freed they
are taken again without anybody's help; and the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from tests.e2e.visitors import Signup
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.disk import Disk, missing, small_disk
from tests.faults.postgres import Server, server_folder
from tests.faults.run import Outcome, Run, Stage, milliseconds
from tests.faults.steady import Steady

DATA_MEGABYTES: Final = 256
WAL_MEGABYTES: Final = 128
SETTINGS: Final = {"min_wal_size": "32MB", "max_wal_size": "48MB", "wal_keep_size": "0"}
WAL_MESSAGES_MAX: Final = 200
"""Of a megabyte each, more than there is: the next segment is needed soon."""
REFUSAL_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True)
class Size:
    """How much of it."""

    replicas: int
    rounds: int
    full_seconds: float
    pause_seconds: float
    visitors_per_second: float
    lease_seconds: float
    wait_seconds: float


@dataclass
class Disks:
    """A server and what it lies on."""

    server: Server
    data: Disk
    wal: Disk


async def play(stage: Stage, size: Size) -> Outcome:
    """Fill, be refused, free, be served again, and count."""
    refusals: list[float] = []
    restarts = 0
    async with (
        _server_on_small_disks() as disks,
        open_cluster(
            stage,
            replicas=size.replicas,
            wait_seconds=size.wait_seconds,
            database_url=disks.server.url,
            LEASE_SECONDS=str(size.lease_seconds),
        ) as cluster,
    ):
        steady = Steady(cluster, size.wait_seconds)
        async with steady.visited(size.visitors_per_second):
            for n in range(size.rounds):
                await asyncio.sleep(size.pause_seconds)
                began = time.monotonic()
                await _fill(disks, is_wal=n % 2 == 1)
                refusals.append(await _refusal_seconds(cluster, n))
                await asyncio.sleep(size.full_seconds)
                freed_at = time.monotonic()
                disks.data.free()
                disks.wal.free()
                restarts += await disks.server.revive()
                await steady.see_through(began, since=freed_at)
                stage.tell(f"full {n + 1} times, {len(cluster.ledger.acknowledged)} signups")
        complaints = []
        if max(refusals) >= REFUSAL_SECONDS_MAX:
            complaints.append(f"no 503 within {REFUSAL_SECONDS_MAX:g} s of a full disk")
        return await steady.outcome(
            complaints,
            refused_after_max_ms=milliseconds(max(refusals)),
            server_ended=restarts,
        )


@asynccontextmanager
async def _server_on_small_disks() -> AsyncIterator[Disks]:
    """Yield a server whose data and WAL are on a disk each."""
    with server_folder() as folder:
        for name in ("data", "wal"):
            (folder / name).mkdir(mode=0o711)
        with (
            small_disk(folder / "data", DATA_MEGABYTES) as data,
            small_disk(folder / "wal", WAL_MEGABYTES) as wal,
        ):
            server = Server(folder / "data" / "server", settings=SETTINGS)
            await server.start()
            await server.stop()
            await asyncio.to_thread(_move, server.cluster / "pg_wal", folder / "wal")
            async with server:
                yield Disks(server, data, wal)
                # What is full would keep it from ending in order.
                data.free()
                wal.free()


def _move(folder: Path, to: Path) -> None:
    """Move a folder into another and leave a link: `mv` keeps whose it is, `shutil` would not."""
    subprocess.run(["mv", str(folder), str(to)], check=True)
    folder.symlink_to(to / folder.name)


async def _fill(disks: Disks, *, is_wal: bool) -> None:
    if not is_wal:
        disks.data.fill()
        return
    disks.wal.fill()
    message = "select pg_logical_emit_message(true, 'fault', repeat('x', 1000000))"
    try:
        for _ in range(WAL_MESSAGES_MAX):
            await disks.server.ask(message)
    except (OSError, asyncpg.PostgresError):
        return  # it has panicked
    raise RuntimeError("PostgreSQL found room for its WAL on a full disk")


async def _refusal_seconds(cluster: Cluster, n: int) -> float:
    """Return how long it takes until a signup is refused with 503; the limit when none is."""
    began = time.monotonic()
    for probe in itertools.count():
        if time.monotonic() > began + REFUSAL_SECONDS_MAX:
            break
        email = f"probe-{n}-{probe}@example.org"
        replica = cluster.replicas[probe % len(cluster.replicas)]
        try:
            answer = await cluster.visitors.ask(f"{replica.public}/signup", {"email": email})
        except (aiohttp.ClientError, TimeoutError):
            continue
        if answer.status == 503:
            break
        if answer.status == 202:
            signup = Signup(email, answer.body["id"], answer.body["secret"])
            cluster.ledger.acknowledged[signup.id] = signup
    return time.monotonic() - began


_FULL: Final = Size(
    replicas=2,
    rounds=5,
    full_seconds=15.0,
    pause_seconds=10.0,
    visitors_per_second=20.0,
    lease_seconds=10.0,
    wait_seconds=20.0,
)
_SMALL: Final = Size(
    replicas=1,
    rounds=2,
    full_seconds=0.5,
    pause_seconds=0.5,
    visitors_per_second=15.0,
    lease_seconds=5.0,
    wait_seconds=5.0,
)

RUN: Final = Run("R12", "a full disk, which is freed again", _SMALL, _FULL, play, missing=missing)
