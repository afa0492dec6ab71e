"""A state whose fields note what they make of the data; for the trial of a state.

Watched from outside, so that executions pay nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from service.asl.computed import Computed, DataFlow, JsonataFlow
from service.asl.context import Visit
from service.asl.dataflow import JsonPathFlow
from service.asl.query.expressions import Expressions
from service.asl.states.base import State
from service.asl.states.distributed_map import DistributedMap, Reader
from service.asl.states.map import Amount, Map
from service.asl.values import Json


def watched(state: State, items: list[Json] | None, data: dict[str, Json]) -> State:
    """Return the same state, whose fields note in `data` what they make."""
    reader = None
    if isinstance(state, DistributedMap):
        reader = state.reader
        state = state.inline()
    flow = state.flow
    watch = _WatchedPaths if isinstance(flow, JsonPathFlow) else _WatchedExpressions
    watched = replace(state, flow=watch(**_members(flow), data=data))
    if not isinstance(watched, Map):
        return watched
    if items is not None:
        given = _GivenItems(Expressions("Items", items, None, []), reader=reader, flow=flow)
        watched = replace(watched, items=given)
    return replace(
        watched,
        max_concurrency=_watched_amount(watched.max_concurrency, data),
        tolerated_count=_watched_amount(watched.tolerated_count, data),
        tolerated_percentage=_watched_amount(watched.tolerated_percentage, data),
    )


def _watched_amount(amount: Amount | None, data: dict[str, Json]) -> Amount | None:
    return None if amount is None else _WatchedAmount(**_members(amount), data=data)


def _members(value: JsonPathFlow | JsonataFlow | Amount) -> dict[str, Any]:
    return {member.name: getattr(value, member.name) for member in fields(value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedPaths(JsonPathFlow):
    data: dict[str, Json]

    def selected(self, visit: Visit) -> Json:
        value = self.data["afterInputPath"] = JsonPathFlow.selected(self, visit)
        return value

    def arguments(self, visit: Visit) -> Json:
        value = self.data["afterParameters"] = JsonPathFlow.arguments(self, visit)
        return value

    def output(self, visit: Visit, result: Json) -> Json:
        # Each part alone is the whole with the other parts left out.
        self.data["result"] = result
        result = JsonPathFlow(result_selector=self.result_selector).output(visit, result)
        self.data["afterResultSelector"] = result
        result = JsonPathFlow(result_path=self.result_path).output(visit, result)
        self.data["afterResultPath"] = result
        return JsonPathFlow(output_path=self.output_path).output(visit, result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedExpressions(JsonataFlow):
    data: dict[str, Json]

    def arguments(self, visit: Visit) -> Json:
        value = self.data["afterArguments"] = JsonataFlow.arguments(self, visit)
        return value

    def output(self, visit: Visit, result: Json) -> Json:
        self.data["result"] = result
        return JsonataFlow.output(self, visit, result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GivenItems(Computed):
    """The items that a reader is said to have found, no more of them than it may read."""

    reader: Reader | None
    flow: DataFlow

    def items(self, visit: Visit) -> list[Json]:
        items = Computed.items(self, visit)
        if self.reader is None:
            return items
        return items[: self.reader.most(self.flow.selected(visit), visit)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedAmount(Amount):
    data: dict[str, Json]

    def of(self, value: Json, visit: Visit) -> int | float:
        name = self.field.removesuffix("Path")
        number = self.data[name[0].lower() + name[1:]] = Amount.of(self, value, visit)
        return number
