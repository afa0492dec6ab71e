"""Map states, inline."""

from __future__ import annotations

import pytest

from service.asl import Json, Started, TaskFailed, TaskSucceeded
from service.asl.interpreter import TOLERANCE_CAUSE
from service.asl.states.map import INLINE_MAP_CONCURRENCY
from tests.asl.builders import Run, State, definition, ending, machine, task

PREFIX = "An error occurred while executing the state 'Each' (entered at the event id #2). "


def each(state: State, **fields: Json) -> State:
    """Return a Map state whose iterations are one state."""
    return {"Type": "Map", "ItemProcessor": definition(Item=state), **({"End": True} | fields)}


def mapped(input: Json, state: State | None = None, **fields: Json) -> Run:
    run = Run(machine(Each=each(ending("Pass") if state is None else state, **fields)), input)
    run.feed(Started())
    return run


def answer_all(run: Run) -> list[Json]:
    """Return what the tasks were given, answering each with the same."""
    seen: list[Json] = []
    while run.execution.open_tasks:
        command = run.execution.open_tasks[0]
        seen.append(command.parameters)
        run.feed(TaskSucceeded(command.id, command.parameters))
    return seen


def test_each_item_is_walked_through_and_outputs_keep_the_order_of_the_items() -> None:
    run = mapped([1, 2, 3], task())
    for command in reversed(run.execution.open_tasks):
        run.feed(TaskSucceeded(command.id, [command.parameters]))
    assert run.outcome == ("SUCCEEDED", [[1], [2], [3]])


def test_no_items_make_an_empty_result() -> None:
    run = mapped([])
    assert run.outcome == ("SUCCEEDED", [])
    assert run.links[1:] == [
        (2, 0, "MapStateEntered"),
        (3, 2, "MapStateStarted"),
        (4, 3, "MapStateSucceeded"),
        (5, 3, "MapStateExited"),
        (6, 5, "ExecutionSucceeded"),
    ]


def test_one_at_a_time_history_links_an_iteration_to_the_state_before_it() -> None:
    run = mapped([1, 2], MaxConcurrency=1)
    assert run.links[2:] == [
        (3, 2, "MapStateStarted"),
        (4, 3, "MapIterationStarted"),
        (5, 4, "PassStateEntered"),
        (6, 5, "PassStateExited"),
        (7, 6, "MapIterationSucceeded"),
        (8, 6, "MapIterationStarted"),
        (9, 8, "PassStateEntered"),
        (10, 9, "PassStateExited"),
        (11, 10, "MapIterationSucceeded"),
        (12, 11, "MapStateSucceeded"),
        (13, 11, "MapStateExited"),
        (14, 13, "ExecutionSucceeded"),
    ]
    assert [
        event["mapIterationStartedEventDetails"] for event in run.shown("MapIterationStarted")
    ] == [
        {"name": "Each", "index": 0},
        {"name": "Each", "index": 1},
    ]


@pytest.mark.parametrize(
    ("fields", "open_at_once"),
    [
        ({}, INLINE_MAP_CONCURRENCY),
        ({"MaxConcurrency": 0}, INLINE_MAP_CONCURRENCY),
        ({"MaxConcurrency": 3}, 3),
        ({"MaxConcurrency": 1_000}, INLINE_MAP_CONCURRENCY),
        ({"MaxConcurrencyPath": "$.n"}, 2),
    ],
)
def test_concurrency_bounds_what_is_open(fields: dict[str, Json], open_at_once: int) -> None:
    run = mapped({"n": 2, "items": list(range(50))}, task(), ItemsPath="$.items", **fields)
    assert len(run.execution.open_tasks) == open_at_once
    first = run.execution.open_tasks[0]
    (command,) = run.feed(TaskSucceeded(first.id, None))
    assert command.parameters == open_at_once
    answer_all(run)
    assert run.outcome == ("SUCCEEDED", [None, *range(1, 50)])


@pytest.mark.parametrize("field", ["ItemSelector", "Parameters"])
def test_a_selector_makes_each_iterations_input(field: str) -> None:
    selector: Json = {
        "n.$": "$$.Map.Item.Index",
        "item.$": "$$.Map.Item.Value",
        "all.$": "$.k",
        "state.$": "$$.State.Name",
    }
    run = mapped(
        {"in": {"k": 5, "items": ["a", "b"]}},
        InputPath="$.in",
        ItemsPath="$.items",
        **{field: selector},
    )
    assert run.outcome == (
        "SUCCEEDED",
        [
            {"n": 0, "item": "a", "all": 5, "state": "Each"},
            {"n": 1, "item": "b", "all": 5, "state": "Each"},
        ],
    )


def test_states_inside_see_their_item_in_the_context_object() -> None:
    run = mapped(["a", "b"], ending("Pass", Parameters={"map.$": "$$.Map.Item"}))
    assert run.outcome == (
        "SUCCEEDED",
        [{"map": {"Index": 0, "Value": "a"}}, {"map": {"Index": 1, "Value": "b"}}],
    )


def test_a_map_inside_a_map_sees_its_own_item() -> None:
    inner: State = {
        "Type": "Map",
        "ItemProcessor": definition(Inner=ending("Pass", InputPath="$$.Map.Item.Index")),
        "End": True,
    }
    assert mapped([[7], [8, 9]], inner).outcome == ("SUCCEEDED", [[0], [0, 1]])


