"""Expressions compiled to closures: literals, constructors, variables, operators, functions.

The library's parser gives the tree, whose nodes are plain records; every node becomes one closure
here, once, and an evaluation calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from service.asl.query.jsonata import calls, groups, paths
from service.asl.query.jsonata.collections import clone, lookup
from service.asl.query.jsonata.functions import BUILTINS
from service.asl.query.jsonata.numbers import arithmetic, computed, negated
from service.asl.query.jsonata.operators import OPERATORS
from service.asl.query.jsonata.paths import Code
from service.asl.query.jsonata.regex import Regex
from service.asl.query.jsonata.signatures import Native, signature
from service.asl.query.jsonata.values import (
    DEPTH_MAX,
    ELEMENT_BYTES,
    PART_STEPS,
    TOO_DEEP,
    UNDEFINED,
    Constructed,
    Exceeded,
    Function,
    JsonataError,
    Run,
    Scope,
    Sequence,
    Value,
    boolean,
    collapse,
    is_number,
    weigh,
)

_CONTEXTS: Final = frozenset({"", "$"})  # `$` and `$$`: there is no input, so both are undefined

# The kinds of nodes whose value may be a gathered array that has not collapsed yet.
_GATHERING: Final = frozenset({"name", "wildcard", "descendant", "function", "apply"})


class Compiled(NamedTuple):
    """The code of an expression, the variables it needs, and which of their members it names.

    A name that the expression itself binds somewhere, or a function has, is not among them.
    """

    code: Code
    variables: frozenset[str]
    members: frozenset[tuple[str, str]]


def compile_tree(tree: Any) -> Compiled:
    """Return an expression compiled from the parser's tree."""
    compiler = _Compiler()
    code = compiler.compile(tree)
    names = frozenset(compiler.used - compiler.bound - BUILTINS.keys() - _CONTEXTS)
    members = frozenset(member for member in compiler.members if member[0] in names)
    return Compiled(code, names, members)


