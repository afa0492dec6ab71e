"""What an expression computes with: undefined, sequences, functions, and the bounds of a run.

A value is a value of JSON, UNDEFINED, or a Function. Arrays that an evaluation gathers are
Sequences: one of length one stands for its element, an empty one for nothing. Source of every rule
here and in the modules beside it: JSONata 2.0.6, the version that the Step Functions guide names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

from service.asl.values import Random

_T = TypeVar("_T")

Value: TypeAlias = Any  # JSON, UNDEFINED or a Function: what JSONata's own types do not tell apart

# Observed on the service: [1..873782] can be counted and [1..873783] cannot, a string can be
# doubled to 2^22 characters and not to 2^23: as with 10 MiB, and these 12 bytes for an element.
ELEMENT_BYTES: Final = 12
MEMORY_BYTES_MAX: Final = 873_782 * ELEMENT_BYTES

# The service gives a time; time is no input of ours, so work is counted, in steps of about a fifth
# of a microsecond: what costs more is several. All of them are some 60 ms, for which others wait.
STEPS_MAX: Final = 300_000
PART_STEPS: Final = 2  # evaluating one part of an expression once
CALL_STEPS: Final = 7  # calling a function that is written in an expression
NATIVE_STEPS: Final = 14  # calling one of the language
VALUE_STEPS: Final = 6  # writing, copying or comparing one value of a tree of them

# Observed on the service: 100 levels of nested evaluation, whether written out or recursed into.
DEPTH_MAX: Final = 100

# What loops inside the interpreter get through in a step's time.
LIST_ITEMS_PER_STEP: Final = 8
CHARACTERS_PER_STEP: Final = 32  # looked at, turned into others
CHARACTERS_PER_STEP_COPIED: Final = 1_024  # copied, compared, searched for a text
EXACT_INTEGER_MAX: Final = 2**53  # beyond it a double, which JSONata computes in, skips integers
SIGNIFICANT_DIGITS: Final = 15  # of a number that becomes text
_PLAIN_NUMBER_MAX: Final = 1e21  # from there JavaScript writes an exponent


class Undefined:
    """The type of UNDEFINED, the value of what is not there; null is None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = Undefined()


class Sequence(list[Value]):
    """An array that an evaluation has gathered, which may collapse to its only element."""

    __slots__ = ("keep",)

    def __init__(self, items: Iterable[Value] = ()) -> None:
        super().__init__(items)
        self.keep = False  # set by `[]`: a single element stays in its array


class Constructed(list[Value]):
    """An array written out as a step of a path: the next step takes it whole."""


class Tuples(list[dict[str, Value]]):
    """The bindings of `@`, `#` and `%` along a path, one for each value the path has reached."""


class JsonataError(Exception):
    """A failure of an expression, by its code in the catalogue of JSONata."""

    def __init__(self, code: str, **details: Value) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


class Exceeded(Exception):
    """A bound of the evaluation was reached."""


TOO_LONG: Final = "Expression evaluation timeout: Check for infinite loop"
TOO_LARGE: Final = (
    "Expression evaluation memory limit exceeded: Check for excessive memory usage"  # observed
)
TOO_DEEP: Final = (
    "Stack overflow error: Check for non-terminating recursive function. "
    "Consider rewriting as tail-recursive"  # observed
)


