"""The service's own counters, read from the text that it shows Prometheus."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Counters: TypeAlias = Mapping[str, float]

ENDED: Final = "countersign_executions_ended_total"
MAILS: Final = "countersign_mails_total"
BATCHES: Final = "countersign_commit_batch_rows_count"
BATCH_ROWS: Final = "countersign_commit_batch_rows_sum"
BATCH_SECONDS: Final = "countersign_commit_seconds_sum"
STALL: Final = "benchmark_loop_stall_seconds"
"""Of `benchmarks.serve`: the longest since it was last read."""

_SAMPLE: Final = re.compile(
    rf"^({ENDED}|{MAILS}|{BATCHES}|{BATCH_ROWS}|{BATCH_SECONDS}|{STALL})(?:\{{.*\}})? (\S+)$",
    re.MULTILINE,
)


def read_counters(text: str) -> Counters:
    """Return the counters named above, each summed over its labels; 0 for one not there yet."""
    sums: defaultdict[str, float] = defaultdict(float)
    for name, value in _SAMPLE.findall(text):
        sums[name] += float(value)
    return sums


def rate(samples: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Return the rise of a counter per second between two moments.

    `samples` are (seconds, value) in the order of time, and reach beyond both moments.
    """
    return (_value_at(samples, end) - _value_at(samples, begin)) / (end - begin)


def _value_at(samples: Sequence[tuple[float, float]], moment: float) -> float:
    """Return the value between the two samples around a moment, on the straight line."""
    after = bisect_left(samples, (moment, 0.0))
    (t0, v0), (t1, v1) = samples[after - 1], samples[after]
    return v0 + (v1 - v0) * (moment - t0) / (t1 - t0)