class _Compiler:
    """Compiles the nodes of one expression, and knows how deep it is in it."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.bound: set[str] = set()
        self.members: set[tuple[str, str]] = set()
        self._depth = 0
        self._nodes = 0
        self._kinds: dict[str, Callable[[Any], Code]] = {
            "path": self._path,
            "binary": self._binary,
            "unary": self._unary,
            "name": self._name,
            "string": self._literal,
            "number": self._literal,
            "value": self._literal,
            "wildcard": lambda node: groups.wildcard,
            "descendant": lambda node: groups.descendants,
            "parent": lambda node: _variable(node.slot.label),
            "condition": self._condition,
            "block": self._block,
            "bind": self._bind,
            "regex": self._regex,
            "function": self._call,
            "variable": self._variable,
            "lambda": self._lambda,
            "partial": self._partial,
            "apply": self._apply,
            "transform": self._transform,
        }

    def compile(self, node: Any) -> Code:
        """Return the code of a node, with the predicates and the group behind it."""
        self._depth += 1
        self._nodes += 1
        code = self._kinds[node.type](node) if self._depth <= DEPTH_MAX else _too_deep
        for predicate in node.predicate or ():
            code = _then(code, self._filter(predicate.expr))
        if node.type != "path" and node.group is not None:
            code = _then(code, self._group(node.group))
        if node.type in _GATHERING or node.predicate or node.keep_array:
            code = _collapsed(code, keeps_array=node.keep_array)
        self._depth -= 1
        return code

    def _weighed(self, node: Any) -> tuple[Code, int]:
        before = self._nodes
        code = self.compile(node)
        return code, self._nodes - before

    def _at_need(self, node: Any) -> Code:
        """Return the code of a part that may be passed over: it is counted when it is not."""
        code, weight = self._weighed(node)
        self._nodes -= weight
        steps = PART_STEPS * weight

        def counted(context: Value, scope: Scope) -> Value:
            scope.run.spend(steps)
            return code(context, scope)

        return counted

    def _path(self, node: Any) -> Code:
        first, *rest = node.steps
        if first.type == "variable" and rest and rest[0].type == "name":
            self.members.add((first.value, rest[0].value))
        only_names, is_shallow = _only_names(node), self._depth < DEPTH_MAX
        if only_names and first.type == "variable":
            self.used.add(first.value)
            return paths.names(first.value, [s.value for s in rest]) if is_shallow else _too_deep
        before = self._nodes
        code = paths.path(
            [self._step(step) for step in node.steps],
            is_absolute=first.type == "variable",
            keeps_tuples=bool(node.tuple),
            keeps_array=node.keep_singleton_array,
            group=None if node.group is None else self._group(node.group),
        )
        code = _collapsed(code, keeps_array=node.keep_array)
        if only_names and is_shallow:
            self._nodes = before  # of an object, and anything else is counted on the way
            return paths.members([step.value for step in node.steps], code)
        return code

    def _step(self, node: Any) -> paths.Step:
        self.bound.update(name for name in (node.focus, node.index) if name is not None)
        before = self._nodes
        terms = None
        code: Code = _undefined  # of a step that orders, which has terms in its place
        if node.type == "sort":
            terms = tuple(paths.Term(self.compile(t.expression), t.descending) for t in node.terms)
        else:
            code = self.compile(node)
        weight = self._nodes - before
        return paths.Step(
            code,
            weight,
            tuple(
                self._index(stage) if stage.type == "index" else self._filter(stage.expr)
                for stage in node.stages or ()
            ),
            terms,
            bool(node.consarray),
            bool(node.tuple),
            node.focus,
            node.index,
            None if node.ancestor is None else node.ancestor.label,
        )

    def _index(self, node: Any) -> paths.Index:
        self.bound.add(node.value)
        return paths.Index(node.value)

    def _filter(self, node: Any) -> Code:
        if node.type == "number":
            return paths.at(node.value)
        return paths.where(*self._weighed(node))

    def _group(self, node: Any) -> Code:
        return groups.group(*self._pairs(node))

    def _pairs(self, node: Any) -> tuple[groups.Pairs, int]:
        before = self._nodes
        pairs = [(self.compile(key), self.compile(value)) for key, value in node.lhs_object]
        return pairs, self._nodes - before

    def _variable(self, node: Any) -> Code:
        self.used.add(node.value)
        return _variable(node.value)

    def _name(self, node: Any) -> Code:
        name = node.value
        return lambda context, scope: lookup(scope.run, context, name)

    def _literal(self, node: Any) -> Code:
        value = computed(node.value) if is_number(node.value) else node.value
        return lambda context, scope: value

    def _regex(self, node: Any) -> Code:
        regex = Regex(node.value)
        return lambda context, scope: regex

    def _binary(self, node: Any) -> Code:
        sign = node.value
        if sign in {"and", "or"}:
            first, second = self.compile(node.lhs), self._at_need(node.rhs)
            return _either(first, second) if sign == "or" else _both(first, second)
        left, right = self.compile(node.lhs), self.compile(node.rhs)
        if sign in "+-*/%":
            compute = arithmetic(sign)
            return lambda c, s: compute(left(c, s), right(c, s))
        operate = OPERATORS[sign]
        return lambda c, s: operate(s.run, left(c, s), right(c, s))

    def _unary(self, node: Any) -> Code:
        if node.value == "-":
            operand = self.compile(node.expression)
            return lambda context, scope: negated(operand(context, scope))
        if node.value == "[":
            return self._array(node)
        return self._object(node)

    def _array(self, node: Any) -> Code:
        if [item.value for item in node.expressions] == [".."]:
            return self._only_range(node)
        items = [(self.compile(item), item.value == "[") for item in node.expressions]

        def code(context: Value, scope: Scope) -> Value:
            made: list[Value] = Constructed() if node.consarray else []
            for item, is_array in items:
                value = item(context, scope)
                if isinstance(value, list) and not is_array:
                    made.extend(value)
                elif value is not UNDEFINED:
                    made.append(value)
            scope.run.hold(ELEMENT_BYTES * len(made))
            return made

        return code

    def _only_range(self, node: Any) -> Code:
        """Return the code of `[a..b]`, which takes no more memory than its numbers."""
        between = self.compile(node.expressions[0])

        def code(context: Value, scope: Scope) -> Value:
            value = between(context, scope)
            made = [] if value is UNDEFINED else value if isinstance(value, list) else [value]
            return Constructed(made) if node.consarray else made

        return code

    def _object(self, node: Any) -> Code:
        pairs, weight = self._pairs(node)
        grouped = groups.group(pairs, weight)
        keys = {key.value for key, _ in node.lhs_object if key.type == "string"}
        if len(keys) != len(pairs):
            return grouped
        # The usual object, of literal names: nothing to evaluate for a key, or to compare.
        names = [key.value for key, _ in node.lhs_object]
        members = [(name, value) for name, (_, value) in zip(names, pairs, strict=True)]

        def code(context: Value, scope: Scope) -> Value:
            if isinstance(context, list):
                return grouped(context, scope)
            scope.run.hold(ELEMENT_BYTES * len(members))
            made = {name: member(context, scope) for name, member in members}
            return {name: value for name, value in made.items() if value is not UNDEFINED}

        return code

    def _condition(self, node: Any) -> Code:
        condition, then = self.compile(node.condition), self._at_need(node.then)
        otherwise = _undefined if node._else is None else self._at_need(node._else)
        return lambda c, s: then(c, s) if boolean(s.run, condition(c, s)) else otherwise(c, s)

    def _block(self, node: Any) -> Code:
        parts = [self.compile(part) for part in node.expressions]

        def code(context: Value, scope: Scope) -> Value:
            inner = Scope({}, scope, scope.run)
            value: Value = UNDEFINED
            for part in parts:
                value = part(context, inner)
            return value

        return code

    def _bind(self, node: Any) -> Code:
        name, value_code = node.lhs.value, self.compile(node.rhs)
        self.bound.add(name)

        def code(context: Value, scope: Scope) -> Value:
            value = value_code(context, scope)
            scope.bind(name, value)
            return value

        return code

    def _lambda(self, node: Any) -> Code:
        if node.thunk:
            return self._call(node.body, is_tail=True)
        depth, self._depth = self._depth, 0
        body, weight = self._weighed(node.body)
        self._depth = depth
        names = tuple(parameter.value for parameter in node.arguments)
        self.bound.update(names)
        checks = None if node.signature is None else signature(node.signature)
        return lambda context, scope: calls.Lambda(names, body, weight, checks, context, scope)

    def _call(self, node: Any, *, is_tail: bool = False) -> Code:
        function_code = self.compile(node.procedure)
        arguments = [self.compile(argument) for argument in node.arguments]
        return calls.call(function_code, node.procedure, arguments, self._depth, is_tail=is_tail)

    def _apply(self, node: Any) -> Code:
        left = self.compile(node.lhs)
        if node.rhs.type == "function":
            function_code = self.compile(node.rhs.procedure)
            arguments = [left, *(self.compile(argument) for argument in node.rhs.arguments)]
            return calls.call(function_code, node.rhs.procedure, arguments, self._depth)
        return calls.applied(left, self.compile(node.rhs), self._depth)

    def _partial(self, node: Any) -> Code:
        function_code, name = self.compile(node.procedure), calls.name_of(node.procedure)
        given = [
            None if argument.type == "operator" else self.compile(argument)
            for argument in node.arguments
        ]

        def code(context: Value, scope: Scope) -> Value:
            values = [calls.MISSING if part is None else part(context, scope) for part in given]
            function = function_code(context, scope)
            if not isinstance(function, Function):
                is_forgotten = calls.is_forgotten(function, node.procedure, scope)
                raise JsonataError("T1007" if is_forgotten else "T1008", token=name)
            return calls.Partial(function, values)

        return code

    def _transform(self, node: Any) -> Code:
        pattern, update = self.compile(node.pattern), self.compile(node.update)
        delete = _undefined if node.delete is None else self.compile(node.delete)

        def code(context: Value, scope: Scope) -> Value:
            def transform(run: Run, value: Value) -> Value:
                if value is UNDEFINED:
                    return UNDEFINED
                objects: dict[int, Value] = {}
                copy = clone(run, value, objects)
                matches = pattern(copy, scope)
                if matches is not UNDEFINED:
                    for match in matches if isinstance(matches, list) else [matches]:
                        # A pattern can also reach what is not in the copy: that stays as it is.
                        target = objects.get(id(match))
                        _change(target, update(match, scope), delete(match, scope), run)
                return copy

            return Native("transform", "<(oa):o>", transform, 1)

        return code


def _only_names(node: Any) -> bool:
    """Return whether a path only names members, of the context value or of a variable's."""
    first, *rest = steps = node.steps
    if first.type != "name" and (first.type != "variable" or not first.value):
        return False
    return not (
        node.group is not None
        or node.keep_singleton_array
        or any(step.type != "name" for step in rest)
        or any(
            step.stages or step.predicate or step.tuple or step.group is not None
            or step.keep_array or step.focus is not None or step.index is not None
            or step.ancestor is not None
            for step in steps
        )
    )  # fmt: skip


