"""Makes a story that fails as short as it can be and still fail.

First whole lines go, in halves and then one by one (Zeller's delta debugging), as long as what is
left still fails in one of the ways in which it failed before. Then what is left is made simpler:
fewer clicks, shorter delays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from tests.simulation.deterministic.faults import Fault
from tests.simulation.deterministic.play import Play, play
from tests.simulation.deterministic.story import NEVER, Start, Story, Visitor

PLAYS_MAX: Final = 400
"""Of one shrinking, which takes seconds."""

Part: TypeAlias = Visitor | Start | Fault
Player: TypeAlias = Callable[[Story], Play]


def shrink(failed: Play, player: Player = play, *, plays_max: int = PLAYS_MAX) -> Play:
    """Return the play of the shortest story found that fails as this one did."""
    return _Shrinker(failed, player, plays_max).shortest()


class _Shrinker:
    def __init__(self, failed: Play, player: Player, plays_max: int) -> None:
        self._best = failed
        self._player = player
        self._left = plays_max
        self._ways = set(failed.verdict.wrong)

    def shortest(self) -> Play:
        before = None
        while before is not self._best:
            before = self._best
            self._leave_out()
            self._simplify()
        return self._best

    def _leave_out(self) -> None:
        size = len(_parts(self._best.story))
        while size >= 1:
            at = 0
            while at < len(parts := _parts(self._best.story)):
                if not self._try(_story(self._best.story, [*parts[:at], *parts[at + size :]])):
                    at += size
            size //= 2

    def _simplify(self) -> None:
        for at in range(len(_parts(self._best.story))):
            for simpler in _simpler(_parts(self._best.story)[at]):
                parts = _parts(self._best.story)
                if self._try(_story(self._best.story, [*parts[:at], simpler, *parts[at + 1 :]])):
                    break

    def _try(self, story: Story) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        came = self._player(story)
        if not self._ways & set(came.verdict.wrong):
            return False
        self._best = came
        return True


def _parts(story: Story) -> list[Part]:
    return [*story.visitors, *story.starts, *story.faults]


def _story(story: Story, parts: Sequence[Part]) -> Story:
    return replace(
        story,
        visitors=tuple(part for part in parts if isinstance(part, Visitor)),
        starts=tuple(part for part in parts if isinstance(part, Start)),
        faults=tuple(part for part in parts if isinstance(part, Fault)),
    )


def _simpler(part: Part) -> Iterator[Part]:
    """Yield what could stand in a part's place, the simplest first."""
    if isinstance(part, Visitor):
        if part.clicks_after != NEVER:
            yield replace(part, clicks_after=NEVER, clicks=1)
        if part.clicks > 1:
            yield replace(part, clicks=1)
    elif isinstance(part, Fault) and part.place and part.nth > 1:
        yield replace(part, nth=1)
        yield replace(part, nth=part.nth // 2)
