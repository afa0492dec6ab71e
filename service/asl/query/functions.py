"""The eighteen intrinsic functions: what each does with the values of its arguments.

Source: ASL spec, "Intrinsic Functions"; Step Functions guide, "Intrinsic functions"; where these
are silent, recordings of the service, marked "observed".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from service.asl.document import NUMBER_CHARACTERS_MAX
from service.asl.values import PAYLOAD_BYTES_MAX, Json, Random, equal, exceeds, text_of

# Step Functions guide: of Base64Encode, Base64Decode and Hash, and of ArrayRange and MathAdd.
TEXT_CHARACTERS_MAX: Final = 10_000
RANGE_ITEMS_MAX: Final = 1_000
INTEGER_MIN: Final = -(2**31)
INTEGER_MAX: Final = 2**31 - 1

_ALGORITHMS: Final = {
    "MD5": "md5",
    "SHA-1": "sha1",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
}


class FunctionFailed(Exception):
    """Why a call has no result."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function: what it does, and how many arguments it takes."""

    call: Callable[[list[Json], Random], Json]
    least: int
    most: int | None

    def takes(self, count: int) -> bool:
        """Return whether it can be called with so many arguments."""
        return self.least <= count and (self.most is None or count <= self.most)

    @property
    def arity(self) -> str:
        """Return in words how many arguments it takes."""
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


def _array(arguments: list[Json], random: Random) -> Json:
    return arguments


def _array_partition(arguments: list[Json], random: Random) -> Json:
    array, size = _list(arguments, 0), _integer(arguments, 1)
    if size < 1:
        raise FunctionFailed(f"The chunk size must be a positive integer, not {size}")
    return [array[start : start + size] for start in range(0, len(array), size)]


def _array_contains(arguments: list[Json], random: Random) -> Json:
    return any(equal(element, arguments[1]) for element in _list(arguments, 0))


def _array_range(arguments: list[Json], random: Random) -> Json:
    first, last, step = (_integer(arguments, position) for position in range(3))
    if step == 0:
        raise FunctionFailed("The step of a range must not be 0")
    # Both ends belong to it. Observed: 1 to 9 by 9 is [1], 0 to 9 by 3 is [0, 3, 6, 9].
    items = range(first, last + (1 if step > 0 else -1), step)
    if (last - first) // step >= RANGE_ITEMS_MAX:
        raise FunctionFailed(f"A range may have at most {RANGE_ITEMS_MAX} items")
    return list(items)


def _array_get_item(arguments: list[Json], random: Random) -> Json:
    array, index = _list(arguments, 0), _integer(arguments, 1)
    if not 0 <= index < len(array):
        raise FunctionFailed(f"There is no item {index} in an array of {len(array)}")
    return array[index]


def _array_length(arguments: list[Json], random: Random) -> Json:
    return len(_list(arguments, 0))


def _array_unique(arguments: list[Json], random: Random) -> Json:
    array = _list(arguments, 0)
    _check_size(array)
    first_of: dict[Hashable, Json] = {}
    for element in array:
        first_of.setdefault(_identity(element), element)
    return list(first_of.values())


def _base64_encode(arguments: list[Json], random: Random) -> Json:
    return base64.b64encode(_utf8(_short_text(arguments, 0))).decode("ascii")


def _base64_decode(arguments: list[Json], random: Random) -> Json:
    # MIME's Base64 may be broken into lines.
    encoded = re.sub(r"\s+", "", _short_text(arguments, 0))
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise FunctionFailed(f"The text is not Base64 of UTF-8: {error}") from error


def _hash(arguments: list[Json], random: Random) -> Json:
    data, algorithm = arguments[0], _text(arguments, 1)
    if algorithm not in _ALGORITHMS:
        raise FunctionFailed(f"The algorithm must be one of {', '.join(_ALGORITHMS)}")
    _check_size(data)
    text = _short(data if isinstance(data, str) else text_of(data))
    return hashlib.new(_ALGORITHMS[algorithm], _utf8(text), usedforsecurity=False).hexdigest()


def _json_merge(arguments: list[Json], random: Random) -> Json:
    below, above, deep = arguments
    if not isinstance(below, dict) or not isinstance(above, dict):
        raise FunctionFailed("The first two arguments must be objects")
    if deep is not False:
        raise FunctionFailed("The third argument must be false: only a shallow merge is supported")
    return {**below, **above}


def _string_to_json(arguments: list[Json], random: Random) -> Json:
    text = _text(arguments, 0)
    if not text.strip():
        return None  # observed
    try:
        value: Json = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise FunctionFailed(f"The text is not JSON: {error}") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large for a double")
    return number


def _written_integer(digits: str) -> int:
    if len(digits) > NUMBER_CHARACTERS_MAX:
        raise ValueError(f"a number has more than {NUMBER_CHARACTERS_MAX} characters")
    return int(digits)


_DECODER: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_written_integer
)


def _json_to_string(arguments: list[Json], random: Random) -> Json:
    _check_size(arguments[0])
    return text_of(arguments[0])


def _math_random(arguments: list[Json], random: Random) -> Json:
    start, end = _small_integer(arguments, 0), _small_integer(arguments, 1)
    if start >= end:
        raise FunctionFailed(f"The start {start} must be below the end {end}")
    if len(arguments) == 2:
        return start + int(random.uniform() * (end - start))
    # The same seed gives the same number; so do all machines and versions of Python.
    seed = str(_integer(arguments, 2)).encode("ascii")
    return start + int.from_bytes(hashlib.sha256(seed).digest(), "big") % (end - start)


