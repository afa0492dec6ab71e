"""Whether a mocked result is one that the action of a task could give.

`result_shapes.json` has what the actions of nine services answer, taken from the service models of
botocore 1.43 (Apache License 2.0): types, required members and limits. What is not in it is not
checked. One limit is not the model's: MemorySize of Lambda ends at 10,240, as it did when the
service was recorded; botocore 1.43 says 32,768. Wording: observed, recordings of TestState.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from service.api.stepfunctions.faults import Fault, invalid
from service.asl import Json

Shape: TypeAlias = dict[str, Any]

_SHAPES: Final = Path(__file__).parent / "result_shapes.json"
_ACTION: Final = re.compile(r"arn:aws[a-z-]*:states:::(?:aws-sdk:)?(\w+):(\w+)")
_SERVICES: Final = {"states": "sfn", "eventbridge": "events"}

# An optimized integration answers with the function's own JSON, not with its text.
_FREE: Final = {"arn:aws:states:::lambda:invoke": "Payload"}

_ARTICLES: Final = {
    "array": "an array",
    "boolean": "a boolean",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}


def check_result(resource: str, result: Json, *, is_strict: bool) -> None:
    """Raise Fault for a result that the resource could not give; `is_strict`: or not whole."""
    match = _ACTION.fullmatch(resource)
    if match is None:
        return
    service = _shapes().get(_SERVICES.get(match[1], match[1]))
    if service is None or match[2] not in service["actions"]:
        return
    if not isinstance(result, dict):
        raise _refused(f"the result of '{match[1]}:{match[2]}' must be an object")
    checker = _Checker(service["shapes"], _FREE.get(resource), is_strict)
    checker.check("", result, service["actions"][match[2]])


@cache
def _shapes() -> dict[str, dict[str, Any]]:
    shapes: dict[str, dict[str, Any]] = json.loads(_SHAPES.read_bytes())
    return shapes


class _Checker:
    def __init__(self, shapes: dict[str, Shape], free: str | None, is_strict: bool) -> None:
        self._shapes = shapes
        self._free = free
        self._is_strict = is_strict

    def check(self, name: str, value: Json, reference: str) -> None:
        """Check the value of a field; `reference` is a type or, after a #, a shape's name."""
        named = reference.startswith("#")
        shape: Shape = self._shapes[reference[1:]] if named else {"type": reference}
        if value is None or name == self._free:
            return
        if _type_of(value) != shape["type"]:
            raise _refused(f"Field '{name}' must be {_ARTICLES[shape['type']]}")
        if isinstance(value, dict):
            self._check_members(value, shape)
        elif isinstance(value, list):
            for item in value:
                self.check(name, item, shape["item"])
        elif not isinstance(value, bool):
            _check_limits(name, value, shape)

    def _check_members(self, value: dict[str, Json], shape: Shape) -> None:
        if "value" in shape:
            for name, item in value.items():
                self.check(name, item, shape["value"])
            return
        for name in shape.get("required", ()) if self._is_strict else ():
            if value.get(name) is None:
                raise _refused(f"Required field '{name}' is missing")
        for name, item in value.items():
            if name in shape["members"]:  # observed: others are let through
                self.check(name, item, shape["members"][name])


def _type_of(value: Json) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _check_limits(name: str, value: str | float, shape: Shape) -> None:
    size, what = (len(value), "length") if isinstance(value, str) else (value, "value")
    if "min" in shape and size < shape["min"]:
        comparison = "smaller" if isinstance(value, str) else "less"
        raise _refused(f"Field '{name}' is {comparison} than the minimum {what}")
    if "max" in shape and size > shape["max"]:
        raise _refused(f"Field '{name}' exceeds the maximum {what}")


def _refused(reason: str) -> Fault:
    return invalid(f"Mock result schema validation error: {reason}")
