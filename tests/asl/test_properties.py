"""Properties of `advance` over generated definitions and events."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from service.asl import (
    Event,
    Execution,
    HistoryEvent,
    InvalidDefinition,
    Json,
    MapRunBegan,
    MapRunFailed,
    MapRunSucceeded,
    RunMap,
    RunTask,
    Signalled,
    Started,
    Status,
    Step,
    Stopped,
    TaskFailed,
    TaskHeartbeat,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
)
from service.asl.checkpoint import from_checkpoint, to_checkpoint
from tests.asl.builders import NOON, FixedRandom, Run, State, function, machine, task

ERRORS = st.sampled_from(["E", "F", "States.Timeout", "States.Runtime", "States.TaskFailed"])
MATCHED = st.sampled_from([["E"], ["States.ALL"], ["States.TaskFailed"], ["States.Timeout", "F"]])
PATHS = st.sampled_from(
    ["$", "$.a", "$.b.c", "$[0]", "$$.Execution.Input", "$$.Map.Item.Index", "$v0", "$v1.a"]
)
EXPRESSIONS: st.SearchStrategy[Json] = st.sampled_from(
    [
        *("{% $states.input %}", "{% $states.input.a %}", "{% $v0 %}", "{% [$v1, 1] %}", "{% 2 %}"),
        *("{% $lookup($states, 'result') %}", "{% $states.context.Map.Item %}", "{% $v0 = $v1 %}"),
        *(["{% $states %}", {"n": "{% $uuid() %}"}], True, [1], {}, "{% $random() > 0.1 %}"),
        *("{% [1..3].{'n': $} %}", "{% $states.input ~> |$|{'t': 1}| %}", "{% $type($v0) %}"),
        *("{% $error('no') %}", "{% $now() %}"),
        "{% $merge([$states.input, {'m': $states.context.State.Name}]) %}",
    ]
)
RESULTS = EXPRESSIONS | st.sampled_from(["{% $states.result %}", {"r": "{% $states.result.a %}"}])
CAUGHT = EXPRESSIONS | st.sampled_from(["{% $states.errorOutput %}", "{% $states.errorOutput.b %}"])
TEMPLATES: st.SearchStrategy[Json] = st.sampled_from(
    [
        {"a.$": "$.a"},
        {"a": [{"b.$": "$$.State.Name"}, 1], "v.$": "$v0"},
        {"a.$": "States.Array($.a, $v1, $$.Execution.Id)", "b.$": "$..a"},
        {"a.$": "States.JsonToString($.a)", "b.$": "States.UUID()"},
        {"a.$": "States.ArrayGetItem($.a, 0)", "b.$": "$[?(@.a == 1)]"},
        {"a.$": "States.MathAdd($.a, 1)", "b.$": "States.Format('{}', $.b)"},
        {},
        [1, {"a.$": "$"}],
    ]
)
PLACES = st.sampled_from(["$", "$.r", "$.b.r", "$[0]", None])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["", "x", "2026-01-02T12:00:00Z", "\ud800", "\0", 2**70, 1.0, -0.5, 1e300]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
DISTRIBUTED = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
NESTING = 2
FIELDS = (
    *("States", "StartAt", "A", "B", "Type", "Next", "End", "Retry", "Catch", "Choices"),
    *("ErrorEquals", "Parameters", "x.$", "Branches", "ItemProcessor", "Seconds"),
)


@st.composite
def scopes(draw: st.DrawFn, names: Iterator[int], depth: int) -> dict[str, Json]:
    """Return a StartAt with its States, each leading to the next, some of them back."""
    chain = [f"S{next(names)}" for _ in range(draw(st.integers(1, 3)))]
    states: dict[str, Json] = {}
    for index, name in enumerate(chain):
        next_ = chain[index + 1] if index + 1 < len(chain) else None
        states[name] = draw(one_state(names, depth, next_, chain))
    end = f"S{next(names)}"
    states[end] = {"Type": "Succeed"}
    return {"StartAt": chain[0], "States": _connected(chain, states, end)}


def _connected(chain: list[str], states: dict[str, Json], end: str) -> dict[str, Json]:
    """Make the last state lead to the end, so that everything is reachable."""
    last = states[chain[-1]]
    assert isinstance(last, dict)
    if last["Type"] == "Choice":
        last["Default"] = end
    elif last["Type"] == "Fail":
        del states[end]
    else:
        last.pop("End", None)
        last["Next"] = end
    return states


@st.composite
def one_state(
    draw: st.DrawFn, names: Iterator[int], depth: int, next_: str | None, chain: list[str]
) -> State:
    kinds = ["Pass", "Task", "Wait"] + (["Map", "Parallel"] if depth < NESTING else [])
    kind = draw(
        st.sampled_from([*kinds, "Choice", "Fail"] if next_ is None else [*kinds, "Choice"])
    )
    state: State = {"Type": kind}
    is_jsonata = draw(st.booleans())
    if is_jsonata:
        state["QueryLanguage"] = "JSONata"
    if kind == "Fail":
        fields = (
            [{}, {"Error": "{% $v0 %}"}] if is_jsonata else [{"Error": "E"}, {"ErrorPath": "$.a"}]
        )
        return state | draw(st.sampled_from(fields))
    state |= draw(_data_fields(kind, depth, is_jsonata=is_jsonata))
    if kind == "Choice":
        rule: State = {"Condition": draw(EXPRESSIONS)} if is_jsonata else draw(_rules())
        rule |= draw(_assigning(depth, is_jsonata=is_jsonata))
        rule["Next"] = draw(st.sampled_from(chain))
        if not isinstance(rule.get("Condition", True), bool | str):
            rule["Condition"] = True
        return state | {"Choices": [rule], "Default": next_ or ""}
    state |= {"Next": next_} if next_ else {"End": True}
    if kind == "Wait":
        paths = [{"Seconds": "{% $states.input.a %}"}] if is_jsonata else [{"SecondsPath": "$.a"}]
        return state | draw(st.sampled_from([{"Seconds": 5}, {"Seconds": 0}, *paths]))
    if kind == "Pass":
        return state
    if draw(st.booleans()):
        retrier = {"ErrorEquals": draw(MATCHED), "MaxAttempts": draw(st.integers(0, 2))}
        state["Retry"] = [retrier]
    if draw(st.booleans()):
        catcher: State = {"ErrorEquals": draw(MATCHED), "Next": draw(st.sampled_from(chain))}
        if is_jsonata and draw(st.booleans()):
            catcher["Output"] = draw(CAUGHT)
        elif not is_jsonata and draw(st.booleans()):
            catcher["ResultPath"] = draw(PLACES)
        assigning = _assigning(depth, is_jsonata=is_jsonata, expressions=CAUGHT)
        state["Catch"] = [catcher | draw(assigning)]
    return state | draw(_own_fields(kind, names, depth, is_jsonata=is_jsonata))


def _rules() -> st.SearchStrategy[State]:
    presence = st.builds(
        lambda path, test, expected: {"Variable": path, test: expected},
        PATHS,
        st.sampled_from(["IsPresent", "IsNumeric", "IsNull", "IsString", "IsTimestamp"]),
        st.booleans(),
    )
    comparison = st.builds(
        lambda path, operator: {"Variable": path, **operator},
        PATHS,
        st.sampled_from(
            [
                *({"StringEquals": "x"}, {"StringMatches": "*x*"}, {"NumericLessThan": 1}),
                *({"BooleanEquals": True}, {"TimestampLessThan": "2026-03-01T00:00:00Z"}),
                *({"StringLessThanPath": "$.a"}, {"NumericGreaterThanEqualsPath": "$v0"}),
            ]
        ),
    )
    return st.recursive(
        presence | comparison,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2).map(lambda rules: {"And": rules}),
            st.lists(inner, min_size=1, max_size=2).map(lambda rules: {"Or": rules}),
            inner.map(lambda rule: {"Not": rule}),
        ),
        max_leaves=3,
    )


def _assigning(
    depth: int, *, is_jsonata: bool, expressions: st.SearchStrategy[Json] = EXPRESSIONS
) -> st.SearchStrategy[State]:
    """Return no Assign, or one of a variable that no scope around sets."""
    name = f"v{depth}" if is_jsonata else f"v{depth}.$"
    values = expressions if is_jsonata else PATHS
    return st.just({}) | values.map(lambda value: {"Assign": {name: value}})


@st.composite
def _data_fields(draw: st.DrawFn, kind: str, depth: int, *, is_jsonata: bool) -> State:
    has_result = kind in ("Task", "Map", "Parallel")
    expressions = RESULTS if has_result else EXPRESSIONS
    state: State = draw(_assigning(depth, is_jsonata=is_jsonata, expressions=expressions))
    if is_jsonata:
        return state | ({"Output": draw(expressions)} if draw(st.booleans()) else {})
    for field in ("InputPath", "OutputPath"):
        if draw(st.booleans()):
            state[field] = draw(PATHS | st.none())
    if kind in ("Choice", "Wait"):
        return state
    if draw(st.booleans()):
        state["ResultPath"] = draw(PLACES)
    if kind == "Pass":
        return state | draw(st.sampled_from([{}, {"Result": [1]}, {"Parameters": {"a.$": "$.a"}}]))
    if kind in ("Task", "Parallel") and draw(st.booleans()):
        state["Parameters"] = draw(TEMPLATES)
    if draw(st.booleans()):
        state["ResultSelector"] = draw(TEMPLATES)
    return state


def _own_fields(
    kind: str, names: Iterator[int], depth: int, *, is_jsonata: bool
) -> st.SearchStrategy[State]:
    if kind == "Task":
        limits = st.sampled_from(
            [{}, {"TimeoutSeconds": 9}, {"TimeoutSeconds": 9, "HeartbeatSeconds": 4}]
        )
        arguments = EXPRESSIONS.map(lambda value: {"Arguments": value} if is_jsonata else {})
        return st.builds(
            lambda fields, given: {"Resource": function("f"), **fields, **given}, limits, arguments
        )
    if kind == "Parallel":
        branches = st.lists(scopes(names, depth + 1), min_size=1, max_size=3)
        return branches.map(lambda value: {"Branches": value})
    jsonpath: list[State] = [{}, {"ItemsPath": "$.a"}, {"ItemsPath": "$v0"}]
    jsonata: list[State] = [{}, {"Items": "{% $states.input.a %}"}, {"Items": [1, "{% $v0 %}"]}]
    selected = "{% $states.context.Map.Item.Value %}" if is_jsonata else "$$.Map.Item.Value"
    return st.builds(
        lambda processor, mode, items, concurrency, tolerance: {
            "ItemProcessor": processor | mode,
            "MaxConcurrency": concurrency,
            **items,
            **tolerance,
        },
        scopes(names, depth + 1),
        st.sampled_from([{}, {"ProcessorConfig": DISTRIBUTED}]),
        st.sampled_from(jsonata if is_jsonata else jsonpath),
        st.integers(0, 2),
        st.sampled_from(
            [
                {},
                {"ToleratedFailureCount": 1},
                {"ItemSelector": {"a" if is_jsonata else "a.$": selected}},
            ]
        ),
    )


@st.composite
def definitions(draw: st.DrawFn) -> str:
    return json.dumps(draw(scopes(count(1), 0)))


def pick_event(data: st.DataObject, execution: Execution) -> tuple[Event, float]:
    """Return something that could happen, and how many seconds later."""
    kind = data.draw(
        st.sampled_from(
            ["answer"] * 4 + ["fail", "timer", "timer", "early", "beat", "signal", "stale", "stop"]
        )
    )
    tasks, maps = execution.open_tasks, execution.open_maps
    if kind in ("answer", "fail", "beat") and maps and data.draw(st.booleans()):
        run = data.draw(st.sampled_from(maps))
        if kind == "answer":
            return MapRunSucceeded(run.id, data.draw(VALUES)), 0
        if kind == "fail":
            return MapRunFailed(run.id, data.draw(ERRORS), "why"), 0
        return MapRunBegan(run.id, "arn"), 0
    if kind in ("answer", "fail", "beat") and tasks:
        command = data.draw(st.sampled_from(tasks))
        if kind == "answer":
            return TaskSucceeded(command.id, data.draw(VALUES), data.draw(st.booleans())), 0
        if kind == "fail":
            return TaskFailed(command.id, data.draw(ERRORS), "why"), 0
        return TaskHeartbeat(command.id), 1
    if kind == "signal":
        return Signalled(), 0
    if kind == "stale":
        return TaskSucceeded(1, None), 0
    if kind == "stop" and data.draw(st.integers(0, 9)) == 0:
        return Stopped("Halt"), 0
    if kind == "early":
        return TimerFired(), 0.5
    return TimerFired(), 10


def check_history(history: list[HistoryEvent], execution: Execution) -> None:
    """Assert that ids count without a gap, links lead back, and the end stands at the end."""
    assert [event.id for event in history] == list(range(1, execution.last_event_id + 1))
    assert all(0 <= event.previous_event_id < event.id for event in history)
    ends = [event for event in history if event.type in ENDS]
    assert ends == ([] if execution.status is Status.RUNNING else [history[-1]])


ENDS = {"ExecutionSucceeded", "ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted"}


def check_step(step: Step) -> None:
    """Assert that what was asked for is open, and that a running execution waits for something."""
    execution = step.execution
    asked = {command for command in map(_key, step.commands) if command is not None}
    opened = (*execution.open_tasks, *execution.open_maps)
    assert asked <= {_key(command) for command in opened}
    if execution.status is Status.RUNNING:
        assert execution.due_at is not None or opened
    else:
        assert (execution.due_at, opened, execution.frames) == (None, (), {})


def _key(command: object) -> int | None:
    return command.id if isinstance(command, RunTask | RunMap) else None


@settings(max_examples=80, deadline=None)
@given(definitions(), VALUES, st.data())
def test_any_events_lead_on_from_a_checkpoint_as_from_the_execution_itself(
    text: str, input: Json, data: st.DataObject
) -> None:
    compiled = compile_definition(text)
    execution = Run(compiled, input).execution
    about, kept, random = execution.about, copy.deepcopy(input), FixedRandom()
    now, history = NOON, []
    event: Event = Started()
    for _ in range(12):
        before = copy.deepcopy(to_checkpoint(execution))
        restored = from_checkpoint(json.loads(json.dumps(before)), about)
        assert restored == execution
        step = advance(compiled, execution, event, now, random)
        again = advance(compiled, restored, event, now, random)
        assert again == step
        assert to_checkpoint(execution) == before
        history.extend(step.history)
        execution = step.execution
        check_step(step)
        check_history(history, execution)
        if execution.status is not Status.RUNNING or len(history) > 500:
            break
        event, seconds = pick_event(data, execution)
        now += timedelta(seconds=seconds)
    assert input == kept


@settings(max_examples=150, deadline=None)
@given(definitions(), VALUES, st.data())
def test_whatever_did_not_succeed_can_be_redriven_and_enters_no_state_twice(
    text: str, input: Json, data: st.DataObject
) -> None:
    run = Run(compile_definition(text), input)
    run.feed(Started())
    redrives = 0
    for _ in range(16):
        if run.execution.status is Status.SUCCEEDED or len(run.history) > 500:
            break
        if run.execution.status is Status.RUNNING:
            event, seconds = pick_event(data, run.execution)
            run.feed(event, after=seconds)
            continue
        stood = run.execution.remains
        assert stood
        assert all(frame.parent is None or frame.parent in stood for frame in stood.values())
        before = copy.deepcopy(to_checkpoint(run.execution))
        kept, redrives = run.execution, redrives + 1
        run.redrive()
        assert to_checkpoint(kept) == before
        check_step(Step(run.execution, (), ()))
        assert (
            from_checkpoint(
                json.loads(json.dumps(to_checkpoint(run.execution))), run.execution.about
            )
            == run.execution
        )
    assert [event.id for event in run.history] == list(range(1, len(run.history) + 1))
    assert all(0 <= event.previous_event_id < event.id for event in run.history)
    ended = run.execution.status is not Status.RUNNING
    assert sum(event.type in ENDS for event in run.history) == redrives + ended
    assert sum(event.type == "ExecutionRedriven" for event in run.history) == redrives


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["$.a", "Pass", "A", "B"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(FIELDS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=25,
    )
)
def test_any_json_compiles_or_is_refused_with_places(value: Json) -> None:
    check_compiles_or_is_refused(value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_definition_with_one_part_replaced_compiles_or_is_refused(data: st.DataObject) -> None:
    value = json.loads(data.draw(definitions()))
    parts = list(_parts(value))
    parent, key = data.draw(st.sampled_from(parts))
    parent[key] = data.draw(VALUES | PATHS)
    check_compiles_or_is_refused(value)


def _parts(value: Json) -> Iterator[tuple[dict[str, Json] | list[Json], str | int]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _parts(inner)


def check_compiles_or_is_refused(value: Json) -> None:
    text = json.dumps(value)
    try:
        compiled = compile_definition(text)
    except InvalidDefinition as error:
        places = [(problem.line, problem.column) for problem in error.problems]
    else:
        assert compiled.start_at in compiled.states
        return
    assert places
    assert all(line == 1 and 1 <= column <= len(text) for line, column in places)


def test_a_large_fork_costs_a_step_in_proportion() -> None:
    """An iteration that ends leaves the frames of the others as they are."""
    processor: Json = {"StartAt": "T", "States": {"T": task()}}
    run = Run(
        machine(M={"Type": "Map", "ItemProcessor": processor, "End": True}), list(range(1_000))
    )
    run.feed(Started())
    before = run.execution.frames
    run.feed(TaskSucceeded(run.execution.open_tasks[0].id, 1))
    after = run.execution.frames
    # The iteration has ended, the Map has its result, and the next iteration has begun.
    assert {id for id in before if after.get(id) is not before[id]} == {0, 1}
    assert after.keys() - before.keys() == {len(before)}
