"""The Context Object (`$$`), and the visit: what a state gets to see while a frame is in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from service.asl.execution import About, Execution, Frame, OpenFork
from service.asl.share import Work
from service.asl.values import Json, Random, format_timestamp


class Visit:
    """One frame's stay in a state. States read it and change nothing."""

    def __init__(
        self,
        execution: Execution,
        frame: Frame,
        now: datetime,
        random: Random,
        time_scale: float,
        counts_retries: bool,
        work: Work | None = None,
    ) -> None:
        self.execution = execution
        self.frame = frame
        self.now = now
        self.random = random
        self.time_scale = time_scale
        self.counts_retries = counts_retries
        self.work = Work() if work is None else work
        self._context: dict[str, Json] | None = None

    @property
    def about(self) -> About:
        """Return what stays the same for as long as the execution lives."""
        return self.execution.about

    @property
    def next_event_id(self) -> int:
        """Return the id of the history event that comes next."""
        return self.execution.last_event_id + 1

    @property
    def input(self) -> Json:
        """Return the state's raw input."""
        return self.frame.input

    @property
    def variables(self) -> Mapping[str, Json]:
        """Return the variables in reach by their names, as they were when the state was entered."""
        return self.frame.variables

    @property
    def attempt(self) -> int:
        """Return how often the state was tried before in this visit."""
        return sum(self.frame.retries)

    def context(self) -> Json:
        """Return the Context Object. It is made when first asked for: most states never ask."""
        if self._context is None:
            self._context = self._describe()
        return self._context

    def context_for_item(self, index: int, value: Json) -> Json:
        """Return the Context Object as a Map's ItemSelector sees it for one of the items."""
        return {**self._describe(), "Map": _item(index, value)}

    def _describe(self) -> dict[str, Json]:
        about, frame = self.about, self.frame
        state: dict[str, Json] = {
            "Name": frame.state,
            "EnteredTime": format_timestamp(frame.entered_at),
        }
        if self.counts_retries:
            state["RetryCount"] = self.attempt
        execution: dict[str, Json] = {
            "Id": about.arn,
            "Input": about.input,
            "StartTime": format_timestamp(about.started_at),
            "Name": about.name,
            "RoleArn": about.role_arn,
            "RedriveCount": about.redrive_count,
        }
        if about.redriven_at is not None:
            execution["RedriveTime"] = format_timestamp(about.redriven_at)
        context: dict[str, Json] = {
            "Execution": execution,
            "StateMachine": {"Id": about.machine_arn, "Name": about.machine_name},
            "State": state,
        }
        if (item := self._enclosing_item()) is not None:
            context["Map"] = item
        return context

    def _enclosing_item(self) -> Json:
        """Return what the innermost Map around the frame is at, or None outside of any Map."""
        frame = self.frame
        while frame.parent is not None:
            parent = self.execution.frames[frame.parent]
            fork = parent.open
            assert isinstance(fork, OpenFork), fork
            if fork.is_map:
                assert isinstance(fork.items, list), fork.items
                return _item(frame.index, fork.items[frame.index])
            frame = parent
        return None


def _item(index: int, value: Json) -> Json:
    return {"Item": {"Index": index, "Value": value}}
