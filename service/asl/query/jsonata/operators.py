"""JSONata's operators between two values, apart from arithmetic."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any, Final

from service.asl.query.jsonata.values import (
    CHARACTERS_PER_STEP_COPIED,
    ELEMENT_BYTES,
    LIST_ITEMS_PER_STEP,
    UNDEFINED,
    Function,
    JsonataError,
    Run,
    Value,
    equal,
    is_number,
    ordered,
    text,
)

_REAL: Final = frozenset({int, float})
_MOST: Final = sys.float_info.max

RANGE_ITEMS_MAX: Final = 10_000_000


def _comparison(
    sign: str, compare: Callable[[Any, Any], bool]
) -> Callable[[Run, Value, Value], Value]:
    def operate(run: Run, left: Value, right: Value) -> Value:
        if type(left) in _REAL and type(right) in _REAL and -_MOST <= left <= _MOST >= abs(right):
            return compare(left, right)
        for value in (left, right):
            if value is not UNDEFINED and not isinstance(value, str) and not is_number(value):
                raise JsonataError("T2010", value=value, token=sign)
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        if isinstance(left, str) is not isinstance(right, str):
            raise JsonataError("T2009", value=left, value2=right, token=sign)
        if isinstance(left, str):
            left, right = ordered(run, left, right)
        return compare(left, right)

    return operate


def _equals(run: Run, left: Value, right: Value) -> Value:
    return left is not UNDEFINED and right is not UNDEFINED and equal(run, left, right)


def _differs(run: Run, left: Value, right: Value) -> Value:
    return left is not UNDEFINED and right is not UNDEFINED and not equal(run, left, right)


def _is_in(run: Run, left: Value, right: Value) -> Value:
    if left is UNDEFINED or right is UNDEFINED:
        return False
    items = right if isinstance(right, list) else [right]
    if isinstance(left, str):
        run.spend(len(items) * (1 + len(left) // CHARACTERS_PER_STEP_COPIED) // LIST_ITEMS_PER_STEP)
        return left in items
    run.spend(len(items) // 2)
    if isinstance(left, (list, dict, Function)):
        return any(item is left for item in items)
    return any(item == left and isinstance(item, bool) is isinstance(left, bool) for item in items)


def _joined(run: Run, left: Value, right: Value) -> Value:
    texts = [text(run, side) for side in (left, right) if side is not UNDEFINED]
    size = sum(map(len, texts))
    run.hold(size)
    run.spend(size // CHARACTERS_PER_STEP_COPIED)
    return "".join(texts)


def _between(run: Run, left: Value, right: Value) -> Value:
    for code, side in (("T2003", left), ("T2004", right)):
        if side is not UNDEFINED and not (is_number(side) and side == int(side)):
            raise JsonataError(code, value=side)
    if left is UNDEFINED or right is UNDEFINED or left > right:
        return UNDEFINED
    size = int(right) - int(left) + 1
    if size > RANGE_ITEMS_MAX:
        raise JsonataError("D2014", value=size)
    run.hold(ELEMENT_BYTES * size)
    run.spend(size // LIST_ITEMS_PER_STEP)
    numbers = list(range(int(left), int(right) + 1))
    return numbers if size > 1 else numbers[0]


OPERATORS: Final[dict[str, Callable[[Run, Value, Value], Value]]] = {
    "<": _comparison("<", operator.lt),
    "<=": _comparison("<=", operator.le),
    ">": _comparison(">", operator.gt),
    ">=": _comparison(">=", operator.ge),
    "=": _equals,
    "!=": _differs,
    "in": _is_in,
    "&": _joined,
    "..": _between,
}
