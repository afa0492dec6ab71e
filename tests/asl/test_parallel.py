"""Parallel states."""

from __future__ import annotations

import pytest

from service.asl import Json, SetTimer, Started, TaskFailed, TaskSucceeded, TimerFired
from tests.asl.builders import Run, State, at, definition, ending, going, machine, task


def parallel(*branches: State, **fields: Json) -> State:
    """Return a Parallel state; each branch is one state."""
    scopes: list[Json] = [
        {"StartAt": f"B{index}", "States": {f"B{index}": state}}
        for index, state in enumerate(branches)
    ]
    return {"Type": "Parallel", "Branches": scopes, **({"End": True} | fields)}


def test_branches_run_at_once_and_their_outputs_keep_the_order_of_the_branches() -> None:
    run = Run(machine(All=parallel(task("a"), task("b"))), {"id": 7})
    first, second = run.feed(Started())
    run.feed(TaskSucceeded(second.id, "second"))
    assert run.execution.open_tasks == (first,)
    run.feed(TaskSucceeded(first.id, "first"))
    assert run.outcome == ("SUCCEEDED", ["first", "second"])


def test_history_links_branches_to_the_start_and_the_end_to_the_last_branch() -> None:
    run = Run(machine(All=parallel(ending("Pass"), ending("Pass"))))
    run.feed(Started())
    assert run.links[1:] == [
        (2, 0, "ParallelStateEntered"),
        (3, 2, "ParallelStateStarted"),
        (4, 3, "PassStateEntered"),
        (5, 3, "PassStateEntered"),
        (6, 4, "PassStateExited"),
        (7, 5, "PassStateExited"),
        (8, 7, "ParallelStateSucceeded"),
        (9, 7, "ParallelStateExited"),
        (10, 9, "ExecutionSucceeded"),
    ]


def test_parameters_make_the_input_and_the_result_fields_shape_the_output() -> None:
    run = Run(
        machine(
            All=parallel(
                ending("Pass"),
                ending("Pass", Result=2),
                Parameters={"n.$": "$.id"},
                ResultSelector={"both.$": "$"},
                ResultPath="$.r",
            )
        ),
        {"id": 7},
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", {"id": 7, "r": {"both": [{"n": 7}, 2]}})


def test_a_failing_branch_gives_up_its_siblings_and_names_the_error() -> None:
    run = Run(
        machine(All=parallel(task("a"), ending("Wait", Seconds=9), {"Type": "Fail", "Error": "E"}))
    )
    assert run.feed(Started()) == []
    assert run.outcome == ("FAILED", ["E", None])
    assert (run.execution.open_tasks, run.execution.due_at) == ((), None)
    assert run.types[-4:] == [
        "WaitStateAborted",
        "TaskStateAborted",
        "ParallelStateFailed",
        "ExecutionFailed",
    ]


def test_an_answer_for_a_branch_that_was_given_up_changes_nothing() -> None:
    run = Run(
        machine(
            All=parallel(
                task("a"), task("b"), Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Rest"}]
            ),
            Rest=task("c"),
        )
    )
    first, second = run.feed(Started())
    run.feed(TaskFailed(second.id, "E", "why"))
    assert [command.state for command in run.execution.open_tasks] == ["Rest"]
    assert run.open_task.parameters == {"Error": "E", "Cause": "why"}
    before = run.execution
    assert run.feed(TaskSucceeded(first.id, "late")) == []
    assert run.execution is before


def test_a_retry_runs_all_branches_again() -> None:
    run = Run(machine(All=parallel(task("a"), task("b"), Retry=[{"ErrorEquals": ["E"]}])), {"x": 1})
    first, second = run.feed(Started())
    run.feed(TaskSucceeded(first.id, 1))
    assert run.feed(TaskFailed(second.id, "E")) == [SetTimer(at(1))]
    again = run.feed(TimerFired(), after=1)
    assert [(c.state, c.parameters) for c in again] == [("B0", {"x": 1}), ("B1", {"x": 1})]
    assert not {c.id for c in again} & {first.id, second.id}
    for command in again:
        run.feed(TaskSucceeded(command.id, 2))
    assert run.outcome == ("SUCCEEDED", [2, 2])


@pytest.mark.parametrize("name", ["E", "States.TaskFailed", "States.BranchFailed", "States.ALL"])
def test_a_branchs_error_can_be_caught_by_each_of_these_names(name: str) -> None:
    catch: Json = [{"ErrorEquals": [name], "Next": "Caught"}]
    run = Run(
        machine(All=parallel({"Type": "Fail", "Error": "E"}, Catch=catch), Caught=ending("Pass"))
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", {"Error": "E", "Cause": ""})


def test_an_error_that_states_all_cannot_catch_stays_so_outside_of_its_branch() -> None:
    catch: Json = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    run = Run(
        machine(All=parallel(ending("Pass", InputPath="$.x"), Catch=catch), Caught=ending("Pass"))
    )
    run.feed(Started())
    status, (error, cause) = run.outcome
    assert (status, error) == ("FAILED", "States.Runtime")
    assert "the state 'B0' (entered at the event id #4)" in cause


def test_forks_within_forks_end_from_the_inside_out() -> None:
    inner = {
        "Type": "Parallel",
        "Branches": [definition(A=task("a")), definition(B=ending("Pass", Result=2))],
        "End": True,
    }
    run = Run(machine(All=parallel(inner, ending("Pass", Result=3))))
    (command,) = run.feed(Started())
    run.feed(TaskSucceeded(command.id, 1))
    assert run.outcome == ("SUCCEEDED", [[1, 2], 3])


def test_branches_may_walk_through_several_states() -> None:
    scope = definition(A=going("Pass", "B", Result=1), B=going("Wait", "C", Seconds=5), C=task("c"))
    run = Run(machine(All={"Type": "Parallel", "Branches": [scope], "End": True}))
    assert run.feed(Started()) == [SetTimer(at(5))]
    (command,) = run.wake()
    assert command.parameters == 1
    run.succeed("done")
    assert run.outcome == ("SUCCEEDED", ["done"])


def test_results_over_the_payload_limit_fail_the_state_at_once() -> None:
    run = Run(machine(All=parallel(task("a"), task("b"), task("c"))))
    commands = run.feed(Started())
    for command in commands[:2]:
        run.feed(TaskSucceeded(command.id, "x" * 140_000))
    status, (error, cause) = run.outcome
    assert (status, error) == ("FAILED", "States.DataLimitExceeded")
    assert cause.startswith("The state/task 'All' returned a result")
