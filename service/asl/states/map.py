"""Map state, inline; and what the fields of both modes have in common.

ASL spec: "Map State"; Step Functions guide: "Using Map state in Inline mode".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from service.asl.computed import Computed, JsonataFlow
from service.asl.context import Visit
from service.asl.dataflow import IDENTITY, Payload, find, shortened
from service.asl.errors import RUNTIME, EvaluationFailed, ExecutionError
from service.asl.execution import OpenFork
from service.asl.query.expressions import RESULT
from service.asl.query.jsonpath import Path, PathNotFound
from service.asl.states.base import (
    SECONDS_MAX,
    Branch,
    Decision,
    EventDetails,
    Fork,
    ForkingState,
    read_catchers,
    read_common,
    read_retriers,
)
from service.asl.states.fields import Node, shown, type_of
from service.asl.values import Json

# Step Functions guide, "Using Map state in Inline mode": up to 40 iterations at once.
INLINE_MAP_CONCURRENCY: Final = 40

DISTRIBUTED: Final = "DISTRIBUTED"
_EXECUTION_TYPES: Final = frozenset({"STANDARD", "EXPRESS"})

# Observed: a variable that holds "1" is as good as one that holds 1.
_INTEGER_TEXT: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER_TEXT: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of the Map's configuration: fixed, the path to one, or computed."""

    field: str
    number: int | float | Path | Computed  # whole numbers stay whole, also when compiled
    maximum: int
    is_integer: bool = True

    def of(self, value: Json, visit: Visit) -> int | float:
        """Return the number.

        Raise ExecutionError("States.Runtime") when the path yields no number of the right kind,
        EvaluationFailed when an expression does not.
        """
        if isinstance(self.number, Computed):
            read = self.number.integer if self.is_integer else self.number.number
            return read(visit, 0, self.maximum)
        if not isinstance(self.number, Path):
            return self.number
        path = self.number.text
        try:
            number = find(self.number, value, visit)
        except PathNotFound as error:
            cause = f"The {self.field} field does not reference an input value: {path}"
            raise ExecutionError(RUNTIME, cause) from error
        found = _as_number(number, is_integer=self.is_integer)
        if found is None:
            written = number if isinstance(number, str) else shortened(number)
            kind = "integer" if self.is_integer else "float"
            cause = (
                f'The {self.field} field refers to value "{written}" '
                f"which is not a valid {kind}: {path}"
            )
            raise ExecutionError(RUNTIME, cause)
        return found


def _as_number(value: Json, *, is_integer: bool) -> int | float | None:
    """Return a number as a number, also one that is given as text, or None."""
    if isinstance(value, str):
        pattern = _INTEGER_TEXT if is_integer else _NUMBER_TEXT
        if not pattern.fullmatch(value):
            return None
        return int(value) if is_integer else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or not is_integer else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(ForkingState):
    """Walk through the same states once for each item; the result is the list of the outputs.

    Iterations that fail within the tolerance are left out of the result.
    """

    scope: str
    start_at: str
    items: Path | Computed | None = None
    item_selector: Payload | Computed | None = None
    max_concurrency: Amount | None = None
    tolerated_count: Amount | None = None
    tolerated_percentage: Amount | None = None

    @property
    def type(self) -> str:
        return "Map"

    def enter(self, visit: Visit) -> Decision:
        """Return the fork, with the items.

        Raise ExecutionError when there is no list of items, or a limit is not a number.
        """
        value = self.flow.selected(visit)
        items = self.items_of(value, visit)
        fork = OpenFork(
            items,
            len(items),
            self.concurrency(value, visit, INLINE_MAP_CONCURRENCY),
            is_map=True,
            failures_max=self._failures_max(value, visit, len(items)),
            source=value if isinstance(self.item_selector, Payload) else None,
        )
        return Fork(fork, ("MapStateStarted", {"length": len(items)}))

    def branch(self, visit: Visit, fork: OpenFork, index: int) -> Branch:
        """Return where an iteration begins: with its item, or what ItemSelector makes of it."""
        assert isinstance(fork.items, list), fork.items
        value = self.item_input(visit, fork.source, index, fork.items[index])
        return Branch(self.scope, self.start_at, value)

    def item_input(self, visit: Visit, source: Json, index: int, item: Json) -> Json:
        """Return an item, or what ItemSelector makes of it and of `source`, the state's input.

        Raise ExecutionError when ItemSelector fails.
        """
        if isinstance(self.item_selector, Computed):
            return self.item_selector.for_item(visit, index, item)
        if self.item_selector is not None:
            return self.item_selector.for_item(source, visit, index, item)
        return item

    def branch_event(self, outcome: str, index: int) -> EventDetails | None:
        """Return the history event of an iteration."""
        return f"MapIteration{outcome}", {"name": self.name, "index": index}

    def items_of(self, value: Json, visit: Visit) -> list[Json]:
        """Return the items that the state's input names. Raise ExecutionError for no array."""
        if isinstance(self.items, Computed):
            return self.items.items(visit)
        if isinstance(self.flow, JsonataFlow):
            if not isinstance(value, list):
                cause = f"Map state input must be an array but was: {shortened(value)}"
                raise EvaluationFailed(cause, None)
            return value
        path = self.items
        try:
            items = value if path is None else find(path, value, visit)
        except PathNotFound as error:
            assert path is not None, "only a path can miss"
            cause = f"Invalid path '{path.text}' : {error}"
            raise ExecutionError(RUNTIME, cause) from error
        if not isinstance(items, list):
            at = "$" if path is None else path.text
            if path is not None and path.root == "context":
                at = path.text.removeprefix("$")
            raise ExecutionError(RUNTIME, f'Reference path "{at}" must point to array.')
        return items

    def concurrency(self, value: Json, visit: Visit, maximum: int) -> int:
        """Return how many items are processed at once; zero asks for as many as there may be.

        Raise ExecutionError when MaxConcurrency is no number that it can be.
        """
        amount = 0 if self.max_concurrency is None else int(self.max_concurrency.of(value, visit))
        if amount < 0:
            raise ExecutionError(RUNTIME, "MaxConcurrency cannot be negative.")
        return min(amount or maximum, maximum)

    def tolerance(self, value: Json, visit: Visit) -> tuple[int | None, int | float | None]:
        """Return how many items may fail, and how many in a hundred; None where nothing is said.

        Raise ExecutionError when either is no number that it can be.
        """
        count = percentage = None
        if self.tolerated_count is not None:
            count = int(self.tolerated_count.of(value, visit))
            if count < 0:
                raise ExecutionError(RUNTIME, "ToleratedFailureCount cannot be negative.")
        if self.tolerated_percentage is not None:
            percentage = self.tolerated_percentage.of(value, visit)
            if not 0 <= percentage <= 100:
                cause = "ToleratedFailurePercentage must be between 0 and 100."
                raise ExecutionError(RUNTIME, cause)
        return count, percentage

    def _failures_max(self, value: Json, visit: Visit, length: int) -> int | None:
        count, percentage = self.tolerance(value, visit)
        limits = [] if count is None else [count]
        if percentage is not None:
            limits.append(int(length * percentage / 100))
        return min(limits, default=None)


