"""Paths: how steps, predicates, orders, groups and bindings walk through values.

Everything here is built when an expression is compiled and returns a closure; `Code` is such a
closure for a part of an expression, called with the context value and the variables in reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.asl.query.jsonata.collections import lookup, sort
from service.asl.query.jsonata.values import (
    ELEMENT_BYTES,
    PART_STEPS,
    UNDEFINED,
    Constructed,
    JsonataError,
    Run,
    Scope,
    Sequence,
    Tuples,
    Value,
    boolean,
    collapse,
    is_number,
    ordered,
)

Code: TypeAlias = Callable[[Value, Scope], Value]

CONTEXT: Final = "@"  # the name of the context value among the bindings of a tuple
TUPLE_STEPS: Final = 4  # making the bindings for one value
ORDER_STEPS: Final = 3  # putting two values in order, by one of the terms


@dataclass(frozen=True, slots=True)
class Term:
    """What to order by, and in which direction."""

    code: Code
    is_descending: bool


@dataclass(frozen=True, slots=True)
class Index:
    """A stage that binds the place of each value so far: `#$i` behind a predicate."""

    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path, compiled."""

    code: Code
    weight: int  # the parts of the expression that it evaluates for a value, or for two to order
    stages: tuple[Code | Index, ...]
    terms: tuple[Term, ...] | None  # of a step that orders
    is_constructor: bool
    binds: bool  # from here on the path carries tuples
    focus: str | None
    index: str | None
    ancestor: str | None

    def take(self, items: list[Value], scope: Scope, *, is_last: bool) -> list[Value]:
        """Return what the step gathers from all that the step before has gathered."""
        run = scope.run
        run.spend(PART_STEPS * (self.weight + 1) * len(items))
        if self.terms is not None:
            return self._staged(_ordered(self.terms, items, scope, self.weight), scope)
        gathered = []
        for item in items:
            value = self.code(item, scope)
            for stage in self.stages:
                assert not isinstance(stage, Index), stage
                value = stage(value, scope)
            if value is not UNDEFINED:
                gathered.append(value)
        return flattened(run, gathered, is_last=is_last)

    def bind(self, items: list[Value], tuples: list[Value] | None, scope: Scope) -> list[Value]:
        """Return the tuples that the step makes of those before it."""
        if self.terms is not None:
            return self._staged(self._bound_in_order(self.terms, items, tuples, scope), scope)
        before = [{CONTEXT: item} for item in items] if tuples is None else tuples
        scope.run.spend(PART_STEPS * (self.weight + 2) * len(before))
        bound = Tuples()
        for bindings in before:
            found = self.code(bindings[CONTEXT], Scope(dict(bindings), scope, scope.run))
            if found is not UNDEFINED:
                found = found if isinstance(found, list) else [found]
                scope.run.spend(TUPLE_STEPS * len(found))
                self._extend(bound, bindings, found)
        scope.run.hold(ELEMENT_BYTES * len(bound))
        return self._staged(bound, scope)

    def _bound_in_order(
        self, terms: tuple[Term, ...], items: list[Value], tuples: list[Value] | None, scope: Scope
    ) -> list[Value]:
        if tuples is not None:
            return _ordered(terms, tuples, scope, self.weight)
        places = enumerate(_ordered(terms, items, scope, self.weight))
        name = self.index or ""
        return Tuples({CONTEXT: item, name: place} for place, item in places)

    def _extend(self, bound: Tuples, bindings: dict[str, Value], found: list[Value]) -> None:
        for place, item in enumerate(found):
            if isinstance(found, Tuples):
                bound.append({**bindings, **item})
                continue
            extended = dict(bindings)
            extended[CONTEXT if self.focus is None else self.focus] = item
            if self.index is not None:
                extended[self.index] = place
            if self.ancestor is not None:
                extended[self.ancestor] = bindings[CONTEXT]
            bound.append(extended)

    def _staged(self, items: list[Value], scope: Scope) -> list[Value]:
        for stage in self.stages:
            if isinstance(stage, Index):
                for place, bindings in enumerate(items):
                    bindings[stage.name] = place
            else:
                items = stage(items, scope)
        return items


def flattened(run: Run, gathered: list[Value], *, is_last: bool) -> list[Value]:
    """Return what a step has found as one array; the only array a path ends in stays itself."""
    if is_last and len(gathered) == 1:
        only = gathered[0]
        if isinstance(only, list) and type(only) is not Sequence:
            return only
    flat = Sequence()
    for value in gathered:
        if isinstance(value, list) and type(value) is not Constructed:
            flat.extend(value)
        else:
            flat.append(value)
    run.hold(ELEMENT_BYTES * len(flat))
    return flat


def names(variable: str, steps: list[str]) -> Code:
    """Return the code of a path that only names members, from the value of a variable.

    What it gathers has collapsed already.
    """

    def code(context: Value, scope: Scope) -> Value:
        value = scope.lookup(variable)
        for place, name in enumerate(steps):
            if type(value) is not dict:
                return collapse(_names_of_many(value, steps[place:], scope.run))
            value = value.get(name, UNDEFINED)
        return value

    return code


def members(steps: list[str], general: Code) -> Code:
    """Return the code of a path that only names members, from the context value.

    It is walked here while there are objects, by the `general` code of the path otherwise.
    """

    def code(context: Value, scope: Scope) -> Value:
        value = context
        for name in steps:
            if type(value) is not dict:
                return general(context, scope)
            value = value.get(name, UNDEFINED)
        return general(context, scope) if type(value) is Sequence else value

    return code


