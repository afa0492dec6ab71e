"""The culprits of R14: executions that are meant to take others down, and how each must end.

Three kinds. Some inputs must not become an execution at all: `refused` is the API's answer. Some
executions must end by themselves with an error of their name, in the language or because of what a
handler returns. And two handlers do to their process what no exception handling can contain: one
ends it, one never gives its loop back; those executions end in the quarantine lane, and succeed
when they are redriven after their handlers were mended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function:"
WORK: Final = "work"
WORK_DIR: Final = "WORK_DIR"
MENDED: Final = "mended"
"""The file in that folder with which the deadly handlers do no harm any more."""
EXIT_CODE: Final = 3
FATAL_SECONDS: Final = 0.02
"""After which a deadly handler strikes; the others of its batch are in the middle of theirs."""
LOST: Final = "Engine.WorkerLost"
NO_OUTPUT: Final = "InvalidTaskOutput"
NO_JSON: Final = "InvalidExecutionInput"
TOO_LONG: Final = "ValidationException"
PAYLOAD_BYTES_MAX: Final = 262_144
DEPTH: Final = 10_000

HANDLERS: Final = f'''
"""Own handlers that misbehave, and one that does not."""

import asyncio
import os

from service.tasks import Task, handler


@handler
async def work(input, task: Task):
    with open(os.path.join(os.environ["{WORK_DIR}"], task.name), "ab") as record:
        record.write(b"x")
    await asyncio.sleep({1.5 * FATAL_SECONDS})
    return input


def is_mended():
    return os.path.exists(os.path.join(os.environ["{WORK_DIR}"], "{MENDED}"))


@handler
async def exits(input):
    await asyncio.sleep({FATAL_SECONDS})
    if is_mended():
        return input
    os._exit({EXIT_CODE})


@handler
async def loops(input):
    await asyncio.sleep({FATAL_SECONDS})
    while not is_mended():
        pass
    return input


@handler
async def returns_too_much(input):
    return "x" * {PAYLOAD_BYTES_MAX - 1}


@handler
async def returns_depth(input):
    value = []
    for _ in range({DEPTH}):
        value = [value]
    return value


@handler
async def returns_nul(input):
    return {{"nul": "a\\0b"}}


@handler
async def returns_half_a_pair(input):
    return {{"half": "\\ud800"}}


@handler
async def returns_infinity(input):
    return 1e400


@handler
async def returns_nan(input):
    return float("nan")


@handler
async def returns_a_huge_integer(input):
    return 10**5000


@handler
async def raises_what_no_column_holds(input):
    raise ValueError("a\\0b\\ud800" * {PAYLOAD_BYTES_MAX})
'''


@dataclass(frozen=True)
class Culprit:
    """One kind: the definition it runs, the text of its input, and what must come of it.

    `refused` is the error of StartExecution's answer, `status` and `error` how it ends otherwise.
    """

    name: str
    definition: str
    input: str = "{}"
    refused: str | None = None
    status: str = "FAILED"
    error: str | None = None


def task(function: str) -> str:
    """Return the definition of one task without Retry."""
    state = {"Type": "Task", "Resource": f"{ARN}{function}", "End": True}
    return json.dumps({"StartAt": "Do", "States": {"Do": state}})


def one(**state: Any) -> str:
    """Return the definition of one state."""
    return json.dumps({"StartAt": "Do", "States": {"Do": {**state, "End": True}}})


def bomb(name: str, expression: str, input: str = "{}") -> Culprit:
    """Return the culprit that is a JSONata expression."""
    definition = one(Type="Pass", QueryLanguage="JSONata", Output=f"{{% {expression} %}}")
    return Culprit(name, definition, input, error="States.QueryEvaluationError")


def given(name: str, input: str, **ending: Any) -> Culprit:
    """Return the culprit that is an input to a harmless flow."""
    return Culprit(name, task(WORK), input, **ending)


def function(name: str, **ending: Any) -> Culprit:
    """Return the culprit that is a handler."""
    return Culprit(name, task(name), **ending)


INPUTS: Final = (
    given("input_too_long", json.dumps("x" * (PAYLOAD_BYTES_MAX - 1)), refused=TOO_LONG),
    given("input_too_deep", "[" * DEPTH + "]" * DEPTH, refused=NO_JSON),
    given("input_1e400", '{"n": 1e400}', refused=NO_JSON),
    given("input_nan", '{"n": NaN}', refused=NO_JSON),
    given("input_huge_integer", '{"n": ' + "9" * 5000 + "}", refused=NO_JSON),
    # These are JSON, and pass through unharmed; of two members of one name the last one counts.
    given("input_nul", r'{"nul": "a\u0000b"}', status="SUCCEEDED"),
    given("input_half_a_pair", r'{"half": "\ud800"}', status="SUCCEEDED"),
    given("input_duplicate_keys", '{"n": 1, "n": 2}', status="SUCCEEDED"),
)
RESULTS: Final = (
    function("returns_too_much", error="States.DataLimitExceeded"),
    function("returns_depth", error=NO_OUTPUT),
    function("returns_infinity", error=NO_OUTPUT),
    function("returns_nan", error=NO_OUTPUT),
    function("returns_a_huge_integer", error=NO_OUTPUT),
    function("returns_nul", status="SUCCEEDED"),
    function("returns_half_a_pair", status="SUCCEEDED"),
    function("raises_what_no_column_holds", error="ValueError"),
)
BOMBS: Final = (
    bomb("regex_bomb", "$match($states.input.t, /(a+)+b/)", json.dumps({"t": "a" * 60})),
    bomb("recursion_bomb", "($f := function($n) {$f($n + 1) + 1}; $f(0))"),
    bomb("endless_bomb", "($f := function($n) {$f($n + 1)}; $f(0))"),
    bomb("range_bomb", "$sum([1..9999999])"),
    bomb("text_bomb", "$reduce([1..60], function($t, $i) {$t & $t}, 'xxxxxxxx')"),
    Culprit(
        "intrinsic_bomb",
        one(Type="Pass", Parameters={"all.$": "States.ArrayRange(1, 99999999, 1)"}),
        error="States.IntrinsicFailure",
    ),
)
DEADLY: Final = (
    function("exits", error=LOST),
    function("loops", error=LOST),
)
HARMLESS: Final = (*INPUTS, *RESULTS, *BOMBS)
