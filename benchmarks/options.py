"""What a run of the benchmarks can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Mail: TypeAlias = Literal["none", "discard", "sink"]
"""Tasks that do nothing, mails that are written and dropped, or SMTP to a sink."""

HOST: Final = "127.0.0.1"
"""Of all parts that talk to each other."""

WAIT_SECONDS_SHIPPED: Final = 1800
"""The Wait of workflows/verification.asl.json, which the load shortens."""

SECRET_KEY: Final = "a key for load tests that opens nothing"  # noqa: S105 - as it says


@dataclass(frozen=True, slots=True)
class Options:
    """How hard and how long the service is driven."""

    seconds: float = 8.0
    wait_seconds: float = 1.0
    clients: int = 256
    in_flight_max: int = 20_000
    processes: int = 1
    scale: float = 1.0
    """Of the rows that some runs need by the million: 0.01 is a hundredth of them."""

    def scaled(self, rows: int, least: int = 1) -> int:
        """Return how many of so many rows a run of this scale works with."""
        return max(least, int(rows * self.scale))

    @property
    def wait_time_scale(self) -> float:
        """What WAIT_TIME_SCALE must be for the shipped Wait to take `wait_seconds`."""
        return self.wait_seconds / WAIT_SECONDS_SHIPPED

    @property
    def window(self) -> tuple[float, float]:
        """Return the seconds from its begin in which the saturated load is counted.

        Before them no unverified signup has ended yet, and after them none begins.
        """
        return self.wait_seconds + 1.0, self.seconds


def service_environment(options: Options, *, database_url: str, smtp_port: int) -> dict[str, str]:
    """Return the environment of the service under load: the defaults, as far as that goes."""
    return {
        "DATABASE_URL": database_url,
        "SMTP_URL": f"smtp://{HOST}:{smtp_port or 25}?tls=none",
        "SECRET_KEY": SECRET_KEY,
        "MIGRATE": "on",
        "HOST": HOST,
        "PORT": "0",
        "OPS_PORT": "0",
        "WAIT_TIME_SCALE": repr(options.wait_time_scale),
    }
