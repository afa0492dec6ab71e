"""What an execution that did not succeed leaves behind, and how it stands when it is redriven.

The theory. A failure unwinds frames: a lost branch fails the state that forked it, which gives up
the others, and so on to the root. What a redrive needs is how they stood before: which branches had
come to their results, which state each of the others was in, and with what input. So whatever is
given up is kept until a Retrier, a Catcher or a tolerance has taken care of it; if nothing has when
the execution ends, it is put together again with the frames that nothing had happened to.

Source: Step Functions guide, "Restarting state machine executions with redrive", and "Redriving Map
Runs". States that did not end are tried again with their input, their retries counted anew; of
Parallel and Map only the branches that failed or were given up; the runs of Distributed Maps go on
as the runs they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from service.asl.execution import Frame, Open, OpenFork, OpenMap
from service.asl.history import HISTORY_EVENTS_MAX

REDRIVABLE_EVENTS_MAX: Final = HISTORY_EVENTS_MAX - 2
"""Of an execution that has ended. API reference, RedriveExecution: there must be room for
ExecutionRedriven and one event more.
"""


def left_behind(
    frames: Mapping[int, Frame], given_up: Mapping[int, Frame], last_event_id: int
) -> dict[int, Frame]:
    """Return the frames of an execution as they stood before it ended; none if it is too long.

    A frame comes after the one that forked it, as its number does.
    """
    if last_event_id > REDRIVABLE_EVENTS_MAX:
        return {}
    stood = {**frames, **given_up}
    return {id: _at_rest(stood[id]) for id in sorted(stood)}


def raised(frames: Mapping[int, Frame]) -> dict[int, Frame]:
    """Return frames of one's own that are ready to be tried, below forks that wait for them."""
    own = {id: _at_rest(frame) for id, frame in frames.items()}
    standing: defaultdict[int | None, set[int]] = defaultdict(set)
    for frame in own.values():
        standing[frame.parent].add(frame.index)
    for frame in own.values():
        if isinstance(frame.open, OpenFork):
            fork, branches = frame.open, standing[frame.id]
            fork.running, fork.failed = len(branches), 0
            # A failure that was tolerated has left no frame: such a branch begins anew.
            missing = set(range(fork.started)) - fork.results.keys() - branches
            fork.again = tuple(sorted(missing))
    return own


def _at_rest(frame: Frame) -> Frame:
    """Return a copy that waits for nothing but branches, and map runs that are known to be there.

    Whatever else it waited for is asked for anew.
    """
    copy = frame.copy()
    copy.open, copy.retries = _kept(copy.open), ()
    return copy


def _kept(open: Open | None) -> Open | None:
    if isinstance(open, OpenFork) or (isinstance(open, OpenMap) and open.arn is not None):
        return open
    return None
