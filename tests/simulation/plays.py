"""What the tests of the simulation share: short definitions, and cases played without files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from service.asl import Json, compile_definition
from service.simulation import Case, Played, play
from service.tasks.simulated import SimulatedAccount
from tests.docs.pages import ROOT

FLOW: Final = ROOT / "workflows" / "verification.asl.json"
CASES: Final = ROOT / "workflows" / "verification.cases.json"
ID: Final = "01970000-0000-7000-8000-000000000001"
INPUT: Final = {"account_id": ID}


def function(name: str) -> str:
    """Return the resource that calls a function."""
    return f"arn:aws:lambda:us-east-1:000000000000:function:{name}"


def chain(**states: dict[str, Any]) -> dict[str, Any]:
    """Return a definition whose states follow each other, a Task unless they say otherwise."""
    names = list(states)
    for name, follower in zip(names, [*names[1:], None], strict=True):
        state = states[name]
        if state.setdefault("Type", "Task") not in ("Choice", "Succeed", "Fail"):
            state |= {"End": True} if follower is None else {"Next": follower}
    return {"StartAt": names[0], "States": states}


def played(definition: Mapping[str, Any], *, seed: int = 1, **case: Any) -> Played:
    """Return what comes of a case, which is read as from a file."""
    machine = compile_definition(json.dumps(definition))
    read = Case.model_validate({"name": "case", "input": INPUT, **case})
    return play(machine, read, SimulatedAccount(read.data), seed)


def came(one: Played) -> tuple[str, Json, float]:
    """Return the status, the output or error, and the seconds it took."""
    execution = one.execution
    return execution.status.value, execution.error or execution.output, one.seconds
