"""The ops port: who may use it, and what it tells."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from service.accounts.address import InvalidAddress
from service.accounts.directory import AccountView, BadCursor
from service.api import OpsDeps, create_ops_app
from service.api.admin import PAGE_ACCOUNTS, PAGE_ACCOUNTS_MAX
from service.engine.ports import Unavailable
from tests.api.conftest import Open, Port
from tests.api.fakes import ID, MESSAGE, NOON, OTHER_ID, FakeDirectory, FakeProbe

KEYS = {"ops": "first-secret", "ci": "second:secret"}
ADA = AccountView(
    id=ID,
    status="pending",
    email="ada@example.org",
    name="Ada",
    locale="en",
    data={"plan": "free"},
    created_at=NOON,
    decided_at=None,
)
GONE = AccountView(
    id=OTHER_ID,
    status="expired",
    email=None,
    name=None,
    locale=None,
    data=None,
    created_at=NOON,
    decided_at=NOON + timedelta(minutes=30),
)
ADA_JSON = {
    "id": str(ID),
    "status": "pending",
    "email": "ada@example.org",
    "name": "Ada",
    "locale": "en",
    "data": {"plan": "free"},
    "created_at": "2026-11-22T12:00:00Z",
    "decided_at": None,
}
GONE_JSON = {
    "id": str(OTHER_ID),
    "status": "expired",
    "email": None,
    "name": None,
    "locale": None,
    "data": None,
    "created_at": "2026-11-22T12:00:00Z",
    "decided_at": "2026-11-22T12:30:00Z",
}


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory({ID: ADA, OTHER_ID: GONE})


@pytest.fixture
async def locked(open_port: Open, directory: FakeDirectory, probe: FakeProbe) -> Port:
    return await open_port(create_ops_app(OpsDeps(directory=directory, probe=probe, keys=KEYS)))


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def test_list_passes_on_what_is_asked_for(ops: Port, directory: FakeDirectory) -> None:
    directory.next_cursor = "next"
    answer = await ops.ask(
        "GET", "/accounts?email=ada%2Bnews@example.org&status=pending&cursor=abc&limit=2"
    )
    assert (answer.status, answer.json) == (
        200,
        {"items": [ADA_JSON, GONE_JSON], "next_cursor": "next"},
    )
    assert directory.calls == [("list", ("ada+news@example.org", "pending", "abc", 2))]


async def test_list_without_filters_has_a_bound(ops: Port, directory: FakeDirectory) -> None:
    answer = await ops.ask("GET", "/accounts")
    assert answer.json["next_cursor"] is None
    assert directory.calls == [("list", (None, None, None, PAGE_ACCOUNTS))]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "#/limit"),
        (f"limit={PAGE_ACCOUNTS_MAX + 1}", "#/limit"),
        ("limit=many", "#/limit"),
        ("status=lost", "#/status"),
        ("mail=ada@example.org", "#/mail"),
        (f"cursor={'a' * 600}", "#/cursor"),
    ],
)
async def test_wrong_filter_is_named(
    ops: Port, directory: FakeDirectory, query: str, pointer: str
) -> None:
    answer = await ops.ask("GET", f"/accounts?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert directory.calls == []


@pytest.mark.parametrize(
    ("error", "code", "pointer"),
    [
        (BadCursor("cursor: 'abc'"), "invalid_request", "#/cursor"),
        (InvalidAddress("An email address must have an @-sign."), "invalid_email", "#/email"),
    ],
)
async def test_filter_that_the_directory_refuses_is_named(
    ops: Port, directory: FakeDirectory, error: Exception, code: str, pointer: str
) -> None:
    directory.error = error
    answer = await ops.ask("GET", "/accounts?cursor=abc&email=ada")
    assert (answer.status, answer.json["code"]) == (422, code)
    assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


async def test_account_is_shown(ops: Port) -> None:
    answer = await ops.ask("GET", f"/accounts/{OTHER_ID}")
    assert (answer.status, answer.json) == (200, GONE_JSON)


async def test_account_is_verified_by_force(ops: Port, directory: FakeDirectory) -> None:
    answer = await ops.ask("POST", f"/accounts/{ID}/verify")
    assert (answer.status, answer.json) == (200, ADA_JSON)
    assert directory.calls == [("verify", ID)]


async def test_decided_account_cannot_be_verified(ops: Port) -> None:
    answer = await ops.ask("POST", f"/accounts/{OTHER_ID}/verify")
    assert answer.status == 409
    assert answer.json == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "code": "not_pending",
        "detail": "The account is expired; only a pending one can be verified.",
        "account_status": "expired",
    }


async def test_account_is_erased_once(ops: Port) -> None:
    answers = [await ops.ask("DELETE", f"/accounts/{ID}") for _ in range(2)]
    assert [answer.status for answer in answers] == [204, 404]
    assert answers[0].body == b""


@pytest.mark.parametrize("id", [str(ID)[:-1] + "0", "nobody", ID.hex, "%00"])
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/verify"), ("DELETE", "")])
async def test_unknown_account_is_not_found(ops: Port, method: str, suffix: str, id: str) -> None:
    answer = await ops.ask(method, f"/accounts/{id}{suffix}")
    assert (answer.status, answer.json["code"]) == (404, "unknown_account")


async def test_silent_database_asks_for_another_try(ops: Port, directory: FakeDirectory) -> None:
    directory.error = Unavailable()
    answer = await ops.ask("GET", "/accounts")
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "2"


async def test_metrics_are_what_prometheus_reads(ops: Port) -> None:
    answer = await ops.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert answer.body.startswith(b"# ")


async def test_inbox_is_there_as_page_and_as_json(ops: Port) -> None:
    page = await ops.ask("GET", "/inbox")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.text == "<!doctype html><title>Inbox</title>"
    assert (await ops.ask("GET", "/inbox/messages")).json == [MESSAGE]


async def test_without_an_inbox_nothing_is_there(locked: Port) -> None:
    for path in ("/inbox", "/inbox/messages"):
        answer = await locked.ask("GET", path, headers=basic("ops:first-secret"))
        assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("pair", ["ops:first-secret", "ci:second:secret"])
async def test_holder_of_a_key_is_let_in(locked: Port, pair: str) -> None:
    assert (await locked.ask("GET", "/accounts", headers=basic(pair))).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("ops:second:secret"),
        basic("ops:"),
        basic(":"),
        basic("ops:first-secret "),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic ünï"},
        {"Authorization": "Bearer first-secret"},
    ],
)
@pytest.mark.parametrize("path", ["/accounts", f"/accounts/{ID}", "/inbox", "/nowhere"])
async def test_everyone_else_is_asked_for_a_key(
    locked: Port, directory: FakeDirectory, headers: dict[str, str], path: str
) -> None:
    answer = await locked.ask("GET", path, headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="countersign ops", charset="UTF-8"'
    assert directory.calls == []


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_health_and_metrics_need_no_key(locked: Port, path: str) -> None:
    answer = await locked.ask("GET", path, headers={"Host": "countersign.internal"})
    assert answer.status == 200


async def test_with_keys_any_host_name_will_do(locked: Port) -> None:
    headers = {**basic("ops:first-secret"), "Host": "ops.internal:8081"}
    assert (await locked.ask("GET", "/accounts", headers=headers)).status == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.1.2.3:1", "[::1]:8081"]
)
async def test_without_keys_loopback_names_are_answered(ops: Port, host: str) -> None:
    assert (await ops.ask("GET", "/accounts", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1:8081",
        "[::2]",
        "[",
        "127.0.0.1.evil.example",
    ],
)
async def test_without_keys_other_names_are_refused(
    ops: Port, directory: FakeDirectory, host: str
) -> None:
    answer = await ops.ask("GET", "/accounts", headers={"Host": host})
    assert (answer.status, answer.json["code"]) == (403, "foreign_host")
    assert directory.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/verify")])
async def test_page_of_another_site_changes_nothing(
    ops: Port,
    locked: Port,
    directory: FakeDirectory,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    for port in (ops, locked):
        answer = await port.ask(
            method, f"/accounts/{ID}{path}", headers=basic("ops:first-secret") | headers
        )
        assert (answer.status, answer.json["code"]) == (403, "cross_site")
    assert directory.calls == []


async def test_page_of_the_port_itself_may_change_things(ops: Port) -> None:
    headers = {"Origin": ops.url, "Sec-Fetch-Site": "same-origin"}
    assert (await ops.ask("DELETE", f"/accounts/{ID}", headers=headers)).status == 204


async def test_bad_http_is_answered_by_a_problem(ops: Port) -> None:
    answer: Any = await ops.ask("PATCH", "/accounts")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Server" not in answer.headers
