"""Map states, distributed: what they ask for, what their history tells, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.asl import (
    ExecutionError,
    Json,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    RunMap,
    Started,
    Stopped,
    TaskFailed,
    compile_definition,
)
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from service.asl.commands import BatchItems, ReadItems, WriteResults
from service.asl.map_run import ChildInput, Inputs
from service.asl.states.distributed_map import LABEL_CHARACTERS_MAX, MAP_RUN_CONCURRENCY
from service.asl.values import PAYLOAD_BYTES_MAX
from tests.asl.builders import Run, State, definition, ending, machine, problems, task

PREFIX = "An error occurred while executing the state 'Each' (entered at the event id #2). "
STANDARD = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
ARN = "arn:aws:states:eu-west-1:000000000000:mapRun:orders/each:run"
READER = {
    "Resource": "arn:aws:states:::s3:getObject",
    "ReaderConfig": {"InputType": "JSON"},
    "Parameters": {"Bucket": "b", "Key.$": "$.key"},
}
WRITER = {"Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "b"}}


def each(config: Any = STANDARD, state: State | None = None, **fields: Any) -> State:
    """Return a Distributed Map whose children are one state."""
    processor = definition(Item=ending("Pass") if state is None else state)
    processor["ProcessorConfig"] = config
    return {"Type": "Map", "ItemProcessor": processor, "Label": "each", "End": True, **fields}


def mapped(input: Json, **fields: Any) -> Run:
    run = Run(machine(Each=each(**fields)), input)
    run.feed(Started())
    return run


def command(run: Run) -> RunMap:
    (found,) = run.execution.open_maps
    return found


def inputs(run: Run) -> Inputs:
    return Inputs.of(run.machine, run.execution, command(run), run.now, run.random)


def children(run: Run, items: list[Json]) -> list[ChildInput]:
    made = inputs(run)
    return [*made.from_items(items), *made.rest()]


def test_it_asks_for_a_run_of_its_items_and_goes_on_with_the_output() -> None:
    run = mapped([1, 2], MaxConcurrency=5, ToleratedFailureCount=1)
    assert command(run) == RunMap(3, 2, run.now, "Each", "each", [1, 2], 5, 1)
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunSucceeded(3, ["a", "b"]), after=5)
    assert run.outcome == ("SUCCEEDED", ["a", "b"])
    assert run.links == [
        (1, 0, "ExecutionStarted"),
        (2, 0, "MapStateEntered"),
        (3, 2, "MapStateStarted"),
        (4, 3, "MapRunStarted"),
        (5, 4, "MapRunSucceeded"),
        (6, 5, "MapStateSucceeded"),
        (7, 5, "MapStateExited"),
        (8, 7, "ExecutionSucceeded"),
    ]
    (began,) = run.shown("MapRunStarted")
    assert began["mapRunStartedEventDetails"] == {"mapRunArn": ARN}


@pytest.mark.parametrize(
    ("items", "state", "linked_to"),
    [
        ([], None, "MapRunSucceeded"),
        ([1, 2], None, "MapRunSucceeded"),
        ([1, 2, 3], None, "MapRunStarted"),
        ([[1]], "nested", "MapRunStarted"),
    ],
)
def test_the_exit_is_linked_to_the_end_of_a_brief_run_and_else_to_its_start(
    items: Json, state: str | None, linked_to: str
) -> None:
    inner = each(Label="inner")
    inner["ItemProcessor"] = definition(Innermost=ending("Pass")) | {"ProcessorConfig": STANDARD}
    run = mapped(items, state=None if state is None else inner)
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunSucceeded(3, []))
    (exited,) = [event for event in run.history if event.type == "MapStateExited"]
    assert run.types[exited.previous_event_id - 1] == linked_to


def test_a_beginning_told_twice_is_noted_once_and_a_late_end_not_at_all() -> None:
    run = mapped([1])
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunSucceeded(3, []))
    noted = len(run.history)
    run.feed(MapRunFailed(3, "Late"))
    assert (run.outcome, len(run.history)) == (("SUCCEEDED", []), noted)
    assert run.types.count("MapRunStarted") == 1


def test_a_run_that_fails_fails_the_state_by_its_error() -> None:
    run = mapped([1])
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunFailed(3, "States.ItemReaderFailed", "torn"))
    assert run.outcome == ("FAILED", ["States.ItemReaderFailed", "torn"])
    assert run.links[4:] == [
        (5, 4, "MapRunFailed"),
        (6, 5, "MapStateFailed"),
        (7, 6, "ExecutionFailed"),
    ]
    (failed,) = run.shown("MapRunFailed")
    assert failed["mapRunFailedEventDetails"] == {
        "error": "States.ItemReaderFailed",
        "cause": "torn",
    }


def test_a_retry_asks_for_another_run() -> None:
    run = mapped([1], Retry=[{"ErrorEquals": ["States.ALL"]}])
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunFailed(3, "No"))
    run.wake()
    assert command(run).id == 6
    assert run.types[4:] == ["MapRunFailed", "MapStateStarted"]


def test_an_output_over_the_payload_limit_fails_the_state() -> None:
    run = mapped([1])
    run.feed(MapRunBegan(3, ARN))
    run.feed(MapRunSucceeded(3, ["x" * PAYLOAD_BYTES_MAX]))
    assert run.outcome[0] == "FAILED"
    assert run.execution.error == "States.DataLimitExceeded"


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_branch_that_is_given_up_tells_of_its_run_if_that_had_begun(has_begun: bool) -> None:
    branches = [definition(Each=each()), definition(Other=task())]
    run = Run(machine(Both=ending("Parallel", Branches=branches)), [1])
    run.feed(Started())
    if has_begun:
        run.feed(MapRunBegan(command(run).id, ARN))
    run.feed(TaskFailed(run.open_task.id, "No"))
    assert run.outcome == ("FAILED", ["No", None])
    assert ("MapRunAborted" in run.types) == has_begun
    assert run.types.count("MapStateAborted") == 1


def test_stopping_closes_the_map() -> None:
    run = mapped([1])
    run.feed(Stopped())
    assert (run.execution.status, run.execution.open_maps) == ("ABORTED", ())


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (
            {"ToleratedFailureCountPath": "$.n"},
            "ToleratedFailureCount cannot be negative.",
        ),
        ({"MaxConcurrencyPath": "$.n"}, "MaxConcurrency cannot be negative."),
        (
            {"ItemBatcher": {"MaxItemsPerBatchPath": "$.n"}},
            "MaxItemsPerBatchPath must be greater than zero.",
        ),
        (
            {
                "ItemReader": READER | {"Parameters": {"Bucket": "b", "Key.$": "$.n"}},
                "ItemsPath": None,
            },
            "The parameter 'Key' of s3:getObject must be a string but was -1",
        ),
    ],
)
def test_what_cannot_be_asked_for_fails_after_the_start_is_noted(fields: Any, cause: str) -> None:
    given = {"ItemsPath": "$.items"} | fields
    run = mapped({"items": [1], "n": -1}, **{name: v for name, v in given.items() if v is not None})
    assert run.outcome == ("FAILED", ["States.Runtime", PREFIX + cause])
    assert run.types[1:] == ["MapStateEntered", "MapStateStarted", "ExecutionFailed"]


def test_a_reader_a_batcher_and_a_writer_are_asked_with_what_the_input_says() -> None:
    run = mapped(
        {"key": "k", "most": 9, "shared": 1},
        ItemReader=READER | {"ReaderConfig": {"InputType": "JSON", "MaxItemsPath": "$.most"}},
        ItemBatcher={"MaxItemsPerBatch": 3, "BatchInput": {"s.$": "$.shared"}},
        ResultWriter=WRITER
        | {"WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSONL"}},
    )
    asked = command(run)
    assert (asked.items, asked.concurrency) == (None, MAP_RUN_CONCURRENCY)
    assert asked.reader == ReadItems(
        "getObject", {"Bucket": "b", "Key": "k"}, {"InputType": "JSON", "MaxItems": 9}
    )
    assert asked.batcher == BatchItems(3, PAYLOAD_BYTES_MAX, {"s": 1})
    assert asked.writer == WriteResults({"Bucket": "b"}, "COMPACT", True)
    (started,) = run.shown("MapStateStarted")
    assert started["mapStateStartedEventDetails"] == {"length": 0}


def test_the_same_fields_are_computed_in_jsonata() -> None:
    text = {
        **definition(
            Each=each(
                MaxConcurrency="{% $states.input.most %}",
                ItemReader={
                    "Resource": "arn:aws:states:::s3:listObjectsV2",
                    "ReaderConfig": {"MaxItems": "{% $states.input.most %}"},
                    "Arguments": {"Bucket": "{% $states.input.bucket %}"},
                },
                ItemBatcher={
                    "MaxInputBytesPerBatch": 1000,
                    "BatchInput": "{% $states.input.most %}",
                },
                ItemSelector={"at": "{% $states.context.Map.Item.Index %}"},
                ResultWriter={
                    "Resource": "arn:aws:states:::s3:putObject",
                    "Arguments": {"Bucket": "{% $states.input.bucket %}"},
                },
            )
        ),
        "QueryLanguage": "JSONata",
    }
    run = Run(compile_definition(json.dumps(text)), {"most": 2, "bucket": "b"})
    run.feed(Started())
    asked = command(run)
    assert (asked.concurrency, asked.batcher) == (2, BatchItems(None, 1000, 2))
    assert asked.reader == ReadItems("listObjectsV2", {"Bucket": "b"}, {"MaxItems": 2})
    assert asked.writer == WriteResults({"Bucket": "b"}, "NONE", False)
    assert children(run, ["x", "y"]) == [
        ChildInput({"BatchInput": 2, "Items": [{"at": 0}, {"at": 1}]}, 2)
    ]


def test_a_checkpoint_keeps_the_whole_command() -> None:
    run = mapped(
        {"key": "k", "items": [1]},
        ItemReader=READER,
        ItemBatcher={"MaxItemsPerBatch": 3, "BatchInput": {"x": 1}},
        ResultWriter=WRITER,
        ToleratedFailurePercentage=12.5,
        config=STANDARD | {"ExecutionType": "EXPRESS"},
    )
    run.feed(MapRunBegan(3, ARN))
    stored = json.loads(json.dumps(to_checkpoint(run.execution)))
    assert from_checkpoint(stored, run.execution.about) == run.execution


# What children are given


def test_a_selector_sees_the_item_the_state_and_the_variables() -> None:
    selector = {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value", "of.$": "$.of", "x.$": "$x"}
    states = {
        "Set": {"Type": "Pass", "Assign": {"x": 7}, "Next": "Each"},
        "Each": each(ItemsPath="$.items", ItemSelector=selector),
    }
    run = Run(machine(**states), {"of": "o", "items": ["a"]})  # type: ignore[arg-type]
    run.feed(Started())
    assert children(run, ["a", "b"]) == [
        ChildInput({"i": 0, "v": "a", "of": "o", "x": 7}, 1),
        ChildInput({"i": 1, "v": "b", "of": "o", "x": 7}, 1),
    ]


def test_items_that_were_given_to_children_before_keep_their_numbers() -> None:
    run = mapped([], ItemSelector={"i.$": "$$.Map.Item.Index"})
    made = inputs(run)
    assert made.skip(5) == 5
    assert [child.value for child in made.from_items(["x"])] == [{"i": 5}]


def test_an_item_left_over_from_a_batch_is_the_first_that_is_skipped() -> None:
    run = mapped([], ItemBatcher={"MaxInputBytesPerBatch": 16})
    made = inputs(run)
    assert [c.value for c in made.from_items([111, 222])] == [{"Items": [111]}]
    assert made.skip(3) == 2
    assert [c.value for c in (*made.from_items([9]), *made.rest())] == [{"Items": [9]}]


@pytest.mark.parametrize(
    ("batcher", "items", "batches"),
    [
        ({"MaxItemsPerBatch": 2}, [1, 2, 3], [[1, 2], [3]]),
        ({"MaxItemsPerBatch": 2}, [1, 2], [[1, 2]]),
        ({"MaxItemsPerBatch": 2}, [], []),
        # {"Items":[11,22]} and, as the last comma is counted too, one byte to spare.
        ({"MaxInputBytesPerBatch": 18}, [11, 22, 33], [[11, 22], [33]]),
        ({"MaxInputBytesPerBatch": 17}, [11, 22, 33], [[11], [22], [33]]),
        ({"MaxItemsPerBatch": 9, "MaxInputBytesPerBatch": 1}, [11, 22], [[11], [22]]),
        ({"MaxItemsPerBatch": 1, "MaxInputBytesPerBatch": 99}, [11, 22], [[11], [22]]),
    ],
)
def test_a_batch_holds_what_both_limits_allow_and_one_item_at_least(
    batcher: Any, items: list[Json], batches: list[list[Json]]
) -> None:
    run = mapped([], ItemBatcher=batcher)
    assert children(run, items) == [ChildInput({"Items": b}, len(b)) for b in batches]


def test_an_input_over_the_payload_limit_is_refused() -> None:
    with pytest.raises(ExecutionError, match=r"States\.DataLimitExceeded"):
        children(mapped([]), ["x" * PAYLOAD_BYTES_MAX])


def test_the_processor_is_a_machine_of_its_own_under_the_label() -> None:
    whole = machine(Each=each())
    processor = whole.processor("each")
    assert (processor.start_at, processor.sha256, whole.start_at) == ("Item", whole.sha256, "Each")
    assert dict(whole.labels) == {"each": "/States/Each/ItemProcessor"}


def test_a_map_without_a_label_has_the_same_one_whenever_it_is_compiled() -> None:
    state = each()
    del state["Label"]
    first, second = (dict(machine(Each=state).labels) for _ in range(2))
    ((label, _),) = first.items()
    assert first == second
    assert len(label) == 36


# What is refused


@pytest.mark.parametrize(
    ("fields", "at", "message"),
    [
        ({"Label": "x" * 41}, "/Label", f"Label cannot exceed {LABEL_CHARACTERS_MAX} characters"),
        ({"Label": ""}, "/Label", "Label cannot be empty"),
        ({"Label": "a b"}, "/Label", "Label contains invalid character: ' '"),
        ({"Label": "a\x99"}, "/Label", "Label contains invalid character: '\\x99'"),
        ({"Label": "a/b"}, "/Label", "Label contains invalid character: '/'"),
        (
            {"ItemReader": READER, "ItemsPath": "$.x"},
            "",
            "There should only be one of the following fields: [ItemReader, ItemsPath]",
        ),
        ({"ItemReader": {}}, "/ItemReader", "These fields are required: [Resource]"),
        (
            {"ItemReader": READER | {"Resource": "arn:aws:states:::s3:putObject"}},
            "/ItemReader/Resource",
            "'arn:aws:states:::s3:putObject' is none of "
            "[arn:aws:states:::s3:getObject, arn:aws:states:::s3:listObjectsV2]",
        ),
        (
            {"ItemReader": READER | {"Parameters": {"Bucket": "b"}}},
            "/ItemReader/Parameters",
            "These fields are required: [Key]",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {}}},
            "/ItemReader/ReaderConfig",
            "These fields are required: [InputType]",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {"InputType": "XML"}}},
            "/ItemReader/ReaderConfig/InputType",
            "'XML' is none of [CSV, JSON, JSONL, MANIFEST]",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {"InputType": "PARQUET"}}},
            "/ItemReader/ReaderConfig/InputType",
            "InputType PARQUET is not supported",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {"InputType": "CSV"}}},
            "/ItemReader/ReaderConfig",
            "These fields are required: [CSVHeaderLocation]",
        ),
        (
            {
                "ItemReader": READER
                | {"ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN"}}
            },
            "/ItemReader/ReaderConfig",
            "CSVHeaders must be given when, and only when, CSVHeaderLocation is GIVEN",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {"InputType": "JSON", "MaxItems": 0}}},
            "/ItemReader/ReaderConfig/MaxItems",
            "Minimum value is 1",
        ),
        (
            {"ItemReader": READER | {"ReaderConfig": {"InputType": "JSONL", "ItemsPointer": "/a"}}},
            "/ItemReader/ReaderConfig/ItemsPointer",
            "Value must be a JSON pointer (RFC 6901) into a JSON file",
        ),
        (
            {"ItemBatcher": {"BatchInput": {}}},
            "/ItemBatcher",
            "One of these fields is required: [MaxItemsPerBatch, MaxInputBytesPerBatch]",
        ),
        (
            {"ItemBatcher": {"MaxItemsPerBatch": 1, "MaxItemsPerBatchPath": "$.n"}},
            "/ItemBatcher",
            "There should only be one of the following fields: "
            "[MaxItemsPerBatch, MaxItemsPerBatchPath]",
        ),
        (
            {"ItemBatcher": {"MaxInputBytesPerBatch": PAYLOAD_BYTES_MAX + 1}},
            "/ItemBatcher/MaxInputBytesPerBatch",
            f"Maximum value is {PAYLOAD_BYTES_MAX}",
        ),
        (
            {"ResultWriter": {}},
            "/ResultWriter",
            "One of these fields is required: [Resource, WriterConfig]",
        ),
        (
            {"ResultWriter": {"WriterConfig": {"OutputType": "JSON"}}},
            "/ResultWriter/WriterConfig",
            "These fields are required: [Transformation]",
        ),
        (
            {"config": {"Mode": "DISTRIBUTED"}},
            "/ItemProcessor/ProcessorConfig",
            "These fields are required: [ExecutionType]",
        ),
        (
            {"config": {"Mode": "DISTRIBUTED", "ExecutionType": "FAST"}},
            "/ItemProcessor/ProcessorConfig/ExecutionType",
            "'FAST' is none of [STANDARD, EXPRESS]",
        ),
        ({"config": {"Mode": "INLINE"}}, "/Label", "Field 'Label' is not supported"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused_with_its_place(
    fields: Any, at: str, message: str
) -> None:
    found = problems(definition(Each=each(**fields)))
    told = [(pointer, text) for _, pointer, text in found]
    place = "/States/Each" + at
    assert (place, message) in told or ("/States/Each", message) in told


def test_two_maps_of_one_label_are_refused() -> None:
    first: State = each() | {"Next": "Second"}
    del first["End"]
    second = each()
    second["ItemProcessor"] = definition(Other=ending("Pass")) | {"ProcessorConfig": STANDARD}
    assert problems(definition(First=first, Second=second)) == [
        (
            "SCHEMA_VALIDATION_FAILED",
            "/States/Second/Label",
            "Label 'each' is that of another Map state already",
        )
    ]


def test_a_distributed_map_within_express_children_is_refused() -> None:
    inner = each(Label="inner")
    inner["ItemProcessor"] = definition(Innermost=ending("Pass")) | {"ProcessorConfig": STANDARD}
    outer = each(STANDARD | {"ExecutionType": "EXPRESS"}, state=inner)
    assert problems(definition(Each=outer)) == [
        (
            "SCHEMA_VALIDATION_FAILED",
            "/States/Each/ItemProcessor/States/Item",
            "Express state machine does not support Distributed Map",
        )
    ]
