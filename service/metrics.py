"""Every counter, gauge and histogram of the service, defined once, and their text for Prometheus.

Labels are few and bounded: never an id, an address, or an error's text. Names that come from
definitions and requests (a state machine's, a function's) go through `bounded`.
"""

from __future__ import annotations

import functools
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]  # A series more for each, read by nobody.
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TASK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_HUMAN: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 14_400, 86_400, 604_800)
_ROWS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)


NAMES_MAX: Final = 200
"""Of machines and of functions that have series of their own; the later ones share theirs."""

OTHER: Final = "other"

_seen: Final[dict[str, set[str]]] = {}


def bounded(label: str, name: str) -> str:
    """Return the value that a name has for a label: itself, or OTHER once NAMES_MAX were seen."""
    names = _seen.setdefault(label, set())
    if name in names:
        return name
    if len(names) >= NAMES_MAX:
        return OTHER
    names.add(name)
    return name


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"countersign_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"countersign_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"countersign_{name}", text, labels, buckets=buckets, registry=REGISTRY)


# The service

SIGNUPS = _counter("signups_total", "Signups acknowledged.")
VERIFIED = _counter("verified_total", "Signups verified.")
EXPIRED = _counter("expired_total", "Signups that ended unverified.")
TIME_TO_VERIFY_SECONDS = _histogram(
    "time_to_verify_seconds", "From a signup's acknowledgement to its verification.", _HUMAN
)
MAILS = _counter(
    "mails_total", "Mails by kind and outcome: sent, refused, unavailable.", "kind", "outcome"
)

# The engine

EXECUTIONS_STARTED = _counter("executions_started_total", "Executions started.", "machine")
EXECUTIONS_ENDED = _counter(
    "executions_ended_total", "Executions ended, by final status.", "machine", "status"
)
EXECUTIONS_IN_FLIGHT = _gauge(
    "executions_in_flight", "Executions in this process's hands: not waiting, not ended."
)
TASK_SECONDS = _histogram(
    "task_seconds",
    "Time in a handler, by resource and outcome: succeeded, failed, timed_out.",
    _TASK,
    "resource",
    "outcome",
)
WAKE_UP_LATENESS_SECONDS = _histogram(
    "wake_up_lateness_seconds", "From a timer's due time to its claim.", _QUICK
)
CLAIMS = _counter("claims_total", "Executions claimed because their timer was due.")
RESCUES = _counter("rescues_total", "Executions taken over from a worker whose lease ran out.")
FENCED_WRITES = _counter(
    "fenced_writes_total", "Steps dropped because another worker holds the execution by now."
)

# The committer

COMMIT_BATCH_ROWS = _histogram("commit_batch_rows", "Executions in one transaction.", _ROWS)
COMMIT_SECONDS = _histogram("commit_seconds", "Time of one transaction, all its rounds.", _QUICK)
BATCH_SPLITS = _counter(
    "batch_splits_total", "Batches halved to find or to get around a bad or locked row.", "reason"
)

# The database

POOL_CONNECTIONS = _gauge("pool_connections", "Connections by use: busy, idle.", "use")
POOL_WAIT_SECONDS = _histogram("pool_wait_seconds", "Wait for a connection of the pool.", _QUICK)


@functools.lru_cache(maxsize=4096)
def child(metric: _Metric, *labels: str) -> _Metric:
    """Return the series of a metric for these labels, without looking them up under its lock."""
    return metric.labels(*labels)


def render() -> tuple[bytes, str]:
    """Return all metrics as text for Prometheus, and the content type of that text."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
