"""A process of the service: started, killed, stopped and listened to as an operator would."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import service

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SERVICE: Final = Path(service.__file__).resolve().parents[1]
COMMAND: Final = (sys.executable, "-m", "service")
SECRET_KEY: Final = "a-secret-of-the-tests-and-theirs-only"
START_SECONDS_MAX: Final = 30.0
"""For a process to answer; several times what it takes on a busy machine."""
WAIT_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.02

T = TypeVar("T")


@overload
async def until(look: Callable[[], Awaitable[T]], what: str, *, seconds: float = ...) -> T: ...
@overload
async def until(look: Callable[[], T], what: str, *, seconds: float = ...) -> T: ...
async def until(look: Callable[[], Any], what: str, *, seconds: float = WAIT_SECONDS_MAX) -> Any:
    """Return what `look` returns once that is true; fail, naming `what`, when it stays away."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        seen = look()
        value = await seen if inspect.isawaitable(seen) else seen
        if value:
            return value
        assert loop.time() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


def base_environment(**variables: str) -> dict[str, str]:
    """Return an environment with nothing of the caller's that could configure the service.

    What it runs is the service that the caller has imported, the compiled one if it is that.
    """
    own = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(REPOSITORY)}
    if SERVICE != REPOSITORY:
        path = os.pathsep.join([str(SERVICE), str(REPOSITORY)])
        own |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return {**own, **variables}


def replica_environment(database_url: str, smtp_url: str, **variables: str) -> dict[str, str]:
    """Return the environment of a replica that listens on ports which the system chooses."""
    environment = base_environment(
        DATABASE_URL=database_url,
        SMTP_URL=smtp_url,
        SECRET_KEY=SECRET_KEY,
        HOST="127.0.0.1",
        PORT="0",
        OPS_PORT="0",
    )
    return {**environment, **variables}


def run_command(
    *arguments: str, environment: Mapping[str, str], folder: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself and return its exit code and what it printed."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        check=False,
    )


class Replica:
    """One `serve`, which may end and be started again any number of times; its log goes on."""

    def __init__(
        self,
        environment: Mapping[str, str],
        log_path: Path,
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.environment = dict(environment)
        self._command = command
        self._log_path = log_path
        self._log_path.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._life_began_at = 0
        self.public = self.ops = "http://127.0.0.1:1"  # nobody listens there

    def spawn(self) -> None:
        """Start the process and return at once."""
        assert self._process is None, "already running"
        self._life_began_at = self._log_path.stat().st_size
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "serve"],
                env=self.environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        """Start the process and return when it answers on both ports."""
        self.spawn()
        await self.answers()

    async def answers(self) -> None:
        """Return when the process listens, having learnt on which ports."""

        def look() -> list[dict[str, Any]]:
            assert self._process is not None, "not running"
            assert self._process.poll() is None, f"ended while starting:\n{self.log_tail()}"
            return self.events("service_ready", this_life=True)

        (ready,) = await until(look, "service_ready", seconds=START_SECONDS_MAX)
        self.public = f"http://127.0.0.1:{ready['public_port']}"
        self.ops = f"http://127.0.0.1:{ready['ops_port']}"

    @property
    def pid(self) -> int:
        """Return the number of the running process."""
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended by itself, or was never started."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End the process as a power cut would. Harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    async def ended(self, *, seconds: float = WAIT_SECONDS_MAX) -> int:
        """Return the exit code once the process has ended by itself."""
        process = self._process
        assert process is not None, "not running"
        await until(lambda: process.poll() is not None, "the process's end", seconds=seconds)
        self._process = None
        return process.returncode

    def events(self, name: str, *, this_life: bool = False) -> list[dict[str, Any]]:
        """Return the log's events of one name, since the last start or of all lives."""
        with self._log_path.open("rb") as log:
            log.seek(self._life_began_at if this_life else 0)
            lines = log.read().split(b"\n")[:-1]
        # Lines that are no JSON (a traceback of the interpreter's) show up in `log_tail`.
        logged = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [event for event in logged if event["event"] == name]

    def log_tail(self) -> str:
        """Return the end of the log, for a failure's message."""
        return self._log_path.read_text(errors="replace")[-4_000:]
