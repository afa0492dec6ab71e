"""docs/http-api.md describes every route and code, and what it shows has the right shape."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from aiohttp import web

from service.api import admin, schemas
from service.api.ops import OpsDeps, create_ops_app
from service.api.problems import STATUS_BY_CODE
from service.api.public import PublicDeps, create_public_app
from tests.docs.pages import blocks, codes, read, rows, section

PAGE = read("docs/http-api.md")
EXAMPLES = [
    block for name in ("README.md", "docs/http-api.md") for block in blocks(read(name), "json")
]
TRANSCRIPT = [
    line
    for block in blocks(read("README.md"), "console")
    for line in block.splitlines()
    if line.startswith("{")
]
ACCOUNT_MEMBERS = {
    "id", "status", "email", "name", "locale", "data", "created_at", "decided_at",
}  # fmt: skip


def _routes(app: web.Application) -> set[str]:
    """Return each route as a document names it; HEAD goes with GET."""
    return {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    }


def _documented(heading: str) -> set[str]:
    return {codes(cells[0])[0] for cells in rows(section(PAGE, heading).split("\n###")[0])}


def test_every_route_of_the_public_port_is_described() -> None:
    app = create_public_app(PublicDeps(signups=cast(Any, None), probe=cast(Any, None), version="0"))
    assert _documented("## Public port") == _routes(app)


def test_every_route_of_the_ops_port_is_described() -> None:
    deps = OpsDeps(directory=cast(Any, None), probe=cast(Any, None), inbox=cast(Any, object()))
    assert _documented("## Ops port") == _routes(create_ops_app(deps))


def test_every_code_is_listed_under_its_status() -> None:
    listed = {
        code: int(status)
        for status, told in rows(section(PAGE, "## Every code"))
        for code in codes(told.partition(", with ")[0])
    }
    assert listed == {code: status.value for code, status in STATUS_BY_CODE.items()}


def test_members_of_a_signup_are_listed() -> None:
    listed = {codes(cells[0])[0] for cells in rows(section(PAGE, "### `POST /signup`"))}
    assert listed == set(schemas.SignupBody.model_fields)


def test_parameters_of_the_accounts_are_listed() -> None:
    listed = {codes(cells[0])[0] for cells in rows(section(PAGE, "### `GET /accounts`"))}
    assert listed == set(admin.ListQuery.model_fields)


@pytest.mark.parametrize(
    "text", [*TRANSCRIPT, *(b for b in EXAMPLES if b.startswith(('{"id"', '{"items"')))]
)
def test_an_answer_that_is_shown_has_the_shape_of_its_model(text: str) -> None:
    answer = json.loads(text)
    for item in answer.get("items", [answer]):
        if "secret" in item:
            schemas.SignupAccepted.model_validate_json(json.dumps(item), strict=True)
        elif "email" in item:
            assert set(item) == ACCOUNT_MEMBERS
        else:
            schemas.SignupStatus.model_validate_json(json.dumps(item), strict=True)


def test_the_problem_that_is_shown_is_one() -> None:
    shown = next(block for block in EXAMPLES if '"about:blank"' in block)
    problem = schemas.ProblemDocument.model_validate_json(shown)
    assert STATUS_BY_CODE[problem.code].value == problem.status


def test_bounds_in_words_are_those_of_the_code() -> None:
    signup = section(PAGE, "### `POST /signup`")
    assert f"at most {schemas.DATA_BYTES_MAX:,} bytes as compact JSON" in signup
    assert f"one line of at most {schemas.NAME_CHARACTERS_MAX} characters" in signup
    assert f"BCP 47 tag of at most {schemas.LOCALE_CHARACTERS_MAX} characters" in signup
    limit = next(
        cells[1] for cells in rows(section(PAGE, "### `GET /accounts`")) if "limit" in cells[0]
    )
    assert limit == f"1 to {admin.PAGE_ACCOUNTS_MAX}; {admin.PAGE_ACCOUNTS} by default"
    assert re.search(r"English, German, French and Spanish ship", signup)
