"""What the built-in handlers read from their input, and how they refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from service.asl import ExecutionError, Json
from service.engine.ids import key_of
from service.engine.ports import Key


class InvalidTaskInput(ExecutionError):
    """A task's input is not what its handler needs. The cause names place, value and rule."""

    def __init__(self, cause: str) -> None:
        super().__init__("InvalidTaskInput", cause)


def read_members(input: Json) -> Mapping[str, Json]:
    """Return the members of the input. Other ones than a handler reads are welcome in it."""
    if not isinstance(input, dict):
        raise InvalidTaskInput(f"input: {shown(input)} is not an object")
    return input


def read_account(input: Json) -> Key:
    """Return the key of the account that `account_id` names."""
    text = read_members(input).get("account_id")
    if not isinstance(text, str):
        raise InvalidTaskInput(f"account_id: {shown(text)} is not the id of an account")
    try:
        id = UUID(text)
    except ValueError as error:
        raise InvalidTaskInput(f"account_id: {shown(text)} is not a UUID") from error
    return key_of(id)


def read_whole_number(input: Json, name: str, *, least: int, most: int, default: int) -> int:
    """Return the member `name`, or `default` when there is none."""
    value = read_members(input).get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidTaskInput(f"{name}: {shown(value)} is not an integer from {least} to {most}")
    return value


def shown(value: Json) -> str:
    """Return a value as an error message shows it: containers by their kind, texts cut short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None:
        return "null"
    return repr(value)[:80]
