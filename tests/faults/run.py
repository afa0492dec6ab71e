"""What a fault run is: a fault, a size for tests and one in full, and the line that comes of it."""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from benchmarks.circumstances import commit, core
from benchmarks.database import embedded_server
from tests.e2e.process import REPOSITORY
from tests.faults.ledger import Counts

SUCCESS_MIN: Final = 0.95
"""Below this share of operations a run is void: it may hold because nothing worked."""

Edition: TypeAlias = Literal["small", "full"]
Verdict: TypeAlias = Literal["held", "broken", "void"]
S = TypeVar("S")


@dataclass(frozen=True)
class Stage:
    """Where a run is played: its seed, a folder of its own, a server, and somebody to tell."""

    seed: int
    folder: Path
    given_server: str | None = None
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", random.Random(self.seed))

    @asynccontextmanager
    async def server(self) -> AsyncIterator[str]:
        """Yield the URL of a PostgreSQL server: the one given, or one that lives for this run.

        That one has fsync on, as PostgreSQL has it unless told otherwise.
        """
        if self.given_server is not None:
            yield self.given_server
            return
        async with embedded_server() as url:
            yield url

    def tell(self, text: str) -> None:
        """Say how far the run is, to whoever watches."""
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `complaints` are sentences about what had to hold and did not."""

    counts: Counts
    success: float
    figures: Mapping[str, object] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Return void when too little worked to tell, broken when something did not hold."""
        if self.success < SUCCESS_MIN:
            return "void"
        return "broken" if self.counts.faults or self.complaints else "held"


@dataclass(frozen=True)
class Run(Generic[S]):
    """One line of the table of runs. `more` are further sizes that the tests play.

    `missing` says what this machine lacks for it, if anything. One that `is_of_sources` patches the
    engine, and is played on the interpreted core.
    """

    name: str
    title: str
    small: S
    full: S
    play: Callable[[Stage, S], Awaitable[Outcome]]
    more: tuple[S, ...] = ()
    missing: Callable[[], str | None] = lambda: None
    is_of_sources: bool = False

    def size(self, edition: Edition, changes: Mapping[str, str] | None = None) -> S:
        """Return the size of an edition, with some of its numbers replaced.

        Raises ValueError for a name that the size does not have, or a text that is no such number.
        """
        size: Any = self.small if edition == "small" else self.full
        replaced = {}
        for name, text in (changes or {}).items():
            if name not in {each.name for each in dataclasses.fields(size)}:
                raise ValueError(f"{self.name} has no {name}: {size}")
            replaced[name] = type(getattr(size, name))(text)
        changed: S = dataclasses.replace(size, **replaced)
        return changed


async def perform(
    run: Run[S], size: S, *, seed: int, edition: Edition, given_server: str | None = None
) -> dict[str, object]:
    """Play a run and return its line."""
    scratch = REPOSITORY / "build"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{run.name}-", dir=scratch) as folder:
        stage = Stage(seed, Path(folder), given_server)
        stage.tell(f"{run.name} ({run.title}), seed {seed}: {size}")
        began = time.monotonic()
        outcome = await run.play(stage, size)
        seconds = time.monotonic() - began
        for complaint in outcome.complaints:
            stage.tell(f"{run.name}: {complaint}")
        for name, culprits in outcome.counts.culprits.items():
            stage.tell(f"{run.name}: {name}: {', '.join(culprits)}")
    return {
        "run": run.name,
        "seed": seed,
        "size": edition,
        **asdict(size),  # type: ignore[call-overload]
        "commit": commit(),
        "core": core(),
        **outcome.counts.line(),
        **outcome.figures,
        "success": round(outcome.success, 4),
        "complaints": outcome.complaints,
        "verdict": outcome.verdict,
        "seconds": round(seconds, 1),
    }


def percentile(values: list[float], share: float) -> float | None:
    """Return the value that this share of all does not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(seconds: float | None) -> float | None:
    """Return seconds as milliseconds for a line."""
    return None if seconds is None else round(1000 * seconds, 1)
