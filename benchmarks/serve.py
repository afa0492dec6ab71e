"""The service as a process, without a mail server: `countersign serve` but for its transport."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

import uvloop

from benchmarks.mails import service_with
from benchmarks.options import Mail
from service.app import run_until_stopped
from service.config import load_config
from service.log import configure

MODES: Final[Mapping[str, Mail]] = {"none": "none", "discard": "discard"}


def main() -> int:
    """Serve until SIGTERM and return the exit code. The argument says what becomes of mails."""
    (mail,) = sys.argv[1:]
    if mail not in MODES:
        sys.exit(f"{mail!r} is neither none nor discard")
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    return uvloop.run(run_until_stopped(service_with(config, MODES[mail])))


if __name__ == "__main__":
    raise SystemExit(main())