class Run:
    """One evaluation: what it may still spend, its moment and its random numbers."""

    __slots__ = ("_bytes", "_known", "depth", "now", "random", "steps_left")

    def __init__(self, now: datetime, random: Random) -> None:
        self._bytes = MEMORY_BYTES_MAX
        self._known: dict[Hashable, Any] = {}
        self.steps_left = STEPS_MAX
        self.depth = 0
        self.now = now
        self.random = random

    def spend(self, steps: int) -> None:
        """Count work about to be done. Raise Exceeded when it is more than is left."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise Exceeded(TOO_LONG)

    def once(self, key: Hashable, steps: int, make: Callable[[], _T]) -> _T:
        """Return what is made by and known by a key, and costs its steps the first time only."""
        if key not in self._known:
            self.spend(steps)
            self._known[key] = make()
        made: _T = self._known[key]
        return made

    def hold(self, size: int) -> None:
        """Count bytes about to be taken. Raise Exceeded when they are more than are left."""
        self._bytes -= size
        if self._bytes < 0:
            raise Exceeded(TOO_LARGE)


class Scope:
    """The variables in reach of a part of an expression."""

    __slots__ = ("names", "parent", "run")

    def __init__(self, names: Mapping[str, Value], parent: Scope | None, run: Run) -> None:
        self.names = names
        self.parent = parent
        self.run = run

    def lookup(self, name: str) -> Value:
        """Return the value of a variable, UNDEFINED when there is none of that name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return UNDEFINED

    def bind(self, name: str, value: Value) -> None:
        """Give a variable of this very scope its value."""
        assert isinstance(self.names, dict), self.names
        self.names[name] = value


class Function:
    """What can be called."""

    __slots__ = ()

    arity: int
    is_true = True  # what it counts as in a condition, where it is not the argument of a call

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return what the function makes of its arguments; perhaps a TailCall."""
        raise NotImplementedError


class TailCall:
    """A call that ends a function's body: made by `apply`, after the body has been left."""

    __slots__ = ("arguments", "context", "function")

    def __init__(self, function: Function, arguments: list[Value], context: Value) -> None:
        self.function = function
        self.arguments = arguments
        self.context = context


def apply(run: Run, function: Function, arguments: list[Value], context: Value = None) -> Value:
    """Return the result of a call, and of the calls that its function ends in."""
    result = function.call(run, arguments, context)
    while type(result) is TailCall:
        result = result.function.call(run, result.arguments, result.context)
    return result


def collapse(value: Value) -> Value:
    """Return what a gathered array stands for."""
    if type(value) is Sequence:
        if not value:
            return UNDEFINED
        if len(value) == 1 and not value.keep:
            return value[0]
    return value


def is_number(value: Value) -> bool:
    """Return whether a value is a number. Raise D1001 for one that JSON cannot write."""
    if type(value) is int:
        return True
    if type(value) is float:
        if math.isnan(value):
            return False
        if math.isinf(value):
            raise JsonataError("D1001", value=value)
        return True
    return False


def number(value: float) -> int | float:
    """Return a computed double as JSON writes it: an integer without a fraction.

    Its digits are the fewest that name the double, as JavaScript's are, and zeros.
    """
    if value.is_integer() and abs(value) < _PLAIN_NUMBER_MAX:
        return int(value) if abs(value) <= EXACT_INTEGER_MAX else int(Decimal(repr(value)))
    return value


def boolean(run: Run, value: Value) -> bool:
    """Return what a value counts as in a condition; UNDEFINED counts as false."""
    if value is True or value is False:
        return value
    while isinstance(value, list) and len(value) == 1:
        run.spend(1)
        value = value[0]
    if isinstance(value, list):
        return _is_any(run, value)
    if isinstance(value, (str, dict, bool)):
        return bool(value)
    if isinstance(value, Function):
        return value.is_true
    return is_number(value) and value != 0


def _is_any(run: Run, items: list[Value]) -> bool:
    for item in items:
        run.spend(PART_STEPS)
        if boolean(run, item):
            return True
    return False


