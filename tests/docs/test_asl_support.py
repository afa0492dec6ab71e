"""docs/asl-support.md: every field it lists compiles, and every refusal it quotes is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.app import missing_handlers
from service.asl import (
    InvalidDefinition,
    compile_definition,
    document,
    errors,
    history,
    retry,
    share,
    values,
    workspace,
)
from service.asl import parser as asl_parser
from service.asl.query import functions, intrinsics, jsonpath, steps
from service.asl.query.jsonata import expression, number_pictures
from service.asl.query.jsonata import values as jsonata
from service.asl.query.jsonata.functions import BUILTINS
from service.asl.states import base, choice, distributed_map, fields, map, parallel, task, wait
from tests.docs.pages import blocks, codes, read, rows, section

PAGE = read("docs/asl-support.md")
LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function:get_account"
INNER = {"StartAt": "Inner", "States": {"Inner": {"Type": "Succeed"}}}
DISTRIBUTED = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
FLOW = {"InputPath": "$", "OutputPath": "$", "Comment": "", "QueryLanguage": "JSONPath"}
RETRY = {
    "ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 1, "BackoffRate": 1,
    "MaxDelaySeconds": 1, "JitterStrategy": "FULL",
}  # fmt: skip
CATCH = {"ErrorEquals": ["States.ALL"], "Next": "Other", "ResultPath": "$.e"}
HANDLED = {"Retry": [RETRY], "Catch": [CATCH], "ResultSelector": {}, "ResultPath": "$.r"}

LISTED: list[dict[str, Any]] = [
    {"Type": "Pass", "Result": 1, "Parameters": {}, "ResultPath": "$.r", "Next": "Other"},
    {"Type": "Task", "Resource": LAMBDA, "Parameters": {}, **HANDLED, "TimeoutSeconds": 9,
     "HeartbeatSeconds": 3, "End": True},
    {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Catch": [CATCH],
     "Parameters": {"FunctionName": "get_account", "Payload": {}},
     "TimeoutSecondsPath": "$.t", "HeartbeatSecondsPath": "$.h", "End": True},
    {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution",
     "Parameters": {"StateMachineArn": "a", "Name": "n", "Input": {}}, "Next": "Other"},
    {"Type": "Wait", "Seconds": 1, "Next": "Other"},
    {"Type": "Wait", "SecondsPath": "$.s", "Next": "Other"},
    {"Type": "Wait", "Timestamp": "2026-01-01T00:00:00Z", "Next": "Other"},
    {"Type": "Wait", "TimestampPath": "$.t", "Next": "Other"},
    {"Type": "Parallel", "Branches": [INNER], "Parameters": {}, **HANDLED, "End": True},
    {"Type": "Map", "ItemProcessor": {**INNER, "ProcessorConfig": {"Mode": "INLINE"}},
     "ItemsPath": "$.i", "ItemSelector": {}, "MaxConcurrency": 1, "ToleratedFailureCount": 1,
     "ToleratedFailurePercentage": 1, **HANDLED, "End": True},
    {"Type": "Map", "Iterator": INNER, "Parameters": {}, "MaxConcurrencyPath": "$.m",
     "ToleratedFailureCountPath": "$.c", "ToleratedFailurePercentagePath": "$.p",
     "Catch": [CATCH], "End": True},
    {"Type": "Map", "ItemProcessor": {**INNER, "ProcessorConfig": DISTRIBUTED}, "Label": "l",
     "ItemReader": {"Resource": "arn:aws:states:::s3:getObject",
                    "Parameters": {"Bucket": "b", "Key": "k"},
                    "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN",
                                     "CSVHeaders": ["h"], "CSVDelimiter": "TAB", "MaxItems": 1}},
     "ItemBatcher": {"MaxItemsPerBatch": 1, "MaxInputBytesPerBatchPath": "$.b", "BatchInput": {}},
     "ResultWriter": {"Resource": "arn:aws:states:::s3:putObject",
                      "Parameters": {"Bucket": "b", "Prefix": "p"},
                      "WriterConfig": {"Transformation": "FLATTEN", "OutputType": "JSONL"}},
     **HANDLED, "End": True},
]  # fmt: skip


def _definition(state: dict[str, Any], **top: Any) -> str:
    """Return a definition that begins with a state, beside one that this may lead to."""
    other = {"Type": "Fail", "ErrorPath": "$.e", "CausePath": "States.Format('{}', $.c)"}
    return json.dumps({"StartAt": "First", "States": {"First": state, "Other": other}, **top})


@pytest.mark.parametrize("state", LISTED, ids=lambda state: state["Type"])
def test_fields_that_are_listed_compile(state: dict[str, Any]) -> None:
    listed = set(codes(section(PAGE, "## States and fields")))
    assert set(state) - listed - {f"{name}Path" for name in listed} == set()
    top = {"Comment": "", "Version": "1.0", "TimeoutSeconds": 1, "QueryLanguage": "JSONPath"}
    compiled = compile_definition(_definition({**FLOW, **state}, **top))
    assert list(compiled.states) == ["First", "Other"]


COMPUTED: list[dict[str, Any]] = [
    {"Type": "Pass", "Output": {"a": "{% $states.input.a %}"}, "Assign": {"x": 1}, "Next": "Other"},
    {"Type": "Task", "Resource": LAMBDA, "Arguments": "{% $states.input %}", "Output": "{% $x %}",
     "TimeoutSeconds": "{% $x %}", "HeartbeatSeconds": "{% $x %}", "Next": "Other",
     "Credentials": {"RoleArn": "arn:aws:iam::000000000000:role/r"}},
    {"Type": "Wait", "Seconds": "{% $x %}", "Next": "Other"},
    {"Type": "Wait", "Timestamp": "{% $x %}", "Next": "Other"},
    {"Type": "Choice", "Default": "Other",
     "Choices": [{"Condition": "{% $x > 1 %}", "Assign": {"y": 2}, "Next": "Other"}]},
    {"Type": "Map", "Items": "{% $x %}", "ItemProcessor": INNER, "ItemSelector": "{% $x %}",
     "MaxConcurrency": "{% $x %}", "ToleratedFailureCount": "{% $x %}",
     "ToleratedFailurePercentage": "{% $x %}", "Next": "Other"},
]  # fmt: skip


@pytest.mark.parametrize("state", COMPUTED, ids=lambda state: state["Type"])
def test_fields_of_jsonata_that_are_listed_compile(state: dict[str, Any]) -> None:
    assert set(state) - set(codes(section(PAGE, "## States and fields"))) == set()
    other = {"Type": "Fail", "Error": "{% $x %}", "Cause": "{% $x %}"}
    text = json.dumps(
        {"StartAt": "A", "QueryLanguage": "JSONata", "States": {"A": state, "Other": other}}
    )
    assert list(compile_definition(text).states) == ["A", "Other"]


def test_operators_and_functions_are_listed_and_no_others() -> None:
    told = rows(section(PAGE, "## Operators of Choice"))
    listed = {
        operator + suffix
        for names, note in told
        for operator in codes(names)
        for suffix in (("", "Path") if "with `Path`" in note else ("",))
    }
    assert listed == set(choice.OPERATORS)
    calls = [
        name for cells in rows(section(PAGE, "## Paths and functions")) for name in codes(cells[1])
    ]
    assert {name for name in calls if name.startswith("States.")} == set(functions.FUNCTIONS)


def test_the_distributed_map_that_is_shown_compiles() -> None:
    (shown,) = blocks(PAGE, "json")
    each = compile_definition(shown).scopes[""].states["ShipAll"]
    assert isinstance(each, distributed_map.DistributedMap)


def test_functions_of_jsonata_are_listed_and_no_others() -> None:
    told = rows(section(PAGE, "## Functions of JSONata"))
    listed = [name for cells in told for name in codes(cells[1])]
    assert sorted(listed) == sorted(f"${name}" for name in BUILTINS)


REFUSED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"Type": "Map", "Next": "Other", "ItemProcessor": {**INNER, "ProcessorConfig": DISTRIBUTED},
      "ItemReader": {"Resource": "arn:aws:states:::s3:getObject",
                     "Parameters": {"Bucket": "b", "Key": "k"},
                     "ReaderConfig": {"InputType": "PARQUET", "ManifestType": "ATHENA_DATA"}}}, {}),
    ({"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
      "Next": "Other"}, {}),
    ({"Type": "Task", "Resource": "arn:aws:states:us-east-1:000000000000:activity:a",
      "Next": "Other"}, {}),
    ({"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Next": "Other"}, {}),
    ({"Type": "Task", "Resource": LAMBDA.replace("get_account", "nope"), "Next": "Other"}, {}),
]  # fmt: skip


def test_refusals_are_quoted_word_for_word_and_all_of_them_are_given() -> None:
    given = {
        message.partition("known ones are: ")[0]
        for state, top in REFUSED
        for code, message in _problems(_definition(state, **top))
        if code in (fields.NOT_SUPPORTED, "UNKNOWN_RESOURCE")
    }
    quoted = [m for cells in rows(section(PAGE, "## What is refused")) for m in codes(cells[1])]
    assert sorted(m.partition("known ones are: ")[0] for m in quoted) == sorted(given)


def _problems(text: str) -> list[tuple[str, str]]:
    missing = missing_handlers([], region="us-east-1", account="000000000000")
    try:
        found = missing(compile_definition(text))
    except InvalidDefinition as error:
        found = error.problems
    return [(problem.code, problem.message) for problem in found]


def test_limits_are_the_ones_of_the_code() -> None:
    documented = {cells[0]: cells[1] for cells in rows(section(PAGE, "## Limits"))}
    attempts, interval = retry.MAX_ATTEMPTS_MAX, retry.INTERVAL_SECONDS_MAX
    assert documented == {
        "a definition": f"{document.DEFINITION_BYTES_MAX:,} bytes, "
        f"nested {document.DEPTH_MAX} deep; Map and Parallel {asl_parser.NESTING_DEPTH_MAX} deep; "
        f"{fields.PROBLEMS_MAX:,} problems are told",
        "a state's name; a resource": f"{base.STATE_NAME_CHARACTERS_MAX} characters; "
        f"{task.RESOURCE_CHARACTERS_MAX:,} characters",
        "input, output or result of a state, task or execution": (
            f"{values.PAYLOAD_BYTES_MAX:,} bytes of compact JSON, nested {values.NESTING_MAX} deep"
        ),
        "a variable's name; what a state assigns; all variables of an execution": (
            f"{base.VARIABLE_CHARACTERS_MAX} characters; {values.PAYLOAD_BYTES_MAX:,} bytes; "
            f"{workspace.VARIABLES_BYTES_MAX:,} bytes"
        ),
        "history of an execution": f"{history.HISTORY_EVENTS_MAX:,} events; "
        f"then it fails with `{errors.RUNTIME}`",
        "one step of an execution": f"{share.STEP_EVENTS_MAX:,} events of history, or "
        f"{share.STEP_WORK_MAX:,} steps of evaluation (some 20 ms); then others have their turn, "
        "and it goes on by itself",
        "error; cause": f"{errors.ERROR_CHARACTERS_MAX} characters; "
        f"{errors.CAUSE_CHARACTERS_MAX:,} characters; longer ones are cut",
        "Retriers, Catchers of a state; names in `ErrorEquals`": f"{retry.RETRIERS_MAX}; "
        f"{retry.ERROR_NAMES_MAX}",
        "`MaxAttempts`; `IntervalSeconds`; `MaxDelaySeconds`; `BackoffRate`": (
            f"0 to {attempts:,}; 1 to {interval:,}; 1 to {retry.MAX_DELAY_SECONDS_MAX:,}; "
            f"1 to {base.BACKOFF_RATE_MAX:,.0f}"
        ),
        "a Wait": f"{base.SECONDS_MAX:,} seconds; "
        f"a timestamp {wait.DELAY_SECONDS_MAX:,} seconds ahead",
        "rules of a Choice; nesting of rules": f"{choice.RULES_MAX:,}; {choice.RULE_DEPTH_MAX}",
        "branches of a Parallel; iterations of a Map at once": f"{parallel.BRANCHES_MAX:,}; "
        f"{map.INLINE_MAP_CONCURRENCY}",
        "children of a Distributed Map at once; items of one": (
            f"{distributed_map.MAP_RUN_CONCURRENCY:,}; {distributed_map.MAP_RUN_ITEMS_MAX:,}"
        ),
        "a label; the headers of a CSV file": f"{distributed_map.LABEL_CHARACTERS_MAX} characters; "
        f"{distributed_map.CSV_HEADER_BYTES_MAX:,} bytes",
        "a path; nodes that it looks at, where a candidate of a filter counts for "
        f"{steps.FILTERED_NODES} and {steps.FILTERED_NODES} more for each path in it": (
            f"{jsonpath.PATH_CHARACTERS_MAX:,} characters; {steps.NODES_MAX:,}"
        ),
        "a call of functions": f"{intrinsics.INTRINSIC_CHARACTERS_MAX:,} characters, "
        f"{intrinsics.CALLS_MAX} calls in one field",
        "text for Hash and Base64; items of `States.ArrayRange`": (
            f"{functions.TEXT_CHARACTERS_MAX:,} characters; {functions.RANGE_ITEMS_MAX:,}"
        ),
        "a JSONata expression": f"{expression.TEXT_CHARACTERS_MAX:,} characters; "
        f"nested, or recursing, {jsonata.DEPTH_MAX} deep",
        "an evaluation": f"{jsonata.STEPS_MAX:,} steps of about 0.2 µs (some 60 ms); "
        f"{jsonata.MEMORY_BYTES_MAX:,} bytes, at {jsonata.ELEMENT_BYTES} for an element "
        "of an array and one for a character",
        "a regular expression": "one that RE2 takes: no back-reference, no look-around",
        "a picture of a number or a moment, and a text read by one": (
            f"{number_pictures.PICTURE_CHARACTERS_MAX:,} characters"
        ),
    }


def test_every_error_name_of_the_language_is_listed() -> None:
    listed = {codes(cells[0])[0] for cells in rows(section(PAGE, "## Errors")) if "`" in cells[0]}
    named = {
        value
        for value in vars(errors).values()
        if isinstance(value, str) and value.startswith("States.")
    }
    assert named - {errors.PERMISSIONS} == {name for name in listed if name.startswith("States.")}
