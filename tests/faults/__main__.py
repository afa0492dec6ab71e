"""The command: `python -m tests.faults NAME`; a line of JSON a run on stdout, progress on stderr.

Exit codes: 0 every run held, 1 one did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys

from benchmarks.circumstances import core
from service.log import configure
from tests.faults.run import REPOSITORY, perform
from tests.faults.runs import RUNS, run_named

SEED_BITS = 32


def main() -> int:
    """Play the runs that the command line names and return the exit code."""
    parser = _parser()
    asked = parser.parse_args()
    configure("console", "warning")  # what the service's parts say in this very process
    code = 0
    for name in asked.names:
        try:
            run = run_named(name)
            size = run.size(asked.size, dict(pair.split("=", 1) for pair in _changes(asked)))
        except (LookupError, ValueError) as error:
            parser.error(str(error))
        if (missing := run.missing()) is not None:
            print(json.dumps({"run": run.name, "verdict": "void", "missing": missing}), flush=True)
            code = 1
            continue
        seed = random.SystemRandom().getrandbits(SEED_BITS) if asked.seed is None else asked.seed
        if run.is_of_sources and core() == "compiled":
            code = max(code, _on_sources(run.name, seed, asked))
            continue
        server = os.environ.get("TEST_DATABASE_URL") or None
        line = asyncio.run(perform(run, size, seed=seed, edition=asked.size, given_server=server))
        print(json.dumps(line), flush=True)
        code = max(code, int(line["verdict"] != "held"))
    return code


def _on_sources(name: str, seed: int, asked: argparse.Namespace) -> int:
    """Play a run in a process that finds the sources first; return its exit code."""
    changes = [word for change in _changes(asked) for word in ("--set", change)]
    played = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.faults",
            name,
            f"--seed={seed}",
            f"--size={asked.size}",
            *changes,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    return played.returncode


def _changes(asked: argparse.Namespace) -> list[str]:
    changes: list[str] = asked.set
    return changes if asked.seeds is None else [*changes, f"seeds={asked.seeds}"]


def _parser() -> argparse.ArgumentParser:
    runs = "\n".join(f"  {run.name:4} {run.title}" for run in RUNS)
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=f"Break something on purpose and count what it cost.\n\n{runs}",
        epilog="The server is an embedded one unless TEST_DATABASE_URL names another.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="which runs to play, in turn")
    parser.add_argument("--seed", type=int, help="repeats a run's choices; random unless given")
    parser.add_argument("--size", choices=("small", "full"), default="full")
    parser.add_argument("--seeds", type=int, help="of D1 and M1: how many, from the seed on")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER",
        help="another number in the size, such as kills=30; may be given again",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
