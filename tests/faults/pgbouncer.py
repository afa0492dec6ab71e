"""PgBouncer in transaction mode before a server, where the machine has it (Debian: pgbouncer)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from service.demo.installation import server_user
from tests.e2e.process import until
from tests.faults.postgres import HOST, Server, free_port

PROGRAM: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
SERVER_CONNECTIONS: Final = 4
"""Fewer than a replica's pool has, so that transactions of one client meet several servers."""


@asynccontextmanager
async def pgbouncer(server: Server) -> AsyncIterator[str]:
    """Yield the URL by which the server is reached through a pooler of transactions."""
    port = free_port()
    process = _spawn(server, port)
    try:
        url = f"postgresql://postgres@{HOST}:{port}/postgres?sslmode=disable"
        await until(lambda: _answers(url), "PgBouncer's answer")
        yield url
    finally:
        process.kill()
        process.wait()


def _spawn(server: Server, port: int) -> subprocess.Popen[bytes]:
    assert PROGRAM is not None, "PgBouncer is not installed"
    user = server_user(server.cluster)  # it refuses to run as root, as PostgreSQL does
    return subprocess.Popen(
        [PROGRAM, "--quiet", str(_write_configuration(server, port))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
    )


def _write_configuration(server: Server, port: int) -> Path:
    path = server.folder / "pgbouncer.ini"
    path.write_text(f"""\
[databases]
* = host={HOST} port={server.port} user=postgres

[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 500
server_login_retry = 0.1
""")
    return path


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
