"""PostgreSQL under control: killed, stopped, restarted on its port, doubled by a standby, promoted.

The programs, and how root hands them to another user, are those of `service/demo/postgres.py`, with
what a production server has and a demo has not: a TCP port that stays the same, fsync on, and the
right to replicate. A start waits for the last process of the server before: what a killed
postmaster leaves behind still holds its shared memory.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, Self

import asyncpg

from service.demo.installation import cluster_dir, programs_dir, server_user
from service.demo.postgres import ENVIRONMENT, EmbeddedPostgres
from tests.e2e.process import until

HOST: Final = "127.0.0.1"
SETTINGS: Final = {
    "listen_addresses": HOST,
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "64MB",
    "wal_keep_size": "256MB",  # a standby that is being made misses nothing
    "max_connections": "60",
}
HBA: Final = f"""\
local all all trust
host all all {HOST}/32 trust
host replication all {HOST}/32 trust
"""
STANDBY: Final = "standby"
PROMOTION_SECONDS: Final = 60
CONNECT_SECONDS: Final = 10.0
PORTS: Final = range(20_000, 32_000)
SIGNALS: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server:
    """One server on the data of one folder; its port, and so its URL, outlive every restart."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Prepare only. The server's user must be able to enter `folder`."""
        self.port = free_port()
        self.folder = folder
        self.is_running = False
        folder.mkdir(mode=0o711)
        hba = folder / "pg_hba.conf"
        hba.write_text(HBA)
        own = {"port": str(self.port), "hba_file": str(hba)}
        self._server = EmbeddedPostgres(folder, settings={**SETTINGS, **own, **(settings or {})})

    @property
    def url(self) -> str:
        return url_of([self])

    @property
    def cluster(self) -> Path:
        """Return PostgreSQL's own data folder."""
        return cluster_dir(self.folder)

    async def start(self) -> None:
        """Start, recover if need be, and return when connections are accepted."""
        await self._server.start()
        self.is_running = True

    async def kill(self) -> None:
        """End the postmaster as a power cut would; return when its last backend is gone too."""
        await self._end(signal.SIGKILL)

    async def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """Shut down in order, or at once (the next start recovers). Harmless if not running."""
        if self.is_running:
            await self._end(SIGNALS[how])

    async def revive(self) -> bool:
        """Start a server that ended by itself, as its init system would; tell whether it had."""
        pid = self._postmaster()
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, 0)
                return False
        await self._server.stop()
        await self.start()
        return True

    async def _end(self, number: signal.Signals) -> None:
        self.is_running = False
        pid = self._postmaster()
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, number)
        await self._server.stop()

    def _postmaster(self) -> int | None:
        """Return the postmaster's pid, if it did not end by itself: of a full disk, for one."""
        with suppress(FileNotFoundError):
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) if lines else None
        return None

    async def ask(self, statement: str, *parameters: object) -> Any:
        """Return the first value of a statement, which has a connection of its own."""
        connection = await asyncpg.connect(self.url, timeout=CONNECT_SECONDS)
        try:
            return await connection.fetchval(statement, *parameters)
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop("immediate")


class Pair:
    """A primary and its synchronous standby, which change places at every failover.

    Only a primary whose standby streams waits for it: a new primary alone acknowledges by itself
    until its standby is rebuilt, as a failover manager would have it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._primary = self._standby = self._new_server()
        self._hosts = [self._primary]

    @property
    def primary(self) -> Server:
        return self._primary

    @property
    def standby(self) -> Server:
        return self._standby

    @property
    def url(self) -> str:
        """Return the URL that names both, of whom the one that takes writes is meant."""
        return url_of(self._hosts) + "&target_session_attrs=read-write"

    async def start(self) -> None:
        """Start both."""
        await self._primary.start()
        self._standby = self._new_server()
        self._hosts.append(self._standby)
        await self._attach()

    async def fail_over(self) -> None:
        """Kill the primary and promote the standby."""
        await self._primary.kill()
        self._primary, self._standby = self._standby, self._primary
        promoted = await self._primary.ask("select pg_promote(true, $1)", PROMOTION_SECONDS)
        assert promoted, "the standby was not promoted"

    async def rebuild(self) -> None:
        """Make the former primary, on its own port, the standby of the new one."""
        await asyncio.to_thread(shutil.rmtree, self._standby.cluster)
        await self._attach()

    async def stop(self) -> None:
        """Stop both. Harmless if not running."""
        for server in (self._standby, self._primary):
            await server.stop("immediate")

    async def _attach(self) -> None:
        """Copy the primary to the standby's folder, and return when commits wait for it."""
        await asyncio.to_thread(_copy_cluster, self._primary, self._standby)
        await self._standby.start()
        await self._primary.ask(f"alter system set synchronous_standby_names = '{STANDBY}'")
        await self._primary.ask("select pg_reload_conf()")
        await until(self._is_synchronous, "a synchronous standby")

    async def _is_synchronous(self) -> bool:
        state = "select sync_state from pg_stat_replication where state = 'streaming'"
        return bool(await self._primary.ask(state) == "sync")

    def _new_server(self) -> Server:
        self._made += 1
        return Server(self._folder / f"server-{self._made}")


def _copy_cluster(primary: Server, standby: Server) -> None:
    """Run pg_basebackup as the server's user; the copy knows whom to follow, and under what name.

    Its own commits, once it is promoted, must not wait for a standby that is not there yet.
    """
    user = server_user(primary.cluster)
    target = standby.folder / "cluster"
    target.mkdir(mode=0o700)
    if user is not None:
        os.chown(target, user.uid, user.gid)
    source = f"host={HOST} port={primary.port} user=postgres application_name={STANDBY}"
    run_program(
        [
            *(str(programs_dir(user) / "pg_basebackup"), "--pgdata", str(target)),
            *("--dbname", source, "--checkpoint=fast", "--write-recovery-conf", "--no-sync"),
        ],
        cluster=primary.cluster,
    )


def run_program(command: Sequence[str], *, cluster: Path) -> None:
    """Run a program of PostgreSQL's to its end, as whoever owns this cluster."""
    user = server_user(cluster)
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env=ENVIRONMENT,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        check=False,
    )
    assert result.returncode == 0, f"{command[0]}: {result.stderr}"


def url_of(servers: Sequence[Server]) -> str:
    """Return the URL of a database that is on whichever of these servers suits."""
    hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
    return f"postgresql://postgres@{hosts}/postgres?sslmode=disable"


def free_port() -> int:
    """Return a port on which nobody listens, not one of those that the system gives to clients.

    One of those would go to a client while the server is down, at worst to the very one that
    knocks at it, which is then connected to itself.
    """
    for port in random.SystemRandom().sample(PORTS, k=len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError("no port is free")


@contextmanager
def server_folder() -> Iterator[Path]:
    """Yield a folder that another user can enter: pytest's own and mkdtemp's are private."""
    folder = Path(tempfile.mkdtemp(prefix="countersign-faults-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def own_server(*, settings: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """Yield a server of the run's own, started."""
    with server_folder() as folder:
        async with Server(folder / "server", settings=settings) as server:
            yield server


@asynccontextmanager
async def own_pair() -> AsyncIterator[Pair]:
    """Yield a primary with its synchronous standby, started."""
    with server_folder() as folder:
        pair = Pair(folder)
        try:
            await pair.start()
            yield pair
        finally:
            await pair.stop()
