"""The steps of a JSONPath: what each selects of one node."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from jsonpath import JSONPathEnvironment

from service.asl.values import Json

# `$..*..*..*` multiplies: with a small input there can be as many nodes to look at as there is time
# and memory for. So many take 30 to 60 milliseconds.
NODES_MAX: Final = 300_000
FILTER_NODES: Final = 100  # applying a filter once takes as long as so many nodes
FILTERED_NODES: Final = 30  # and a candidate, or a path within the filter, as so many


# Observed: in quotes a backslash is a character like any other ($['Test\""Name"']). Only before a
# backslash or the closing kind of quote it must be an escape, or those could not be written.
QUOTED: Final = re.compile(
    r"""'(?:[^'\\]|\\['\\]|\\(?!['\\]))*'|"(?:[^"\\]|\\["\\]|\\(?!["\\]))*\"""", re.DOTALL
)
_SEARCHING: Final = re.compile(r"\.\.|[*?:]")
_PATH: Final = re.compile(r"[@$]")


class FilterFailed(Exception):
    """A filter expression that cannot be compiled, or not be applied to this data."""


class TooManyNodes(Exception):
    """More than NODES_MAX nodes would have to be looked at."""


class Budget:
    """How many nodes may still be looked at in one evaluation of a path."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = NODES_MAX

    @property
    def spent(self) -> int:
        """Return how many nodes were looked at, those included that were too many."""
        return NODES_MAX - self._left

    def spend(self, nodes: int) -> None:
        """Count nodes about to be looked at. Raise TooManyNodes when too few are left."""
        self._left -= nodes
        if self._left < 0:
            raise TooManyNodes


@dataclass(frozen=True, slots=True)
class Name:
    """`.name`, `['name']`."""

    key: str

    def __str__(self) -> str:
        return f"['{self.key}']"

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        if isinstance(node, dict) and self.key in node:
            yield node[self.key]


@dataclass(frozen=True, slots=True)
class Index:
    """`[2]`, and `[-1]` from the end."""

    key: int

    def __str__(self) -> str:
        return f"[{self.key}]"

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        if isinstance(node, list) and -len(node) <= self.key < len(node):
            yield node[self.key]


@dataclass(frozen=True, slots=True)
class Names:
    """`['a','b']` on the way: the values of those members that are there."""

    names: tuple[str, ...]

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        if isinstance(node, dict):
            yield from (node[name] for name in self.names if name in node)


@dataclass(frozen=True, slots=True)
class Members:
    """`['a','b']` at the end of a path: one object with those members that are there."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"[{','.join(map(repr, self.names))}]"

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        if isinstance(node, dict):
            yield {name: node[name] for name in self.names if name in node}


@dataclass(frozen=True, slots=True)
class Indices:
    """`[0,2]`."""

    indices: tuple[Index, ...]

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        for index in self.indices:
            yield from index.select(node, root, budget)


@dataclass(frozen=True, slots=True)
class Slice:
    """`[1:3]`, `[:2]`, `[-2:]`."""

    start: int | None
    stop: int | None

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        found = node[self.start : self.stop] if isinstance(node, list) else []
        budget.spend(len(found))
        return found


@dataclass(frozen=True, slots=True)
class Every:
    """`*`."""

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        found = _children(node)
        budget.spend(len(found))
        return found


@dataclass(frozen=True, slots=True)
class Descendants:
    """`..`: the node itself and all below it, each before its own children."""

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if isinstance(node, (dict, list)):
                budget.spend(3 + len(node))
                yield node
                waiting.extend(reversed(list(_children(node))))


@dataclass(frozen=True, slots=True)
class Filter:
    """`[?(@.price < 10)]`: of a list the elements that pass, of an object itself, if it passes."""

    query: Any  # a compiled query of python-jsonpath
    text: str
    nodes: int  # what it takes to look at one candidate

    def select(self, node: Json, root: Json, budget: Budget) -> Iterable[Json]:
        if not isinstance(node, (dict, list)):
            return ()
        candidates = node if isinstance(node, list) else [node]
        budget.spend(FILTER_NODES + self.nodes * len(candidates))
        try:
            found: list[Json] = self.query.findall(candidates, filter_context=root)
        except Exception as error:
            # The library bounds its own recursion, and tells so by several kinds of exception.
            raise FilterFailed(
                f"the filter {self.text} cannot be applied: {_first_line(error)}"
            ) from error
        return found


Step: TypeAlias = Name | Index | Names | Members | Indices | Slice | Every | Descendants | Filter


def _children(node: Json) -> Collection[Json]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


class _Filters(JSONPathEnvironment):
    """Filter expressions alone: `@` is the candidate, `$` the root of the document.

    The library would take its own root for the list of candidates, so the document travels as the
    "filter context". The symbols of its extensions are moved where nobody types them.
    """

    filter_context_token = "$"  # noqa: S105 - a token of the grammar
    (
        root_token,
        pseudo_root_token,
        key_token,
        keys_selector_token,
        keys_filter_token,
        union_token,
        intersection_token,
    ) = ("\ue000", "\ue001", "\ue002", "\ue003", "\ue004", "\ue005", "\ue006")

    def setup_function_extensions(self) -> None:
        """Leave them out: Jayway has none of them, and two run regular expressions."""


_FILTERS: Final = _Filters()


def compile_filter(expression: str) -> Filter:
    """Return the step for what stands behind the `?` of a filter. Raise FilterFailed if bad."""
    plain = QUOTED.sub("", expression)
    if "=~" in plain:
        # The standard library's expressions can run for hours on a few bytes of input.
        raise FilterFailed("regular expressions in filters are not supported")
    if _SEARCHING.search(plain):
        # Each candidate would be searched, or even the whole document for each.
        raise FilterFailed(f"a path in the filter {expression} is more than names and indexes")
    try:
        # The parentheses keep the library from reading a list of selectors.
        query = _FILTERS.compile(f"{_FILTERS.root_token}[?({expression})]")
    except Exception as error:
        raise FilterFailed(f"the filter {expression} is malformed: {_first_line(error)}") from error
    paths = len(_PATH.findall(plain))
    return Filter(query, expression, FILTERED_NODES * (1 + paths))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