def equal(run: Run, left: Value, right: Value) -> bool:
    """Return whether two values are the same: numbers by value, members in any order."""
    if isinstance(left, str) and isinstance(right, str):
        run.spend(len(left) // CHARACTERS_PER_STEP_COPIED)
        return left == right
    pairs = [(left, right)]
    while pairs:
        run.spend(PART_STEPS)
        left, right = pairs.pop()
        if left is right:
            continue
        if isinstance(left, str):
            run.spend(len(left) // CHARACTERS_PER_STEP_COPIED)
        if isinstance(left, dict):
            if not isinstance(right, dict) or left.keys() != right.keys():
                return False
            pairs.extend((left[name], right[name]) for name in left)
        elif isinstance(left, list):
            if not isinstance(right, list) or len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(left, bool) or isinstance(right, bool) or left != right:
            return False
    return True


def ordered(run: Run, left: str, right: str) -> tuple[Any, Any]:
    """Return what orders two strings as JavaScript does: by the 16-bit units of UTF-16."""
    run.spend(min(len(left), len(right)) // CHARACTERS_PER_STEP_COPIED)
    if left.isascii() or right.isascii():
        return left, right
    run.spend((len(left) + len(right)) // CHARACTERS_PER_STEP)
    return utf16(left), utf16(right)


def utf16(text: str) -> bytes:
    """Return a string as UTF-16, whose bytes are in the order that JavaScript has for strings."""
    return text.encode("utf-16-be", "surrogatepass")


def number_text(value: float) -> str:
    """Return a number in the notation of JavaScript, which JSONata writes."""
    if isinstance(value, int) and abs(value) <= EXACT_INTEGER_MAX:
        return str(value)
    value = double(value)
    if not math.isfinite(value):
        return "null"
    if value.is_integer() and abs(value) < _PLAIN_NUMBER_MAX:
        return str(number(value))
    digits, _, exponent = repr(value).partition("e")
    if not exponent:
        return digits
    power = int(exponent)
    if -7 < power < 0:
        places = -power + len(digits.replace("-", "").replace(".", "")) - 1
        return f"{value:.{places}f}"
    return f"{digits.removesuffix('.0')}e{power:+d}"


def double(value: float) -> float:
    """Return the double nearest to a number, which is infinite for an integer beyond them all."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def rounded(value: float) -> float:
    """Return a number cut to the digits that its text shows."""
    return float(f"{double(value):.{SIGNIFICANT_DIGITS}g}")


_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


def quoted(text: str) -> str:
    """Return the JSON text of a string, in which half of a surrogate pair is an escape."""
    return _quote(text).encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(run: Run, value: Value, *, exact: bool, indent: int | None = None) -> str:
    """Return the JSON text of a value; functions become empty strings.

    `exact` numbers keep all digits, others SIGNIFICANT_DIGITS. `indent` is the depth that a text
    spread over lines starts at.
    """
    run.spend(VALUE_STEPS)
    if isinstance(value, str):
        run.hold(len(value))
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        if isinstance(value, float):
            run.spend(VALUE_STEPS)
        exact = exact or (isinstance(value, int) and abs(value) < 10**SIGNIFICANT_DIGITS)
        return number_text(value if exact or not math.isfinite(double(value)) else rounded(value))
    if isinstance(value, Function):
        return '""'
    if not isinstance(value, (list, dict)):
        return "null"  # undefined, inside an array
    deeper = None if indent is None else indent + 1
    if isinstance(value, list):
        parts = [json_text(run, item, exact=exact, indent=deeper) for item in value]
        return _bracketed("[]", parts, indent)
    colon = ":" if indent is None else ": "
    parts = [
        quoted(name) + colon + json_text(run, item, exact=exact, indent=deeper)
        for name, item in value.items()
        if item is not UNDEFINED
    ]
    return _bracketed("{}", parts, indent)


def _bracketed(brackets: str, parts: list[str], indent: int | None) -> str:
    if indent is None or not parts:
        return brackets[0] + ",".join(parts) + brackets[1]
    inner, outer = "\n" + "  " * (indent + 1), "\n" + "  " * indent
    return brackets[0] + inner + ("," + inner).join(parts) + outer + brackets[1]


def text(run: Run, value: Value, *, pretty: bool = False) -> str:
    """Return a value as `$string` and `&` write it. Raise D3001 for what is no finite number."""
    if isinstance(value, str):
        return value
    if isinstance(value, Function):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        raise JsonataError("D3001", value=value)
    return json_text(run, value, exact=False, indent=0 if pretty else None)


def weigh(run: Run, value: Value) -> None:
    """Count the bytes of a new value's outermost level."""
    if isinstance(value, str):
        run.hold(len(value))
    elif isinstance(value, (list, dict)):
        run.hold(ELEMENT_BYTES * len(value))
