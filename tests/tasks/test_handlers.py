"""Tests of service.tasks.handlers, and of every example in docs/handlers.md."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.asl import Json, compile_definition
from service.engine.ports import Answer
from service.tasks import ACCOUNT_TASKS, BadHandlers, Registry, handler, handlers, load_handlers
from service.tasks.handlers import BUILT_IN, ENTRY_POINTS, InvalidTaskOutput
from tests.tasks.calls import ARN, IDEMPOTENCY_KEY, INVOKE, command, perform, task

DOCUMENT = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text()
HEAD = "from service.tasks import handler\n"

WriteModule = Callable[[str, str], str]


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Return a function that makes a module of this name and text importable for the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if (Path(getattr(sys.modules[name], "__file__", None) or "/")).parent == tmp_path:
            del sys.modules[name]


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that lets an installed package name this value in our group."""

    def name(value: str) -> None:
        found = [EntryPoint("acme", value, ENTRY_POINTS)]
        monkeypatch.setattr(
            handlers, "entry_points", lambda *, group: found if group == ENTRY_POINTS else []
        )

    return name


def problems(*modules: str) -> list[str]:
    with pytest.raises(BadHandlers) as raised:
        load_handlers(modules)
    assert str(raised.value) == "\n".join(raised.value.problems)
    return list(raised.value.problems)


async def answer_of(function: Callable[..., Any], input: Json) -> Answer:
    return await handler(function).performer().run(input, task(attempt=2))


def test_without_modules_there_are_no_own_handlers() -> None:
    assert load_handlers([]) == {}


def test_what_ships_cannot_be_replaced() -> None:
    assert set(ACCOUNT_TASKS) < BUILT_IN


async def test_a_handler_is_named_after_its_function_or_as_it_says(
    write_module: WriteModule,
) -> None:
    module = write_module(
        "own_names",
        HEAD + "@handler\nasync def one(input):\n    return [input, 1]\n"
        "@handler('number-two')\nasync def two(input, task):\n    return [input, task.attempt]\n",
    )

    loaded = load_handlers([module])

    assert set(loaded) == {"one", "number-two"}
    assert await loaded["one"].run("x", task()) == Answer(["x", 1])
    assert await loaded["number-two"].run("x", task(attempt=4)) == Answer(["x", 4])


def test_a_handler_imported_into_a_second_module_is_still_one(write_module: WriteModule) -> None:
    first = write_module("own_first", HEAD + "@handler\nasync def one(input): ...\n")
    second = write_module("own_second", "from own_first import one\nsame = one\n")

    assert set(load_handlers([first, second, first])) == {"one"}


@pytest.mark.parametrize("value", ["own_packaged", "own_packaged:one"])
def test_an_installed_package_brings_its_handlers_along(
    value: str, write_module: WriteModule, entry_point: Callable[[str], None]
) -> None:
    write_module("own_packaged", HEAD + "@handler\nasync def one(input): ...\n")
    entry_point(value)

    assert set(load_handlers([])) == {"one"}


def test_an_installed_package_without_handlers_is_a_problem(
    write_module: WriteModule, entry_point: Callable[[str], None]
) -> None:
    write_module("own_nothing", "value = 5\n")
    entry_point("own_nothing:value")

    assert problems() == [
        "entry point acme = own_nothing:value: has no function marked with @handler"
    ]


def test_all_problems_of_all_modules_are_told_at_once(write_module: WriteModule) -> None:
    broken = write_module("own_broken", "raise OSError('no disk')\n")
    empty = write_module("own_empty", "async def unmarked(input): ...\n")
    wrong = write_module(
        "own_wrong",
        HEAD + "@handler\ndef plain(input): ...\n"
        "@handler\nasync def none(): ...\n"
        "@handler\nasync def three(a, b, c): ...\n"
        "@handler\nasync def keyword(input, *, task): ...\n"
        "@handler('no spaces')\nasync def spaced(input): ...\n"
        "@handler\nasync def get_account(input): ...\n",
    )
    one = write_module("own_one", HEAD + "@handler('same')\nasync def a(input): ...\n")
    two = write_module("own_two", HEAD + "@handler('same')\nasync def b(input): ...\n")

    assert problems(broken, "own_absent", empty, wrong, one, two) == [
        "HANDLERS: own_broken: cannot be imported: OSError: no disk",
        "HANDLERS: own_absent: cannot be imported: ModuleNotFoundError: "
        "No module named 'own_absent'",
        "HANDLERS: own_empty: has no function marked with @handler",
        "own_wrong.plain: is not a coroutine function (async def)",
        "own_wrong.none: takes neither (input) nor (input, task)",
        "own_wrong.three: takes neither (input) nor (input, task)",
        "own_wrong.keyword: takes neither (input) nor (input, task)",
        "own_wrong.spaced: the name 'no spaces' is not 1 to 64 of A-Z a-z 0-9 _ -",
        "own_wrong.get_account: the built-in handler 'get_account' cannot be replaced",
        "own_two.b: own_one.a is named 'same' as well",
    ]


