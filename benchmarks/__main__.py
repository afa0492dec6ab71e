"""The command: figures on stdout, a line of JSON each, progress on stderr.

Exit codes: 0 done, 1 an acknowledged signup was lost or an answer was wrong, 2 wrong usage, 143
ended by SIGTERM: what was started and written for the run is gone then, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, NamedTuple, TypeAlias

import uvloop

from benchmarks.database import embedded_server
from benchmarks.goals import judged
from benchmarks.growth import run_growth
from benchmarks.idle import idle_lines
from benchmarks.inproc import open_inproc
from benchmarks.map_items import map_lines
from benchmarks.options import Mail, Options
from benchmarks.over_http import http_lines
from benchmarks.replicas import run_replicas
from benchmarks.run import run
from benchmarks.smtp import smtp_lines
from benchmarks.timers import run_timers
from benchmarks.transitions import transition_lines
from benchmarks.wal import run_wal

Lines: TypeAlias = AsyncIterator[dict[str, Any]]
Benchmark: TypeAlias = Callable[[Options, str, Mail], Lines]


class Entry(NamedTuple):
    """A name of the command line: what it measures, and whether that takes minutes."""

    text: str
    lines: Benchmark
    takes_minutes: bool = False


async def _inproc(options: Options, server_url: str, mail: Mail) -> Lines:
    yield await run("inproc", open_inproc, options, server_url, mail)


def _one(
    measure: Callable[[Options, str], Awaitable[dict[str, Any]]],
) -> Benchmark:
    async def lines(options: Options, server_url: str, mail: Mail) -> Lines:
        yield await measure(options, server_url)

    return lines


async def _replicas(options: Options, server_url: str, mail: Mail) -> Lines:
    yield await run_replicas(options, server_url, mail)


NAMES: Final[Mapping[str, Entry]] = {
    "transitions": Entry("the language alone", transition_lines),
    "inproc": Entry("the service in this process, past its ports", _inproc),
    "replicas": Entry("as inproc, a process for each core", _replicas),
    "wal": Entry("log and transactions, a checkpoint before the wake-up", _one(run_wal)),
    "http": Entry("the limit, signups and workflows over HTTP", http_lines),
    "smtp": Entry("a mail, and workflows, by SMTP to a sink", smtp_lines),
    "map": Entry("a Distributed Map of 10,000 items", map_lines),
    "idle": Entry("a service without visitors, and a hundred of them", idle_lines),
    "timers": Entry("a million pending waits", _one(run_timers), takes_minutes=True),
    "growth": Entry("ten million finished executions", _one(run_growth), takes_minutes=True),
}
ALL: Final = "all"

SECONDS_BEYOND_WAIT_MIN: Final = 3.0
"""The counting begins a second after the first waits have ended, and needs some time."""

WAIT_SECONDS_MIN: Final = 0.5
TERMINATED: Final = 128 + signal.SIGTERM


def main() -> int:
    """Run what the command line asks for and return the exit code."""
    parser = _parser()
    asked = parser.parse_args()
    if asked.wait < WAIT_SECONDS_MIN:
        parser.error(f"--wait {asked.wait:g}: at least {WAIT_SECONDS_MIN:g} seconds")
    if asked.seconds < asked.wait + SECONDS_BEYOND_WAIT_MIN:
        parser.error(
            f"--seconds {asked.seconds:g}: at least {SECONDS_BEYOND_WAIT_MIN:g} more than --wait"
        )
    if min(asked.clients, asked.in_flight) < 1:
        parser.error("--clients and --in-flight: at least 1")
    if not 0 < asked.scale <= 1:
        parser.error(f"--scale {asked.scale:g}: above 0, at most 1")
    try:
        return uvloop.run(_run(_names(asked.names), asked))
    except asyncio.CancelledError:
        return TERMINATED


def _names(asked: Sequence[str]) -> Sequence[str]:
    """Return what to run: without a name, or for `all`, whatever takes no minutes."""
    quick = [name for name, entry in NAMES.items() if not entry.takes_minutes]
    if asked and ALL not in asked:
        return asked
    slow = [name for name in NAMES if name not in quick and name not in asked]
    print(f"left out, as they take minutes: {', '.join(slow)}", file=sys.stderr)
    return [name for name in NAMES if name in quick or name in asked]


async def _run(names: Sequence[str], asked: argparse.Namespace) -> int:
    options = Options(asked.seconds, asked.wait, asked.clients, asked.in_flight, scale=asked.scale)
    is_pure = list(names) == ["transitions"]
    server = nullcontext(asked.database or "") if asked.database or is_pure else embedded_server()
    code = 0
    this = asyncio.current_task()
    assert this is not None
    async with server as server_url:
        # Not before: a server that is being set up cannot be told to stop.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        for name in names:
            try:
                async for line in NAMES[name].lines(options, server_url, asked.mail):
                    print(json.dumps(judged(line)), flush=True)
                    code = max(code, int(line.get("lost", 0) > 0))
            except* RuntimeError as errors:
                print(f"{name}: {_first(errors)}", file=sys.stderr)
                code = 1
    return code


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the first error: when one visitor is answered wrongly, hundreds are."""
    first: Exception = errors
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first


def _name(text: str) -> str:
    # As `choices`, argparse would compare the list of no names with them.
    if text not in (*NAMES, ALL):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join((*NAMES, ALL))}")
    return text


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    names = "; ".join(f"{name}: {entry.text}" for name, entry in NAMES.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="NAME",
        help=f"{names}. Without a name, or as `all`, those that take no minutes",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="length of the saturated load"
    )
    parser.add_argument(
        "--wait", type=float, default=defaults.wait_seconds, help="seconds of the workflow's wait"
    )
    parser.add_argument("--clients", type=int, default=defaults.clients)
    parser.add_argument(
        "--in-flight", type=int, default=defaults.in_flight_max,
        help="workflows begun and not ended, at most",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, default=defaults.scale,
        help="share of what wal, smtp, map, idle, timers and growth work with, such as 0.01",
    )  # fmt: skip
    parser.add_argument(
        "--database", metavar="URL",
        help="a server to use instead of an embedded one; a database is made there and dropped",
    )  # fmt: skip
    parser.add_argument(
        "--mail", choices=("none", "discard", "sink"), default="none",
        help="of inproc, replicas and http: not written, written and dropped, or sent to a sink",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
