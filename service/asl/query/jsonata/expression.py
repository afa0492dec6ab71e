"""JSONata expressions: compiled once, evaluated in bounded time, memory and depth.

An expression has no input document: what it works on comes in as variables. Whatever goes wrong in
an evaluation fails the workflow with States.QueryEvaluationError, in the words of the service.
Source: Step Functions guide, "Transforming data with JSONata"; JSONata 2.0.6 as it names it; where
these are silent, recordings of the service.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from service.asl.errors import CAUSE_CHARACTERS_MAX, ExecutionError
from service.asl.query.jsonata.collections import type_name
from service.asl.query.jsonata.compiler import Compiled, compile_tree
from service.asl.query.jsonata.functions import BUILTINS
from service.asl.query.jsonata.library import (
    MESSAGES,
    JException,
    Parser,
    UnsupportedPattern,
    compile_pattern,
    parser_error,
)
from service.asl.query.jsonata.paths import Code
from service.asl.query.jsonata.values import (
    ELEMENT_BYTES,
    STEPS_MAX,
    TOO_DEEP,
    TOO_LARGE,
    UNDEFINED,
    VALUE_STEPS,
    Exceeded,
    Function,
    JsonataError,
    Run,
    Scope,
    Value,
    json_text,
)
from service.asl.share import Work
from service.asl.values import Json, Random, text_of

QUERY_EVALUATION_ERROR: Final = "States.QueryEvaluationError"

TEXT_CHARACTERS_MAX: Final = 32_768
EXPRESSIONS_KEPT_MAX: Final = 2_048

_OPENING, _CLOSING = "{%", "%}"

# A variable and names of members, which needs neither the parser nor an evaluation.
_PLAIN_PATH: Final = re.compile(r"\$([A-Za-z_][A-Za-z_0-9]*)((?:\.[A-Za-z_][A-Za-z_0-9]*)*)")
_KEYWORDS: Final = frozenset({"and", "or", "in", "true", "false", "null", "function"})
_BLANKS: Final = " \t\n\r"
_INSERT: Final = re.compile(r"\{\{\{(\w+)\}\}\}|\{\{(\w+)\}\}")
_NESTED_TOO_DEEPLY: Final = "The expression is nested too deeply"
_OPERATORS_TOO_NEW: Final = ("??", "?:")  # of JSONata 2.1


class BadExpression(ValueError):
    """A text that is no expression: why, led by JSONata's code if it has one, and where.

    The position counts characters from the start of the text, and is -1 when there is none.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


class _Unsupported(Exception):
    """A result that is, or holds, a function."""


def unwrap(text: str) -> str | None:
    """Return the expression in `{% … %}`, None for a text that is none.

    Nothing may stand before or after. Source: ASL spec, "JSONata".
    """
    if not text.startswith(_OPENING) or not text.endswith(_CLOSING) or len(text) < 4:
        return None
    return text[len(_OPENING) : -len(_CLOSING)].strip()


class Expression:
    """A compiled expression."""

    __slots__ = ("_code", "_names", "members", "text", "variables")

    def __init__(
        self,
        text: str,
        variables: frozenset[str],
        members: frozenset[tuple[str, str]],
        names: tuple[str, ...],
        code: Code | None,
    ) -> None:
        self.text = text
        self.variables = variables  # names, without the `$`, that the expression does not bind
        self.members = members  # of these variables, as far as the text names them
        self._names = names  # of a plain path: the variable, then the members
        self._code = code

    def evaluate(
        self, variables: Mapping[str, Json], now: datetime, random: Random, work: Work, field: str
    ) -> Json:
        """Return the value of the expression, for the variables in reach by their names.

        `field` is where the expression stands in its state, such as `Output/total`; what it costs
        is added to `work`, unless it is a plain path, which costs next to nothing. The result may
        share parts with the variables, and is not to be changed. Raise
        ExecutionError("States.QueryEvaluationError") for an expression that fails, that exceeds a
        bound, or that returns nothing or a function.
        """
        if self._names:
            value = _walk(self._names, variables)
            if value is not UNDEFINED:
                found: Json = value
                return found
        run = Run(now, random)
        try:
            return self._evaluated(run, variables, field)
        finally:
            work.done += STEPS_MAX - run.steps_left

    def _evaluated(self, run: Run, variables: Mapping[str, Json], field: str) -> Json:
        scope = Scope({}, Scope(variables, Scope(BUILTINS, None, run), run), run)
        if self._code is None:
            self._code = _compiled(self.text).code
        try:
            value = _plain(run, self._code(UNDEFINED, scope))
        except JsonataError as error:
            reason = f"threw an error during evaluation. {_message(run, error)}"
            raise self._failure(field, reason) from error
        except (Exceeded, RecursionError, MemoryError) as error:
            reason = f"threw an error during evaluation: {_bound(error)}"
            raise self._failure(field, reason) from error
        except _Unsupported as error:
            raise self._failure(field, "returned an unsupported result type.") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"threw an internal error during evaluation. {type(error).__name__}: {error}"
            raise self._failure(field, reason) from error
        if value is UNDEFINED:
            raise self._failure(field, "returned nothing (undefined).")
        result: Json = value
        return result

    def unexpected(self, value: Json, expected: str, field: str) -> ExecutionError:
        """Return the failure of a field that wants a value of another type, such as 'array'."""
        return self._failure(
            field,
            f"returned an unexpected result type. Expected '{expected}', "
            f"but was '{type_name(value)}' for value: {text_of(value)}",
        )

    def _failure(self, field: str, reason: str) -> ExecutionError:
        cause = f"The JSONata expression '{self.text}' specified for the field '{field}' {reason}"
        return ExecutionError(QUERY_EVALUATION_ERROR, cause[:CAUSE_CHARACTERS_MAX])


