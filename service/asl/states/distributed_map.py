"""Map state, distributed: the items are processed by child executions.

ASL spec: "Map State"; Step Functions guide: "Using Map state in Distributed mode", "ItemReader",
"ItemBatcher", "ResultWriter".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from typing import Final
from uuid import UUID

from service.asl.commands import BatchItems, ReadItems, RunMap, WriteResults
from service.asl.computed import Computed
from service.asl.context import Visit
from service.asl.dataflow import Payload, check_size, shortened
from service.asl.errors import RUNTIME, ExecutionError
from service.asl.states.base import SECONDS_MAX, Decision, Spread
from service.asl.states.fields import NOT_SUPPORTED, Node, shown
from service.asl.states.map import DISTRIBUTED, Amount, Map, config_of, read_amount, read_map
from service.asl.values import PAYLOAD_BYTES_MAX, Json

# Step Functions guide, "Service quotas": child executions of a Map Run at once, items of one.
MAP_RUN_CONCURRENCY: Final = 10_000
MAP_RUN_ITEMS_MAX: Final = 100_000_000
LABEL_CHARACTERS_MAX: Final = 40
CSV_HEADER_BYTES_MAX: Final = 10_240
CSV_HEADERS_MAX: Final = 10_000

# API reference, CreateStateMachine: what a name must not contain; observed: nor may a label.
_UNFIT: Final = re.compile(
    r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]"
)
_S3: Final = re.compile(r"arn:aws[a-z-]*:states:::s3:(\w+)")
GET_OBJECT: Final = "getObject"
LIST_OBJECTS: Final = "listObjectsV2"
_PUT_OBJECT: Final = "putObject"
_FIELDS_OF_RESOURCE: Final = {
    GET_OBJECT: ("Bucket", "Key"),
    LIST_OBJECTS: ("Bucket",),
    _PUT_OBJECT: ("Bucket",),
}
_INPUT_TYPES: Final = ("CSV", "JSON", "JSONL", "MANIFEST")
_DELIMITERS: Final = ("COMMA", "PIPE", "SEMICOLON", "SPACE", "TAB")
_TRANSFORMATIONS: Final = ("NONE", "COMPACT", "FLATTEN")


@dataclass(frozen=True, slots=True)
class Call:
    """An action of S3 that an ItemReader or a ResultWriter names, and its parameters."""

    action: str
    parameters: Payload | Computed

    def of(self, value: Json, visit: Visit) -> dict[str, Json]:
        """Return the parameters.

        Raise ExecutionError when they cannot be made, or name no bucket and no object.
        """
        made = self.parameters
        parameters = made.of(visit) if isinstance(made, Computed) else made.of(value, visit)
        if not isinstance(parameters, dict):
            cause = f"The parameters of s3:{self.action} are no object: {shortened(parameters)}"
            raise ExecutionError(RUNTIME, cause)
        for name in _FIELDS_OF_RESOURCE[self.action]:
            if not isinstance(parameters.get(name), str):
                given = shortened(parameters.get(name))
                cause = (
                    f"The parameter '{name}' of s3:{self.action} must be a string but was {given}"
                )
                raise ExecutionError(RUNTIME, cause)
        check_size(parameters, visit.frame.state)
        return parameters


@dataclass(frozen=True, slots=True)
class Reader:
    """ItemReader: where items come from that the state's input does not hold."""

    call: Call
    config: dict[str, Json]
    items_max: Amount | None

    def of(self, value: Json, visit: Visit) -> ReadItems:
        """Return what is to be read. Raise ExecutionError when the fields do not say."""
        config = dict(self.config)
        if (most := self.most(value, visit)) is not None:
            config["MaxItems"] = most
        return ReadItems(self.call.action, self.call.of(value, visit), config)

    def most(self, value: Json, visit: Visit) -> int | None:
        """Return MaxItems, or None. Raise ExecutionError when the field does not say."""
        return None if self.items_max is None else _positive(self.items_max, value, visit)


@dataclass(frozen=True, slots=True)
class Batcher:
    """ItemBatcher: how many items one child gets."""

    items_max: Amount | None
    bytes_max: Amount | None
    shared: Payload | Computed | None

    def of(self, value: Json, visit: Visit) -> BatchItems:
        """Return the limits of a batch. Raise ExecutionError when the fields do not say."""
        items_max, bytes_max = (
            None if amount is None else _positive(amount, value, visit)
            for amount in (self.items_max, self.bytes_max)
        )
        shared: Json = None
        if isinstance(self.shared, Computed):
            shared = self.shared.of(visit)
        elif self.shared is not None:
            shared = self.shared.of(value, visit)
        check_size(shared, visit.frame.state)
        return BatchItems(items_max, bytes_max or PAYLOAD_BYTES_MAX, shared)


