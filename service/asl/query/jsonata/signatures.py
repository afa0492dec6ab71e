"""Signatures of functions: which arguments a call may have, and what becomes of those left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from service.asl.query.jsonata.library import Signature as ParsedSignature
from service.asl.query.jsonata.values import (
    LIST_ITEMS_PER_STEP,
    NATIVE_STEPS,
    UNDEFINED,
    Function,
    JsonataError,
    Run,
    Value,
    weigh,
)

CALLS_KEPT_MAX: Final = 2_048

_NAMES_OF_TYPES: Final = {
    "a": "arrays",
    "b": "booleans",
    "f": "functions",
    "n": "numbers",
    "o": "objects",
    "s": "strings",
}
_SYMBOLS_OF_TYPES: Final[dict[type, str]] = {
    str: "s",
    bool: "b",
    int: "n",
    float: "n",
    dict: "o",
    type(None): "l",
    type(UNDEFINED): "m",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: the pattern of the symbols it takes, and how what it takes is treated."""

    pattern: str
    is_array: bool
    items: str | None  # the symbol that every item of its array must have
    from_context: bool  # what is left out is the context value

    @property
    def accepts(self) -> re.Pattern[str]:
        """Return the pattern of a single value's symbol."""
        return re.compile(self.pattern.rstrip("?"))


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a function, and the pattern that the symbols of a call must match."""

    parameters: tuple[Parameter, ...]
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        groups = "".join(f"({parameter.pattern})" for parameter in self.parameters)
        object.__setattr__(self, "pattern", re.compile(groups))

    def check(self, arguments: list[Value], context: Value) -> list[Value]:
        """Return one value or more for each parameter. Raise T0410, T0411 or T0412."""
        symbols = "".join(map(_symbol, arguments))
        groups = _taken(self.pattern, symbols)
        if groups is None:
            raise JsonataError("T0410", index=self._first_wrong(symbols) + 1)
        checked: list[Value] = []
        position = 0
        for parameter, taken in zip(self.parameters, groups, strict=True):
            if not taken and parameter.from_context:
                if not parameter.accepts.fullmatch(_symbol(context)):
                    raise JsonataError("T0411", value=context, index=position + 1)
                checked.append(context)
            elif not taken:
                checked.append(arguments[position] if position < len(arguments) else UNDEFINED)
                position += 1
            for symbol in taken:
                argument = arguments[position]
                if parameter.is_array:
                    argument = _as_array(parameter, symbol, argument, position)
                checked.append(argument)
                position += 1
        return checked

    def _first_wrong(self, symbols: str) -> int:
        pattern, good = "", 0
        for parameter in self.parameters:
            pattern += parameter.pattern
            match = re.match(pattern, symbols)
            if match is None:
                return good
            good = match.end()
        return good


@lru_cache(maxsize=CALLS_KEPT_MAX)
def _taken(pattern: re.Pattern[str], symbols: str) -> tuple[str, ...] | None:
    """Return which symbols of a call each parameter takes, None if the call does not fit."""
    match = pattern.fullmatch(symbols)
    return None if match is None else match.groups()


def _as_array(parameter: Parameter, symbol: str, argument: Value, position: int) -> Value:
    if symbol == "m":
        return UNDEFINED
    if parameter.items is not None:
        items = argument if symbol == "a" else [argument]
        if any(_symbol_of_type(kind) != parameter.items[0] for kind in set(map(type, items))):
            kind = _NAMES_OF_TYPES.get(parameter.items)
            raise JsonataError("T0412", value=argument, index=position + 1, type=kind)
    return argument if symbol == "a" else [argument]


def _symbol(value: Value) -> str:
    return _symbol_of_type(type(value))


def _symbol_of_type(kind: type) -> str:
    symbol = _SYMBOLS_OF_TYPES.get(kind)
    if symbol is None:
        symbol = "a" if issubclass(kind, list) else "f"
    return symbol


def signature(parsed: ParsedSignature) -> Signature:
    """Return the signature that the parser has found in an expression."""
    return Signature(
        tuple(
            Parameter(parameter.regex, parameter.array, parameter.subtype, parameter.context)
            for parameter in parsed._params  # the library has no other way to it
        )
    )


@lru_cache(maxsize=128)
def parse_signature(written: str) -> Signature:
    """Return a signature from its text, such as `<s-nn?:s>`."""
    return signature(ParsedSignature(written, ""))


class Native(Function):
    """A function of the language itself."""

    __slots__ = ("_call", "_rate", "_signature", "_steps", "arity", "name")

    def __init__(
        self,
        name: str,
        written: str,
        call: Callable[..., Value],
        arity: int,
        *,
        steps: int = NATIVE_STEPS,
        rate: int | None = LIST_ITEMS_PER_STEP,
    ) -> None:
        self.name = name
        self.arity = arity
        self._call = call
        self._signature = parse_signature(written)
        self._steps = steps  # what a call costs
        self._rate = rate  # how many items or characters of its arguments cost a step more, if any

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return the function's result, having counted what it walks over and what it makes."""
        steps = self._steps
        if self._rate is not None:
            for argument in arguments:
                if isinstance(argument, (list, str)):
                    steps += len(argument) // self._rate
        run.spend(steps)
        result = self._call(run, *self._signature.check(arguments, context))
        weigh(run, result)
        return result
