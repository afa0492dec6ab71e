"""What the figures are to reach, and whether a line does: written into the line itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Line: TypeAlias = Mapping[str, Any]
"""The figures of one run, as they are printed."""


class Goal(NamedTuple):
    """One figure of a line: where it stands in it, by member names, and what it is to be."""

    figure: str
    path: tuple[str, ...]
    bound: Literal["<=", ">="]
    limit: float
    unit: str

    def value(self, line: Line) -> float | None:
        """Return the figure; None where the run could not tell it."""
        found: Any = line
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    def is_met(self, value: float) -> bool:
        """Tell whether a value is on the right side of the limit, the limit included."""
        return value <= self.limit if self.bound == "<=" else value >= self.limit

    @property
    def text(self) -> str:
        """Return the goal as a reader has it: `<= 7000 B`."""
        return f"{self.bound} {self.limit:g} {self.unit}".strip()


def _calm(name: str, share: str) -> tuple[str, ...]:
    return "open_loop", name, share


GOALS: Final[Mapping[str, Sequence[Goal]]] = {
    "inproc": (
        Goal("CPU per workflow, service and Postgres", ("cpu_ms_per_workflow",), "<=", 0.35, "ms"),
        Goal("unloaded: acknowledgement p99", _calm("ack_ms", "p99"), "<=", 8, "ms"),
        Goal(
            "unloaded: whole workflow less its wait, p50",
            _calm("start_to_done_minus_wait_ms", "p50"), "<=", 8, "ms",
        ),
        Goal(
            "unloaded: whole workflow less its wait, p99",
            _calm("start_to_done_minus_wait_ms", "p99"), "<=", 25, "ms",
        ),
    ),
    "wal": (
        Goal("WAL per workflow", ("wal_bytes_per_workflow",), "<=", 7000, "B"),
        Goal(
            "write transactions per workflow", ("write_transactions_per_workflow",), "<=", 0.2, ""
        ),
    ),
    "signup": (Goal("signups over HTTP, of the limit", ("share_of_limit",), ">=", 0.5, ""),),
    "http": (Goal("whole workflow over HTTP, of the limit", ("share_of_limit",), ">=", 0.2, ""),),
    "timers": (
        Goal("a million waits: memory", ("rss_peak_mb",), "<=", 250, "MB"),
        Goal("a million waits: restart to first wake-up", ("restart_seconds",), "<=", 5, "s"),
        Goal("1,000 wake-ups a second: lateness p99", ("late_ms", "p99"), "<=", 25, "ms"),
        Goal("40,000 due in one second: lost", ("burst", "lost"), "<=", 0, ""),
        Goal("longest stall of the event loop", ("stall_ms_max",), "<=", 50, "ms"),
    ),
    "smtp": (Goal("workflows with real SMTP", ("workflows_per_s",), ">=", 2000, "/s"),),
    "mails": (Goal("CPU of a mail", ("cpu_us_per_mail",), "<=", 150, "µs"),),
    "map": (Goal("Distributed Map of 10,000 items", ("items_per_s",), ">=", 3000, "/s"),),
    "growth": (
        Goal("10 million finished executions: start", ("start_ratio",), "<=", 1.5, "of empty"),
        Goal("10 million finished executions: claim", ("claim_ratio",), "<=", 1.5, "of empty"),
    ),
    "idle": (Goal("an idle replica: queries", ("transactions_per_s",), "<=", 1.5, "/s"),),
    "idle_hundred": (
        Goal("100 idle replicas: Postgres", ("cores_postgres",), "<=", 0.25, "cores"),
    ),
}  # fmt: skip


class Ratio(NamedTuple):
    """A figure of ours over the same one of another engine, from lines of `{"peer": name, ...}`."""

    peer: str
    limit: float

    @property
    def figure(self) -> str:
        """Return what it is of."""
        return f"verification workflows in process, over those of {self.peer}"


def is_full(line: Line) -> bool:
    """Tell whether a run worked with as many rows as its goals are about."""
    return bool(line.get("scale", 1) == 1)


RATIOS: Final = (Ratio("DBOS", 30), Ratio("Restate", 12))


def judged(line: Line) -> dict[str, Any]:
    """Return the line with `goals`: of each, what was reached and whether that is enough.

    The goals are of the full scale: a line of a smaller one is judged by none of them.
    """
    goals = {}
    for goal in GOALS.get(line["name"], ()) if is_full(line) else ():
        value = goal.value(line)
        is_met = None if value is None else goal.is_met(value)
        goals[goal.figure] = {"goal": goal.text, "reached": value, "is_met": is_met}
    return {**line, "goals": goals} if goals else dict(line)
