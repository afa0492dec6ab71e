"""The simulation itself: its stories hold, meet every fault, repeat, and can be shortened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from tests.e2e.process import REPOSITORY
from tests.faults.d01_simulation import Tally, play_seeds
from tests.faults.m01_mutants import MUTANTS
from tests.simulation.deterministic.faults import (
    AT_A_MOMENT,
    AT_A_PLACE,
    DROP,
    KILL_AFTER,
    KILL_BEFORE,
    OUTAGE,
    STEP,
    STOP_AFTER,
    Fault,
    Schedule,
    draw_fault,
)
from tests.simulation.deterministic.flows import VERIFICATION, WAIT_SECONDS
from tests.simulation.deterministic.judge import Verdict, is_explained
from tests.simulation.deterministic.outside import Performed
from tests.simulation.deterministic.play import Play, play
from tests.simulation.deterministic.shrink import shrink
from tests.simulation.deterministic.story import NEVER, Story, Visitor, story_of

SEEDS = 240
POINTS = ("begin", "insert", "lock", "apply", "standing", "save", "commit")
PRINT_TRACES = (
    "from tests.simulation.deterministic.play import play\n"
    "from tests.simulation.deterministic.story import story_of\n"
    "print([play(story_of(seed)).trace for seed in range(700, 715)])"
)


@pytest.fixture(scope="module")
def tally() -> Tally:
    return play_seeds(0, SEEDS)


def test_the_first_stories_hold(tally: Tally) -> None:
    assert tally.failed == [], "\n".join(tally.stories)


def test_every_kind_of_fault_strikes(tally: Tally) -> None:
    assert {*AT_A_PLACE, *AT_A_MOMENT} <= tally.struck.keys()


@pytest.mark.parametrize(
    "place",
    [
        *(f"{name}: {kind}" for name in ("commit", "mail") for kind in (KILL_BEFORE, KILL_AFTER)),
        f"claim_due: {KILL_AFTER}",
        f"rescue: {KILL_AFTER}",
        f"contact: {KILL_AFTER}",
        f"commit: {STOP_AFTER}",
        f"{STEP}: {KILL_BEFORE}",
    ],
)
def test_replicas_die_at_each_point_that_matters(tally: Tally, place: str) -> None:
    assert tally.places[place] > 0


@pytest.mark.parametrize("point", POINTS)
def test_faults_strike_at_each_statement_of_a_transaction(tally: Tally, point: str) -> None:
    assert any(place.startswith(f"{point}: ") for place in tally.places)


@pytest.mark.parametrize(
    "state",
    ["SendVerificationEmail", "WaitForVerification", "SendWelcomeEmail", "Pause", "Work", "Try"],
)
def test_faults_strike_in_each_state_that_is_open_for_a_while(tally: Tally, state: str) -> None:
    assert tally.seen[f"fault in {state}"] > 0


@pytest.mark.parametrize(
    "event",
    [
        "ambiguous commit",
        "fenced write",
        "lock timeout",
        "quarantine",
        "rescue",
        "rescue of the living",
        "signal at rest",
        "signal beside a wake-up",
        "signal found by a step",
        "start that stood",
        "dup_mail",
    ],
)
def test_what_is_rare_happens(tally: Tally, event: str) -> None:
    assert tally.seen[event] > 0


@pytest.mark.parametrize(
    ("fault", "hit", "at", "explains"),
    [
        (Fault(KILL_AFTER, "mail"), "replica 0a", 5.1, True),
        (Fault(KILL_AFTER, "mail"), "replica 2a", 5.1, False),  # who had no part in it
        (Fault(KILL_AFTER, "mail"), "replica 0a", 8.1, False),  # after the repeat
        (Fault(STOP_AFTER, "mail", seconds=4.0), "replica 1a", 3.0, True),
        (Fault(OUTAGE, seconds=1.0), "outside", 5.1, True),
        (Fault(DROP, "http"), "outside", 5.1, False),
    ],
)
def test_a_repeat_is_explained_by_what_hit_its_performers_or_the_database(
    fault: Fault, hit: str, at: float, explains: bool
) -> None:
    first = Performed("mail welcome", UUID(int=1), "replica 0a", 5.0)
    again = replace(first, by="replica 1a", at=8.0)
    assert is_explained(first, again, [(fault, hit, at)]) is explains


def test_a_repeat_is_explained_by_what_hit_somebody_it_was_rescued_from() -> None:
    first = Performed("function", UUID(int=1), "replica 0a", 5.0)
    again = replace(first, by="replica 1a", at=9.0)
    struck = [(Fault(STOP_AFTER, "seize", seconds=4.0), "replica 2a", 5.2)]
    assert not is_explained(first, again, struck)
    assert is_explained(first, again, struck, lost=["replica 2a"])
    assert not is_explained(first, again, [], lost=["replica 2a"])


# It repeats


def test_a_seed_says_the_same_in_any_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", PRINT_TRACES],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "77")
    }
    assert said == {f"{[play(story_of(seed)).trace for seed in range(700, 715)]}\n"}


def test_another_seed_says_something_else() -> None:
    story = story_of(3)
    assert play(story).trace != play(replace(story, seed=4)).trace


def test_faults_are_told_in_words_and_strike_once() -> None:
    fault = Fault(KILL_AFTER, "mail", 2)
    schedule = Schedule((fault,))
    assert [schedule.strike("mail") for _ in range(3)] == [None, fault, None]
    assert str(fault) == "mail no. 2: killed after"


# It can be made short


def test_a_failing_story_is_shortened_to_what_it_takes() -> None:
    culprit = Fault(KILL_AFTER, "commit", 3)
    visitors = tuple(Visitor(n, 0.1 * n, n, VERIFICATION, WAIT_SECONDS, 2) for n in range(4))
    story = story_of(8)
    random = Random(1)
    story = replace(
        story, visitors=visitors, faults=(*(draw_fault(random) for _ in range(6)), culprit)
    )

    def player(tried: Story) -> Play:
        fails = culprit in tried.faults and any(one.number == 2 for one in tried.visitors)
        verdict = Verdict({"lost": ["somebody"]} if fails else {})
        return Play(tried, verdict, 0, 0.0, 0, Counter(), Counter())

    short = shrink(player(story), player).story
    assert (short.starts, short.faults) == ((), (culprit,))
    assert short.visitors == (replace(visitors[2], clicks_after=NEVER, clicks=1),)


def test_a_broken_rule_is_told_in_a_short_story_that_fails_again() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "dispatched is done")
    with mutant.at_large():
        failed = next(came for n in range(200) if not (came := play(story_of(n))).verdict.held)
        short = shrink(failed)
        again = play(short.story)
    assert (again.trace, again.verdict) == (short.trace, short.verdict)
    assert len(short.story.faults) <= 2
    assert len(short.story.visitors) + len(short.story.starts) == 1
    assert play(short.story).verdict.held
