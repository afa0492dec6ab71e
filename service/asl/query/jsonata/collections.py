"""JSONata's functions of arrays, objects, functions and types."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Hashable, Iterator
from typing import Final, NoReturn

from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import (
    CHARACTERS_PER_STEP,
    ELEMENT_BYTES,
    LIST_ITEMS_PER_STEP,
    PART_STEPS,
    UNDEFINED,
    VALUE_STEPS,
    Function,
    JsonataError,
    Run,
    Sequence,
    Value,
    apply,
    boolean,
    is_number,
    utf16,
)

ELEMENTS_PER_STEP_COPIED: Final = 64
SORT_STEPS: Final = 4  # for one element, of a list in an order without a comparator


def lookup(run: Run, value: Value, name: str) -> Value:
    """Return a member by its name: of an object, or gathered from an array's objects."""
    if isinstance(value, dict):
        return value.get(name, UNDEFINED)
    if not isinstance(value, list):
        return UNDEFINED
    run.spend(PART_STEPS * len(value))
    gathered = Sequence()
    for item in value:
        found = lookup(run, item, name)
        if isinstance(found, list):
            gathered.extend(found)
        elif found is not UNDEFINED:
            gathered.append(found)
    run.hold(ELEMENT_BYTES * len(gathered))
    return gathered


