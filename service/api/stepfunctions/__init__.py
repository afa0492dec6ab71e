"""The Step Functions API on the ops port."""

from service.api.stepfunctions.executions import Executions
from service.api.stepfunctions.machines import Machines
from service.api.stepfunctions.protocol import (
    BODY_BYTES_MAX,
    Action,
    Members,
    StepFunctions,
    render_fault,
)
from service.api.stepfunctions.starts import Starts
from service.api.stepfunctions.trials import Trials

__all__ = [
    "BODY_BYTES_MAX",
    "Action",
    "Executions",
    "Machines",
    "Members",
    "Starts",
    "StepFunctions",
    "Trials",
    "render_fault",
]
