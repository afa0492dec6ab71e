"""The service as a process, without a mail server: `countersign serve` but for its transport."""

from __future__ import annotations

import os

import uvloop

from benchmarks.inproc import NoMail
from service.app import Service, run_until_stopped
from service.config import load_config
from service.log import configure


def main() -> int:
    """Serve until SIGTERM and return the exit code."""
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    return uvloop.run(run_until_stopped(Service(config, transport=NoMail())))


if __name__ == "__main__":
    raise SystemExit(main())
