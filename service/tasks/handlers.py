"""Own handlers: how a coroutine becomes one, and how the modules that hold them are loaded."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Final, TypeAlias, overload

from service.asl import ExecutionError, Json
from service.documents import INPUT_DEPTH_MAX, dumps, loads
from service.engine.ports import Answer, CoroutineHandler, Task

ENTRY_POINTS: Final = "countersign.handlers"
"""The entry point group of installed packages: each names a module, or a handler in one."""

BUILT_IN: Final = frozenset(
    {
        "send_verification_email",
        "send_reminder_email",
        "send_welcome_email",
        "get_account",
        "delete_unverified_account",
    }
)
"""Names that no own handler may take: what these promise (exactly once) a coroutine cannot keep."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # Lambda API reference: FunctionName

# What it takes and returns is checked when it is loaded and when it runs: a signature here could
# not say "one argument or two, of any JSON types the author cares to name".
_Function: TypeAlias = Callable[..., Any]


class InvalidTaskOutput(ExecutionError):
    """A handler returned what JSON has no form for."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidTaskOutput", message)


class BadHandlers(Exception):
    """Own handlers cannot be loaded; `problems` has all that is wrong, each with its module."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class OwnHandler:
    """A coroutine function marked with `@handler`. Called, it is still that function."""

    name: str
    function: _Function

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)

    @property
    def place(self) -> str:
        """Where it is written: module and function."""
        where = inspect.unwrap(self.function)
        module = getattr(where, "__module__", "?")
        return f"{module}.{getattr(where, '__qualname__', repr(where))}"

    def problems(self) -> list[str]:
        """Return what keeps this from being a handler."""
        found = []
        if not _NAME.fullmatch(self.name):
            found.append(f"the name {self.name!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
        if not inspect.iscoroutinefunction(self.function):
            found.append("is not a coroutine function (async def)")
        elif _arity(self.function) is None:
            found.append("takes neither (input) nor (input, task)")
        return [f"{self.place}: {problem}" for problem in found]

    def performer(self) -> CoroutineHandler:
        """Return the handler as the engine runs it."""
        takes_task = _arity(self.function) == 2

        async def run(input: Json, task: Task) -> Answer:
            # A copy: the execution still holds the value, and a retry must find it unchanged.
            own = loads(dumps(input))
            value = await (self.function(own, task) if takes_task else self.function(own))
            return Answer(self._checked(value))

        return CoroutineHandler(run)

    def _checked(self, value: Any) -> Json:
        """Return a copy of what the function returned: it may keep and change the original."""
        try:
            return loads(dumps(value), depth_max=INPUT_DEPTH_MAX)
        except (TypeError, ValueError) as error:
            raise InvalidTaskOutput(
                f"{self.place}: what it returned has no form in JSON: {error}"
            ) from error


@overload
def handler(name: str) -> Callable[[_Function], OwnHandler]: ...
@overload
def handler(name: _Function) -> OwnHandler: ...
def handler(name: str | _Function) -> OwnHandler | Callable[[_Function], OwnHandler]:
    """Mark a coroutine function as the handler of the Lambda function `name`, or of its own name.

    It is called as `await function(input)` or `await function(input, task)` and returns JSON.
    Nothing is checked before `load_handlers`, which tells of all mistakes at once.
    """
    if isinstance(name, str):
        return lambda function: OwnHandler(name, function)
    return OwnHandler(getattr(name, "__name__", ""), name)


def load_handlers(
    modules: Sequence[str], *, reserved: Collection[str] = BUILT_IN
) -> dict[str, CoroutineHandler]:
    """Return the handlers of these modules and of installed packages, by function name.

    Importing a module runs it. Raise BadHandlers with everything that is wrong: a module that
    cannot be imported or has no handler, a function that cannot be one, a name that is taken twice
    or belongs to a built-in handler.
    """
    loading = _Loading(reserved)
    for module in modules:
        loading.take(f"HANDLERS: {module}", partial(importlib.import_module, module))
    for point in entry_points(group=ENTRY_POINTS):
        loading.take(f"entry point {point.name} = {point.value}", point.load)
    if loading.problems:
        raise BadHandlers(loading.problems)
    return {name: own.performer() for name, own in loading.found.items()}


class _Loading:
    """Handlers found so far, and all that was wrong on the way."""

    def __init__(self, reserved: Collection[str]) -> None:
        self.found: dict[str, OwnHandler] = {}
        self.problems: list[str] = []
        self._reserved = reserved

    def take(self, source: str, load: Callable[[], object]) -> None:
        """Add the handlers of a module, or one handler."""
        try:
            loaded = load()
        except Exception as error:  # An operator's module may raise anything when it is run.
            self.problems.append(f"{source}: cannot be imported: {type(error).__name__}: {error}")
            return
        own = _handlers_in(loaded)
        if not own:
            self.problems.append(f"{source}: has no function marked with @handler")
        for one in own:
            self._add(one)

    def _add(self, own: OwnHandler) -> None:
        problems = own.problems()
        other = self.found.get(own.name)
        if own.name in self._reserved:
            problems.append(f"{own.place}: the built-in handler {own.name!r} cannot be replaced")
        elif other is not None and other is not own:
            problems.append(f"{own.place}: {other.place} is named {own.name!r} as well")
        self.problems += problems
        self.found.setdefault(own.name, own)


def _handlers_in(loaded: object) -> list[OwnHandler]:
    if isinstance(loaded, ModuleType):
        # A handler may go by two names in one module, or be imported into another: it is still one.
        members = [value for value in vars(loaded).values() if isinstance(value, OwnHandler)]
        return list({id(own): own for own in members}.values())
    return [loaded] if isinstance(loaded, OwnHandler) else []


def _arity(function: _Function) -> int | None:
    """Return whether a function takes (input) or (input, task): 1 or 2; None when neither fits."""
    signature = inspect.signature(function)
    for count in (2, 1):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count
    return None
