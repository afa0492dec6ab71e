"""JSONPath as Step Functions evaluates it, which is as Jayway's JsonPath does.

A definite path, one that can name a single place only, gives the value there or fails. Any other
gives a list of what it selects, empty if there is nothing. Names are written as in Jayway, and as
in ASL spec, "Reference Paths": a backslash in a dotted name takes the next character as it is.

A path begins at the input (`$`), the Context Object (`$$`), or a variable (`$name`).

Definite paths are most of all paths, and compiled to a tuple of keys: 0.2 microseconds for one that
takes a general library 6.5. The other steps are in steps.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NoReturn, TypeAlias

from service.asl.query.scope import NO_VARIABLES
from service.asl.query.steps import (
    NODES_MAX,
    QUOTED,
    Budget,
    Descendants,
    Every,
    FilterFailed,
    Index,
    Indices,
    Members,
    Name,
    Names,
    Slice,
    Step,
    TooManyNodes,
    compile_filter,
)
from service.asl.share import Work
from service.asl.values import Json, text_of

Root: TypeAlias = Literal["input", "context", "variable"]

PATH_CHARACTERS_MAX: Final = 2_048
PATHS_CACHED_MAX: Final = 4_096

# A cause shows the input that lacks something; 1,000 characters of it are enough to see what.
SEARCHED_CHARACTERS_MAX: Final = 1_000

_MISSING: Final = object()

# A variable is named by an identifier as Unicode has it (UAX #31), which is what \w is made of.
_VARIABLE: Final = re.compile(r"[^\W\d]\w*")
_DOTTED_NAME: Final = re.compile(r"""(?:\\.|[^\\.\[\]()*\s'"])+""", re.DOTALL)
_DOTTED_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
# ASL spec, "Reference Paths": these are operators there, unless escaped.
_OPERATOR: Final = re.compile(r"[@,:?]")
_QUOTED_LIST: Final = re.compile(
    rf"(?:{QUOTED.pattern})(?:\s*,\s*(?:{QUOTED.pattern}))*", re.DOTALL
)
_INDICES: Final = re.compile(r"-?[0-9]+(?:\s*,\s*-?[0-9]+)*")
_SLICE: Final = re.compile(r"(-?[0-9]+)?\s*:\s*(-?[0-9]+)?")


class PathNotFound(LookupError):
    """A path that cannot be followed. Its text says where it ended, as Step Functions does.

    Observed, as the cause of a Pass state: "Invalid path '$.No' : No results for path: $['No']".
    """

    def __init__(self, path: str, reason: str, searched: Json) -> None:
        super().__init__(reason)
        self.path = path
        self._searched = searched

    def in_field(self, field: str) -> str:
        """Return the cause Step Functions gives for most fields. It names what was searched, cut.

        Observed: CausePath of a Fail state.
        """
        return (
            f"The JSONPath '{self.path}' specified for the field '{field}' "
            f"could not be found in the input '{self.searched()}'"
        )

    def searched(self) -> str:
        """Return the JSON text of what was searched, cut to SEARCHED_CHARACTERS_MAX."""
        try:
            return text_of(self._searched)[:SEARCHED_CHARACTERS_MAX]
        except RecursionError:
            return "(nested too deep to be shown)"


class PathNotSettable(ValueError):
    """A reference path that does not fit the value it should change."""


class Path:
    """A compiled path; made by `compile_path`. It never changes what it is applied to."""

    __slots__ = (
        "_counts",
        "_is_single",
        "_keys",
        "_steps",
        "is_definite",
        "is_reference",
        "root",
        "text",
        "variable",
    )

    def __init__(
        self,
        text: str,
        root: Root,
        steps: tuple[Step, ...],
        *,
        variable: str | None = None,
        counts: bool,
        has_operators: bool,
    ) -> None:
        keys = tuple(step.key for step in steps if isinstance(step, (Name, Index)))
        is_plain = len(keys) == len(steps)
        self.text = text
        self.root = root
        self.variable = variable
        self._steps = steps
        self._counts = counts
        self._keys = keys if is_plain and not counts else None
        self._is_single = all(isinstance(step, (Name, Index, Members)) for step in steps)
        self.is_definite = self._is_single or counts
        self.is_reference = (
            self._keys is not None
            and not has_operators
            and all(isinstance(key, str) or key >= 0 for key in keys)
        )

    def __repr__(self) -> str:
        return f"Path({self.text!r})"

    @property
    def variables(self) -> frozenset[str]:
        """Return the names of the variables that the path refers to: at most one."""
        return frozenset() if self.variable is None else frozenset({self.variable})

    def find(
        self,
        value: Json,
        context: Json,
        variables: Mapping[str, Json] = NO_VARIABLES,
        work: Work | None = None,
    ) -> Json:
        """Return what the path selects of the input `value`, the context object, or a variable.

        A definite path gives the one value, any other a list. Raise PathNotFound when a definite
        path leads nowhere, there is no such variable, a filter cannot be applied, or more than
        NODES_MAX nodes are looked at. These nodes are added to `work`, but for a plain path's own.
        """
        searched: Any = value
        if self.root == "context":
            searched = context
        elif self.variable is not None:
            searched = variables.get(self.variable, _MISSING)
            if searched is _MISSING:
                raise PathNotFound(self.text, f"No results for path: ${self.variable}", value)
        if self._keys is None:
            return self._select(searched, work)
        node = searched
        try:
            for key in self._keys:
                # A string has elements in Python only.
                if key.__class__ is int and node.__class__ is not list:
                    raise TypeError
                node = node[key]
        except (KeyError, IndexError, TypeError):
            raise self._not_found(searched) from None
        found: Json = node
        return found

    def set(self, value: Json, replacement: Json) -> Json:
        """Return a copy of `value` in which `replacement` stands where the path points.

        Objects that are missing on the way are created. Only what lies on the way is copied; the
        rest is shared with `value`. Raise PathNotSettable when the way leads through something
        that is no object or array, past the end of an array, or when this is no reference path
        into the input. Source: ASL spec, "ResultPath".
        """
        if not self.is_reference or self.root != "input":
            raise PathNotSettable(f"'{self.text}' is not a reference path into the input")
        top: list[Any] = [value]
        parent: Any = top
        slot: str | int = 0
        for key in self._keys or ():
            part = parent.get(slot, _MISSING) if isinstance(slot, str) else parent[slot]
            parent[slot] = self._copy(part, key)
            parent, slot = parent[slot], key
        parent[slot] = replacement
        changed: Json = top[0]
        return changed

    def _copy(self, part: object, key: str | int) -> dict[str, Json] | list[Json]:
        """Return a copy of a part on the way which `key` can be set in."""
        if isinstance(key, str):
            if part is _MISSING:
                return {}
            if isinstance(part, dict):
                return dict(part)
            raise PathNotSettable(f"'{self.text}' sets member '{key}' of {_kind(part)}")
        if not isinstance(part, list):
            raise PathNotSettable(f"'{self.text}' sets element {key} of {_kind(part)}")
        if key >= len(part):
            raise PathNotSettable(f"'{self.text}' sets element {key} of an array of {len(part)}")
        return list(part)

    def _select(self, searched: Json, work: Work | None) -> Json:
        nodes: list[Json] = [searched]
        budget = Budget()
        try:
            for step in self._steps:
                budget.spend(len(nodes))
                nodes = [found for node in nodes for found in step.select(node, searched, budget)]
        except FilterFailed as error:
            raise PathNotFound(self.text, str(error), searched) from error
        except TooManyNodes as error:
            reason = f"it looks at more than {NODES_MAX} nodes"
            raise PathNotFound(self.text, reason, searched) from error
        finally:
            if work is not None:
                work.done += budget.spent
        if not self._is_single:
            return len(nodes) if self._counts else nodes
        if not nodes:
            raise self._not_found(searched)
        if not self._counts:
            return nodes[0]
        # As Jayway: what has neither elements nor members has no length either.
        return len(nodes[0]) if isinstance(nodes[0], (list, dict)) else None

    def _not_found(self, searched: Json) -> PathNotFound:
        """Say where a definite path leaves the data, in Jayway's words as far as known."""
        trail = "$$" if self.root == "context" else "$"
        whole = trail + "".join(map(str, self._steps))
        node = searched
        for step in self._steps:
            if not isinstance(step, Index) and not isinstance(node, dict):
                wanted = f"Expected to find an object with property {step} in path {trail}"
                return PathNotFound(self.text, f"{wanted} but found {_kind(node)}", searched)
            trail += str(step)
            found = list(step.select(node, searched, Budget()))
            if not found and isinstance(step, Name) and trail != whole:
                return PathNotFound(self.text, f"Missing property in path {trail}", searched)
            if not found:
                break
            node = found[0]
        return PathNotFound(self.text, f"No results for path: {whole}", searched)


_KINDS: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _kind(part: object) -> str:
    return _KINDS.get(type(part), "nothing")


@lru_cache(maxsize=PATHS_CACHED_MAX)
def compile_path(text: str) -> Path:
    """Return the compiled path; the same one for the same text.

    Raise ValueError for text that is no path, is longer than PATH_CHARACTERS_MAX, has a root other
    than `$`, `$$` and `$name`, a function other than `.length()` at its end, or a regular
    expression.
    """
    if len(text) > PATH_CHARACTERS_MAX:
        raise ValueError(f"a path of {len(text)} characters is longer than {PATH_CHARACTERS_MAX}")
    return _Reader(text).read()


class _Reader:
    """Reads the text of one path, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._steps: list[Step] = []
        self._counts = False
        self._has_operators = False

    def read(self) -> Path:
        if not self._text.startswith("$"):
            self._fail("it does not begin with $")
        root: Root = "input"
        variable = None
        self._at = 1
        if self._text.startswith("$$"):
            root, self._at = "context", 2
        elif match := _VARIABLE.match(self._text, 1):
            root, variable, self._at = "variable", match[0], match.end()
        while self._at < len(self._text) and not self._counts:
            self._read_step()
        if self._at < len(self._text):
            self._fail("length() must be the end of the path")
        if self._steps and isinstance(last := self._steps[-1], Names):
            # As Jayway: at the end of a path, `['a','b']` makes one object of the two members.
            self._steps[-1] = Members(last.names)
        return Path(
            self._text,
            root,
            tuple(self._steps),
            variable=variable,
            counts=self._counts,
            has_operators=self._has_operators,
        )

    def _read_step(self) -> None:
        if self._text.startswith("..", self._at):
            self._steps.append(Descendants())
            self._at += 2
        elif self._text.startswith(".", self._at):
            self._at += 1
        elif not self._text.startswith("[", self._at):
            self._fail("expected . or [")
        # Jayway takes a dot before a bracket, and many definitions have it: $.['a-name'].
        if self._text.startswith("[", self._at):
            self._steps.append(self._bracket())
        elif self._text.startswith("*", self._at):
            self._steps.append(Every())
            self._at += 1
        else:
            self._read_dotted_name()

    def _read_dotted_name(self) -> None:
        match = _DOTTED_NAME.match(self._text, self._at)
        if match is None:
            self._fail("expected a name; one with other characters is written ['...']")
        name = match[0]
        if self._text.startswith("(", match.end()):
            if name != "length" or not self._text.startswith("()", match.end()):
                self._fail("the only function is length()")
            self._counts = True
            self._at = match.end() + 2
            return
        self._has_operators |= _OPERATOR.search(_DOTTED_ESCAPE.sub("", name)) is not None
        self._steps.append(Name(_unescaped_dotted(name)))
        self._at = match.end()

    def _bracket(self) -> Step:
        """Read from [ to ]."""
        end = self._bracket_end()
        inner = self._text[self._at + 1 : end].strip()
        if inner == "*":
            step: Step = Every()
        elif inner.startswith("?"):
            step = self._filter(inner[1:].strip())
        elif _QUOTED_LIST.fullmatch(inner):
            names = tuple(_unescaped_quoted(match[0]) for match in QUOTED.finditer(inner))
            step = Name(names[0]) if len(names) == 1 else Names(names)
        elif _INDICES.fullmatch(inner):
            indices = tuple(Index(int(text)) for text in inner.split(","))
            step = indices[0] if len(indices) == 1 else Indices(indices)
        elif match := _SLICE.fullmatch(inner):
            step = Slice(*(None if text is None else int(text) for text in match.groups()))
        else:
            self._fail(f"[{inner}] is no name in quotes, index, slice, wildcard or filter")
        self._at = end + 1
        return step

    def _bracket_end(self) -> int:
        at, depth = self._at, 0
        while at < len(self._text):
            if quoted := QUOTED.match(self._text, at):
                at = quoted.end()
                continue
            depth += {"[": 1, "]": -1}.get(self._text[at], 0)
            if depth == 0:
                return at
            at += 1
        self._fail("a [ is never closed")

    def _filter(self, expression: str) -> Step:
        try:
            return compile_filter(expression)
        except FilterFailed as error:
            self._fail(str(error))

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f"'{self._text}' is not a JSONPath: {why} (at character {self._at + 1})")


def _unescaped_dotted(name: str) -> str:
    if "\\" not in name:
        return name
    plain = _DOTTED_ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], name)
    # Two \\u escapes may be the halves of one character.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _unescaped_quoted(quoted: str) -> str:
    quote = quoted[0]
    return re.sub(rf"\\([\\{quote}])", r"\1", quoted[1:-1])