@pytest.mark.parametrize("name", ["", "x" * 65, "ä", "a.b", "a:b", "a\n"])
def test_a_name_that_no_function_on_aws_could_have_is_refused(name: str) -> None:
    async def function(input: Json) -> Json:
        return input

    assert [problem.partition(": ")[2] for problem in handler(name)(function).problems()] == [
        f"the name {name!r} is not 1 to 64 of A-Z a-z 0-9 _ -"
    ]


async def test_a_handler_may_change_its_input() -> None:
    async def greedy(input: Any) -> Any:
        input["list"].append(input.pop("gone"))
        return input

    input: Json = {"list": [1], "gone": 2}

    assert await answer_of(greedy, input) == Answer({"list": [1, 2]})
    assert input == {"list": [1], "gone": 2}


async def test_a_handler_may_change_later_what_it_returned() -> None:
    kept = {"n": [1]}

    async def returning(input: Json) -> Any:
        return kept

    answer = await answer_of(returning, None)
    kept["n"].append(2)

    assert answer == Answer({"n": [1]})


async def test_a_tuple_is_an_array() -> None:
    async def returning(input: Json) -> Any:
        return {"pair": (1, ("two",))}

    assert await answer_of(returning, None) == Answer({"pair": [1, ["two"]]})


def nested(levels: int) -> Json:
    value: Json = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 5, 4, tzinfo=UTC),
        {1: "one"},
        {"n": float("nan")},
        float("inf"),
        {1, 2},
        b"bytes",
        SimpleNamespace(),
        nested(101),
        ...,
    ],
)
async def test_output_without_a_form_in_json_fails_the_task_naming_the_handler(value: Any) -> None:
    async def returning(input: Json) -> Any:
        return value

    with pytest.raises(InvalidTaskOutput) as raised:
        await answer_of(returning, None)

    assert raised.value.error == "InvalidTaskOutput"
    assert raised.value.cause is not None
    assert "returning: what it returned has no form in JSON: " in raised.value.cause


@pytest.mark.parametrize("value", [None, 0, 0.0, 2**80, "\ud800", "\0", nested(100), True])
async def test_any_json_goes_through_a_handler_unchanged(value: Json) -> None:
    async def echo(input: Json) -> Json:
        return input

    answer = await answer_of(echo, value)

    assert (answer, type(answer.output)) == (Answer(value), type(value))


async def test_a_marked_function_is_still_the_function() -> None:
    @handler
    async def double(input: Any) -> Any:
        return input * 2

    assert await double(21) == 42


# The examples of docs/handlers.md.


async def test_the_documents_handlers_load_and_do_what_it_says(write_module: WriteModule) -> None:
    module, _ = examples("python")
    registry = Registry(
        load_handlers([write_module("acme_handlers", module)]), region="us-east-1", account="0" * 12
    )

    price = await perform(registry.resolve(command(ARN + "price_of_plan", {"plan": "pro"})))
    customer = await perform(
        registry.resolve(
            command(INVOKE, {"FunctionName": "create-customer", "Payload": {"account_id": "7"}})
        )
    )

    assert price == Answer({"plan": "pro", "price": 12})
    assert isinstance(customer.output, dict)
    assert customer.output["Payload"] == {"customer": f"7/{IDEMPOTENCY_KEY}", "attempt": 0}
    with pytest.raises(Exception, match="plan: 'gold' is none of free, pro") as raised:
        await perform(registry.resolve(command(ARN + "price_of_plan", {"plan": "gold"})))
    assert type(raised.value).__name__ == "UnknownPlan"


def test_the_documents_workflow_calls_the_documents_handlers(write_module: WriteModule) -> None:
    module, _ = examples("python")
    (definition,) = examples("json")
    loaded = load_handlers([write_module("acme_handlers", module)])

    machine = compile_definition(definition)

    assert Registry(loaded, region="us-east-1", account="0" * 12).missing(machine) == []
    assert len(Registry({}, region="us-east-1", account="0" * 12).missing(machine)) == 2


def test_the_documents_tests_pass(write_module: WriteModule) -> None:
    module, tests = examples("python")
    write_module("acme_handlers", module)
    names: dict[str, Any] = {}
    exec(compile(tests, "docs/handlers.md", "exec"), names)  # noqa: S102  # our own document

    ran = [name for name, test in names.items() if name.startswith("test_") and not test()]

    assert ran == ["test_the_price_of_a_plan_is_known", "test_an_unknown_plan_is_refused"]


def test_the_documents_command_names_the_documents_module(write_module: WriteModule) -> None:
    module, _ = examples("python")
    (line,) = examples("sh")
    variables = dict(word.split("=") for word in line.split() if "=" in word)
    write_module("acme_handlers", module)

    assert set(load_handlers(variables["HANDLERS"].split(","))) == {
        "price_of_plan",
        "create-customer",
    }


def test_the_documents_entry_point_is_in_the_group_that_is_read() -> None:
    (toml,) = examples("toml")

    assert tomllib.loads(toml)["project"]["entry-points"] == {
        ENTRY_POINTS: {"acme": "acme_handlers"}
    }


def test_the_document_lists_every_function_that_ships() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT.partition("## The functions")[2], re.M)

    assert set(listed) == BUILT_IN
