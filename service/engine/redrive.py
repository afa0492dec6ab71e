"""Which executions may be redriven, and for how long a request to do so is remembered.

Source: API reference, RedriveExecution and DescribeExecution ("redriveStatusReason").
"""

from __future__ import annotations

from typing import Final

REDRIVABLE_DAYS: Final = 14
"""After the end of an execution."""

OPEN_DAYS_MAX: Final = 365
"""After its start. Step Functions guide, "Service quotas": maximum execution time."""

TOKEN_SECONDS: Final = 900.0
"""In which a clientToken that has redriven an execution does not do so again."""

TOKENS_MAX: Final = 10
"""Redrives of an execution that are remembered, the last ones."""