def read_map(node: Node, name: str, scopes: list[Node]) -> Map:
    """Return what is the same in both modes, noting what is wrong with it.

    `scopes` gets the iteration, to be read in turn.
    """
    common = read_common(node, name, "ResultSelector", "ResultPath", "Assign", result=RESULT)
    processor = _read_processor(node)
    if processor is not None:
        scopes.append(processor)
    return Map(
        name=name,
        next=common.next,
        flow=common.flow,
        retriers=read_retriers(node),
        catchers=read_catchers(node),
        scope="" if processor is None else processor.pointer,
        start_at="" if processor is None else processor.text("StartAt") or "",
        items=_read_items(node),
        item_selector=_read_selector(node),
        max_concurrency=read_amount(node, "MaxConcurrency", SECONDS_MAX),
        tolerated_count=read_amount(node, "ToleratedFailureCount", SECONDS_MAX),
        tolerated_percentage=read_amount(node, "ToleratedFailurePercentage", 100, is_integer=False),
    )


def _read_items(node: Node) -> Path | Computed | None:
    if not node.is_jsonata:
        path = node.reference_path("ItemsPath")
        return None if path is None or path.text == IDENTITY else path
    if node.has("Items") and not node.is_expression("Items"):
        items = node.raw("Items")
        if not isinstance(items, list):
            node.wrong("Items", f"Expected a value of type Array but was {type_of(items)}")
            return None
    return node.computed("Items")


def _read_selector(node: Node) -> Payload | Computed | None:
    if node.is_jsonata:
        return node.computed("ItemSelector")
    field = node.exclusive("ItemSelector", "Parameters")
    return None if field is None else node.payload(field)


def _read_processor(node: Node) -> Node | None:
    field = node.exclusive("ItemProcessor", "Iterator")
    if field is None:
        node.require("ItemProcessor")
        return None
    processor = node.child(field)
    if processor is None:
        return None
    config = processor.child("ProcessorConfig")
    if config is not None:
        _check_config(config)
    return processor


def _check_config(config: Node) -> None:
    mode = config.text("Mode")
    if mode == DISTRIBUTED:
        config.require("ExecutionType")
        type_ = config.text("ExecutionType")
        if type_ is not None and type_ not in _EXECUTION_TYPES:
            config.wrong("ExecutionType", f"{shown(type_)} is none of [STANDARD, EXPRESS]")
    elif mode is not None and mode != "INLINE":
        config.wrong("Mode", f"{shown(mode)} is none of [INLINE, DISTRIBUTED]")
    config.close()


def config_of(value: dict[str, Json]) -> dict[str, Json]:
    """Return the ProcessorConfig of a Map state's definition; empty when it has none."""
    for field in ("ItemProcessor", "Iterator"):
        processor = value.get(field)
        config = processor.get("ProcessorConfig") if isinstance(processor, dict) else None
        if isinstance(config, dict):
            return config
    return {}


def read_amount(
    node: Node, field: str, maximum: int, *, minimum: int = 0, is_integer: bool = True
) -> Amount | None:
    """Return a number of the configuration that may be fixed, computed, or found by a path."""
    if node.is_expression(field):
        computed = node.computed(field)
        return None if computed is None else Amount(field, computed, maximum, is_integer)
    number: int | float | None
    if is_integer:
        number = node.integer(field, minimum, maximum)
    else:
        number = node.number(field, float(minimum), float(maximum))
    if not node.is_jsonata:
        node.exclusive(field, f"{field}Path")
        if number is None and (path := node.reference_path(f"{field}Path")) is not None:
            return Amount(f"{field}Path", path, maximum, is_integer)
    return None if number is None else Amount(field, number, maximum, is_integer)
