"""A PostgreSQL server of our own, from the programs in a wheel, for the demo and the tests.

The folder it is given holds everything: `cluster` (PostgreSQL's data), `postgres.log` (of the last
start), `run` (a link to the folder of its socket, for psql) and two locks, which the kernel drops
when their holders die:

- `owner.lock` is held by the process that started the server: a second one is refused, by its pid.
- `server.lock` is inherited by the supervisor and by every process of the server. After a kill -9
  of the owner the supervisor is still shutting the server down: whoever starts next waits for this
  lock, and having it may throw away a left-over `postmaster.pid`, which PostgreSQL itself cannot
  do safely (in a container the pid is soon somebody else's).

Clients come over a Unix socket in a private folder only, so that `trust` means this user and root.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self
from urllib.parse import quote

from service.demo import supervisor
from service.demo.installation import (
    RUN_DIR_PREFIX,
    EmbeddedPostgresError,
    SystemUser,
    cluster_dir,
    make_run_dir,
    programs_dir,
    server_user,
)

START_SECONDS: Final = 120.0
"""Crash recovery replays up to max_wal_size, on a slow disk."""
GRACE_SECONDS: Final = 10.0
"""What a fast shutdown gets before an immediate one, and that before SIGKILL."""
FORMER_SECONDS: Final = 4 * GRACE_SECONDS
"""What a former server gets to be gone, its supervisor's three attempts included."""
POLL_SECONDS: Final = 0.02
LOG_TAIL_BYTES: Final = 2000

ENVIRONMENT: Final = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
"""None of the caller's: PGDATA, PGPORT and a missing locale would all reach the server."""

INITDB_OPTIONS: Final = (
    "--username=postgres",
    "--encoding=UTF8",
    # PostgreSQL's own rules for letters: no library of the system changes the order of an index.
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)

SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and the details of errors hold visitors' addresses.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class EmbeddedPostgres:
    """A server on the data in one folder, made on first use, which dies with this process."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Prepare only. `settings` are PostgreSQL's own, added to SETTINGS or in their place."""
        self._data_dir = data_dir.absolute()
        self._settings = {**SETTINGS, **(settings or {})}
        self._owner_lock: IO[str] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._dsn: str | None = None

    @property
    def dsn(self) -> str:
        """Return the URL of the database `postgres` as its superuser; only once started."""
        assert self._dsn is not None, "the server is not started"
        return self._dsn

    async def start(self) -> str:
        """Start the server, wait until it accepts connections, and return the URL to connect to.

        Raises EmbeddedPostgresError, with the end of the server's log where that tells more, if the
        folder is in use by another process or the server does not come up.
        """
        await asyncio.to_thread(self._start)
        return self.dsn

    async def stop(self) -> None:
        """Shut the server down; return when its last process is gone. Harmless if not started."""
        await asyncio.to_thread(self._stop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    # What follows blocks, in a thread: a server started in one loop can be stopped in another.

    def _start(self) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:  # The server's user is another then, and has to pass.
                self._data_dir.chmod(self._data_dir.stat().st_mode | stat.S_IXOTH)
            self._owner_lock = self._take_owner_lock()
            self._start_server()
        except OSError as error:
            self._stop()
            raise EmbeddedPostgresError(
                f"cannot keep PostgreSQL's data in {self._data_dir}: {error}"
            ) from error
        except BaseException:
            self._stop()
            raise

    def _start_server(self) -> None:
        cluster = cluster_dir(self._data_dir)
        user = server_user(cluster)
        programs = programs_dir(user)
        with self._take_server_lock(cluster) as lock:
            if not cluster.exists():
                _make_cluster(programs / "initdb", cluster, user, lock)
            _check_owner(cluster)
            _forget_stale_pid_file(cluster)
            run_dir = self._new_run_dir(user)
            command = [str(programs / "postgres"), "-D", str(cluster), "-k", str(run_dir)]
            for name, value in self._settings.items():
                command += ["-c", f"{name}={value}"]
            self._supervisor = self._supervise(command, run_dir, user, lock)
        self._wait_until_ready(cluster, run_dir)
        self._dsn = f"postgresql://postgres@/postgres?host={quote(str(run_dir), safe='/')}"

    def _supervise(
        self, command: list[str], run_dir: Path, user: SystemUser | None, lock: IO[str]
    ) -> subprocess.Popen[bytes]:
        """Start the supervisor, which starts the server; `supervisor.py` says what it promises."""
        uid, gid = ("-", "-") if user is None else (str(user.uid), str(user.gid))
        arguments = [str(GRACE_SECONDS), uid, gid, str(run_dir), *command]
        with self._log_path.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own interpreter, and no shell reads it
                [sys.executable, "-I", "-S", supervisor.__file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env=ENVIRONMENT,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )

    def _wait_until_ready(self, cluster: Path, run_dir: Path) -> None:
        assert self._supervisor is not None
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(cluster, run_dir):
            if self._supervisor.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL ended while starting: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready after {START_SECONDS:.0f} s: {self._log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def _stop(self) -> None:
        self._dsn = None
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None
            # If somebody killed the supervisor, the server is still there; the lock would tell.
            self._take_server_lock(cluster_dir(self._data_dir)).close()
        if self._owner_lock is not None:
            self._forget_run_dir()
            self._owner_lock.close()
            self._owner_lock = None

    def _new_run_dir(self, user: SystemUser | None) -> Path:
        """Return a folder for the socket, to which `run` in the data folder leads."""
        self._forget_run_dir()
        run_dir = make_run_dir(user)
        self._run_link.symlink_to(run_dir)
        return run_dir

    def _forget_run_dir(self) -> None:
        """Remove the last run's folder, which its supervisor does unless it was killed."""
        if self._run_link.is_symlink():
            run_dir = self._run_link.readlink()
            if run_dir.name.startswith(RUN_DIR_PREFIX):
                shutil.rmtree(run_dir, ignore_errors=True)
            self._run_link.unlink()

    def _take_owner_lock(self) -> IO[str]:
        lock = (self._data_dir / "owner.lock").open("a+")
        if not _try_lock(lock):
            with lock:
                lock.seek(0)
                pid = lock.read(20).strip() or "unknown"
            raise EmbeddedPostgresError(
                f"{self._data_dir} is in use by another process (pid {pid}): stop that one first,"
                " or name another data folder"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock

    def _take_server_lock(self, cluster: Path) -> IO[str]:
        """Return the lock once no process of a former server is left."""
        lock = (self._data_dir / "server.lock").open("a")
        began = time.monotonic()
        is_told = False
        while not _try_lock(lock):
            waited = time.monotonic() - began
            if waited > FORMER_SECONDS:
                lock.close()
                raise EmbeddedPostgresError(
                    f"a former server of {self._data_dir} (pid {_server_pid(cluster)}) does not end"
                )
            if waited > GRACE_SECONDS / 2 and not is_told:
                # Its supervisor was killed too: nobody else is left to end it. The lock, still
                # held, proves that the pid is no stranger's.
                _shut_down(_server_pid(cluster))
                is_told = True
            time.sleep(POLL_SECONDS)
        return lock

    @property
    def _run_link(self) -> Path:
        return self._data_dir / "run"

    @property
    def _log_path(self) -> Path:
        return self._data_dir / "postgres.log"

    def _log_tail(self) -> str:
        text = self._log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{text or 'it said nothing'} ({self._log_path})"


def _make_cluster(initdb: Path, cluster: Path, user: SystemUser | None, lock: IO[str]) -> None:
    """Run initdb beside the final place and move the result there: a cluster is whole or absent."""
    draft = cluster.with_name("cluster.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if user is not None:
        os.chown(draft, user.uid, user.gid)
    result = subprocess.run(  # noqa: S603 - our own command, and no shell reads it
        [str(initdb), "-D", str(draft), *INITDB_OPTIONS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        env=ENVIRONMENT,
        pass_fds=[lock.fileno()],
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        check=False,
    )
    if result.returncode != 0:
        tail = result.stderr[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        raise EmbeddedPostgresError(f"cannot create PostgreSQL's data in {cluster}: {tail}")
    draft.rename(cluster)


def _check_owner(cluster: Path) -> None:
    owner = cluster.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise EmbeddedPostgresError(
            f"{cluster} belongs to uid {owner}, this process runs as uid {os.geteuid()}: run as its"
            " owner or as root, or name another data folder"
        )


def _pid_file_lines(cluster: Path) -> list[str]:
    """Return the lines of postmaster.pid: pid, data, start time, port, socket folder, …, status."""
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_ready(cluster: Path, run_dir: Path) -> bool:
    lines = _pid_file_lines(cluster)
    return len(lines) >= 8 and lines[4] == str(run_dir) and lines[7].strip() == "ready"


def _server_pid(cluster: Path) -> int | None:
    lines = _pid_file_lines(cluster)
    return int(lines[0]) if lines else None


def _forget_stale_pid_file(cluster: Path) -> None:
    """Remove what a killed server of ours left; whoever calls holds the lock that says it is gone.

    One that somebody started by hand on this cluster shows another socket folder, and is left.
    """
    lines = _pid_file_lines(cluster)
    if len(lines) >= 5 and Path(lines[4]).name.startswith(RUN_DIR_PREFIX):
        (cluster / "postmaster.pid").unlink()


def _shut_down(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
