"""How an execution goes on: `advance` takes one event and returns what it leads to.

The theory. An execution is a set of frames, each standing in one state. A frame is open when it
waits for something (a task's answer, a moment, the frames of its fork) and ready when it does not.
An event opens or closes nothing but what it names; then ready frames are tried, one state at a time
and in turn, until all are open or the execution has ended. So states that wait for nothing cost no
checkpoint, and the same event on the same execution gives the same step.

A state that fails is handled here, once for all types: a Retrier that matches parks the frame in a
backoff, else a Catcher that matches leads on, else the frame is lost. A lost frame fails the state
that forked it, unless that tolerates it, and the root's failure is the execution's. Where the
frames stood then is kept, and a redrive goes on from there (see `redrive`).

The execution given is never changed: frames are copied when they are first touched, values are
shared and never written to. Every step appends at least one history event for each state tried; one
that has noted as many as its share allows stops short, and leaves the frames that are still ready
to the next step, which goes on as this one would have: the history comes out the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final

from service.asl import redrive
from service.asl.commands import Command
from service.asl.dataflow import check_size, too_large
from service.asl.errors import (
    DATA_LIMIT_EXCEEDED,
    EXCEED_TOLERATED_FAILURE_THRESHOLD,
    HEARTBEAT_TIMEOUT,
    RUNTIME,
    TIMEOUT,
    EvaluationFailed,
    ExecutionError,
    ReportedError,
)
from service.asl.events import (
    Event,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    Poisoned,
    Redriven,
    Signalled,
    Started,
    Stopped,
    TaskFailed,
    TaskHeartbeat,
    TaskSucceeded,
    TimerFired,
)
from service.asl.execution import (
    NO_FRAMES,
    ROOT_SCOPE,
    Backoff,
    Execution,
    Frame,
    OpenFork,
    OpenMap,
    OpenTask,
    OpenWait,
    Status,
)
from service.asl.history import HISTORY_EVENTS_MAX, HistoryEvent
from service.asl.parser import StateMachine
from service.asl.retry import Catcher, Failure, bounded, matches
from service.asl.share import BYTES_PER_WORK, STEP_SHARE, WEIGHED_EVENTS, Share
from service.asl.states.base import Decision, ForkingState, Goto, Park, Spread, State
from service.asl.states.distributed_map import DistributedMap
from service.asl.states.task import Task, after
from service.asl.values import PAYLOAD_BYTES_MAX, Json, Random, exceeds, measured, text_of
from service.asl.workspace import HistoryFull, Workspace

LOCATION_CHARACTERS_MAX: Final = 256  # API reference, EvaluationFailedEventDetails

BRIEF_RUN_ITEMS_MAX: Final = 2
MAP_RUN_REDRIVES_MAX: Final = 1_000  # Step Functions guide, "Redriving Map Runs"
MAP_RUN_REDRIVES_CAUSE: Final = f"The map run has been redriven {MAP_RUN_REDRIVES_MAX} times."
TOLERANCE_CAUSE: Final = "The specified tolerated failure threshold was exceeded"
HISTORY_CAUSE: Final = (
    f"The execution reached the maximum number of history events ({HISTORY_EVENTS_MAX})."
)


@dataclass(init=False, slots=True)
class Step:
    """What one event led to: where the execution stands now, what to perform, and what happened."""

    execution: Final[Execution]
    commands: Final[tuple[Command, ...]]
    history: Final[tuple[HistoryEvent, ...]]

    def __init__(
        self,
        execution: Execution,
        commands: tuple[Command, ...],
        history: tuple[HistoryEvent, ...],
    ) -> None:
        self.execution = execution
        self.commands = commands
        self.history = history


def advance(
    machine: StateMachine,
    execution: Execution,
    event: Event,
    now: datetime,
    random: Random,
    *,
    time_scale: float = 1.0,
    share: Share = STEP_SHARE,
) -> Step:
    """Return what `event`, happening at `now`, leads to. `execution` itself stays as it is.

    An event that concerns nothing open, or comes after the end, gives back the very same execution
    and nothing else; but Redriven is for one that has ended. `time_scale` multiplies Wait seconds
    and Retry delays; timestamps and timeouts keep their real time. A step that has had its `share`
    stops short: the execution's `halt` says so, its due time is at once, and whatever event comes
    next goes on where it stopped.
    """
    if execution.status is not Status.RUNNING and not isinstance(event, Redriven):
        return Step(execution, (), ())
    run = Run(machine, execution, now, random, time_scale, share)
    try:
        run.take(event)
        run.go_on()
    except HistoryFull:
        run.end(Status.FAILED, "ExecutionFailed", Failure(RUNTIME, HISTORY_CAUSE))
    if run.ready or run.is_cut_short:
        run.execution.halt = run.left_over()
    # What the step before has left over may have been given up since. Then nothing else changes,
    # but an execution that kept its halt would be due at once for ever.
    is_halt_over = execution.halt is not None and run.execution.halt is None
    if not (run.history or run.has_changed or is_halt_over):
        return Step(execution, (), ())
    return Step(run.execution, run.commands(), tuple(run.history))


class Run(Workspace):
    """One call of `advance` at work."""

    # ---------------------------------------------------------------- events

    def take(self, event: Event) -> None:
        """Apply the event to the frames that it names."""
        match event:
            case Started():
                self._start()
            case TaskSucceeded():
                self._succeed_task(event)
            case TaskFailed():
                self._fail_task(event.command_id, event.error, event.cause)
            case TaskHeartbeat():
                self._hear(event.command_id)
            case MapRunBegan():
                self._begin_map(event)
            case MapRunSucceeded():
                self._succeed_map(event)
            case MapRunFailed():
                self._fail_map(event)
            case TimerFired():
                self._fire_timers()
            case Signalled():
                self._signal()
            case Stopped():
                failure = Failure(*bounded(event.error, event.cause))
                self.end(Status.ABORTED, "ExecutionAborted", failure)
            case Poisoned():
                failure = Failure(*bounded(event.error, event.cause))
                self.end(Status.FAILED, "ExecutionFailed", failure)
            case Redriven():
                self._redrive()

    def _start(self) -> None:
        """Begin at StartAt.

        A repeated Started (a crash between commit and answer) changes nothing.
        """
        execution, about = self.execution, self.execution.about
        if execution.last_event_id:
            return
        assert not exceeds(about.input), "an input over the limit is refused before it gets here"
        self._limit_time(about.started_at)
        self.record(0, "ExecutionStarted", {"input": about.input, "roleArn": about.role_arn})
        frame = self.new_frame(None, ROOT_SCOPE, 0, about.input)
        self._enter(frame, self.machine.start_at, about.input)

    def _limit_time(self, began_at: datetime) -> None:
        if self.machine.timeout_seconds is not None:
            self.execution.times_out_at = after(began_at, self.machine.timeout_seconds)

    def _redrive(self) -> None:
        """Go on from where the execution stood when it ended: states that failed are tried anew.

        No state is entered a second time: what comes of it is linked to the redrive.
        """
        execution, about = self.execution, self.execution.about
        # One that was ended without being read has its frames as they were.
        self.replace_frames(redrive.raised(execution.remains or self.frames))
        execution.remains = NO_FRAMES
        execution.status, execution.error, execution.cause = Status.RUNNING, None, None
        self._limit_time(about.redriven_at or self.now)
        began = self.record(
            execution.last_event_id, "ExecutionRedriven", {"redriveCount": about.redrive_count}
        )
        for frame in self.frames.values():
            frame.last_event_id = began
        for frame in list(self.frames.values()):
            if frame.id not in self.frames:
                continue  # what was redriven before it has ended a state that it stood below
            if isinstance(frame.open, OpenMap):
                self._redrive_map(frame, frame.open)
            elif frame.open is None:
                self.make_ready(frame)
        for frame in reversed(list(self.frames.values())):
            fork, state = frame.open, self.state(frame)
            if isinstance(fork, OpenFork) and frame.id in self.frames:
                assert isinstance(state, ForkingState), state
                self._continue_fork(frame, state, fork, began)

    def _redrive_map(self, frame: Frame, run: OpenMap) -> None:
        command, state = run.command, self.state(frame)
        if command.redrives >= MAP_RUN_REDRIVES_MAX:
            self._fail(frame, state, Failure(RUNTIME, MAP_RUN_REDRIVES_CAUSE), is_fork=True)
            return
        command = command._replace(redrives=command.redrives + 1)
        details: dict[str, Json] = {"mapRunArn": run.arn, "redriveCount": command.redrives}
        self.emit(frame, "MapRunRedriven", details)
        self.open(frame, OpenMap(command, run.arn))

    def _succeed_task(self, event: TaskSucceeded) -> None:
        found = self.find_task(event.command_id)
        if found is None:
            return
        frame, state = found
        if event.acknowledges_signal:
            self.execution.is_acknowledged = True
            self.execution.is_signalled = False
        if exceeds(event.output):
            cause = too_large(state.target.origin)
            self._fail_task(event.command_id, DATA_LIMIT_EXCEEDED, cause)
            return
        type_, details = state.target.succeeded(event.output)
        self.emit(frame, type_, details)
        self._resume(frame, state, event.output)

    def _fail_task(self, command_id: int, error: str, cause: str | None) -> None:
        found = self.find_task(command_id)
        if found is None:
            return
        frame, state = found
        failure = Failure(*bounded(error, cause), by_task=True)
        type_, details = state.target.failed(failure)
        self.emit(frame, type_, details)
        self._fail(frame, state, failure)

    def _hear(self, command_id: int) -> None:
        found = self.find_task(command_id)
        if found is None:
            return
        frame, _ = found
        task = frame.open
        assert isinstance(task, OpenTask), task
        heartbeat_due_at = after(self.now, task.command.heartbeat_seconds)
        frame.open = OpenTask(task.command, task.times_out_at, heartbeat_due_at)

    def _begin_map(self, event: MapRunBegan) -> None:
        found = self.find_map(event.command_id)
        if found is None:
            return
        frame, _, run = found
        if run.arn is not None:
            return  # told again after a crash, to have it on record that the run goes on
        self.emit(frame, "MapRunStarted", {"mapRunArn": event.arn})
        frame.open = OpenMap(run.command, event.arn)

    def _succeed_map(self, event: MapRunSucceeded) -> None:
        found = self.find_map(event.command_id)
        if found is None:
            return
        frame, state, run = found
        began = frame.last_event_id
        self.emit(frame, "MapRunSucceeded", None)
        if exceeds(event.output):
            self._fail(
                frame, state, Failure(DATA_LIMIT_EXCEEDED, too_large(frame.state)), is_fork=True
            )
            return
        self.record(frame.last_event_id, "MapStateSucceeded", None)
        if not self._is_brief(state, run):
            frame.last_event_id = began
        self._resume(frame, state, event.output)

    def _is_brief(self, state: DistributedMap, run: OpenMap) -> bool:
        """Return whether a map run ends so soon that the exit is linked to its end.

        Observed in 14 recordings: it is after one or two children; after three, and where these run
        maps of their own, it is linked to the run's start. The service's reason is not known.
        """
        items, below = run.command.items, f"{state.scope}/"
        if items is None or len(items) > BRIEF_RUN_ITEMS_MAX:
            return False
        return not any(scope.startswith(below) for scope in self.machine.labels.values())

    def _fail_map(self, event: MapRunFailed) -> None:
        found = self.find_map(event.command_id)
        if found is None:
            return
        frame, state, _ = found
        failure = Failure(*bounded(event.error, event.cause))
        self.emit(frame, "MapRunFailed", failure.details())
        self._fail(frame, state, failure, is_fork=True)

    def _fire_timers(self) -> None:
        """Let everything that is due happen, in the order in which it was due.

        What the step before has left over comes first, and what falls due on the way is among it:
        so a step may stop short after any of it, and the next one goes on in the same order.
        """
        self.go_on()
        due = [
            (frame.open.due_at, frame.id)
            for frame in self.frames.values()
            if frame.open is not None
            and frame.open.due_at is not None
            and frame.open.due_at <= self.now
        ]
        heapify(due)
        times_out_at = self.execution.times_out_at
        while due and not self.ready:
            due_at, frame_id = heappop(due)
            if times_out_at is not None and times_out_at < due_at:
                break
            # What was due before may have given this frame up, but cannot have opened it anew.
            if frame_id in self.frames:
                known = len(self.opened)
                self._fire(self.touch(self.frames[frame_id]))
                self.go_on()
                for opened_id, opened in self.opened[known:]:
                    if opened.due_at is not None and opened.due_at <= self.now:
                        heappush(due, (opened.due_at, opened_id))
            if due and not self.has_share_left():
                break
        if (
            times_out_at is not None
            and times_out_at <= self.now
            and self.execution.status is Status.RUNNING
        ):
            self.end(Status.TIMED_OUT, "ExecutionTimedOut", Failure(None, None))
        self.is_cut_short = bool(due and self.frames)

    def _fire(self, frame: Frame) -> None:
        match frame.open:
            case OpenWait():
                self._resume(frame, self.state(frame), None)
            case Backoff():
                self.make_ready(frame)
            case OpenTask() as task:
                late = task.heartbeat_due_at
                missed_beat = late is not None and late == task.due_at
                error = HEARTBEAT_TIMEOUT if missed_beat else TIMEOUT
                self._fail_task(task.command.id, error, None)

    def _signal(self) -> None:
        waiting = [frame for frame in self.frames.values() if isinstance(frame.open, OpenWait)]
        for frame in waiting:
            if frame.id in self.frames:
                self._resume(self.touch(frame), self.state(frame), None)
        execution = self.execution
        if not waiting and not (execution.is_acknowledged or execution.is_signalled):
            execution.is_signalled = True
            self.has_changed = True

    # ---------------------------------------------------------------- states

    def go_on(self) -> None:
        """Try the frames that are ready, in turn, until none is or the step has had its share."""
        if not self.ready:
            return
        ready, history, work = self.ready, self.history, self.work
        events_max, work_max = self.share.events, self.share.work
        while ready and len(history) < events_max and work.done < work_max:
            frame = self.frames.get(ready.popleft())
            if frame is not None:
                # Only one that the step before has left over can be ready and not yet touched.
                self._try(self.touch(frame) if self.links else frame)

    def _try(self, frame: Frame) -> None:
        state = self.state(frame)
        try:
            decision = state.enter(self.visit(frame, state))
            if isinstance(decision, Goto):
                self._accept(frame, decision)
        except ExecutionError as error:
            self._fail_by(error, frame, state, is_entry=True)
        else:
            self._follow(frame, state, decision)

    def _resume(self, frame: Frame, state: State, result: Json) -> None:
        """Close what the frame waited for and lead it on with the result."""
        visit, waited_for = self.visit(frame, state), frame.open
        frame.open = None
        try:
            decision = state.resume(visit, result)
            self._accept(frame, decision)
        except ExecutionError as error:
            self.give_up(frame, waited_for)
            self._fail_by(error, frame, state)
        else:
            self._follow(frame, state, decision)

    def _follow(self, frame: Frame, state: State, decision: Decision) -> None:
        if isinstance(decision, Goto):
            self._leave(frame, state, decision)
        elif isinstance(decision, Park):
            self._park(frame, state, decision)
        elif isinstance(decision, Spread):
            self._spread(frame, state, decision)
        else:
            assert isinstance(state, ForkingState), state
            frame.open = decision.fork
            self.emit(frame, *decision.started)
            self._continue_fork(frame, state, decision.fork, frame.last_event_id)

    def _leave(self, frame: Frame, state: State, goto: Goto) -> None:
        details: dict[str, Json] = {"name": frame.state, "output": goto.output}
        if goto.assigned:
            details["assignedVariables"] = dict(goto.assigned)
        self.emit(frame, f"{state.type}StateExited", details)
        if goto.next is None:
            self._finish(frame, goto.output)
        else:
            self._enter(frame, goto.next, goto.output)

    def _park(self, frame: Frame, state: State, park: Park) -> None:
        if self.execution.is_signalled and isinstance(park.waiting, OpenWait):
            self.execution.is_signalled = False
            self._resume(frame, state, None)
            return
        for type_, details in park.events:
            self.emit(frame, type_, details)
        self.open(frame, park.waiting)

    def _spread(self, frame: Frame, state: State, spread: Spread) -> None:
        assert isinstance(state, DistributedMap), state
        self.emit(frame, *spread.started)
        try:
            command = state.run_map(self.visit(frame, state), spread.items)
        except ExecutionError as error:
            self._fail_by(error, frame, state, is_entry=True)
        else:
            self.open(frame, OpenMap(command))

    def _enter(self, frame: Frame, name: str, value: Json) -> None:
        frame.state, frame.input, frame.retries = name, value, ()
        state = self.state(frame)
        self.emit(frame, f"{state.type}StateEntered", {"name": name, "input": value})
        frame.entered_event_id, frame.entered_at = frame.last_event_id, self.now
        self.make_ready(frame)

    def _finish(self, frame: Frame, output: Json) -> None:
        """End a frame that has walked to the end of its scope."""
        if frame.parent is None:
            self.execution.output = output
            self._close(
                Status.SUCCEEDED, frame.last_event_id, "ExecutionSucceeded", {"output": output}
            )
            return
        parent, state, fork = self._forked_by(frame)
        del self.frames[frame.id]
        fork.running -= 1
        fork.results[frame.index] = output
        fork.result_bytes += len(text_of(output).encode("utf-8", "surrogatepass")) + 1
        event = state.branch_event("Succeeded", frame.index)
        parent.last_event_id = frame.last_event_id
        if event is not None:
            self.emit(parent, *event)
        if fork.result_bytes > PAYLOAD_BYTES_MAX:
            # Told at once, not when all have ended: a checkpoint holds the results so far.
            self._fail(parent, state, Failure(DATA_LIMIT_EXCEEDED, too_large(parent.state)))
            return
        self._continue_fork(parent, state, fork, frame.last_event_id)

    def _accept(self, frame: Frame, goto: Goto) -> None:
        """Check the size of what a state has made, and set its variables."""
        if goto.output is not frame.input:  # the input was measured when it was made
            check_size(goto.output, frame.state)
        if len(self.history) % WEIGHED_EVENTS < 2 <= len(self.history):
            # A transition is two events, and both hold the output: one in so many is looked at.
            self.work.done += measured(goto.output) * WEIGHED_EVENTS // BYTES_PER_WORK
        if goto.assigned:
            self.assign(frame, goto.assigned)

    # ---------------------------------------------------------------- forks

    def _continue_fork(
        self, frame: Frame, state: ForkingState, fork: OpenFork, previous: int
    ) -> None:
        """Start branches as the concurrency allows; lead the frame on when all have ended."""
        while fork.running < fork.concurrency and (index := fork.next_index) is not None:
            try:
                self._start_branch(frame, state, fork, index, previous)
            except ExecutionError as error:
                self._fail_by(error, frame, state)
                return
        if fork.running:
            return
        # The service links what follows to the last branch, not to this event.
        self.record(frame.last_event_id, f"{state.type}StateSucceeded", None)
        self._resume(frame, state, state.result_of(fork))

    def _start_branch(
        self, frame: Frame, state: ForkingState, fork: OpenFork, index: int, previous: int
    ) -> None:
        branch = state.branch(self.visit(frame, state), fork, index)
        check_size(branch.input, frame.state)
        fork.start()
        child = self.new_frame(frame.id, branch.scope, index, branch.input)
        child.last_event_id = previous
        event = state.branch_event("Started", index)
        if event is not None:
            self.emit(child, *event)
        self._enter(child, branch.start_at, branch.input)

    def _forked_by(self, frame: Frame) -> tuple[Frame, ForkingState, OpenFork]:
        assert frame.parent is not None, frame
        parent = self.touch(self.frames[frame.parent])
        state, fork = self.state(parent), parent.open
        assert isinstance(state, ForkingState), state
        assert isinstance(fork, OpenFork), fork
        return parent, state, fork

    def _abort_branches(self, frame: Frame) -> None:
        """Give up all frames below this one; what they waited for is closed with them."""
        above, gone = {frame.id}, []
        for other in self.frames.values():  # a frame comes after the one that forked it
            if other.parent in above:
                above.add(other.id)
                gone.append(other)
        for other in reversed(gone):
            self._note_abort(other)
        for other in gone:
            self.give_up(other, other.open)
            del self.frames[other.id]

    def _note_abort(self, frame: Frame) -> None:
        assert frame.parent is not None, frame
        previous = frame.last_event_id
        if isinstance(frame.open, OpenMap) and frame.open.arn is not None:
            previous = self.record(previous, "MapRunAborted", None)
        if frame.open is not None:
            previous = self.record(previous, f"{self.state(frame).type}StateAborted", None)
        forking = self.state(self.frames[frame.parent])
        assert isinstance(forking, ForkingState), forking
        event = forking.branch_event("Aborted", frame.index)
        if event is not None:
            self.record(previous, *event)

    # ---------------------------------------------------------------- failures

    def _fail_by(
        self, error: ExecutionError, frame: Frame, state: State, *, is_entry: bool = False
    ) -> None:
        """Fail the state for a reason of its own."""
        failure = self._failure(error, frame)
        if isinstance(error, EvaluationFailed):
            self._note_evaluation(frame, state, failure, error.location)
            # Observed: a Map that could not be entered has failed as one that was.
            self._fail(frame, state, failure, is_fork=is_entry and isinstance(state, ForkingState))
        else:
            self._fail(frame, state, failure)

    def _note_evaluation(
        self, frame: Frame, state: State, failure: Failure, location: str | None
    ) -> None:
        details: dict[str, Json] = {**failure.details(), "state": frame.state}
        if location is not None:
            details["location"] = location[:LOCATION_CHARACTERS_MAX]
        is_entering = frame.last_event_id == frame.entered_event_id and not any(frame.retries)
        if is_entering and not state.fails_after_entry:
            frame.last_event_id = self.link_of_entry(frame)
        self.emit(frame, "EvaluationFailed", details)

    def _fail(self, frame: Frame, state: State, failure: Failure, *, is_fork: bool = False) -> None:
        """Retry, catch, or lose the frame."""
        if isinstance(frame.open, OpenFork):
            is_fork = True
            self._abort_branches(frame)
        if failure.error == DATA_LIMIT_EXCEEDED and not failure.in_branch:
            # The guide: a redrive runs all of such a state again, what had succeeded with it.
            self.given_up.clear()
            frame.open = None
        self.give_up(frame, frame.open)
        frame.open = None
        if self._retry(frame, state, failure):
            self.given_up.clear()
            return
        if is_fork:
            self.emit(frame, f"{state.type}StateFailed", None)
        for catcher in state.catchers:
            if matches(catcher.error_equals, failure):
                self._catch(frame, state, catcher, failure)
                return
        self._lose(frame, failure)

    def _catch(self, frame: Frame, state: State, catcher: Catcher, failure: Failure) -> None:
        """Lead the frame on as a Catcher says, or lose it when that fails in turn."""
        visit, error_output = self.visit(frame, state), failure.output()
        try:
            assigned = catcher.flow.assigned(visit, error_output)
            goto = Goto(catcher.next, catcher.flow.output(visit, error_output), assigned)
            self._accept(frame, goto)
        except ExecutionError as error:
            failure = self._failure(error, frame)
            if isinstance(error, EvaluationFailed):
                self._note_evaluation(frame, state, failure, error.location)
            self._lose(frame, failure)
        else:
            self.given_up.clear()
            self._leave(frame, state, goto)

    def _retry(self, frame: Frame, state: State, failure: Failure) -> bool:
        """Return whether a Retrier takes the failure; only the first that matches is asked."""
        for index, retrier in enumerate(state.retriers):
            if not matches(retrier.error_equals, failure):
                continue
            retries = list(frame.retries or (0,) * len(state.retriers))
            if retries[index] >= retrier.max_attempts:
                return False
            delay = retrier.delay_seconds(retries[index], self.random) * self.time_scale
            retries[index] += 1
            frame.retries = tuple(retries)
            self.open(frame, Backoff(self.now + timedelta(seconds=delay)))
            return True
        return False

    def _lose(self, frame: Frame, failure: Failure) -> None:
        """End a frame whose failure nothing in it handles."""
        if frame.parent is None:
            self.execution.error, self.execution.cause = failure.error, failure.cause
            self._close(Status.FAILED, frame.last_event_id, "ExecutionFailed", failure.details())
            return
        parent, state, fork = self._forked_by(frame)
        lost = self.state(frame)
        del self.frames[frame.id]
        fork.running -= 1
        fork.failed += 1
        event = state.branch_event("Failed", frame.index)
        if event is None and isinstance(lost, Task):
            event = "TaskStateAborted", None  # observed: in a branch of Parallel, not in a Map
        if event is not None:
            self.record(frame.last_event_id, *event)
        parent.last_event_id = frame.last_event_id
        if fork.failures_max is None:
            self._fail(parent, state, failure.of_branch())
        elif fork.failed > fork.failures_max:
            exceeded = Failure(EXCEED_TOLERATED_FAILURE_THRESHOLD, TOLERANCE_CAUSE)
            self._fail(parent, state, exceeded)
        else:
            self.given_up.clear()
            self._continue_fork(parent, state, fork, frame.last_event_id)

    def end(self, status: Status, type_: str, failure: Failure) -> None:
        """End the execution from outside of any state."""
        self.execution.error, self.execution.cause = failure.error, failure.cause
        self._close(status, 0, type_, failure.details())

    def _close(self, status: Status, previous: int, type_: str, details: dict[str, Json]) -> None:
        execution = self.execution
        execution.status = status
        execution.times_out_at = None
        execution.is_signalled = False
        self.append(previous, type_, details)
        if status is not Status.SUCCEEDED:
            execution.remains = redrive.left_behind(
                self.frames, self.given_up, execution.last_event_id
            )
        self.frames.clear()
        self.ready.clear()

    def _failure(self, error: ExecutionError, frame: Frame) -> Failure:
        """Return why a state failed; the cause names the state unless it is told as it came."""
        cause = error.cause
        if not isinstance(error, ReportedError):
            cause = (
                f"An error occurred while executing the state '{frame.state}' "
                f"(entered at the event id #{frame.entered_event_id}). {cause or ''}"
            )
        return Failure(*bounded(error.error, cause))
