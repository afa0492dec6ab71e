"""A process's wall clock, set as one pleases while it runs: libfaketime (Debian: `libfaketime`).

Only the wall clock is wrong, as on a machine whose time was set; the monotonic one runs on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDERS: Final = ("/usr/lib", "/usr/local/lib", "/usr/lib64")
LIBRARY: Final = "faketime/libfaketimeMT.so.1"


def library() -> Path | None:
    """Return where the library is; None when it is not installed."""
    for folder in map(Path, FOLDERS):
        for path in (folder / LIBRARY, *folder.glob(f"*/{LIBRARY}")):
            if path.exists():
                return path
    return None


class WallClock:
    """The wall clock of one process, which reads its offset from a file whenever it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set_ahead(0)

    def set_ahead(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the true one; behind it, if negative."""
        draft = self._path.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._path)

    def environment(self) -> dict[str, str]:
        """Return what makes a process go by this clock."""
        found = library()
        assert found is not None, "libfaketime is not installed"
        return {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