def _names_of_many(value: Value, steps: list[str], run: Run) -> Value:
    items = value if isinstance(value, list) else [value]
    for left, name in enumerate(steps, 1 - len(steps)):
        run.spend(PART_STEPS * (2 + len(items)))
        found = [collapsed_lookup(run, item, name) for item in items]
        gathered = [item for item in found if item is not UNDEFINED]
        items = flattened(run, gathered, is_last=left == 0)
        if not items:
            break
    return items


def collapsed_lookup(run: Run, value: Value, name: str) -> Value:
    """Return a member by its name, what is gathered from an array being collapsed."""
    found = lookup(run, value, name)
    if type(found) is Sequence and len(found) <= 1:
        return found[0] if found else UNDEFINED
    return found


def path(
    steps: list[Step],
    *,
    is_absolute: bool,
    keeps_tuples: bool,
    keeps_array: bool,
    group: Code | None,
) -> Code:
    """Return the code of any path.

    `keeps_tuples` for a path inside another that wants its bindings, `keeps_array` for one with
    `[]` in it; `group` is what the braces behind it do with its end.
    """

    def code(context: Value, scope: Scope) -> Value:
        items = context if isinstance(context, list) and not is_absolute else [context]
        result: Value = []
        tuples: list[Value] | None = None
        binds = False
        for place, step in enumerate(steps):
            binds = binds or step.binds
            if place == 0 and step.is_constructor:
                result = step.code(items, scope)
            elif binds:
                tuples = step.bind(items, tuples, scope)
            else:
                result = step.take(items, scope, is_last=place == len(steps) - 1)
            if result is UNDEFINED or (not binds and result == []):
                break
            if step.focus is None:
                items = result if isinstance(result, list) else []
        if tuples is not None:
            result = tuples if keeps_tuples else Sequence(bound[CONTEXT] for bound in tuples)
        if keeps_array:
            result = Sequence([result]) if type(result) is Constructed else result
            if type(result) is Sequence:
                result.keep = True
        if group is not None:
            return group(result if tuples is None else tuples, scope)
        return result

    return code


def at(place: float) -> Code:
    """Return the predicate that takes the element at a place, from the end if it is negative."""
    index = math.floor(place)

    def code(value: Value, scope: Scope) -> Value:
        items = value if isinstance(value, list) else [value]
        if not -len(items) <= index < len(items):
            return Tuples() if type(value) is Tuples else Sequence()
        item = items[index]
        if isinstance(item, list):
            return item
        return Tuples([item]) if type(value) is Tuples else Sequence([item])

    return code


def where(predicate: Code, weight: int) -> Code:
    """Return the predicate that keeps the elements for which an expression holds.

    Where the expression is a number, or numbers, it keeps the elements at these places.
    """

    def code(value: Value, scope: Scope) -> Value:
        items = value if isinstance(value, list) else [value]
        scope.run.spend(PART_STEPS * (weight + 1) * len(items))
        binds = type(value) is Tuples
        kept: list[Value] = Tuples() if binds else Sequence()
        for place, item in enumerate(items):
            if binds:
                found = predicate(item[CONTEXT], Scope(dict(item), scope, scope.run))
            else:
                found = predicate(item, scope)
            if found is not True and found is not False:
                found = _is_kept(scope.run, found, place, len(items))
            kept.extend([item] * found)
        return kept

    return code


def _is_kept(run: Run, found: Value, place: int, length: int) -> int:
    """Return how often a predicate's value takes the element at a place."""
    if is_number(found):
        found = [found]
    if isinstance(found, list) and all(map(is_number, found)):
        run.spend(PART_STEPS * len(found))
        places = (math.floor(number) for number in found)
        return sum((at + length if at < 0 else at) == place for at in places)
    return boolean(run, found)


def _ordered(terms: tuple[Term, ...], items: list[Value], scope: Scope, weight: int) -> list[Value]:
    if len(items) <= 1:
        return items
    run, is_bound = scope.run, type(items) is Tuples
    known: list[list[Value]] = [[] for _ in items]  # of each item its first terms, when asked for

    def term_of(place: int, index: int) -> Value:
        values = known[place]
        if index == len(values):
            run.spend(PART_STEPS * weight)
            item, code = items[place], terms[index].code
            if is_bound:
                values.append(code(item[CONTEXT], Scope(dict(item), scope, run)))
            else:
                values.append(code(item, scope))
        return values[index]

    def must_swap(left: int, right: int) -> bool:
        for index, term in enumerate(terms):
            run.spend(ORDER_STEPS)
            order = _compared(run, term_of(left, index), term_of(right, index))
            if order:
                return (order < 0) if term.is_descending and abs(order) == 1 else order > 0
        return False

    return [items[place] for place in sort(run, range(len(items)), must_swap)]


def _compared(run: Run, left: Value, right: Value) -> int:
    """Return -1, 0 or 1 for the order of two values, doubled when only one is there.

    What is not there comes last, in either direction. Raise T2007 or T2008.
    """
    if left is UNDEFINED or right is UNDEFINED:
        return 2 * ((left is UNDEFINED) - (right is UNDEFINED))
    for value in (left, right):
        if not isinstance(value, str) and not is_number(value):
            raise JsonataError("T2008", value=value)
    if isinstance(left, str) is not isinstance(right, str):
        raise JsonataError("T2007", value=left, value2=right)
    if isinstance(left, str):
        left, right = ordered(run, left, right)
    return int(left > right) - int(left < right)