@dataclass(frozen=True, slots=True)
class Writer:
    """ResultWriter: where the results go, and in which form."""

    call: Call | None
    transformation: str
    is_lines: bool

    def of(self, value: Json, visit: Visit) -> WriteResults:
        """Return where results are to go. Raise ExecutionError when the fields do not say."""
        parameters = None if self.call is None else self.call.of(value, visit)
        return WriteResults(parameters, self.transformation, self.is_lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedMap(Map):
    """Have child executions process the items; the result lists the outputs of those that could.

    `label` names the children's machine beside the parent's.
    """

    label: str
    is_express: bool = False
    reader: Reader | None = None
    batcher: Batcher | None = None
    writer: Writer | None = None

    def enter(self, visit: Visit) -> Decision:
        """Return the items. Raise ExecutionError when there is no list of them."""
        if self.reader is not None:
            # How many there are is not known before they are read.
            return Spread(None, ("MapStateStarted", {"length": 0}))
        items = self.items_of(self.flow.selected(visit), visit)
        return Spread(items, ("MapStateStarted", {"length": len(items)}))

    def run_map(self, visit: Visit, items: list[Json] | None) -> RunMap:
        """Return the command, made once the state's start is noted as event `frame.last_event_id`.

        Raise ExecutionError when a limit is not a number, or a parameter cannot be made.
        """
        frame, value = visit.frame, self.flow.selected(visit)
        concurrency = self.concurrency(value, visit, MAP_RUN_CONCURRENCY)
        count, percentage = self.tolerance(value, visit)
        return RunMap(
            frame.last_event_id,
            frame.entered_event_id,
            frame.entered_at,
            self.name,
            self.label,
            items,
            concurrency,
            count,
            percentage,
            self.is_express,
            None if self.reader is None else self.reader.of(value, visit),
            None if self.batcher is None else self.batcher.of(value, visit),
            None if self.writer is None else self.writer.of(value, visit),
        )

    def inline(self) -> Map:
        """Return the same state as TestState tries it: with its iterations in place."""
        return Map(**{field.name: getattr(self, field.name) for field in fields(Map)})


def _positive(amount: Amount, value: Json, visit: Visit) -> int:
    number = int(amount.of(value, visit))
    if number < 1:
        raise ExecutionError(RUNTIME, f"{amount.field} must be greater than zero.")
    return number


def read(node: Node, name: str, scopes: list[Node]) -> Map:
    """Return the state in the mode that it asks for, noting what is wrong with it.

    `scopes` gets the iteration, to be read in turn.
    """
    state = read_map(node, name, scopes)
    config = config_of(node.value)
    if config.get("Mode") != DISTRIBUTED:
        return state
    if node.has("ItemReader"):
        node.exclusive("ItemReader", "Items" if node.is_jsonata else "ItemsPath")
    return DistributedMap(
        **{field.name: getattr(state, field.name) for field in fields(Map)},
        label=_read_label(node),
        is_express=config.get("ExecutionType") == "EXPRESS",
        reader=_read_reader(node),
        batcher=_read_batcher(node),
        writer=_read_writer(node),
    )


def _read_label(node: Node) -> str:
    label = node.text("Label")
    if label is None:
        # A UUID of the state's place: the same whenever this definition is compiled.
        place = node.pointer.encode("utf-8", "surrogatepass")
        return str(UUID(bytes=hashlib.sha256(place).digest()[:16]))
    if not label:
        node.wrong("Label", "Label cannot be empty")
    elif len(label) > LABEL_CHARACTERS_MAX:
        node.wrong("Label", f"Label cannot exceed {LABEL_CHARACTERS_MAX} characters")
    elif unfit := _UNFIT.search(label):
        node.wrong("Label", f"Label contains invalid character: {unfit[0]!r}")
    return label


def _read_call(node: Node, *actions: str) -> Call | None:
    """Return the call of an object with a Resource, noting what is wrong with it."""
    resource = node.text("Resource")
    match = None if resource is None else _S3.fullmatch(resource)
    field = "Arguments" if node.is_jsonata else "Parameters"
    parameters = node.computed(field) if node.is_jsonata else node.payload(field)
    if resource is not None and (match is None or match[1] not in actions):
        known = ", ".join(f"arn:aws:states:::s3:{action}" for action in actions)
        node.wrong("Resource", f"{shown(resource)} is none of [{known}]")
        return None
    if match is None or not node.require(field) or parameters is None:
        return None
    given = node.raw(field)
    if isinstance(given, dict):
        missing = [
            name
            for name in _FIELDS_OF_RESOURCE[match[1]]
            if name not in given and (node.is_jsonata or f"{name}.$" not in given)
        ]
        if missing:
            message = f"These fields are required: [{', '.join(missing)}]"
            node.problems.add(node.at(field), message)
    return Call(match[1], parameters)


def _read_reader(node: Node) -> Reader | None:
    reader = node.child("ItemReader")
    if reader is None:
        return None
    reader.require("Resource")
    call = _read_call(reader, GET_OBJECT, LIST_OBJECTS)
    config, items_max = reader.child("ReaderConfig"), None
    members: dict[str, Json] = {}
    if config is not None:
        items_max = read_amount(config, "MaxItems", MAP_RUN_ITEMS_MAX, minimum=1)
        members = _read_reader_config(config)
        config.close()
    if call is not None and call.action == GET_OBJECT:
        if config is None:
            message = "These fields are required: [InputType]"
            reader.problems.add(reader.at("ReaderConfig"), message, at=reader.pointer)
        else:
            config.require("InputType")
    reader.close()
    return None if call is None else Reader(call, members, items_max)


def _read_reader_config(config: Node) -> dict[str, Json]:
    members: dict[str, Json] = {}
    for name, known in (
        ("InputType", _INPUT_TYPES),
        ("CSVDelimiter", _DELIMITERS),
        ("CSVHeaderLocation", ("FIRST_ROW", "GIVEN")),
        ("ManifestType", ("S3_INVENTORY",)),
        ("Transformation", ("NONE", "LOAD_AND_FLATTEN")),
    ):
        if (value := read_choice(config, name, known)) is not None:
            members[name] = value
    is_csv = members.get("InputType") == "CSV"
    if is_csv and "CSVHeaderLocation" not in members:
        config.require("CSVHeaderLocation")
    headers = config.texts("CSVHeaders", CSV_HEADERS_MAX) if config.has("CSVHeaders") else []
    if (
        sum(len(header.encode("utf-8", "surrogatepass")) for header in headers)
        > CSV_HEADER_BYTES_MAX
    ):
        config.wrong("CSVHeaders", f"The headers exceed the limit of {CSV_HEADER_BYTES_MAX} bytes")
    if headers:
        members["CSVHeaders"] = [*headers]
    if (members.get("CSVHeaderLocation") == "GIVEN") != bool(headers):
        message = "CSVHeaders must be given when, and only when, CSVHeaderLocation is GIVEN"
        config.problems.add(config.pointer, message)
    if (pointer := config.text("ItemsPointer")) is not None:
        members["ItemsPointer"] = pointer
        if members.get("InputType") != "JSON" or (pointer and not pointer.startswith("/")):
            config.wrong("ItemsPointer", "Value must be a JSON pointer (RFC 6901) into a JSON file")
    return members


def read_choice(node: Node, name: str, known: tuple[str, ...]) -> str | None:
    """Return a field that is one of a few words, or None; what ASL knows beside is refused."""
    value = node.text(name)
    if value is None or value in known:
        return value
    if (name, value) in _ELSEWHERE:
        node.wrong(name, f"{name} {value} is not supported", NOT_SUPPORTED)
    else:
        node.wrong(name, f"{shown(value)} is none of [{', '.join(known)}]")
    return None


_ELSEWHERE: Final = frozenset({("InputType", "PARQUET"), ("ManifestType", "ATHENA_DATA")})


def _read_batcher(node: Node) -> Batcher | None:
    batcher = node.child("ItemBatcher")
    if batcher is None:
        return None
    items_max = read_amount(batcher, "MaxItemsPerBatch", SECONDS_MAX, minimum=1)
    bytes_max = read_amount(batcher, "MaxInputBytesPerBatch", PAYLOAD_BYTES_MAX, minimum=1)
    is_computed = batcher.is_jsonata
    shared = batcher.computed("BatchInput") if is_computed else batcher.payload("BatchInput")
    if items_max is None and bytes_max is None:
        message = "One of these fields is required: [MaxItemsPerBatch, MaxInputBytesPerBatch]"
        batcher.problems.add(batcher.pointer, message)
    batcher.close()
    return Batcher(items_max, bytes_max, shared)


def _read_writer(node: Node) -> Writer | None:
    writer = node.child("ResultWriter")
    if writer is None:
        return None
    call = _read_call(writer, _PUT_OBJECT)
    config = writer.child("WriterConfig")
    transformation, is_lines = "NONE", False
    if config is not None:
        config.require("Transformation", "OutputType")
        transformation = read_choice(config, "Transformation", _TRANSFORMATIONS) or "NONE"
        is_lines = read_choice(config, "OutputType", ("JSON", "JSONL")) == "JSONL"
        config.close()
    elif not writer.has("Resource"):
        message = "One of these fields is required: [Resource, WriterConfig]"
        writer.problems.add(writer.pointer, message)
    writer.close()
    return Writer(call, transformation, is_lines)
