"""R15: the workflow's file is changed again and again while executions wait, and back at last.

Each text names its wait otherwise, and writes its number into the state data: an execution that
went on by another text than its own would find no such state, or bear the wrong number. After each
change, once every replica starts executions on the new text, a share of the visitors signs up. The
last text is the first one again. When all of them wait, the visitors follow their links (in full
every second one does, and the others' waits end by themselves).

What must hold: the ledger, and that each execution bears the number of the text that was in the
file when its visitor signed up, and still names that text's SHA-256 as its definition.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.flows import Flow, copy_workflows, edit
from tests.e2e.process import until
from tests.e2e.visitors import Signup
from tests.faults.cluster import FLOW_SECONDS, Cluster, open_cluster
from tests.faults.run import Outcome, Run, Stage

AT_ONCE_MAX: Final = 64
TAKEN_UP_SECONDS_MAX: Final = 60.0
"""A file is looked at every second, and what one replica publishes others use within five."""
LOOK_SECONDS: Final = 0.2
WAIT: Final = "WaitForVerification"
NUMBERED: Final = "Numbered"

_DEFINITION: Final = "select definition from executions where id = $1"
_WAITING: Final = "select count(*) from executions where due_at > now() and owner is null"
_ENDS: Final = """
select id::text, encode(definition, 'hex') as definition, output from executions
where status = 'SUCCEEDED'
"""


@dataclass(frozen=True)
class Size:
    """How much of it: `changes` and one back; one of `verifying_of` visitors follows the link."""

    replicas: int
    changes: int
    signups: int
    wait_seconds: float
    verifying_of: int


@dataclass(frozen=True)
class Text:
    """A workflow file's content: its number, and the digest by which rows name it."""

    number: int
    sha256: bytes


class Editor:
    """Whoever edits the flow, and the visitors who sign up after each change."""

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.signed_up: dict[str, tuple[Signup, Text]] = {}
        self.tried = self.succeeded = 0
        self._cluster = cluster
        self._path = path
        self._addresses = 0

    def write(self, number: int) -> Text:
        """Put the text of this number in the file's place and return what rows will call it."""
        edit(self._path, lambda flow: _number(flow, number))
        return Text(number, hashlib.sha256(self._path.read_bytes()).digest())

    async def is_taken_up(self, text: Text) -> None:
        """Return when every replica starts executions on this text."""
        for n in range(len(self._cluster.replicas)):

            async def look(replica: int = n) -> bool:
                return await self._starts_on(replica, text)

            await until(look, f"text {text.number} in use", seconds=TAKEN_UP_SECONDS_MAX)

    async def _starts_on(self, replica: int, text: Text) -> bool:
        """Sign up at a replica, to see which text that starts on; it is kept for the count."""
        signup = await self._sign_up(replica)
        definition = bytes(await self._cluster.look(_DEFINITION, signup.id))
        if definition == text.sha256:
            self.signed_up[signup.id] = (signup, text)
            return True
        await asyncio.sleep(LOOK_SECONDS)
        return False

    async def gather(self, text: Text, visitors: int) -> None:
        """Let so many sign up, at all replicas in turn."""
        count = len(self._cluster.replicas)

        async def one(n: int) -> None:
            self.tried += 1
            signup = await self._sign_up(n % count)
            self.signed_up[signup.id] = (signup, text)
            self.succeeded += 1

        await _at_once([one(n) for n in range(visitors)])

    async def follow_links(self, one_of: int) -> None:
        """Let one of so many visitors follow the link."""

        async def one(signup: Signup) -> None:
            self.tried += 1
            token = (await self._cluster.sink.link(signup.id)).token
            assert token is not None, signup
            answer = await self._cluster.visitors.verify(self._cluster.replicas[0], token)
            is_verified = answer.status == 200
            self._cluster.ledger.verdicts[signup.id] = "verified" if is_verified else "expired"
            self.succeeded += is_verified

        signups = list(self._cluster.ledger.acknowledged.values())
        await _at_once([one(signup) for signup in signups[::one_of]])

    async def _sign_up(self, replica: int) -> Signup:
        self._addresses += 1
        signup = await self._cluster.visitors.sign_up(
            self._cluster.replicas[replica], f"visitor-{self._addresses}@example.org"
        )
        self._cluster.ledger.acknowledged[signup.id] = signup
        return signup


