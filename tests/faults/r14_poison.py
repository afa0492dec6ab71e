"""R14: one culprit of each kind in a batch of executions; nobody else comes to harm.

The executions are started at once, through the API, on real processes. `culprits.py` has the kinds:
inputs that must be refused, results and expressions that must fail their own execution, and two
handlers that take their process down, one by leaving it and one by never giving its loop back.

Nothing inside a process can end a loop that is never given back: its lease runs out and others take
over its executions, but the process itself stays until somebody ends it. In production that is the
orchestrator, by the liveness probe; so the run plays the orchestrator. It starts again what has
ended, and kills what does not answer `/health/live`.

What must hold: the ledger; each culprit ends as its kind says and is redrivable where it FAILED;
each of the others SUCCEEDED, and was performed twice at the most: once in the process that died,
and once more. In the end the two handlers are mended, their executions redriven, and those succeed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.e2e.process import Replica, base_environment
from tests.faults.cluster import Cluster, open_cluster
from tests.faults.culprits import (
    DEADLY,
    HANDLERS,
    HARMLESS,
    MENDED,
    WORK,
    WORK_DIR,
    Culprit,
    task,
)
from tests.faults.run import Outcome, Run, Stage

LEASE_SECONDS: Final = 1.5
LIVE_SECONDS_MAX: Final = 5.0
"""Without an answer of the liveness probe, after which a process is killed."""
LOOK_SECONDS: Final = 0.2
PERFORMED_MAX: Final = 2
ROLE: Final = "arn:aws:iam::000000000000:role/r"
PATIENCE_SECONDS: Final = 120.0
MODULE: Final = "culprits_handlers"


@dataclass(frozen=True)
class Size:
    """How much of it. `deadly` of the two handlers that end their process are among them."""

    executions: int
    rounds: int
    deadly: int
    replicas: int


class Orchestrator:
    """Starts replicas again that have ended, and ends those that are not alive."""

    def __init__(self, cluster: Cluster) -> None:
        self.exits = self.hangs = 0
        self._cluster = cluster

    async def watch(self, replica: Replica) -> None:
        """Look at one replica until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if replica.has_ended:
                self.exits += 1
            elif await self._is_silent(replica):
                self.hangs += 1
            else:
                continue
            replica.kill()
            await replica.start()

    async def _is_silent(self, replica: Replica) -> bool:
        timeout = aiohttp.ClientTimeout(total=LIVE_SECONDS_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{replica.ops}/health/live") as answer,
            ):
                return answer.status != 200
        except TimeoutError:
            return True
        except aiohttp.ClientError:
            return False  # it has just ended, which the next look shows


@dataclass
class Started:
    """What is known of one execution of a batch."""

    name: str
    culprit: Culprit | None  # None: a harmless neighbour
    input: str
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)


class Api:
    """A client of the Step Functions API that asks again, one replica or another."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._session = session

    async def ask(self, action: str, **members: Any) -> tuple[int, dict[str, Any]]:
        """Return the answer to an action, by whichever replica gives one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        headers = {"X-Amz-Target": f"AWSStepFunctions.{action}"}
        while True:
            replica = self._cluster.stage.random.choice(self._cluster.replicas)
            try:
                async with self._session.post(
                    f"{replica.ops}/", json=members, headers=headers
                ) as answer:
                    body = await answer.json(content_type=None)
                    if answer.status < 500:
                        return answer.status, body
            except (aiohttp.ClientError, TimeoutError):
                pass  # it died, or does not answer any more
            assert loop.time() < deadline, f"no answer to {action}"
            await asyncio.sleep(LOOK_SECONDS)


async def play(stage: Stage, size: Size) -> Outcome:
    """Play batch after batch, and judge each execution by what it is."""
    (stage.folder / f"{MODULE}.py").write_text(HANDLERS)
    work = stage.folder / "work"
    work.mkdir()
    async with (
        open_cluster(
            stage,
            replicas=size.replicas,
            LEASE_SECONDS=str(LEASE_SECONDS),
            HANDLERS=MODULE,
            PYTHONPATH=os.pathsep.join([base_environment()["PYTHONPATH"], str(stage.folder)]),
            **{WORK_DIR: str(work)},
        ) as cluster,
        _api(cluster) as api,
    ):
        culprits = [*HARMLESS, *DEADLY[: size.deadly]]
        machines = await _create_machines(api, culprits)
        orchestrator = Orchestrator(cluster)
        watches = [asyncio.create_task(orchestrator.watch(r)) for r in cluster.replicas]
        started: list[Started] = []
        try:
            for n in range(size.rounds):
                batch = _batch(stage, culprits, n, size.executions)
                await asyncio.gather(*(_start(api, machines, each) for each in batch))
                started += batch
                await cluster.come_to_rest()
            return await _judge(cluster, api, started, work, orchestrator)
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)


@asynccontextmanager
async def _api(cluster: Cluster) -> AsyncIterator[Api]:
    # Longer than what a process that hangs is given.
    timeout = aiohttp.ClientTimeout(total=2 * LIVE_SECONDS_MAX)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Api(cluster, session)


