"""JSONata's arithmetic and its functions of numbers."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import reduce
from typing import Final

from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import (
    EXACT_INTEGER_MAX,
    UNDEFINED,
    JsonataError,
    Run,
    Value,
    double,
    is_number,
    number,
)

DIGIT_STEPS: Final = 2  # writing a bit of a number by `$formatBase`

_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[Ee][-+]?[0-9]+)?")
_PREFIXED: Final = re.compile(r"0[xX][0-9A-Fa-f]+|0[oO][0-7]+|0[bB][01]+")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_DOUBLE_DIGITS_MAX: Final = 1100  # no double has more digits, on both sides of the point together
_SUMMED_PER_STEP: Final = 3
_ROUNDING: Final = Context(prec=_DOUBLE_DIGITS_MAX, rounding=ROUND_HALF_EVEN)
_PLACES_MAX: Final = 330  # beyond the digits of every double


def computed(value: float) -> int | float:
    """Return a result of arithmetic as the double it is in JSONata, written as JSON."""
    if isinstance(value, int) and -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX:
        return value
    value = double(value)
    return number(value) if math.isfinite(value) else value


def _divide(left: float, right: float) -> float:
    if right == 0:
        return math.copysign(math.inf, left) if left else math.nan
    return double(left) / double(right)


def _remainder(left: float, right: float) -> float:
    return math.nan if right == 0 else math.fmod(double(left), double(right))


_OPERATIONS: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _remainder,
}


def arithmetic(sign: str) -> Callable[[Value, Value], Value]:
    """Return what an arithmetic operator does with its two sides."""
    operation = _OPERATIONS[sign]

    def operate(left: Value, right: Value) -> Value:
        if type(left) is int and type(right) is int:
            result = operation(left, right)
            if type(result) is int and -EXACT_INTEGER_MAX <= result <= EXACT_INTEGER_MAX:
                return result
        if left is not UNDEFINED and not is_number(left):
            raise JsonataError("T2001", value=left, token=sign)
        if right is not UNDEFINED and not is_number(right):
            raise JsonataError("T2002", value=right, token=sign)
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        # Integers beyond those of a double take part as doubles: their product is bounded.
        return computed(operation(_operand(left), _operand(right)))

    return operate


def _operand(value: float) -> float:
    return value if -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX else double(value)


def negated(value: Value) -> Value:
    """Return what the sign in front of a value makes of it. Raise D1002 unless it is a number."""
    if value is UNDEFINED:
        return UNDEFINED
    if not is_number(value):
        raise JsonataError("D1002", value=value, token="-")  # noqa: S106 - the operator's sign
    return computed(-value)


def round_half_even(value: float, places: int) -> int | float:
    """Return a number rounded to decimal places, which may be negative; a half to the even one."""
    if not math.isfinite(double(value)) or places > _PLACES_MAX:
        return value
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    if places < -_PLACES_MAX:
        return 0
    return computed(float(exact.quantize(Decimal((0, (1,), -places)), context=_ROUNDING)))


def _number(run: Run, value: Value) -> Value:
    if value is UNDEFINED or (is_number(value)):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        if _PREFIXED.fullmatch(value):
            return computed(int(value, 0))
        if _DECIMAL.fullmatch(value) and math.isfinite(float(value)):
            return computed(float(value))
    raise JsonataError("D3030", value=value, index=1)


def _abs(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else computed(abs(value))


def _floor(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else computed(math.floor(value))


def _ceil(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else computed(math.ceil(value))


def _round(run: Run, value: Value, precision: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    return round_half_even(value, 0 if precision is UNDEFINED else int(precision))


def _sqrt(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if value < 0:
        raise JsonataError("D3060", value=value, index=1)
    return computed(math.sqrt(value))


def _power(run: Run, base: Value, exponent: Value) -> Value:
    if base is UNDEFINED:
        return UNDEFINED
    try:
        return computed(math.pow(base, exponent))
    except (OverflowError, ValueError, TypeError) as error:
        raise JsonataError("D3061", value=base, exp=exponent, index=1) from error


def _format_base(run: Run, value: Value, radix: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    base = 10 if radix is UNDEFINED else int(round_half_even(radix, 0))
    if not 2 <= base <= 36:
        raise JsonataError("D3100", value=base)
    rest = abs(int(round_half_even(value, 0)))
    run.spend(DIGIT_STEPS * rest.bit_length())
    digits = "" if rest else "0"
    while rest:
        rest, digit = divmod(rest, base)
        digits = _DIGITS[digit] + digits
    return "-" + digits if value < 0 and digits != "0" else digits


def _sum(run: Run, values: Value) -> Value:
    # Not `sum`: from Python 3.12 on it compensates for rounding, which JSONata does not.
    return values if values is UNDEFINED else computed(reduce(operator.add, values, 0))


def _max(run: Run, values: Value) -> Value:
    return max(values) if values is not UNDEFINED and values else UNDEFINED


def _min(run: Run, values: Value) -> Value:
    return min(values) if values is not UNDEFINED and values else UNDEFINED


def _average(run: Run, values: Value) -> Value:
    if values is UNDEFINED or not values:
        return UNDEFINED
    return computed(_divide(reduce(operator.add, values, 0), len(values)))


NUMBER_FUNCTIONS: Final = (
    Native("number", "<(nsb)-:n>", _number, 1, steps=15),
    Native("abs", "<n-:n>", _abs, 1),
    Native("floor", "<n-:n>", _floor, 1),
    Native("ceil", "<n-:n>", _ceil, 1),
    Native("round", "<n-n?:n>", _round, 2, steps=30),
    Native("sqrt", "<n-:n>", _sqrt, 1),
    Native("power", "<n-n:n>", _power, 2),
    Native("formatBase", "<n-n?:s>", _format_base, 2),
    Native("sum", "<a<n>:n>", _sum, 1, rate=_SUMMED_PER_STEP),
    Native("max", "<a<n>:n>", _max, 1, rate=_SUMMED_PER_STEP),
    Native("min", "<a<n>:n>", _min, 1, rate=_SUMMED_PER_STEP),
    Native("average", "<a<n>:n>", _average, 1, rate=_SUMMED_PER_STEP),
)
