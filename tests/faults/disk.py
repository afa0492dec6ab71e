"""A disk that is full when a run says so: a file system of its own, in memory, and a ballast on it.

Only root may mount one, and in most containers not even root. There is no other way to the error
that a full disk gives (ENOSPC): a limit on the size of files gives another, which PostgreSQL does
not report as a full disk.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

BALLAST: Final = "ballast"
BLOCK: Final = bytes(1 << 16)


class CannotMount(Exception):
    """This machine lets nobody of our rights mount a file system."""


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / BALLAST

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while ballast.write(BLOCK) == len(BLOCK):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give back what was filled. Harmless when nothing was."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a file system of this size on an empty folder. Raises CannotMount."""
    mounted = _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", folder)
    if mounted is not None:
        raise CannotMount(mounted)
    try:
        yield Disk(folder)
    finally:
        _run("umount", "--lazy", folder)


def missing() -> str | None:
    """Return why no file system can be mounted here; None when it can."""
    with TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), megabytes=1):
                return None
        except CannotMount as error:
            return f"no file system can be mounted here: {error}"


def _run(*command: str | Path) -> str | None:
    """Run a command and return why it failed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return result.stderr.strip() or "no reason given" if result.returncode else None
