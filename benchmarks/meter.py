"""What a run costs in CPU, transactions and WAL, and how much else the machine was doing."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from benchmarks.database import BenchDatabase

LOOPS: Final = 10_000
WATCH_SECONDS: Final = 0.5
"""How often the speed of a core is looked at; each look takes a millisecond or two."""

PROBE_SECONDS: Final = 0.4
PROBE_BYTES: Final = 8192
PROBE_BLOCKS: Final = 16
_SYNC: Final = getattr(os, "fdatasync", os.fsync)  # PostgreSQL's choice too, where there is one


@dataclass(frozen=True, slots=True)
class Reading:
    """The gauges at one moment. CPU in seconds since each process began."""

    moment: float
    service: float
    load: float
    postgres: float
    machine: float
    steal: float
    xid: int
    wal: int


class Meter:
    """Reads the gauges before and after. Without `service_pids` the service is this process."""

    def __init__(self, database: BenchDatabase, service_pids: Sequence[int] = ()) -> None:
        self._database = database
        self._service_pids = service_pids
        self._server: tuple[Path, int] | None = None
        self._fsyncs: list[int | None] = []
        self._loops: list[int] = []

    async def begin(self) -> None:
        """Take the first reading, after a checkpoint and the probe of the disk."""
        self._server = await self._database.local_server()
        await self._database.checkpoint()
        self._fsyncs.append(self._probe())
        self._before = await self._read()
        self._watcher = asyncio.create_task(self._watch())

    async def end(self) -> None:
        """Take the last reading, before any connection is closed."""
        self._watcher.cancel()
        self._after = await self._read()
        self._fsyncs.append(self._probe())

    async def _read(self) -> Reading:
        own = cpu_seconds(os.getpid())
        service = sum(map(cpu_seconds, self._service_pids))
        machine = psutil.cpu_times()
        xid, wal = await self._database.usage()
        return Reading(
            moment=time.perf_counter(),
            service=service if self._service_pids else own,
            load=own if self._service_pids else 0.0,
            postgres=0.0 if self._server is None else _family_cpu_seconds(self._server[1]),
            machine=machine.user + machine.nice + machine.system,
            steal=getattr(machine, "steal", 0.0),
            xid=xid,
            wal=wal,
        )

    async def _watch(self) -> None:
        """See how fast a core is while the load runs. Neighbours slow it down even while we have
        it, by half and more: the CPU figures of two runs compare only as far as this one does.
        """
        while True:
            self._loops.append(loops_per_cpu_ms())
            await asyncio.sleep(WATCH_SECONDS)

    def _probe(self) -> int | None:
        return None if self._server is None else _fsyncs_per_s(self._server[0])

    @property
    def wal_at_begin(self) -> int:
        """Return where the log of the database stood at the first reading, in bytes."""
        return self._before.wal

    def figures(self, workflows: int) -> dict[str, object]:
        """Return what one workflow cost, and how busy the machine was besides.

        Of a server elsewhere the CPU is not known.
        """
        a, b = self._before, self._after
        service, postgres = b.service - a.service, b.postgres - a.postgres
        is_local = self._server is not None
        both = 1000 * (service + postgres) / workflows
        return {
            "cpu_ms_per_workflow": _or_none(both, is_local, 3),
            "cpu_service_ms_per_workflow": round(1000 * service / workflows, 3),
            "cpu_postgres_ms_per_workflow": _or_none(1000 * postgres / workflows, is_local, 3),
            "write_transactions_per_workflow": round((b.xid - a.xid) / workflows, 3),
            "wal_bytes_per_workflow": round((b.wal - a.wal) / workflows),
            **self.noise(),
        }

    def noise(self) -> dict[str, object]:
        """Return who had the cores, how fast they were, and how fast the disk was.

        Of a server elsewhere neither its share of the cores is known nor that of others.
        """
        a, b = self._before, self._after
        wall = b.moment - a.moment
        service, load, postgres = b.service - a.service, b.load - a.load, b.postgres - a.postgres
        is_local = self._server is not None
        other = b.machine - a.machine - service - load - postgres
        return {
            "cores_service": round(service / wall, 2),
            "cores_postgres": _or_none(postgres / wall, is_local, 2),
            "cores_load": round(load / wall, 2),
            "cores_other": _or_none(max(0.0, other) / wall, is_local, 2),
            "cores_stolen": round((b.steal - a.steal) / wall, 2),
            "fsync_per_s": self._fsyncs,
            "loops_per_cpu_ms": round(statistics.median(self._loops)),
        }


def _or_none(value: float, is_known: bool, digits: int) -> float | None:
    return round(value, digits) if is_known else None


def loops_per_cpu_ms() -> int:
    """Return how far this interpreter counts in a millisecond of CPU."""
    began = time.process_time()
    for _ in range(LOOPS):
        pass
    return round(LOOPS / (time.process_time() - began) / 1000)


def _fsyncs_per_s(folder: Path) -> int:
    """Return how often a second the disk of a folder takes 8 kB for good."""
    handle, path = tempfile.mkstemp(dir=folder)
    try:
        block = os.urandom(PROBE_BYTES)
        os.pwrite(handle, block * PROBE_BLOCKS, 0)
        os.fsync(handle)
        times, began = 0, time.perf_counter()
        while time.perf_counter() - began < PROBE_SECONDS:
            os.pwrite(handle, block, PROBE_BYTES * (times % PROBE_BLOCKS))
            _SYNC(handle)
            times += 1
        return round(times / (time.perf_counter() - began))
    finally:
        os.close(handle)
        os.unlink(path)


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _family_cpu_seconds(pid: int) -> float:
    """Return the CPU of a process and of all its children, those that have ended included."""
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    # What the system adds up of ended children; macOS does not.
    total = float(times.user + times.system)
    total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    for child in parent.children():
        try:
            total += cpu_seconds(child.pid)
        except psutil.NoSuchProcess:  # Its time is with the parent's by now.
            continue
    return total
