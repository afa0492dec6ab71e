"""The state machines of the runs: the shipped flow, and small ones for what it does not have."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from service.asl import StateMachine, compile_definition
from service.resources import resource_path

VERIFICATION: Final = "verification"
PATIENT: Final = "patient"
"""The shipped flow with a wait so long that a run never sees it pass: a signal alone ends it."""

HESITANT: Final = "hesitant"
"""The shipped flow with a task of its own between the check and the delete."""

STEPS: Final = "steps"
BRANCHES: Final = "branches"
ITEMS: Final = "items"
STUBBORN: Final = "stubborn"
SMALL: Final = (STEPS, BRANCHES, ITEMS, STUBBORN)
"""Most begin with an effect, committed with the start: a start run again would count twice."""

TIME_SCALE: Final = 1 / 600
"""Of Waits and backoffs: half an hour becomes three seconds."""

WAIT_SECONDS: Final = 1800 * TIME_SCALE
FAILURES_OF_THE_STUBBORN: Final = 2

_SHIPPED: Final = resource_path("workflows") / "verification.asl.json"
_ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function:"


def _task(function: str, **fields: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": _ARN + function, **fields}


def _flow(*names_and_states: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in names_and_states]
    states = {}
    for at, (name, state) in enumerate(names_and_states):
        follows = {"Next": names[at + 1]} if at + 1 < len(names) else {"End": True}
        states[name] = state | follows
    return {"StartAt": names[0], "States": states}


def _definitions() -> dict[str, dict[str, Any]]:
    shipped = json.loads(_SHIPPED.read_text(encoding="utf-8"))
    patient = json.loads(json.dumps(shipped))
    patient["States"]["WaitForVerification"]["Seconds"] = 30 * 86_400
    hesitant = json.loads(json.dumps(shipped))
    hesitant["States"]["IsVerified"]["Default"] = "Pause"
    again = [{"ErrorEquals": ["FunctionUnavailable"], "IntervalSeconds": 60, "MaxAttempts": 99}]
    hesitant["States"]["Pause"] = _task(
        "work", Retry=again, ResultPath=None, Next="DeleteUnverifiedAccount"
    )
    branch_with_wait = _flow(("Pause", {"Type": "Wait", "Seconds": 300}), ("Late", _task("tally")))
    branches = [_flow(("Work", _task("work")), ("Soon", _task("tally"))), branch_with_wait]
    retry = [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 60, "MaxAttempts": 5}]
    return {
        VERIFICATION: shipped,
        PATIENT: patient,
        HESITANT: hesitant,
        STEPS: _flow(
            ("Before", _task("tally")),
            ("Work", _task("work", Retry=again)),
            ("Between", _task("tally")),
            ("Pause", {"Type": "Wait", "Seconds": 300}),
            ("After", _task("tally")),
        ),
        BRANCHES: _flow(
            ("Before", _task("tally")),
            ("Fork", {"Type": "Parallel", "Branches": branches, "Retry": again}),
            ("After", _task("tally")),
        ),
        ITEMS: _flow(
            (
                "Each",
                {
                    "Type": "Map",
                    "ItemsPath": "$.items",
                    "MaxConcurrency": 2,
                    "ItemProcessor": _flow(
                        ("Work", _task("work", Retry=again)), ("Count", _task("tally"))
                    ),
                },
            ),
        ),
        STUBBORN: _flow(
            ("Before", _task("tally")),
            ("Try", _task("flaky", Retry=[*retry, *again])),
            ("After", _task("tally")),
        ),
    }


@cache
def machines() -> dict[str, StateMachine]:
    """Return the machines by name, compiled once for all runs."""
    return {name: compile_definition(json.dumps(text)) for name, text in _definitions().items()}
