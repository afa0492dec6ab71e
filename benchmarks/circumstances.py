"""What a figure depends on besides the load: the commit, the interpreter, the core."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

from service.asl import interpreter

PROCESSES_MAX: Final = 8


def circumstances() -> dict[str, object]:
    """Return what every line ends with."""
    return {"commit": commit(), "python": platform.python_version(), "core": core()}


def core() -> str:
    """Return how the interpreter of the language is run: `compiled`, or `interpreted` in turn."""
    return "interpreted" if str(interpreter.__file__).endswith(".py") else "compiled"


def commit() -> str | None:
    """Return the checkout's commit, with a plus when files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    described = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or None


def cores() -> int:
    """Return how many processes "one for each core" is: two at least, PROCESSES_MAX at most."""
    return min(max(os.cpu_count() or 1, 2), PROCESSES_MAX)


def tell(text: str) -> None:
    """Say how far a run is, on stderr."""
    print(text, file=sys.stderr, flush=True)
