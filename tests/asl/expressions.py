"""JSONata expressions in tests: evaluated at a fixed moment, and their failures' words."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from service.asl.errors import ExecutionError
from service.asl.query.jsonata import QUERY_EVALUATION_ERROR, compile_expression
from service.asl.share import Work
from service.asl.values import Json

NOON = datetime(2026, 3, 14, 12, 0, 0, 123_456, tzinfo=UTC)

TOO_LONG = (
    "threw an error during evaluation: Expression evaluation timeout: Check for infinite loop"
)
TOO_LARGE = (
    "threw an error during evaluation: Expression evaluation memory limit exceeded: "
    "Check for excessive memory usage"
)
TOO_DEEP = (
    "threw an error during evaluation: Stack overflow error: Check for non-terminating recursive "
    "function. Consider rewriting as tail-recursive"
)
NOTHING = "returned nothing (undefined)."
UNSUPPORTED = "returned an unsupported result type."


class Numbers:
    """Random numbers from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def bits(self, n: int) -> int:
        return self._random.getrandbits(n)

    def uniform(self) -> float:
        return self._random.random()


def evaluate(text: str, /, seed: int = 0, **variables: Json) -> Json:
    return compile_expression(text).evaluate(variables, NOON, Numbers(seed), Work(), "Output")


def failure(text: str, /, **variables: Json) -> str:
    """Return what the cause says after naming the expression and its field."""
    with pytest.raises(ExecutionError) as raised:
        evaluate(text, **variables)
    assert raised.value.error == QUERY_EVALUATION_ERROR
    lead = f"The JSONata expression '{text.strip()}' specified for the field 'Output' "
    assert raised.value.cause is not None
    assert raised.value.cause.startswith(lead)
    return raised.value.cause.removeprefix(lead)
