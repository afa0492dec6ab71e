"""What one call of `advance` works on: its own copy of the execution, and what it notes on the way.

Frames are copied when they are first touched, so that the execution which was given stays as it is
and a step costs what it touches, not what is open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from service.asl.commands import Command
from service.asl.context import Visit
from service.asl.errors import DATA_LIMIT_EXCEEDED, ExecutionError
from service.asl.execution import (
    Backoff,
    Execution,
    Frame,
    Halt,
    Open,
    OpenMap,
    OpenTask,
    OpenWait,
    own_variables,
    variables_above,
)
from service.asl.history import HISTORY_EVENTS_MAX, HistoryEvent
from service.asl.parser import StateMachine
from service.asl.share import STEP_SHARE, Share, Work
from service.asl.states.base import State
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.task import Task
from service.asl.values import PAYLOAD_BYTES_MAX, Json, Random, exceeds, text_bytes

# Step Functions guide, "Passing data between states with variables": 256 KiB in one Assign, 10 MiB
# in all variables of an execution.
VARIABLES_BYTES_MAX: Final = 10 * 1024 * 1024
ASSIGN_CAUSE: Final = (
    f"The variables assigned exceed the maximum number of bytes: {PAYLOAD_BYTES_MAX}."
)
VARIABLES_CAUSE: Final = (
    f"The variables of the execution exceed the maximum number of bytes: {VARIABLES_BYTES_MAX}."
)

_NO_LINKS: Final[Mapping[int, int]] = MappingProxyType({})


class HistoryFull(Exception):
    """The next event would be the last one allowed, which is the end's."""