@lru_cache(maxsize=EXPRESSIONS_KEPT_MAX)
def compile_expression(text: str) -> Expression:
    """Return an expression ready to be evaluated, from its text without the `{% %}`.

    Raise BadExpression for a text that is too long, is no JSONata, or has a regular expression that
    is none or would need backtracking.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise BadExpression(
            f"An expression has at most {TEXT_CHARACTERS_MAX} characters, not {len(text)}", -1
        )
    text = text.strip()
    path = _PLAIN_PATH.fullmatch(text)
    if path is not None and _KEYWORDS.isdisjoint(text[1:].split(".")[1:]):
        names = tuple(text[1:].split("."))
        members = frozenset({(names[0], names[1])} if len(names) > 1 else ())
        variables = frozenset(names[:1]) - BUILTINS.keys()
        return Expression(text, variables, members, names, None)
    compiled = _compiled(text)
    return Expression(text, compiled.variables, compiled.members, (), compiled.code)


def _compiled(text: str) -> Compiled:
    parser = Parser()  # a new one: what it knows of one expression would leak into the next
    for operator in _OPERATORS_TOO_NEW:
        parser.symbol_table[operator] = Parser.Symbol(parser, operator)  # known, of no use
    try:
        tree = parser.parse(text, compile_pattern)
    except UnsupportedPattern as error:
        raise BadExpression(str(error), -1) from error
    except RecursionError as error:
        raise BadExpression(_NESTED_TOO_DEEPLY, -1) from error
    except KeyError as error:
        raise BadExpression(f'S0204: Unknown operator: "{error.args[0]}"', -1) from error
    except (JException, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        message, position = parser_error(error, text)
        raise BadExpression(message, position) from error
    try:
        return compile_tree(tree)
    except RecursionError as error:
        raise BadExpression(_NESTED_TOO_DEEPLY, -1) from error


def _walk(names: tuple[str, ...], variables: Mapping[str, Json]) -> Value:
    value: Value = variables.get(names[0], UNDEFINED)
    for name in names[1:]:
        if type(value) is not dict:
            return UNDEFINED
        value = value.get(name, UNDEFINED)
    return value


def _plain(run: Run, value: Value) -> Value:
    """Return a result as JSON; UNDEFINED stays, for there is no JSON of it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"  # observed
    if isinstance(value, Function):
        raise _Unsupported
    if not isinstance(value, (list, dict)):
        return value
    run.spend(VALUE_STEPS + len(value))
    run.hold(ELEMENT_BYTES)  # of what a value shares with itself, copies are made
    if isinstance(value, list):
        return [None if item is UNDEFINED else _plain(run, item) for item in value]
    return {n: _plain(run, item) for n, item in value.items() if item is not UNDEFINED}


def _message(run: Run, error: JsonataError) -> str:
    """Return an error's code and message, with its details written in."""

    def insert(match: re.Match[str]) -> str:
        if match[1] is not None:
            return str(error.details.get(match[1]))
        value = error.details.get(match[2], UNDEFINED)
        if value is UNDEFINED or isinstance(value, Function):
            return "undefined"
        return json_text(run, value, exact=True)

    try:
        return f"{error.code}: {_INSERT.sub(insert, MESSAGES[error.code])}"
    except (Exceeded, RecursionError):
        return error.code  # of a value too large to be shown


def _bound(error: BaseException) -> str:
    if isinstance(error, Exceeded):
        return str(error)
    return TOO_DEEP if isinstance(error, RecursionError) else TOO_LARGE
