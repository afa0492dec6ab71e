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
import itertools
import json
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.flows import Flow, copy_workflows, edit
from tests.e2e.process import Replica, until
from tests.e2e.visitors import Signup
from tests.faults.cluster import FLOW_SECONDS, Cluster, open_cluster
from tests.faults.crowd import Guests
from tests.faults.run import Outcome, Run, Stage

AT_ONCE_MAX: Final = 64
TAKEN_UP_SECONDS_MAX: Final = 60.0
"""A file is looked at every second, and what one replica publishes others use within five."""
LOOK_SECONDS: Final = 0.2
WAITING_SHARE_MIN: Final = 0.95
"""Of those who signed up: else the changes have met too few who wait."""
WAIT: Final = "WaitForVerification"
NUMBERED: Final = "Numbered"

_DEFINITION: Final = "select definition from executions where id = $1"
_WAITING: Final = "select count(*) from executions where due_at > now() and owner is null"
_ARE_AT_REST: Final = "select not exists (select from executions where owner is not null)"
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


class Editor(Guests):
    """Whoever edits the flow, and the visitors who sign up after each change."""

    def __init__(self, cluster: Cluster, path: Path) -> None:
        super().__init__(cluster)
        self.texts: dict[str, Text] = {}  # on which the execution of a signup began
        self._path = path
        self._addresses = itertools.count(1)

    def write(self, number: int) -> Text:
        """Put the text of this number in the file's place and return what rows will call it."""
        edit(self._path, lambda flow: _number(flow, number))
        return Text(number, hashlib.sha256(self._path.read_bytes()).digest())

    async def is_taken_up(self, text: Text) -> None:
        """Return when every replica starts executions on this text."""
        for replica in self._cluster.replicas:
            look = partial(self._starts_on, replica, text)
            await until(look, f"text {text.number} in use", seconds=TAKEN_UP_SECONDS_MAX)

    async def _starts_on(self, replica: Replica, text: Text) -> bool:
        """Sign up at a replica, to see which text that starts on."""
        signup = await self._sign_up(replica)
        definition = bytes(await self._cluster.look(_DEFINITION, signup.id))
        if definition == text.sha256:
            self.texts[signup.id] = text
            return True
        await asyncio.sleep(LOOK_SECONDS)
        return False

    async def gather(self, text: Text, visitors: int) -> None:
        """Let so many sign up, at all replicas in turn."""
        replicas = self._cluster.replicas

        async def one(n: int) -> None:
            signup = await self._sign_up(replicas[n % len(replicas)])
            self.texts[signup.id] = text

        await self._at_once(one(n) for n in range(visitors))

    async def follow_links(self, one_of: int) -> None:
        """Let one of so many visitors follow the link."""
        signups = list(self._cluster.ledger.acknowledged.values())[::one_of]
        await self._at_once(self.verify(signup, may_be_late=False) for signup in signups)

    async def _sign_up(self, replica: Replica) -> Signup:
        return await self.sign_up(f"visitor-{next(self._addresses)}@example.org", at=replica)

    async def _at_once(self, visits: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Let them all come, so many at a time."""
        room = asyncio.Semaphore(AT_ONCE_MAX)

        async def one(visit: Coroutine[Any, Any, None]) -> None:
            async with room:
                await self.noted(visit)

        await asyncio.gather(*map(one, visits))


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
        complaints = list(editor.failures)
        if strays:
            complaints.append(f"{len(strays)} ended on another text, such as {strays[:3]}")
        if waiting < len(editor.texts) * WAITING_SHARE_MIN:
            complaints.append(f"only {waiting} waited until the last change")
        return Outcome(counts, editor.success, figures, complaints)


async def _all_linked(cluster: Cluster) -> None:
    for id in cluster.ledger.acknowledged:
        await cluster.sink.link(id)
    await until(lambda: cluster.look(_ARE_AT_REST), "all that signed up waiting")


async def _strays(cluster: Cluster, editor: Editor) -> list[str]:
    """Return those that ended otherwise than on the text of their signup."""
    async with cluster.connected() as database:
        rows = {row["id"]: row for row in await database.fetch(_ENDS)}
    strays = []
    for id, text in editor.texts.items():
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


_FULL: Final = Size(replicas=2, changes=20, signups=10_000, wait_seconds=300.0, verifying_of=2)
_SMALL: Final = Size(
    replicas=1, changes=2, signups=80, wait_seconds=float(FLOW_SECONDS), verifying_of=1
)

RUN: Final = Run("R15", "the workflow changed while executions wait, and back", _SMALL, _FULL, play)