class Workspace:
    """An execution while it is being changed."""

    def __init__(
        self,
        machine: StateMachine,
        execution: Execution,
        now: datetime,
        random: Random,
        time_scale: float,
        share: Share = STEP_SHARE,
    ) -> None:
        self.machine = machine
        self._given = execution.frames
        self.execution = execution.copy()
        self.frames = self.execution.frames
        self.now = now
        self.random = random
        self.time_scale = time_scale
        self.history: list[HistoryEvent] = []
        self.ready: deque[int] = deque()
        # Of the frames that the step before has left over: what their entries are linked to.
        self.links: Mapping[int, int] = _NO_LINKS
        if execution.halt is not None:
            self.links = dict(execution.halt.ready)
            self.ready.extend(self.links)
            self.execution.halt = None
        self.share = share
        self.work = Work()
        self.has_changed = False  # beyond what the history tells
        self.is_cut_short = False  # before all that was due has happened
        self.opened: list[tuple[int, OpenTask | OpenWait | Backoff | OpenMap]] = []
        # What has failed with nothing having taken care of it yet, as it stood then.
        self.given_up: dict[int, Frame] = {}

    def commands(self) -> tuple[Command, ...]:
        """Return what was asked for on the way and is still open."""
        asked = []
        for frame_id, opened in self.opened:
            frame = self.frames.get(frame_id)
            if frame is not None and frame.open is opened:
                asked.append(opened.command)
        return tuple(asked)

    def has_share_left(self) -> bool:
        """Return whether the step may go on."""
        return len(self.history) < self.share.events and self.work.done < self.share.work

    def left_over(self) -> Halt:
        """Return where the step has stopped short."""
        ready = tuple(
            (frame_id, self.link_of_entry(self.frames[frame_id]))
            for frame_id in self.ready
            if frame_id in self.frames
        )
        return Halt(self.now, ready)

    def link_of_entry(self, frame: Frame) -> int:
        """Return the event that a frame's entry into its state is linked to.

        Known of states that were entered in this step or have not been tried since; else 0.
        """
        first_id = self.execution.last_event_id - len(self.history) + 1
        if frame.entered_event_id >= first_id:
            return self.history[frame.entered_event_id - first_id].previous_event_id
        return self.links.get(frame.id, 0)

    def new_frame(self, parent: int | None, scope: str, index: int, value: Json) -> Frame:
        """Return a frame that has not yet entered a state."""
        frame = Frame(self.execution.next_frame_id, parent, scope, index, "", value)
        if parent is not None:
            frame.variables = self.frames[parent].variables
        self.execution.next_frame_id += 1
        self.frames[frame.id] = frame
        return frame

    def touch(self, frame: Frame) -> Frame:
        """Return this workspace's own copy of a frame, to be changed."""
        self.has_changed = True
        if self._given.get(frame.id) is not frame:
            return frame
        own = self.frames[frame.id] = frame.copy()
        return own

    def make_ready(self, frame: Frame) -> None:
        """Have the frame's state tried when its turn comes."""
        frame.open = None
        self.ready.append(frame.id)

    def open(self, frame: Frame, waiting: OpenTask | OpenWait | Backoff | OpenMap) -> None:
        """Have the frame wait for something, and ask for it."""
        frame.open = waiting
        self.opened.append((frame.id, waiting))

    def replace_frames(self, frames: dict[int, Frame]) -> None:
        """Go on with these frames, which are the workspace's own; none of them is ready yet."""
        self.frames = self.execution.frames = frames
        self.ready.clear()
        self.links = {}
        self.given_up.clear()

    def give_up(self, frame: Frame, waited_for: Open | None) -> None:
        """Keep where a frame stood when it failed: for a redrive, should nothing take care of it.

        The first time counts: a state that cannot use what its branches have come to fails twice.
        """
        if frame.id not in self.given_up:
            stood = self.given_up[frame.id] = frame.copy()
            stood.open = waited_for

    def find_task(self, command_id: int) -> tuple[Frame, Task] | None:
        """Return the frame that waits for a command's answer, to be changed, with its state."""
        for frame in self.frames.values():
            if isinstance(frame.open, OpenTask) and frame.open.command.id == command_id:
                state = self.state(frame)
                assert isinstance(state, Task), state
                return self.touch(frame), state
        return None

    def find_map(self, command_id: int) -> tuple[Frame, DistributedMap, OpenMap] | None:
        """Return the frame that waits for a map run, to be changed, with its state."""
        for frame in self.frames.values():
            run = frame.open
            if isinstance(run, OpenMap) and run.command.id == command_id:
                state = self.state(frame)
                assert isinstance(state, DistributedMap), state
                return self.touch(frame), state, run
        return None

    def assign(self, frame: Frame, assigned: Mapping[str, Json]) -> None:
        """Set variables of a frame.

        Raise ExecutionError("States.DataLimitExceeded") when they are too large, or all the
        variables of the execution together are.
        """
        if exceeds(dict(assigned)):
            raise ExecutionError(DATA_LIMIT_EXCEEDED, ASSIGN_CAUSE)
        own = own_variables(frame.variables, variables_above(frame, self.frames))
        size = frame.variable_bytes
        for name, value in assigned.items():
            size += text_bytes(value) - (text_bytes(own[name]) if name in own else 0)
        others = sum(other.variable_bytes for other in self.frames.values() if other is not frame)
        if others + size > VARIABLES_BYTES_MAX:
            raise ExecutionError(DATA_LIMIT_EXCEEDED, VARIABLES_CAUSE)
        frame.variables = {**frame.variables, **assigned}
        frame.variable_bytes = size

    def state(self, frame: Frame) -> State:
        """Return the state that a frame stands in."""
        return self.machine.scopes[frame.scope].states[frame.state]

    def visit(self, frame: Frame, state: State) -> Visit:
        """Return what the state gets to see."""
        execution, now, random = self.execution, self.now, self.random
        return Visit(execution, frame, now, random, self.time_scale, state.can_retry, self.work)

    def emit(self, frame: Frame, type_: str, details: dict[str, Json] | None) -> None:
        """Note what happened in a frame, linked to what happened in it before.

        Raise HistoryFull when there is room for the end only.
        """
        execution = self.execution
        id_ = execution.last_event_id + 1
        if id_ >= HISTORY_EVENTS_MAX:
            raise HistoryFull
        self.history.append(HistoryEvent(id_, frame.last_event_id, self.now, type_, details))
        execution.last_event_id = frame.last_event_id = id_

    def record(self, previous: int, type_: str, details: dict[str, Json] | None) -> int:
        """Note what happened and return its id.

        Raise HistoryFull when there is room for the end only.
        """
        if self.execution.last_event_id >= HISTORY_EVENTS_MAX - 1:
            raise HistoryFull
        return self.append(previous, type_, details)

    def append(self, previous: int, type_: str, details: dict[str, Json] | None) -> int:
        """Note what happened, be it the last that fits, and return its id."""
        id_ = self.execution.last_event_id = self.execution.last_event_id + 1
        self.history.append(HistoryEvent(id_, previous, self.now, type_, details))
        return id_
