"""Calls: the functions that an expression makes, and how one is called or applied."""

from __future__ import annotations

from typing import Any, Final

from service.asl.query.jsonata.paths import Code
from service.asl.query.jsonata.signatures import Native, Signature
from service.asl.query.jsonata.values import (
    CALL_STEPS,
    DEPTH_MAX,
    PART_STEPS,
    TOO_DEEP,
    UNDEFINED,
    Exceeded,
    Function,
    JsonataError,
    Run,
    Scope,
    TailCall,
    Value,
    apply,
)

CHECK_STEPS: Final = 10  # of arguments, by a signature

MISSING: Final = object()  # an argument that a partial application leaves open


class Lambda(Function):
    """A function written in an expression, with the variables that it was written among."""

    __slots__ = ("_body", "_context", "_parameters", "_scope", "_signature", "_steps", "arity")

    def __init__(
        self,
        parameters: tuple[str, ...],
        body: Code,
        weight: int,
        checks: Signature | None,
        context: Value,
        scope: Scope,
    ) -> None:
        self.arity = len(parameters)
        self._parameters = parameters
        self._body = body
        self._steps = CALL_STEPS + PART_STEPS * weight + (CHECK_STEPS if checks else 0)
        self._signature = checks
        self._context = context
        self._scope = scope

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return the value of the body, or the call it ends in."""
        run.spend(self._steps)
        if self._signature is not None:
            arguments = self._signature.check(arguments, context)
        missing = self.arity - len(arguments)
        if missing > 0:
            arguments = [*arguments, *[UNDEFINED] * missing]
        bound = dict(zip(self._parameters, arguments, strict=False))
        return self._body(self._context, Scope(bound, self._scope, run))


class Partial(Function):
    """A function with some of its arguments given; `?` stood for the others."""

    __slots__ = ("_function", "_given", "arity")

    def __init__(self, function: Function, given: list[Value]) -> None:
        self._function = function
        self._given = given
        self.arity = sum(argument is MISSING for argument in given)

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return the result of the function with all its arguments."""
        rest = iter(arguments)
        filled = [next(rest, UNDEFINED) if a is MISSING else a for a in self._given]
        return self._function.call(run, filled, context)


class Chain(Function):
    """Two functions as one, the second applied to the result of the first."""

    __slots__ = ("_first", "_second")

    arity = 1

    def __init__(self, first: Function, second: Function) -> None:
        self._first = first
        self._second = second

    def call(self, run: Run, arguments: list[Value], context: Value) -> Value:
        """Return what the second function makes of the result of the first."""
        between = apply(run, self._first, arguments[:1], context)
        return TailCall(self._second, [between], context)


def name_of(procedure: Any) -> Value:
    """Return what a function is called by, UNDEFINED for one that is written where it is called."""
    name = procedure.steps[0].value if procedure.type == "path" else procedure.value
    return UNDEFINED if name is None else name


def is_forgotten(function: Value, procedure: Any, scope: Scope) -> bool:
    """Return whether a name that is no function would be one with a `$` in front."""
    return (
        function is UNDEFINED
        and procedure.type == "path"
        and scope.lookup(procedure.steps[0].value) is not UNDEFINED
    )


def call(
    function_code: Code,
    procedure: Any,
    argument_codes: list[Code],
    depth: int,
    *,
    is_tail: bool = False,
) -> Code:
    """Return the code of a call; one that ends a function's body is left to who called that."""
    name = name_of(procedure)

    def code(context: Value, scope: Scope) -> Value:
        function = function_code(context, scope)
        if is_forgotten(function, procedure, scope):
            raise JsonataError("T1005", token=name)
        arguments = [argument(context, scope) for argument in argument_codes]
        if not isinstance(function, Function):
            raise JsonataError("T1006", token=name)
        if is_tail and not isinstance(function, Native):
            return TailCall(function, arguments, context)
        try:
            return _apply_deeper(scope.run, function, arguments, context, depth)
        except JsonataError as error:
            error.details.setdefault("token", name)
            raise

    return code


def _apply_deeper(
    run: Run, function: Function, arguments: list[Value], context: Value, depth: int
) -> Value:
    """Return the result of a call, made so deep in the expression or function that makes it."""
    run.depth += depth
    if run.depth > DEPTH_MAX:
        raise Exceeded(TOO_DEEP)
    result = apply(run, function, arguments, context)
    run.depth -= depth  # not after a failure, which ends the evaluation
    return result


def applied(left: Code, right: Code, depth: int) -> Code:
    """Return the code of `~>`, between a value and a function or between two functions."""

    def code(context: Value, scope: Scope) -> Value:
        value, function = left(context, scope), right(context, scope)
        if not isinstance(function, Function):
            raise JsonataError("T2006", value=function)
        if isinstance(value, Function):
            return Chain(value, function)
        return _apply_deeper(scope.run, function, [value], None, depth)

    return code
