"""The command: figures on stdout, a line of JSON each, progress on stderr.

Exit codes: 0 done, 1 an acknowledged signup was lost or an answer was wrong, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final

import uvloop

from benchmarks.database import embedded_server
from benchmarks.options import Options
from benchmarks.replicas import REPLICAS, run_replicas
from benchmarks.run import BENCHMARKS, run
from benchmarks.transitions import lines

TRANSITIONS: Final = "transitions"
NAMES: Final = (TRANSITIONS, *BENCHMARKS, REPLICAS)

SECONDS_BEYOND_WAIT_MIN: Final = 3.0
"""The counting begins a second after the first waits have ended, and needs some time."""

WAIT_SECONDS_MIN: Final = 0.5


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
    names = asked.names or NAMES
    if TRANSITIONS in names:
        for line in lines():
            print(json.dumps(line), flush=True)
    served = [name for name in names if name != TRANSITIONS]
    return uvloop.run(_run(served, asked)) if served else 0


async def _run(names: Sequence[str], asked: argparse.Namespace) -> int:
    options = Options(asked.seconds, asked.wait, asked.clients, asked.in_flight)
    server = nullcontext(asked.database) if asked.database else embedded_server()
    code = 0
    async with server as server_url:
        for name in names:
            try:
                if name == REPLICAS:
                    line, lost = await run_replicas(options, server_url, asked.mail or "none")
                else:
                    line, lost = await run(name, options, server_url, asked.mail)
            except* RuntimeError as errors:
                print(f"{name}: {_first(errors)}", file=sys.stderr)
                code = 1
            else:
                print(json.dumps(line), flush=True)
                code = max(code, int(lost > 0))
    return code


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the first error: when one visitor is answered wrongly, hundreds are."""
    first: Exception = errors
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first


def _name(text: str) -> str:
    # As `choices`, argparse would compare the list of no names with them.
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(NAMES)}")
    return text


def _parser() -> argparse.ArgumentParser:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="NAME",
        help="transitions (of the language alone), inproc (the service in this process, past its "
        "ports), http, or replicas (as inproc, a process for each core); all without a name",
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
        "--database", metavar="URL",
        help="a server to use instead of an embedded one; a database is made there and dropped",
    )  # fmt: skip
    parser.add_argument(
        "--mail", choices=("none", "discard", "sink"),
        help="not written, written and dropped, or sent by SMTP to a sink; "
        "none for inproc and replicas and sink for http unless given",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
