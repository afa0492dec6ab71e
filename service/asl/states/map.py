"""Map state, inline.

ASL spec: "Map State"; Step Functions guide: "Using Map state in Inline mode".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from service.asl.context import Visit
from service.asl.dataflow import Payload, find, shortened
from service.asl.errors import RUNTIME, ExecutionError
from service.asl.execution import OpenFork
from service.asl.query.jsonpath import Path, PathNotFound
from service.asl.states.base import (
    SECONDS_MAX,
    Branch,
    EventDetails,
    Fork,
    ForkingState,
    read_catchers,
    read_common,
    read_retriers,
)
from service.asl.states.fields import NOT_SUPPORTED, Node, shown
from service.asl.values import Json

# Step Functions guide, "Using Map state in Inline mode": up to 40 iterations at once.
INLINE_MAP_CONCURRENCY: Final = 40

_DISTRIBUTED_ONLY: Final = {
    "ItemReader": "ItemReader (Distributed Map)",
    "ItemBatcher": "ItemBatcher (Distributed Map)",
    "ResultWriter": "ResultWriter (Distributed Map)",
    "Label": "Label (Distributed Map)",
    "Items": "Items (JSONata)",
}


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of the Map's configuration: fixed, or the path to one."""

    field: str
    number: float | Path
    is_integer: bool = True

    def of(self, value: Json, visit: Visit) -> float:
        """Return the number.

        Raise ExecutionError("States.Runtime") when the path yields no number of the right kind.
        """
        if not isinstance(self.number, Path):
            return self.number
        path = self.number.text
        try:
            number = find(self.number, value, visit)
        except PathNotFound as error:
            cause = f"The {self.field} field does not reference an input value: {path}"
            raise ExecutionError(RUNTIME, cause) from error
        allowed = int if self.is_integer else int | float
        if isinstance(number, bool) or not isinstance(number, allowed):
            written = number if isinstance(number, str) else shortened(number)
            kind = "integer" if self.is_integer else "float"
            cause = (
                f'The {self.field} field refers to value "{written}" '
                f"which is not a valid {kind}: {path}"
            )
            raise ExecutionError(RUNTIME, cause)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Map(ForkingState):
    """Walk through the same states once for each item; the result is the list of the outputs.

    Iterations that fail within the tolerance are left out of the result.
    """

    type: ClassVar[str] = "Map"

    scope: str
    start_at: str
    items_path: Path | None = None
    item_selector: Payload | None = None
    max_concurrency: Amount | None = None
    tolerated_count: Amount | None = None
    tolerated_percentage: Amount | None = None

    def enter(self, visit: Visit) -> Fork:
        """Return the fork, with the items.

        Raise ExecutionError("States.Runtime") when there is no list of items, or a limit is not a
        number.
        """
        value = self.effective_input(visit)
        items = self._items(value, visit)
        fork = OpenFork(
            items,
            len(items),
            self._concurrency(value, visit),
            is_map=True,
            failures_max=self._failures_max(value, visit, len(items)),
            source=None if self.item_selector is None else value,
        )
        return Fork(fork, ("MapStateStarted", {"length": len(items)}))

    def branch(self, visit: Visit, fork: OpenFork, index: int) -> Branch:
        """Return where an iteration begins: with its item, or what ItemSelector makes of it."""
        assert isinstance(fork.items, list), fork.items
        value = fork.items[index]
        if self.item_selector is not None:
            value = self.item_selector.for_item(fork.source, visit, index, value)
        return Branch(self.scope, self.start_at, value)

    def branch_event(self, outcome: str, index: int) -> EventDetails | None:
        """Return the history event of an iteration."""
        return f"MapIteration{outcome}", {"name": self.name, "index": index}

    def _items(self, value: Json, visit: Visit) -> list[Json]:
        path = self.items_path
        try:
            items = value if path is None else find(path, value, visit)
        except PathNotFound as error:
            assert path is not None, "only a path can miss"
            cause = f"Invalid path '{path.text}' : {error}"
            raise ExecutionError(RUNTIME, cause) from error
        if not isinstance(items, list):
            at = (
                "$"
                if path is None
                else path.text.removeprefix("$")
                if path.root == "context"
                else path.text
            )
            raise ExecutionError(RUNTIME, f'Reference path "{at}" must point to array.')
        return items

    def _concurrency(self, value: Json, visit: Visit) -> int:
        amount = 0 if self.max_concurrency is None else int(self.max_concurrency.of(value, visit))
        if amount < 0:
            raise ExecutionError(RUNTIME, "MaxConcurrency cannot be negative.")
        return min(amount or INLINE_MAP_CONCURRENCY, INLINE_MAP_CONCURRENCY)

    def _failures_max(self, value: Json, visit: Visit, length: int) -> int | None:
        limits: list[int] = []
        if self.tolerated_count is not None:
            count = self.tolerated_count.of(value, visit)
            if count < 0:
                raise ExecutionError(RUNTIME, "ToleratedFailureCount cannot be negative.")
            limits.append(int(count))
        if self.tolerated_percentage is not None:
            percentage = self.tolerated_percentage.of(value, visit)
            if not 0 <= percentage <= 100:
                cause = "ToleratedFailurePercentage must be between 0 and 100."
                raise ExecutionError(RUNTIME, cause)
            limits.append(int(length * percentage / 100))
        return min(limits, default=None)


def read(node: Node, name: str, scopes: list[Node]) -> Map:
    """Return the state, noting what is wrong; `scopes` gets the iteration, to be read in turn."""
    common = read_common(node, name)
    node.refuse(_DISTRIBUTED_ONLY)
    processor = _read_processor(node)
    if processor is not None:
        scopes.append(processor)
    selector = node.exclusive("ItemSelector", "Parameters")
    items_path = node.reference_path("ItemsPath")
    return Map(
        name=name,
        next=common.next,
        input_path=common.input_path,
        result_selector=node.payload("ResultSelector"),
        result_path=node.placement("ResultPath"),
        output_path=common.output_path,
        retriers=read_retriers(node),
        catchers=read_catchers(node),
        scope="" if processor is None else processor.pointer,
        start_at="" if processor is None else processor.text("StartAt") or "",
        items_path=None if items_path is None or items_path.text == "$" else items_path,
        item_selector=None if selector is None else node.payload(selector),
        max_concurrency=_read_amount(node, "MaxConcurrency", SECONDS_MAX),
        tolerated_count=_read_amount(node, "ToleratedFailureCount", SECONDS_MAX),
        tolerated_percentage=_read_amount(
            node, "ToleratedFailurePercentage", 100, is_integer=False
        ),
    )


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
        mode = config.text("Mode")
        if mode == "DISTRIBUTED":
            config.wrong("Mode", "Distributed Map is not supported", NOT_SUPPORTED)
            config.has("ExecutionType")
        elif mode is not None and mode != "INLINE":
            config.wrong("Mode", f"{shown(mode)} is none of [INLINE, DISTRIBUTED]")
        config.close()
    return processor


def _read_amount(node: Node, field: str, maximum: int, *, is_integer: bool = True) -> Amount | None:
    node.exclusive(field, f"{field}Path")
    number = node.integer(field, 0, maximum) if is_integer else node.number(field, 0, maximum)
    if number is not None:
        return Amount(field, number, is_integer)
    path = node.reference_path(f"{field}Path")
    return None if path is None else Amount(f"{field}Path", path, is_integer)