async def play(stage: Stage, size: Size) -> Outcome:
    """Change and change back while visitors wait, and see on what each of them ends."""
    path = copy_workflows(stage.folder / "workflows")
    edit(path, lambda flow: _number(flow, 0))
    async with open_cluster(
        stage,
        replicas=size.replicas,
        wait_seconds=size.wait_seconds,
        WORKFLOWS_DIR=str(path.parent),
    ) as cluster:
        editor = Editor(cluster, path)
        numbers = [*range(size.changes + 1), 0]
        for number in numbers:
            text = editor.write(number)
            await editor.is_taken_up(text)
            await editor.gather(text, size.signups // len(numbers))
            stage.tell(f"text {number}: {len(cluster.ledger.acknowledged)} signups")
        await _all_linked(cluster)
        waiting = await cluster.look(_WAITING)
        await editor.follow_links(size.verifying_of)
        counts = await cluster.count()
        strays = await _strays(cluster, editor)
        figures = {
            "acknowledged": len(cluster.ledger.acknowledged),
            "waited_through_all": waiting,
            "ended_elsewhere": len(strays),
            "definitions": await cluster.look("select count(*) from definitions"),
        }
        complaints = (
            [f"{len(strays)} ended on another text, such as {strays[:3]}"] if strays else []
        )
        if waiting < len(editor.signed_up) * 0.95:
            complaints.append(f"void: only {waiting} waited until the last change")
        return Outcome(counts, editor.succeeded / editor.tried, figures, complaints)


async def _all_linked(cluster: Cluster) -> None:
    for id in cluster.ledger.acknowledged:
        await cluster.sink.link(id)
    mailed = "select count(*) from executions where owner is not null"

    async def is_at_rest() -> bool:
        return bool(await cluster.look(mailed) == 0)

    await until(is_at_rest, "all that signed up waiting")


async def _strays(cluster: Cluster, editor: Editor) -> list[str]:
    """Return those that ended otherwise than on the text of their signup."""
    async with cluster.connected() as database:
        rows = {row["id"]: row for row in await database.fetch(_ENDS)}
    strays = []
    for id, (_, text) in editor.signed_up.items():
        row = rows.get(id)
        ended = (row["definition"], json.loads(row["output"])["number"]) if row else None
        if ended != (text.sha256.hex(), text.number):
            strays.append(f"{id}: {ended}, not {text.number}")
    return strays


def _number(flow: Flow, number: int) -> None:
    """Give the flow a number: in the name of its wait, and in the state data after it."""
    states: dict[str, Any] = flow["States"]
    (former,) = [name for name in states if name.startswith(WAIT)]
    wait = states.pop(former)
    name = f"{WAIT}{number}"
    states[name] = {**wait, "Next": NUMBERED}
    states["SendVerificationEmail"]["Next"] = name
    states[NUMBERED] = {
        "Type": "Pass",
        "Result": number,
        "ResultPath": "$.number",
        "Next": "GetAccount",
    }


async def _at_once(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run them all, so many at a time."""
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(coroutine: Coroutine[Any, Any, None]) -> None:
        async with room:
            await coroutine

    await asyncio.gather(*map(one, coroutines))


_FULL: Final = Size(replicas=2, changes=20, signups=10_000, wait_seconds=300.0, verifying_of=2)
_SMALL: Final = Size(
    replicas=1, changes=2, signups=80, wait_seconds=float(FLOW_SECONDS), verifying_of=1
)

RUN: Final = Run("R15", "the workflow changed while executions wait, and back", _SMALL, _FULL, play)
