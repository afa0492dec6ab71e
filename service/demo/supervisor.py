"""The process between the demo and its PostgreSQL: it stops the server when its own stdin ends.

    python -I -S supervisor.py GRACE_SECONDS UID GID RUN_DIR COMMAND…

The demo holds the write end of that stdin and never writes. However the demo ends (return, Ctrl-C,
SIGKILL), the kernel closes the pipe: the one sign of a parent's death that every system gives. This
file is run by its path, imports the standard library only, and lives in a session of its own, out
of reach of the terminal's Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from types import FrameType


def main(arguments: list[str]) -> int:
    """Run COMMAND until it ends or stdin does; return its exit status.

    As root, UID and GID say who the server runs as; otherwise they are "-". RUN_DIR, which holds
    the server's socket, is removed at the end. The server inherits what this process inherited:
    its log as stdout and stderr, and the lock that tells others that it lives.
    """
    grace_seconds, uid, gid, run_dir, *command = arguments
    server = subprocess.Popen(  # noqa: S603 - the demo's own command, and no shell reads it
        command,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        user=None if uid == "-" else int(uid),
        group=None if gid == "-" else int(gid),
        extra_groups=None if uid == "-" else [],
    )

    def stop_when_stdin_ends() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        _stop(server, float(grace_seconds))

    def stop_when_asked(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=_stop, args=(server, float(grace_seconds)), daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop_when_asked)
    threading.Thread(target=stop_when_stdin_ends, daemon=True).start()
    status = server.wait()
    shutil.rmtree(run_dir, ignore_errors=True)
    return status


def _stop(server: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Ask for a fast shutdown, then for an immediate one, then end the server by force."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(number)
        try:
            server.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            continue
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
