"""The Step Functions API on a real socket, a real engine and a real database behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from service.api import OpsDeps, create_ops_app
from service.api.stepfunctions import Executions, Machines, Starts
from service.asl import Json, Problem, StateMachine
from service.engine.arns import Arns
from service.engine.express import Express
from service.engine.ports import Task
from service.engine.random import SystemRandom
from service.engine.turn import Surroundings
from service.store import ExecutionRows, MachineRows
from service.tasks import start_execution
from tests.api.conftest import Answer, Open, Port
from tests.api.fakes import FakeDirectory, FakeProbe
from tests.engine.harness import Bench, Handlers, bench, definition

ROLE = "arn:aws:iam::111111111111:role/sfn-role"
PASS = definition("Only", Only={"Type": "Pass", "End": True})
OTHER = definition("Other", Other={"Type": "Pass", "End": True})
FAIL = definition("Out", Out={"Type": "Fail", "Error": "Sad", "Cause": "for a reason"})
REST = definition("Rest", Rest={"Type": "Wait", "Seconds": 3600, "End": True})


def machine_arn(name: str) -> str:
    return f"arn:aws:states:us-east-1:000000000000:stateMachine:{name}"


def execution_arn(machine: str, name: str) -> str:
    return f"arn:aws:states:us-east-1:000000000000:execution:{machine}:{name}"


@dataclass
class Api:
    """A client of the API, and what is behind it."""

    port: Port
    bench: Bench
    starts: Starts

    async def ask(self, action: str, **members: Json) -> Answer:
        """Return the answer to an action, whatever it is."""
        return await self.port.ask(
            "POST",
            "/",
            data=json.dumps(members).encode(),
            headers={
                "X-Amz-Target": f"AWSStepFunctions.{action}",
                "Content-Type": "application/x-amz-json-1.0",
            },
        )

    async def call(self, action: str, **members: Json) -> dict[str, Any]:
        """Return what an action answers when it succeeds."""
        answer = await self.ask(action, **members)
        assert answer.status == 200, answer.json
        assert isinstance(answer.json, dict)
        return answer.json

    async def error(self, action: str, **members: Json) -> tuple[str, str]:
        """Return code and message of an action that fails with status 400."""
        answer = await self.ask(action, **members)
        assert answer.status == 400, answer.json
        return answer.json["__type"], answer.json["message"]

    async def create(self, name: str, text: str = PASS, **members: Json) -> str:
        """Create a machine and return its ARN."""
        made = await self.call(
            "CreateStateMachine", name=name, definition=text, roleArn=ROLE, **members
        )
        return str(made["stateMachineArn"])

    async def start(self, machine: str, **members: Json) -> str:
        """Start an execution and return its ARN."""
        started = await self.call("StartExecution", stateMachineArn=machine, **members)
        return str(started["executionArn"])

    async def ended(self, execution: str) -> dict[str, Any]:
        """Return an execution's description once it has ended."""
        async with asyncio.timeout(10):
            while True:
                shown = await self.call("DescribeExecution", executionArn=execution)
                if shown["status"] != "RUNNING":
                    return shown
                await asyncio.sleep(0.01)


async def _double(input: Any, task: Task) -> Json:
    return {"doubled": input["n"] * 2}


def _missing(machine: StateMachine) -> list[Problem]:
    """Find fault with the first task that calls `nothing`."""
    return [
        Problem("UNKNOWN_RESOURCE", "no handler is named 'nothing'", task.pointer, 1, 1)
        for task in machine.tasks
        if task.function_name == "nothing"
    ]


@pytest.fixture
async def api(fresh_database: str, open_port: Open) -> AsyncIterator[Api]:
    handlers = Handlers(coroutines={"double": _double})
    async with bench(fresh_database, handlers) as b:
        clock, definitions, arns = b.engine._clock, b.engine.definitions, Arns()
        surroundings = Surroundings(handlers, clock, SystemRandom())
        machines, executions = MachineRows(b.database), ExecutionRows(b.database)
        express = Express(surroundings, b.engine.request)
        starts = Starts(b.engine, express, machines, executions, definitions, arns, clock.now)
        handlers.coroutines["startExecution"] = start_execution(starts.start_by_task).run
        actions = {
            **Machines(machines, definitions, _missing, arns).actions(),
            **starts.actions(),
            **Executions(b.engine, machines, executions, definitions, arns, clock.now).actions(),
        }
        app = create_ops_app(OpsDeps(FakeDirectory(), FakeProbe(), actions=actions))
        yield Api(await open_port(app), b, starts)
        await express.close(1.0)


def without_times(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description without its moments, having seen that they are epoch seconds."""
    times = {name: value for name, value in shown.items() if name.endswith("Date")}
    assert all(isinstance(value, float) and value > 1.7e9 for value in times.values()), times
    return {name: value for name, value in shown.items() if name not in times}