async def _create_machines(api: Api, culprits: Sequence[Culprit]) -> dict[str, str]:
    machines = {}
    for name, definition in [(WORK, task(WORK)), *((c.name, c.definition) for c in culprits)]:
        status, made = await api.ask(
            "CreateStateMachine", name=name, definition=definition, roleArn=ROLE
        )
        assert status == 200, (name, made)
        machines[name] = made["stateMachineArn"]
    return machines


def _batch(stage: Stage, culprits: Sequence[Culprit], n: int, executions: int) -> list[Started]:
    batch = [Started(f"{c.name}-{n}", c, c.input) for c in culprits]
    neighbours = range(executions - len(batch))
    batch += [Started(f"neighbour-{n}-{i}", None, json.dumps({"n": i})) for i in neighbours]
    stage.random.shuffle(batch)
    return batch


async def _start(api: Api, machines: dict[str, str], started: Started) -> None:
    machine = machines[WORK if started.culprit is None else started.culprit.name]
    # Asked again with the same name and input it is the same execution, as long as it runs.
    started.status, started.answer = await api.ask(
        "StartExecution", stateMachineArn=machine, name=started.name, input=started.input
    )
    if started.answer.get("__type") == "ExecutionAlreadyExists":
        arn = f"{machine.replace(':stateMachine:', ':execution:')}:{started.name}"
        started.status, started.answer = 200, {"executionArn": arn}


async def _judge(
    cluster: Cluster, api: Api, started: Sequence[Started], work: Path, orchestrator: Orchestrator
) -> Outcome:
    complaints = [text for each in started if (text := await _complaint(api, each, work))]
    mended = [each for each in started if each.culprit in DEADLY]
    complaints += await _redrive(cluster, api, mended, work)
    async with cluster.connected() as database:
        ids = dict(await database.fetch("select name, id::text from executions"))
    for each in started:
        if each.status == 200:
            is_good = each.culprit is None or each in mended
            status = "SUCCEEDED" if is_good else each.culprit.status
            cluster.ledger.ends[ids.get(each.name, each.name)] = status
    neighbours = [each.name for each in started if each.culprit is None]
    performed = [_performances(work, name) for name in neighbours]
    figures = {
        "culprits": len(started) - len(neighbours),
        "processes_exited": orchestrator.exits,
        "processes_hung": orchestrator.hangs,
        "quarantined_to_the_end": len(cluster.logged("execution_poisoned")),
        "redriven": len(mended),
        "neighbours_repeated": sum(times > 1 for times in performed),
        "performed_max": max(performed),
    }
    success = sum(times > 0 for times in performed) / len(performed)
    return Outcome(await cluster.count(), success, figures, complaints)


async def _redrive(
    cluster: Cluster, api: Api, poisoned: Sequence[Started], work: Path
) -> list[str]:
    """Mend the deadly handlers, redrive their executions, and return what went wrong with these."""
    (work / MENDED).touch()
    complaints = []
    for each in poisoned:
        status, answer = await api.ask(
            "RedriveExecution", executionArn=each.answer["executionArn"], clientToken=each.name
        )
        if status != 200:
            complaints.append(f"{each.name} is not redriven: {answer}")
    await cluster.come_to_rest()
    for each in poisoned:
        _, shown = await api.ask("DescribeExecution", executionArn=each.answer["executionArn"])
        seen = shown["status"], shown.get("output"), shown["redriveCount"]
        if seen != ("SUCCEEDED", "{}", 1):
            complaints.append(f"{each.name} is {seen} after it was mended and redriven")
    return complaints


async def _complaint(api: Api, started: Started, work: Path) -> str | None:
    """Return what is wrong with how an execution went; None when it went as it must."""
    culprit = started.culprit
    seen: tuple[object, ...]
    if started.status != 200:
        seen = ("refused", started.answer.get("__type"))
    else:
        _, shown = await api.ask("DescribeExecution", executionArn=started.answer["executionArn"])
        seen = (shown["status"], shown.get("error"), shown["redriveStatus"])
    if culprit is None:
        expected: tuple[object, ...] = ("SUCCEEDED", None, "NOT_REDRIVABLE")
        if _performances(work, started.name) > PERFORMED_MAX:
            return f"{started.name} was performed {_performances(work, started.name)} times"
        if seen == expected and shown["output"] != started.input.replace(" ", ""):
            return f"{started.name} returned {shown['output']}"
    elif culprit.refused is not None:
        expected = ("refused", culprit.refused)
    elif culprit.status == "FAILED":
        expected = ("FAILED", culprit.error, "REDRIVABLE")
    else:
        expected = (culprit.status, None, "NOT_REDRIVABLE")
    return None if seen == expected else f"{started.name} is {seen}, not {expected}"


def _performances(work: Path, name: str) -> int:
    record = work / name
    return record.stat().st_size if record.exists() else 0


_FULL: Final = Size(executions=200, rounds=5, deadly=2, replicas=2)
_SMALL: Final = Size(executions=60, rounds=1, deadly=1, replicas=2)

RUN: Final = Run("R14", "one poisonous execution of each kind in a batch", _SMALL, _FULL, play)
