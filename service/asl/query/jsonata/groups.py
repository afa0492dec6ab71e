"""What braces and stars make of values: objects of groups, members, descendants."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

from service.asl.query.jsonata.collections import append
from service.asl.query.jsonata.paths import CONTEXT, Code
from service.asl.query.jsonata.values import (
    ELEMENT_BYTES,
    PART_STEPS,
    UNDEFINED,
    VALUE_STEPS,
    JsonataError,
    Run,
    Scope,
    Sequence,
    Tuples,
    Value,
)

Pairs: TypeAlias = list[tuple[Code, Code]]


def group(pairs: Pairs, weight: int) -> Code:
    """Return the code of braces: an object whose values are made of all items of the same key."""

    def code(value: Value, scope: Scope) -> Value:
        binds = type(value) is Tuples
        items = value if isinstance(value, list) and value else [value]
        if isinstance(value, list) and not value:
            # So that an object without anything to group is still made.
            items = [{CONTEXT: UNDEFINED}] if binds else [UNDEFINED]
        scope.run.spend(PART_STEPS * (weight + 1) * len(items))
        groups: dict[str, tuple[int, Value]] = {}
        for item in items:
            context, names = _entered(item, scope) if binds else (item, scope)
            for place, (key_code, _) in enumerate(pairs):
                key = key_code(context, names)
                if key is not UNDEFINED:
                    _add(groups, key, place, item, scope.run)
        result: dict[str, Value] = {}
        for key, (place, gathered) in groups.items():
            context, names = _merged(gathered, scope) if binds else (gathered, scope)
            made = pairs[place][1](context, names)
            if made is not UNDEFINED:
                result[key] = made
        scope.run.hold(ELEMENT_BYTES * len(result))
        return result

    return code


def _add(
    groups: dict[str, tuple[int, Value]], key: Value, place: int, item: Value, run: Run
) -> None:
    if not isinstance(key, str):
        raise JsonataError("T1003", value=key)
    if key not in groups:
        groups[key] = place, item
        return
    known, gathered = groups[key]
    if known != place:
        raise JsonataError("D1009", value=key)
    groups[key] = place, append(run, gathered, item)


def _entered(bindings: Mapping[str, Value], scope: Scope) -> tuple[Value, Scope]:
    return bindings[CONTEXT], Scope(dict(bindings), scope, scope.run)


def _merged(gathered: Value, scope: Scope) -> tuple[Value, Scope]:
    """Return the context and the variables of a group of tuples: each gathers its values."""
    tuples = gathered if isinstance(gathered, list) else [gathered]
    merged = dict(tuples[0])
    for bindings in tuples[1:]:
        for name, value in bindings.items():
            merged[name] = append(scope.run, merged.get(name, UNDEFINED), value)
    return merged.pop(CONTEXT), Scope(merged, scope, scope.run)


def wildcard(context: Value, scope: Scope) -> Value:
    """Return the values of all members, arrays among them laid flat."""
    gathered = Sequence()
    members = context.values() if isinstance(context, dict) else context
    for value in members if isinstance(context, (dict, list)) else ():
        _flatten(value, gathered, scope.run)
    scope.run.hold(ELEMENT_BYTES * len(gathered))
    return gathered


def _flatten(value: Value, into: list[Value], run: Run) -> None:
    run.spend(PART_STEPS)
    if isinstance(value, list):
        for item in value:
            _flatten(item, into, run)
    else:
        into.append(value)


def descendants(context: Value, scope: Scope) -> Value:
    """Return a value and all values inside it, arrays giving way to their elements."""
    if context is UNDEFINED:
        return UNDEFINED
    gathered = Sequence()
    _descend(context, gathered, scope.run)
    scope.run.hold(ELEMENT_BYTES * len(gathered))
    return gathered


def _descend(value: Value, into: list[Value], run: Run) -> None:
    run.spend(VALUE_STEPS)
    descend = partial(_descend, into=into, run=run)
    if isinstance(value, list):
        for item in value:
            descend(item)
        return
    into.append(value)
    if isinstance(value, dict):
        for item in value.values():
            descend(item)
