"""Tasks that look at and decide accounts, as effects of their checkpoint's own transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service import metrics
from service.asl import Json
from service.documents import loads
from service.engine.ports import Answer, Effect, EffectHandler, Key
from service.tasks.inputs import InvalidTaskInput, read_account, read_members, shown
from service.tasks.registry import EffectTask

FIELDS_MAX: Final = 50
FIELD_CHARACTERS_MAX: Final = 256

FORGOTTEN: Final = "expired"
"""The status of an account that is not kept: it expired, and its tombstone has gone since."""


def get_account(input: Json) -> EffectHandler:
    """Return what tells a workflow of an account: `{"account_id", "status", "verified"}`.

    The parts of the visitor's data that the input names (`"fields": ["data.plan"]`) come under the
    same path (`"data": {"plan": …}`), null where there is none: the flow decides what it exposes.
    """
    key = read_account(input)
    fields = _read_fields(read_members(input).get("fields", []))

    def answer(row: Mapping[str, object] | None) -> Answer:
        status = FORGOTTEN if row is None else str(row["status"])
        is_verified = status == "verified"
        output: dict[str, Json] = {
            "account_id": str(key.id),
            "status": status,
            "verified": is_verified,
        }
        if fields:
            text = None if row is None else row["data"]
            _expose(output, {"data": None if text is None else loads(str(text))}, fields)
        return Answer(output, acknowledges_signal=is_verified)

    effect = Effect("get_account", key)
    return EffectHandler(effect=lambda input, task: effect, answer=answer)


def delete_unverified_account(input: Json) -> EffectHandler:
    """Return what deletes an account unless it is verified: `{"deleted", "status"}`, status after.

    `{"deleted": false, "status": "verified"}` says that its visitor was faster: welcome them.
    """
    effect = close_account(read_account(input))
    return EffectHandler(effect=lambda input, task: effect, answer=_deletion)


def close_account(key: Key) -> Effect:
    """Return what decides an account that is still pending or superseded: it expires."""
    return Effect("delete_unverified_account", key, committed=_count)


def close_ended(name: str, key: Key) -> Effect | None:
    """Return what decides the account of an execution that ends, lest it stay pending for ever.

    Only a signup's execution is named after its own id, which is its account's. One that is decided
    already is not touched.
    """
    return close_account(key) if name == str(key.id) else None


ACCOUNT_TASKS: Final[Mapping[str, EffectTask]] = {
    "get_account": get_account,
    "delete_unverified_account": delete_unverified_account,
}


def _deletion(row: Mapping[str, object] | None) -> Answer:
    status = FORGOTTEN if row is None else str(row["status"])
    is_deleted = row is not None and bool(row["deleted"])
    output: Json = {"deleted": is_deleted, "status": status}
    return Answer(output, acknowledges_signal=status == "verified")


def _count(row: Mapping[str, object] | None) -> None:
    if row is not None and row["deleted"]:
        metrics.EXPIRED.inc()


def _read_fields(value: Json) -> list[Sequence[str]]:
    """Return the paths below the account, each beginning with "data". Refuse what overlaps."""
    if not isinstance(value, list):
        raise InvalidTaskInput(f"fields: {shown(value)} is not an array of names such as data.plan")
    if len(value) > FIELDS_MAX:
        raise InvalidTaskInput(f"fields: {len(value)} names; at most {FIELDS_MAX} are allowed")
    paths: list[Sequence[str]] = []
    for index, field in enumerate(value):
        place = f"fields[{index}]: {shown(field)}"
        if not isinstance(field, str) or len(field) > FIELD_CHARACTERS_MAX:
            raise InvalidTaskInput(
                f"{place} is not a text of at most {FIELD_CHARACTERS_MAX} characters"
            )
        path = field.split(".")
        if path[0] != "data" or "" in path:
            raise InvalidTaskInput(f"{place} does not name a part of data, such as data.plan")
        for other in paths:
            if _is_within(path, other) or _is_within(other, path):
                raise InvalidTaskInput(f"{place} overlaps {'.'.join(other)!r}")
        paths.append(path)
    return paths


def _is_within(path: Sequence[str], other: Sequence[str]) -> bool:
    return list(path[: len(other)]) == list(other)


def _expose(output: dict[str, Json], account: Json, fields: Sequence[Sequence[str]]) -> None:
    """Copy each path from the account to the same place of the output, null where it is missing."""
    for *parents, last in fields:
        source: Any = account
        target: Any = output
        for name in parents:
            source = source.get(name) if isinstance(source, dict) else None
            target = target.setdefault(name, {})
        target[last] = source.get(last) if isinstance(source, dict) else None
