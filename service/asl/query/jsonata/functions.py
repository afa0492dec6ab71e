"""The functions that Step Functions adds to JSONata's, and the table of all there are.

Source: Step Functions guide, "Transforming data with JSONata": these six, and no `$eval`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

from service.asl.query.functions import FUNCTIONS as INTRINSICS
from service.asl.query.functions import FunctionFailed
from service.asl.query.jsonata.collections import COLLECTION_FUNCTIONS
from service.asl.query.jsonata.dates import DATE_FUNCTIONS
from service.asl.query.jsonata.number_pictures import PICTURE_FUNCTIONS
from service.asl.query.jsonata.numbers import NUMBER_FUNCTIONS, computed
from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.text import TEXT_FUNCTIONS
from service.asl.query.jsonata.values import (
    CHARACTERS_PER_STEP,
    ELEMENT_BYTES,
    PART_STEPS,
    UNDEFINED,
    JsonataError,
    Run,
    Value,
)

CHARACTERS_PER_STEP_PARSED: Final = 2

_ALGORITHMS: Final = {
    "MD5": "md5",
    "SHA-1": "sha1",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
}


def _partition(run: Run, items: Value, size: Value) -> Value:
    if items is UNDEFINED or size is UNDEFINED:
        return UNDEFINED
    length = math.floor(size)
    if length < 1:
        raise JsonataError("D3137", message=f"The size of a chunk must be positive, not {size}")
    run.spend(PART_STEPS * (len(items) // length))
    run.hold(ELEMENT_BYTES * len(items))
    return [list(items[start : start + length]) for start in range(0, len(items), length)]


def _range(run: Run, start: Value, end: Value, step: Value) -> Value:
    if UNDEFINED in (start, end, step):
        return UNDEFINED
    if step == 0:
        raise JsonataError("D3137", message="The step of a range must not be 0")
    count = max(0, math.floor((end - start) / step) + 1)  # the end is included
    run.spend(count)
    run.hold(ELEMENT_BYTES * count)
    return [computed(start + step * place) for place in range(count)]


def _hash(run: Run, subject: Value, algorithm: Value) -> Value:
    if subject is UNDEFINED or algorithm is UNDEFINED:
        return UNDEFINED
    name = _ALGORITHMS.get(algorithm)
    if name is None:
        known = ", ".join(_ALGORITHMS)
        raise JsonataError("D3137", message=f"{algorithm!r} is no algorithm; there are {known}")
    data = subject.encode("utf-8", "surrogatepass")
    return hashlib.new(name, data, usedforsecurity=False).hexdigest()


# Observed on the service: a seed gives the numbers of Java's generator.
_MULTIPLIER: Final = 0x5DEECE66D
_STATE_MASK: Final = 2**48 - 1


def _random(run: Run, seed: Value) -> Value:
    if seed is UNDEFINED:
        return run.random.uniform()
    state = (math.floor(seed) ^ _MULTIPLIER) & _STATE_MASK
    state = (state * _MULTIPLIER + 0xB) & _STATE_MASK
    high = state >> 22
    state = (state * _MULTIPLIER + 0xB) & _STATE_MASK
    return ((high << 27) + (state >> 21)) / 2**53


def _uuid(run: Run) -> Value:
    return INTRINSICS["States.UUID"].call([], run.random)


def _parse(run: Run, written: Value) -> Value:
    if written is UNDEFINED:
        return UNDEFINED
    run.hold(len(written))
    try:
        return INTRINSICS["States.StringToJson"].call([written], run.random)
    except FunctionFailed as error:
        raise JsonataError("D3137", message=str(error)) from error


_SERVICE_FUNCTIONS: Final = (
    Native("partition", "<an:a<a>>", _partition, 2),
    Native("range", "<nnn:a<n>>", _range, 3),
    Native("hash", "<ss:s>", _hash, 2, steps=20, rate=CHARACTERS_PER_STEP),
    Native("random", "<n?:n>", _random, 1, rate=None),
    Native("uuid", "<:s>", _uuid, 0, steps=40),
    Native("parse", "<s:x>", _parse, 1, steps=30, rate=CHARACTERS_PER_STEP_PARSED),
)

BUILTINS: Final[dict[str, Native]] = {
    function.name: function
    for function in (
        *TEXT_FUNCTIONS,
        *NUMBER_FUNCTIONS,
        *PICTURE_FUNCTIONS,
        *DATE_FUNCTIONS,
        *COLLECTION_FUNCTIONS,
        *_SERVICE_FUNCTIONS,
    )
}
