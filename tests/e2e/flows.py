"""Workflow files for tests: the shipped flow, changed as an operator would edit it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.e2e.process import REPOSITORY

FILE: Final = "verification.asl.json"
ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function:"

Flow = dict[str, Any]


def copy_workflows(folder: Path) -> Path:
    """Copy the shipped workflows into a folder and return the path of the verification flow."""
    shutil.copytree(REPOSITORY / "workflows", folder)
    return folder / FILE


def edit(path: Path, change: Callable[[Flow], None]) -> None:
    """Change the flow in a file, replacing the file in one step as a careful editor does."""
    flow = json.loads(path.read_text(encoding="utf-8"))
    change(flow)
    replace(path, json.dumps(flow, indent=2))


def replace(path: Path, text: str) -> None:
    """Put a new text in a file's place."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def insert_reminder(flow: Flow) -> None:
    """Have the flow send a reminder after half of the wait."""
    states = flow["States"]
    states["WaitForVerification"] = {"Type": "Wait", "Seconds": 900, "Next": "SendReminder"}
    states["SendReminder"] = {
        "Type": "Task",
        "Resource": f"{ARN}send_reminder_email",
        "Parameters": {"account_id.$": "$.account_id", "expires_in_seconds": 900},
        "ResultPath": None,
        "Next": "WaitOnceMore",
    }
    states["WaitOnceMore"] = {"Type": "Wait", "Seconds": 900, "Next": "GetAccount"}


def insert_pause_before_deleting(flow: Flow) -> None:
    """Have the flow call the own handler `pause` between the check and the delete."""
    flow["States"]["IsVerified"]["Default"] = "Pause"
    flow["States"]["Pause"] = {
        "Type": "Task",
        "Resource": f"{ARN}pause",
        "ResultPath": None,
        "Next": "DeleteUnverifiedAccount",
    }