def _math_add(arguments: list[Json], random: Random) -> Json:
    return _small_integer(arguments, 0) + _small_integer(arguments, 1)


def _string_split(arguments: list[Json], random: Random) -> Json:
    text, delimiters = _text(arguments, 0), _text(arguments, 1)
    # Observed: each character delimits, and what is empty is left out (",,,," gives []).
    if not delimiters:
        return [text] if text else []
    # Not a regular expression: a class of 250,000 characters takes 0.3 seconds to be compiled.
    first = delimiters[0]
    parts = text.translate(dict.fromkeys(map(ord, delimiters), first)).split(first)
    return [part for part in parts if part]


def _uuid(arguments: list[Json], random: Random) -> Json:
    return str(uuid.UUID(int=random.bits(128), version=4))


def _format(arguments: list[Json], random: Random) -> Json:
    pattern = arguments[0]
    if not isinstance(pattern, str):
        raise FunctionFailed("Invalid arguments in States.Format")
    return _fill(pattern.split("{}"), arguments[1:])


def format_with(parts: tuple[str, ...]) -> Function:
    """Return States.Format for a pattern split at its `{}`; it takes the other arguments."""
    blanks = len(parts) - 1
    return Function(lambda arguments, random: _fill(parts, arguments), blanks, blanks)


def _fill(parts: Sequence[str], arguments: list[Json]) -> str:
    if len(parts) - 1 != len(arguments):
        raise FunctionFailed(f"There are {len(parts) - 1} {{}} for {len(arguments)} arguments")
    pieces = [parts[0]]
    for argument, part in zip(arguments, parts[1:], strict=True):
        if isinstance(argument, (dict, list)):
            raise FunctionFailed("Invalid arguments in States.Format")
        pieces += [argument if isinstance(argument, str) else text_of(argument), part]
    if sum(map(len, pieces)) > PAYLOAD_BYTES_MAX:
        raise FunctionFailed(f"The result is larger than {PAYLOAD_BYTES_MAX} bytes")
    return "".join(pieces)


def _list(arguments: list[Json], position: int) -> list[Json]:
    argument = arguments[position]
    if not isinstance(argument, list):
        raise FunctionFailed(f"Argument {position + 1} must be an array")
    return argument


def _text(arguments: list[Json], position: int) -> str:
    argument = arguments[position]
    if not isinstance(argument, str):
        raise FunctionFailed(f"Argument {position + 1} must be a string")
    return argument


def _short_text(arguments: list[Json], position: int) -> str:
    return _short(_text(arguments, position))


def _short(text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise FunctionFailed(f"The text is longer than {TEXT_CHARACTERS_MAX} characters")
    return text


def _integer(arguments: list[Json], position: int) -> int:
    argument = arguments[position]
    if isinstance(argument, bool) or not isinstance(argument, (int, float)):
        raise FunctionFailed(f"Argument {position + 1} must be a number")
    # Observed: a half is rounded up, -2.5 to -2.
    return argument if isinstance(argument, int) else math.floor(argument + 0.5)


def _small_integer(arguments: list[Json], position: int) -> int:
    number = _integer(arguments, position)
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise FunctionFailed(f"Argument {position + 1} must be in {INTEGER_MIN}..{INTEGER_MAX}")
    return number


def _check_size(value: Json) -> None:
    """Refuse what other calls made too large, or too deep, to be walked or written."""
    if exceeds(value):
        raise FunctionFailed(f"The value is larger than {PAYLOAD_BYTES_MAX} bytes")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FunctionFailed("The text has half of a surrogate pair, which has no UTF-8") from error


def _identity(value: Json) -> Hashable:
    """Return what is the same for equal values only: JSON's equality, not Python's."""
    if isinstance(value, dict):
        return dict, frozenset((name, _identity(member)) for name, member in value.items())
    if isinstance(value, list):
        return list, tuple(_identity(element) for element in value)
    return (bool, value) if isinstance(value, bool) else value


FUNCTIONS: Final = {
    "States.Array": Function(_array, 0, None),
    "States.ArrayPartition": Function(_array_partition, 2, 2),
    "States.ArrayContains": Function(_array_contains, 2, 2),
    "States.ArrayRange": Function(_array_range, 3, 3),
    "States.ArrayGetItem": Function(_array_get_item, 2, 2),
    "States.ArrayLength": Function(_array_length, 1, 1),
    "States.ArrayUnique": Function(_array_unique, 1, 1),
    "States.Base64Encode": Function(_base64_encode, 1, 1),
    "States.Base64Decode": Function(_base64_decode, 1, 1),
    "States.Hash": Function(_hash, 2, 2),
    "States.JsonMerge": Function(_json_merge, 3, 3),
    "States.StringToJson": Function(_string_to_json, 1, 1),
    "States.JsonToString": Function(_json_to_string, 1, 1),
    "States.MathRandom": Function(_math_random, 2, 3),
    "States.MathAdd": Function(_math_add, 2, 2),
    "States.StringSplit": Function(_string_split, 2, 2),
    "States.UUID": Function(_uuid, 0, 0),
    "States.Format": Function(_format, 1, None),
}