def append(run: Run, left: Value, right: Value) -> Value:
    """Return two values as one array; a value that is no array counts as an array of itself."""
    if left is UNDEFINED:
        return right
    if right is UNDEFINED:
        return left
    start = left if isinstance(left, list) else [left]
    rest = right if isinstance(right, list) else [right]
    size = len(start) + len(rest)
    run.hold(ELEMENT_BYTES * size)
    run.spend(size // ELEMENTS_PER_STEP_COPIED)
    return [*start, *rest]


def _calls(function: Value) -> Callable[[Run, Value, Value, Value], Value]:
    """Return how a function is called with an item, its place and the whole: as many as it takes.

    A single value goes in whatever it takes. Raise T0410 when there is no function.
    """
    if function is UNDEFINED:
        raise JsonataError("T0410", index=2)
    taken = max(1, min(function.arity, 3))
    return lambda run, item, place, whole: apply(run, function, [item, place, whole][:taken])


def _map(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    call = _calls(function)
    results = (call(run, item, place, items) for place, item in enumerate(items))
    return Sequence(result for result in results if result is not UNDEFINED)


def _filter(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    call = _calls(function)
    return Sequence(i for place, i in enumerate(items) if boolean(run, call(run, i, place, items)))


def _single(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    call = None if function is UNDEFINED else _calls(function)
    found: list[Value] = []
    for place, item in enumerate(items):
        if call is None or boolean(run, call(run, item, place, items)):
            if found:
                raise JsonataError("D3138", index=place)
            found.append(item)
    if not found:
        raise JsonataError("D3139")
    return found[0]


def _reduce(run: Run, items: Value, function: Value, start: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    if function.arity < 2:
        raise JsonataError("D3050", index=1)
    result, first = (items[0], 1) if start is UNDEFINED and items else (start, 0)
    taken = min(function.arity, 4)
    for place in range(first, len(items)):
        result = apply(run, function, [result, items[place], place, items][:taken])
    return result


def _zip(run: Run, *arrays: Value) -> Value:
    if any(array is UNDEFINED for array in arrays):
        return []
    length = min(map(len, arrays))
    run.spend(length)
    run.hold(ELEMENT_BYTES * length * len(arrays))
    return [list(together) for together in zip(*arrays, strict=False)]


def _reverse(run: Run, items: Value) -> Value:
    return items if items is UNDEFINED or len(items) <= 1 else items[::-1]


def sort(
    run: Run, items: collections.abc.Sequence[Value], must_swap: Callable[[Value, Value], bool]
) -> list[Value]:
    """Return the items in order, where `must_swap` says of two whether they are out of it.

    Merged from halves, as the reference does: a comparator that contradicts itself, or fails, is
    asked the same questions in the same order.
    """
    if len(items) <= 1:
        return list(items)
    run.spend(len(items))
    middle = len(items) // 2
    left, right = sort(run, items[:middle], must_swap), sort(run, items[middle:], must_swap)
    merged: list[Value] = []
    at_left = at_right = 0
    while at_left < len(left) and at_right < len(right):
        if must_swap(left[at_left], right[at_right]):
            merged.append(right[at_right])
            at_right += 1
        else:
            merged.append(left[at_left])
            at_left += 1
    return [*merged, *left[at_left:], *right[at_right:]]


def _sort(run: Run, items: Value, comparator: Value) -> Value:
    if items is UNDEFINED or len(items) <= 1:
        return items
    if comparator is not UNDEFINED:
        return sort(run, items, lambda a, b: _is_truthy(apply(run, comparator, [a, b])))
    run.spend(SORT_STEPS * len(items))
    if all(isinstance(item, str) for item in items):
        if all(map(str.isascii, items)):
            return sorted(items)
        run.spend(sum(map(len, items)) // CHARACTERS_PER_STEP)
        return sorted(items, key=utf16)
    if not all(map(is_number, items)):
        raise JsonataError("D3070", index=1)
    return sorted(items)


def _is_truthy(value: Value) -> bool:
    """Return what JavaScript takes a comparator's answer for: an empty array is a yes."""
    return value is not UNDEFINED and (isinstance(value, (list, dict, Function)) or bool(value))


def _shuffle(run: Run, items: Value) -> Value:
    if items is UNDEFINED or len(items) <= 1:
        return items
    run.spend(PART_STEPS * len(items))
    shuffled: list[Value] = []
    for count, item in enumerate(items, 1):
        place = int(run.random.uniform() * count)
        shuffled.append(item)
        shuffled[place], shuffled[-1] = shuffled[-1], shuffled[place]
    return shuffled


def _distinct(run: Run, items: Value) -> Value:
    if not isinstance(items, list) or len(items) <= 1:
        return items
    first = {identity: item for item in reversed(items) for identity in [_identity(run, item)]}
    ordered = {_identity(run, item): None for item in items}
    distinct = (first[identity] for identity in ordered)
    return Sequence(distinct) if isinstance(items, Sequence) else list(distinct)


def _identity(run: Run, value: Value) -> Hashable:
    """Return what equal values only have in common."""
    run.spend(VALUE_STEPS)
    if isinstance(value, dict):
        return dict, frozenset((name, _identity(run, item)) for name, item in value.items())
    if isinstance(value, list):
        return list, tuple(_identity(run, item) for item in value)
    return (bool, value) if isinstance(value, bool) else value


def _append(run: Run, left: Value, right: Value) -> Value:
    return append(run, left, right)


def _count(run: Run, items: Value) -> Value:
    return 0 if items is UNDEFINED else len(items)


def _keys(run: Run, value: Value) -> Value:
    return Sequence(dict.fromkeys(_names(run, value)))


def _names(run: Run, value: Value) -> Iterator[str]:
    if isinstance(value, dict):
        run.spend(len(value))
        yield from value
    elif isinstance(value, list):
        run.spend(len(value))
        for item in value:
            yield from _names(run, item)


def _spread(run: Run, value: Value) -> Value:
    if isinstance(value, list):
        spread = Sequence()
        for item in value:
            parts = _spread(run, item)
            if isinstance(parts, list):
                spread.extend(parts)
            elif parts is not UNDEFINED:
                spread.append(parts)
        return spread
    if isinstance(value, dict):
        run.spend(PART_STEPS * len(value))
        run.hold(ELEMENT_BYTES * len(value))
        return Sequence({name: item} for name, item in value.items())
    return value


def _merge(run: Run, objects: Value) -> Value:
    if objects is UNDEFINED:
        return UNDEFINED
    merged: dict[str, Value] = {}
    for part in objects:
        run.spend(1 + len(part) // LIST_ITEMS_PER_STEP)
        merged.update(part)
    return merged


def _each(run: Run, value: Value, function: Value) -> Value:
    if value is UNDEFINED:
        return Sequence()
    call = _calls(function)
    results = (call(run, item, name, value) for name, item in value.items())
    return Sequence(result for result in results if result is not UNDEFINED)


def _sift(run: Run, value: Value, function: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    call = _calls(function)
    kept = {n: item for n, item in value.items() if boolean(run, call(run, item, n, value))}
    return kept or UNDEFINED


def _boolean(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else not isinstance(value, Function) and boolean(run, value)


def _not(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else isinstance(value, Function) or not boolean(run, value)


def _exists(run: Run, value: Value) -> Value:
    return value is not UNDEFINED


_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
}


def type_name(value: Value) -> str:
    """Return the name of a value's type, as `$type` and the service tell it."""
    name = _TYPES.get(type(value))
    return name if name is not None else "array" if isinstance(value, list) else "function"


def _type(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else type_name(value)


def _error(run: Run, message: Value) -> NoReturn:
    shown = "$error() function evaluated" if message is UNDEFINED or not message else message
    raise JsonataError("D3137", message=shown)


def _assert(run: Run, condition: Value, message: Value) -> Value:
    if condition is UNDEFINED or not condition:
        shown = "$assert() statement failed" if message is UNDEFINED or not message else message
        raise JsonataError("D3141", message=shown)
    return UNDEFINED


def _clone(run: Run, value: Value) -> Value:
    return value if value is UNDEFINED else clone(run, value, {})


def clone(run: Run, value: Value, objects: dict[int, Value]) -> Value:
    """Return a copy of a value that shares nothing with it, and note the objects in the copy."""
    run.spend(VALUE_STEPS)
    if isinstance(value, list):
        run.hold(ELEMENT_BYTES * len(value))
        return [clone(run, item, objects) for item in value]
    if isinstance(value, dict):
        run.hold(ELEMENT_BYTES * len(value))
        copy = {name: clone(run, item, objects) for name, item in value.items()}
        objects[id(copy)] = copy
        return copy
    return "" if isinstance(value, Function) else value


COLLECTION_FUNCTIONS: Final = (
    Native("map", "<af>", _map, 2),
    Native("filter", "<af>", _filter, 2),
    Native("single", "<af?>", _single, 2),
    Native("reduce", "<afj?:j>", _reduce, 3),
    Native("zip", "<a+>", _zip, 0),
    Native("reverse", "<a:a>", _reverse, 1, rate=ELEMENTS_PER_STEP_COPIED),
    Native("sort", "<af?:a>", _sort, 2),
    Native("shuffle", "<a:a>", _shuffle, 1),
    Native("distinct", "<x:x>", _distinct, 1),
    Native("append", "<xx:a>", _append, 2, rate=None),
    Native("count", "<a:n>", _count, 1, rate=None),
    Native("keys", "<x-:a<s>>", _keys, 1),
    Native("lookup", "<x-s:x>", lookup, 2),
    Native("spread", "<x-:a<o>>", _spread, 1),
    Native("merge", "<a<o>:o>", _merge, 1),
    Native("each", "<o-f:a>", _each, 2),
    Native("sift", "<o-f?:o>", _sift, 2),
    Native("boolean", "<x-:b>", _boolean, 1, rate=None),
    Native("not", "<x-:b>", _not, 1, rate=None),
    Native("exists", "<x:b>", _exists, 1, rate=None),
    Native("type", "<x:s>", _type, 1, rate=None),
    Native("error", "<s?:x>", _error, 1),
    Native("assert", "<bs?:x>", _assert, 2),
    Native("clone", "<(oa)-:o>", _clone, 1),
)