def test_the_legacy_iterator_works_like_item_processor() -> None:
    state = each(ending("Pass"))
    state["Iterator"] = state.pop("ItemProcessor")
    run = Run(machine(Each=state), [1])
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", [1])


@pytest.mark.parametrize(
    ("input", "fields", "cause"),
    [
        ({}, {}, 'Reference path "$" must point to array.'),
        ({"a": 1}, {"ItemsPath": "$.a"}, 'Reference path "$.a" must point to array.'),
        (
            {},
            {"ItemsPath": "$$.Execution.Input"},
            'Reference path "$.Execution.Input" must point to array.',
        ),
        (
            {"items": [], "n": "x"},
            {"ItemsPath": "$.items", "MaxConcurrencyPath": "$.n"},
            'The MaxConcurrencyPath field refers to value "x" which is not a valid integer: $.n',
        ),
        (
            {"items": [], "n": -1},
            {"ItemsPath": "$.items", "MaxConcurrencyPath": "$.n"},
            "MaxConcurrency cannot be negative.",
        ),
        (
            {"items": [], "n": -1},
            {"ItemsPath": "$.items", "ToleratedFailureCountPath": "$.n"},
            "ToleratedFailureCount cannot be negative.",
        ),
        (
            {"items": [], "n": 100.1},
            {"ItemsPath": "$.items", "ToleratedFailurePercentagePath": "$.n"},
            "ToleratedFailurePercentage must be between 0 and 100.",
        ),
        (
            {"items": []},
            {"ItemsPath": "$.items", "ToleratedFailurePercentagePath": "$.n"},
            "The ToleratedFailurePercentagePath field does not reference an input value: $.n",
        ),
    ],
)
def test_a_map_that_cannot_begin_is_an_error(
    input: Json, fields: dict[str, Json], cause: str
) -> None:
    run = mapped(input, **fields)
    assert run.outcome == ("FAILED", ["States.Runtime", PREFIX + cause])
    assert run.types == ["ExecutionStarted", "MapStateEntered", "ExecutionFailed"]


def test_a_selector_that_fails_for_an_item_fails_the_map() -> None:
    selector: Json = {"x.$": "$$.Map.Item.Value.x"}
    run = mapped([{"x": 1}, {}], task(), ItemSelector=selector)
    assert run.outcome[0] == "FAILED"
    assert run.execution.open_tasks == ()
    assert run.types[-2:] == ["MapStateFailed", "ExecutionFailed"]


def test_a_failing_iteration_fails_the_map_with_its_error() -> None:
    run = mapped([1, 2, 3], task(), MaxConcurrency=2)
    first, second = run.execution.open_tasks
    run.feed(TaskFailed(second.id, "E", "why"))
    assert run.outcome == ("FAILED", ["E", "why"])
    assert run.types[-6:] == [
        "LambdaFunctionFailed",
        "MapIterationFailed",
        "TaskStateAborted",
        "MapIterationAborted",
        "MapStateFailed",
        "ExecutionFailed",
    ]
    assert run.feed(TaskSucceeded(first.id, 1)) == []


@pytest.mark.parametrize(
    ("tolerance", "failures", "succeeds"),
    [
        ({"ToleratedFailureCount": 0}, 1, False),
        ({"ToleratedFailureCount": 2}, 2, True),
        ({"ToleratedFailureCount": 2}, 3, False),
        ({"ToleratedFailurePercentage": 50}, 2, True),
        ({"ToleratedFailurePercentage": 50}, 3, False),
        ({"ToleratedFailurePercentage": 100}, 4, True),
        ({"ToleratedFailurePercentage": 100, "ToleratedFailureCount": 1}, 2, False),
        ({"ToleratedFailureCountPath": "$.n"}, 1, True),
    ],
)
def test_failures_are_tolerated_up_to_the_threshold(
    tolerance: dict[str, Json], failures: int, succeeds: bool
) -> None:
    run = mapped({"n": 1, "items": [0, 1, 2, 3]}, task(), ItemsPath="$.items", **tolerance)
    for command in run.execution.open_tasks[:failures]:
        run.feed(TaskFailed(command.id, "E"))
    answer_all(run)
    expected: tuple[str, Json] = (
        ("SUCCEEDED", list(range(failures, 4)))
        if succeeds
        else ("FAILED", ["States.ExceedToleratedFailureThreshold", TOLERANCE_CAUSE])
    )
    assert run.outcome == expected


def test_a_retried_map_begins_all_iterations_again() -> None:
    run = mapped([1, 2], task(), Retry=[{"ErrorEquals": ["E"]}], MaxConcurrency=1)
    run.succeed("one")
    run.fail("E")
    run.wake()
    assert run.open_task.parameters == 1
    answer_all(run)
    assert run.outcome == ("SUCCEEDED", [1, 2])
    starts = [link for link in run.links if link[2] == "MapStateStarted"]
    failed = next(i for i, _, type_ in run.links if type_ == "LambdaFunctionFailed")
    assert [previous for _, previous, _ in starts] == [2, failed]
