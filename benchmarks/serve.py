"""The service as a process, without a mail server: `countersign serve` but for its transport."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

import uvloop
from prometheus_client import Gauge

from benchmarks.counters import STALL
from benchmarks.mails import service_with
from benchmarks.options import Mail
from service import metrics
from service.app import run_until_stopped
from service.config import Config, load_config
from service.log import configure

LOOK_SECONDS: Final = 0.005

MODES: Final[Mapping[str, Mail]] = {"none": "none", "discard": "discard"}


def main() -> int:
    """Serve until SIGTERM and return the exit code. The argument says what becomes of mails."""
    (mail,) = sys.argv[1:]
    if mail not in MODES:
        sys.exit(f"{mail!r} is neither none nor discard")
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    return uvloop.run(_serve(config, MODES[mail]))


async def _serve(config: Config, mail: Mail) -> int:
    gauge = Gauge(STALL, "The longest stall of the event loop.", registry=metrics.REGISTRY)
    gauge.set_function(Stalls().take)
    return await run_until_stopped(service_with(config, mail))


class Stalls:
    """Looks at its event loop all the while, and keeps by how much it was last late."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._look(time.perf_counter())

    def take(self) -> float:
        """Return the longest stall since the last call, in seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    def _look(self, expected_at: float) -> None:
        now = time.perf_counter()
        self._longest = max(self._longest, now - expected_at)
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, now + LOOK_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