def _change(target: dict[str, Value] | None, update: Value, delete: Value, run: Run) -> None:
    """Change an object of a transform's copy; None stands for what is no object of it."""
    if update is not UNDEFINED and not isinstance(update, dict):
        raise JsonataError("T2011", value=update)
    names = delete if isinstance(delete, list) else [] if delete is UNDEFINED else [delete]
    if not all(isinstance(name, str) for name in names):
        raise JsonataError("T2012", value=delete)
    if target is None:
        return
    if isinstance(update, dict):
        target.update(update)
        weigh(run, target)
    for name in names:
        target.pop(name, None)


def _variable(name: str) -> Code:
    if not name:
        return lambda context, scope: context
    return lambda context, scope: scope.lookup(name)


def _both(left: Code, right: Code) -> Code:
    def code(context: Value, scope: Scope) -> Value:
        return boolean(scope.run, left(context, scope)) and _told_by("and", right, context, scope)

    return code


def _either(left: Code, right: Code) -> Code:
    def code(context: Value, scope: Scope) -> Value:
        return boolean(scope.run, left(context, scope)) or _told_by("or", right, context, scope)

    return code


def _told_by(sign: str, side: Code, context: Value, scope: Scope) -> bool:
    """Return what a side counts as; its failures tell of the operator, not of the function."""
    try:
        return boolean(scope.run, side(context, scope))
    except JsonataError as error:
        error.details["token"] = sign
        raise


def _undefined(context: Value, scope: Scope) -> Value:
    return UNDEFINED


def _too_deep(context: Value, scope: Scope) -> NoReturn:
    raise Exceeded(TOO_DEEP)


def _then(code: Code, stage: Code) -> Code:
    return lambda context, scope: stage(code(context, scope), scope)


def _collapsed(code: Code, *, keeps_array: bool) -> Code:
    def collapsed(context: Value, scope: Scope) -> Value:
        value = code(context, scope)
        if type(value) is not Sequence:
            return value
        value.keep = value.keep or keeps_array
        return collapse(value)

    return collapsed
