"""Variables: what may set them, who sees them, how large they may be, how a checkpoint has them."""

from __future__ import annotations

import json

import pytest

from service.asl import WHOLE_SHARE, Json, Started, compile_definition
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from service.asl.query.scope import NO_VARIABLES
from service.asl.values import PAYLOAD_BYTES_MAX
from service.asl.workspace import VARIABLES_BYTES_MAX
from tests.asl.builders import Run, State, definition, ending, going, machine, problems, task

SCHEMA = "SCHEMA_VALIDATION_FAILED"
DONE: State = {"Type": "Succeed"}
NAME_RULE = "is not a variable's name: letters, digits and _"


def branch(**states: State) -> Json:
    return definition(**states)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", f"'1st' {NAME_RULE}"),
        ("a-b", f"'a-b' {NAME_RULE}"),
        ("", f"'' {NAME_RULE}"),
        ("states", "The variable 'states' is reserved"),
        ("v" * 81, "81 characters of a variable's name are over the limit of 80"),
    ],
)
def test_names_are_checked(name: str, message: str) -> None:
    found = problems(definition(Only=ending("Pass", Assign={name: 1})))
    assert found == [(SCHEMA, f"/States/Only/Assign/{name}", message)]


@pytest.mark.parametrize("name", ["a", "_a1", "größe", "変数", "v" * 80])
def test_names_are_identifiers_of_unicode(name: str) -> None:
    run = Run(
        machine(A=going("Pass", "B", Assign={name: 7}), B=ending("Pass", InputPath=f"${name}"))
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", 7)


@pytest.mark.parametrize("type_", ["Succeed", "Fail"])
def test_states_that_end_assign_nothing(type_: str) -> None:
    found = problems(definition(Only={"Type": type_, "Assign": {"a": 1}}))
    assert found == [(SCHEMA, "/States/Only", "Field 'Assign' is not supported")]


def test_an_inner_scope_may_not_assign_what_an_outer_one_does() -> None:
    inner = branch(In=ending("Pass", Assign={"mine": 1, "shared.$": "$.a"}))
    outer = going("Parallel", "After", Branches=[inner])
    found = problems(definition(Both=outer, After=ending("Pass", Assign={"shared": 2})))
    at = "/States/Both/Branches/0/States/In/Assign/shared.$"
    assert found == [(SCHEMA, at, "The variable 'shared' is already assigned in an outer scope")]


def test_branches_beside_each_other_may_assign_the_same() -> None:
    branches: Json = [branch(**{name: ending("Pass", Assign={"same": 1})}) for name in "AB"]
    assert problems(definition(Both=ending("Parallel", Branches=branches))) == []


def test_a_catcher_may_assign_what_a_branch_does() -> None:
    inner = branch(In=task(Assign={"why": "inner"}))
    catch: Json = [{"ErrorEquals": ["States.ALL"], "Assign": {"why.$": "$.Error"}, "Next": "Tell"}]
    both = going("Parallel", "Tell", Branches=[inner], Catch=catch)
    run = Run(machine(Both=both, Tell=ending("Pass", InputPath="$why")))
    run.feed(Started())
    run.fail("Broken")
    assert run.outcome == ("SUCCEEDED", "Broken")


def test_references_are_told_by_state() -> None:
    inner = branch(In=ending("Pass", Parameters={"x.$": "States.Format('{}', $c)"}))
    compiled = machine(
        Plain=going("Pass", "Pick", Assign={"a.$": "$.a", "b": "$b"}),
        Pick={
            "Type": "Choice",
            "Choices": [{"Variable": "$b.x", "StringEqualsPath": "$a", "Next": "Sum"}],
            "Default": "Sum",
        },
        Sum=going(
            "Pass",
            "Each",
            QueryLanguage="JSONata",
            Output="{% ($local := $b; $sum([$local, $a, $states.input.n])) %}",
        ),
        Each=ending("Map", ItemsPath="$list", ItemProcessor=inner),
    )
    assert compiled.variable_references == {
        "Pick": ("a", "b"),
        "Sum": ("a", "b"),
        "Each": ("list",),
        "In": ("c",),
    }


def test_one_assign_is_held_to_the_size_of_a_payload() -> None:
    fits = "x" * (PAYLOAD_BYTES_MAX - len('{"v":""}'))
    run = Run(machine(A=ending("Pass", Assign={"v": fits})))
    run.feed(Started())
    assert run.execution.status == "SUCCEEDED"
    run = Run(machine(A=ending("Pass", Assign={"v": fits + "x"})))
    run.feed(Started())
    assert run.execution.error == "States.DataLimitExceeded"


QUARTER = "x" * (PAYLOAD_BYTES_MAX // 4)
TURNS = 4 * VARIABLES_BYTES_MAX // PAYLOAD_BYTES_MAX + 10


def test_all_variables_of_an_execution_together_have_a_limit() -> None:
    chain = {f"S{n}": going("Pass", f"S{n + 1}", Assign={f"v{n}.$": "$.big"}) for n in range(TURNS)}
    run = Run(machine(**chain, **{f"S{TURNS}": DONE}), {"big": QUARTER}, share=WHOLE_SHARE)
    run.feed(Started())
    assert run.execution.error == "States.DataLimitExceeded"
    assert f"exceed the maximum number of bytes: {VARIABLES_BYTES_MAX}" in str(run.execution.cause)


def test_what_is_assigned_anew_counts_once() -> None:
    rule: Json = {"Variable": "$n", "NumericEquals": TURNS, "Next": "Done"}
    again = going("Pass", "Look", Assign={"n.$": "States.MathAdd($n, 1)", "same.$": "$.big"})
    look: State = {"Type": "Choice", "Choices": [rule], "Default": "Again"}
    start = going("Pass", "Look", Assign={"n": 0})
    flow = machine(Start=start, Look=look, Again=again, Done=DONE)
    run = Run(flow, {"big": QUARTER}, share=WHOLE_SHARE)
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", {"big": QUARTER})


def test_what_a_branch_has_set_counts_no_more_once_it_has_ended() -> None:
    half = "x" * (VARIABLES_BYTES_MAX // 50)
    processor = branch(
        In=going("Pass", "End", Assign={"v": half}), End=ending("Pass", Result=0, ResultPath="$")
    )
    run = Run(
        machine(Each=ending("Map", MaxConcurrency=1, ItemProcessor=processor)), list(range(60))
    )
    run.feed(Started())
    assert run.outcome == ("SUCCEEDED", [0] * 60)


def test_a_checkpoint_has_each_variable_once_and_gives_every_frame_its_own() -> None:
    inner = branch(In=going("Pass", "Wait", Assign={"own.$": "$"}), Wait=ending("Wait", Seconds=9))
    each = ending("Map", ItemProcessor=inner)
    run = Run(machine(Set=going("Pass", "Each", Assign={"shared": "once"}), Each=each), [1, 2])
    run.feed(Started())
    text = json.dumps(to_checkpoint(run.execution))
    assert text.count("once") == 1
    restored = from_checkpoint(json.loads(text), run.execution.about)
    assert restored == run.execution
    found = [dict(frame.variables) for frame in restored.frames.values()]
    assert found == [{"shared": "once"}, *({"shared": "once", "own": n} for n in (1, 2))]
    assert [frame.variable_bytes for frame in restored.frames.values()] == [6, 1, 1]


def test_an_execution_without_variables_keeps_nothing_of_them() -> None:
    run = Run(compile_definition(json.dumps(definition(Only=ending("Wait", Seconds=9)))))
    run.feed(Started())
    (frame,) = run.execution.frames.values()
    assert frame.variables is NO_VARIABLES
    assert "y" not in to_checkpoint(run.execution)["f"][0]  # type: ignore[index, call-overload, operator]
