"""The demo: the whole service in one process tree, on an embedded PostgreSQL and a mail catcher."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from service.app import Ports, Service, run_until_stopped
from service.config import Config, load_config
from service.demo import EmbeddedPostgres, EmbeddedPostgresError, Inbox, MailCatcher
from service.log import configure

TIME_SCALE: Final = "0.0333"
KEY_FILE: Final = "secret-key"
KEY_BYTES: Final = 32
ORPHAN_POLL_SECONDS: Final = 1.0


async def run_demo(data: Path, environ: Mapping[str, str]) -> int:
    """Run the demo until it is stopped and return the exit code; its data stay in the folder
    `data`.
    """
    postgres = EmbeddedPostgres(data)
    try:
        database_url = await postgres.start()
    except EmbeddedPostgresError as error:
        print(f"countersign: {error}", file=sys.stderr)
        return 1
    try:
        async with MailCatcher(Inbox()) as catcher:
            smtp_url = f"smtp://127.0.0.1:{catcher.port}?tls=none"
            config = load_config(_environment(data, environ, database_url, smtp_url))
            configure(config.log_format, config.log_level)
            service = Service(config, inbox=catcher.inbox, allow_test_domains=True)
            orphaned = asyncio.create_task(_stop_when_orphaned(os.getppid()))
            try:
                return await run_until_stopped(service, announce=_announcement(config, data))
            finally:
                orphaned.cancel()
    finally:
        await postgres.stop()


async def _stop_when_orphaned(parent: int) -> None:
    """End the demo with the `make` or the terminal that started it, even one that was killed."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(ORPHAN_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _environment(
    data: Path, environ: Mapping[str, str], database_url: str, smtp_url: str
) -> dict[str, str]:
    """Return the caller's environment with the demo's own parts and defaults in it."""
    defaults = {
        "HOST": "127.0.0.1",
        "PORT": "8080",
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "info",
        "MIGRATE": "on",
        "WAIT_TIME_SCALE": TIME_SCALE,
        "LEASE_SECONDS": "5",
    }
    chosen = defaults | {name: value for name, value in environ.items() if value}
    chosen.setdefault("PUBLIC_URL", f"http://localhost:{chosen['PORT']}")
    for own in ("DATABASE_URL", "SMTP_URL", "SECRET_KEY"):
        chosen.pop(f"{own}_FILE", None)
    return chosen | {
        "DATABASE_URL": database_url,
        "SMTP_URL": smtp_url,
        "SECRET_KEY": _secret_key(data / KEY_FILE),
    }


def _secret_key(path: Path) -> str:
    """Return the key of this demo's data: links mailed before a restart still work after it."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(KEY_BYTES), encoding="ascii")
    return path.read_text(encoding="ascii")


def _announcement(config: Config, data: Path) -> Callable[[Ports], None]:
    def announce(ports: Ports) -> None:
        public, ops = f"http://localhost:{ports.public}", f"http://localhost:{ports.ops}"
        flow = config.workflows_dir / f"{config.verification_workflow}.asl.json"
        half_hour = 1800 * config.wait_time_scale
        print(
            f"""
Countersign is ready.

  Sign up          {public}/
  Inbox            {ops}/inbox
  Accounts         {ops}/accounts
  API description  {public}/openapi.json
  Metrics, health  {ops}/metrics, {ops}/health/ready
  The flow         {flow} (edit it: no restart needed)

Waits run at {config.wait_time_scale:g} of their length: the half hour takes {half_hour:.0f} s.
Data are kept in {data}. Ctrl-C stops everything.
""",
            flush=True,
        )

    return announce
