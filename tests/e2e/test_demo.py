"""`countersign demo`: everything in one process tree, which leaves nothing behind but its data."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.e2e.process import COMMAND, base_environment, until
from tests.e2e.visitors import Answer, Visitors

pytestmark = pytest.mark.e2e

WAIT_SECONDS: Final = 4.0
FIRST_START_SECONDS_MAX: Final = 60.0
"""With initdb, on a busy machine."""
GONE_SECONDS_MAX: Final = 30.0


@dataclass
class Demo:
    """A running demo: its process, what it printed, and its URLs."""

    process: subprocess.Popen[bytes]
    printed: str
    public: str
    inbox: str
    accounts: str

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal tells the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)


class Demos:
    """Starts demos in one folder; ends them by force if a test leaves them running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> Demo:
        """Start the demo with its defaults, in an empty folder or on what a former one left."""
        output = self.folder.parent / f"output-{len(self._processes)}"
        process = self._spawn(output)

        def look() -> bool:
            assert process.poll() is None, f"ended while starting:\n{output.read_text()}"
            return "Ctrl-C" in output.read_text()

        await until(look, "the demo's URLs", seconds=FIRST_START_SECONDS_MAX)
        printed = output.read_text()
        urls = dict(re.findall(r"^  (Sign up|Inbox|Accounts) +(http\S+)$", printed, re.MULTILINE))
        return Demo(process, printed, urls["Sign up"], urls["Inbox"], urls["Accounts"])

    def _spawn(self, output: Path) -> subprocess.Popen[bytes]:
        port, ops_port = _free_ports()
        environment = base_environment(
            PORT=str(port), OPS_PORT=str(ops_port), WAIT_TIME_SCALE=str(WAIT_SECONDS / 1800)
        )
        with output.open("w") as out:
            process = subprocess.Popen(
                [*COMMAND, "demo"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End what a test left running."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def leftovers(self) -> list[str]:
        """Return the command lines of processes that still work on this folder's data."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if str(self.folder) in command:
                found.append(command)
        return found

    async def until_nothing_is_left(self) -> None:
        await until(lambda: not self.leftovers(), "postgres's end", seconds=GONE_SECONDS_MAX)


@pytest.fixture
async def demos() -> AsyncIterator[Demos]:
    home = Path(tempfile.mkdtemp(prefix="countersign-test-"))
    home.chmod(0o711)  # as root, the server runs as another user
    folder = home / "empty"
    folder.mkdir(mode=0o711)
    demos = Demos(folder)
    try:
        yield demos
    finally:
        demos.close()
        await demos.until_nothing_is_left()
        shutil.rmtree(home)


async def test_the_demo_runs_the_flow_and_its_data_outlive_ctrl_c_and_kill(
    demos: Demos, visitors: Visitors
) -> None:
    demo = await demos.start()
    assert f"the half hour takes {WAIT_SECONDS:.0f} s" in demo.printed

    ada = (await visitors.ask(f"{demo.public}signup", {"email": "ada@demo.test"})).body
    form = await visitors.ask(
        f"{demo.public}signup", form={"email": "bob@demo.test", "name": "Bob"}
    )
    assert form.status == 202
    mails = await _mails(visitors, demo, "ada@demo.test", 1)
    (link,) = set(re.findall(r"http\S+/verify\?\S+", mails[0]["text"]))
    assert link.startswith(demo.public)
    page = await visitors.ask(link)
    assert page.status == 200
    assert "<form" in page.body
    assert (await _status(visitors, demo, ada)).body["status"] == "pending"

    token = link.partition("#token=")[2]
    verified = await visitors.ask(f"{demo.public}verify", {"token": token})
    assert (verified.status, verified.body["status"]) == (200, "verified")
    welcomed = await _mails(visitors, demo, "ada@demo.test", 2)
    assert "/verify" not in welcomed[0]["text"]

    end = ["None expired", "ada@demo.test verified"]

    async def is_decided() -> bool:
        return bool(await _accounts(visitors, demo) == end)

    await until(is_decided, "the deletion of the unverified account")
    inbox = await visitors.ask(demo.inbox)
    assert (inbox.status, "ada@demo.test" in inbox.body) == (200, True)
    assert any("postgres" in command for command in demos.leftovers())

    demo.interrupt()
    code = await asyncio.to_thread(demo.process.wait, GONE_SECONDS_MAX)
    assert code == 0
    await demos.until_nothing_is_left()

    demo = await demos.start()
    assert await is_decided()
    assert (await _status(visitors, demo, ada)).body["status"] == "verified"
    eve = (await visitors.ask(f"{demo.public}signup", {"email": "eve@demo.test"})).body
    demo.process.kill()
    demo.process.wait()
    await demos.until_nothing_is_left()

    demo = await demos.start()

    async def eves_end() -> bool:
        return bool((await _status(visitors, demo, eve)).body["status"] == "expired")

    await until(eves_end, "the end of a signup whose demo was killed")
    print(json.dumps({"test": "demo", "starts": 3, "accounts": await _accounts(visitors, demo)}))


async def _mails(visitors: Visitors, demo: Demo, to: str, count: int) -> list[dict[str, Any]]:
    """Return the mails to an address, newest first, once there are so many."""

    async def look() -> list[dict[str, Any]]:
        caught = (await visitors.ask(f"{demo.inbox}/messages")).body
        mails = [mail for mail in caught if mail["to"] == to]
        return mails if len(mails) == count else []

    return await until(look, f"{count} mails to {to}")


async def _accounts(visitors: Visitors, demo: Demo) -> list[str]:
    """Return the operator's list: address and status of each account."""
    items = (await visitors.ask(demo.accounts)).body["items"]
    return sorted(f"{account['email']} {account['status']}" for account in items)


async def _status(visitors: Visitors, demo: Demo, signup: dict[str, str]) -> Answer:
    return await visitors.ask(f"{demo.public}signup/{signup['id']}", secret=signup["secret"])


def _free_ports() -> tuple[int, int]:
    """Return two ports that nobody listens on: the mails' links name the port it is given."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
