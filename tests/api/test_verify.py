"""GET /verify is inert, POST /verify decides, and both have words for people."""

from __future__ import annotations

from typing import Any

import pytest

from service.api import PublicDeps, create_public_app
from service.api.schemas import TOKEN_CHARACTERS_MAX
from service.engine.ports import Unavailable
from tests.api.conftest import Open, Port
from tests.api.fakes import ID, TOKEN, FakeProbe, FakeSignups

HTML = "text/html; charset=utf-8"


async def test_token_verifies_and_a_repeat_answers_the_same(
    public: Port, signups: FakeSignups
) -> None:
    answers = [await public.ask("POST", "/verify", json={"token": TOKEN}) for _ in range(2)]
    assert [(a.status, a.json) for a in answers] == [
        (200, {"id": str(ID), "status": "verified"})
    ] * 2
    assert signups.calls == [("verify", TOKEN)] * 2


@pytest.mark.parametrize("decision", ["expired", "superseded"])
async def test_lost_signup_is_gone(public: Port, signups: FakeSignups, decision: str) -> None:
    signups.decision = decision
    answer = await public.ask("POST", "/verify", json={"token": TOKEN})
    assert (answer.status, answer.json["code"]) == (410, decision)


async def test_unknown_token_is_not_found(public: Port) -> None:
    answer = await public.ask("POST", "/verify", json={"token": "forged"})
    assert answer.status == 404
    assert answer.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "unknown_token",
        "detail": "No signup has this token.",
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": 1},
        {"token": None},
        {"token": "a\u0000"},
        {"token": TOKEN, "code": "123456"},
        {"token": "a" * (TOKEN_CHARACTERS_MAX + 1)},
    ],
)
async def test_bad_body_decides_nothing(public: Port, signups: FakeSignups, body: Any) -> None:
    answer = await public.ask("POST", "/verify", json=body)
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")
    assert signups.calls == []


async def test_silent_database_asks_for_another_try(public: Port, signups: FakeSignups) -> None:
    signups.error = Unavailable()
    answer = await public.ask("POST", "/verify", json={"token": TOKEN})
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    ("token", "decision", "status", "words"),
    [
        (TOKEN, "verified", 200, "Address confirmed"),
        (TOKEN, "expired", 410, "This link has expired"),
        (TOKEN, "superseded", 410, "This address is confirmed already"),
        ("forged", "verified", 404, "This link is not valid"),
        ("", "verified", 404, "This link is not valid"),
    ],
)
async def test_form_of_the_page_is_answered_by_a_page(
    public: Port, signups: FakeSignups, token: str, decision: str, status: int, words: str
) -> None:
    signups.decision = decision
    answer = await public.ask("POST", "/verify", data={"token": token})
    assert (answer.status, answer.headers["Content-Type"]) == (status, HTML)
    assert words in answer.text


async def test_page_of_a_busy_service_says_when_to_come_back(
    public: Port, signups: FakeSignups
) -> None:
    signups.error = Unavailable()
    answer = await public.ask("POST", "/verify", data={"token": TOKEN})
    assert (answer.status, answer.headers["Content-Type"]) == (503, HTML)
    assert answer.headers["Retry-After"] == "2"
    assert "Please try again" in answer.text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", ["", f"?id={ID}", f"?token={TOKEN}", f"?id={ID}&token={TOKEN}"])
async def test_fetching_the_page_changes_nothing(
    public: Port, signups: FakeSignups, probe: FakeProbe, method: str, query: str
) -> None:
    answer = await public.ask(method, f"/verify{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, HTML)
    assert (signups.calls, probe.asked) == ([], 0)


async def test_page_with_a_token_needs_no_script(public: Port) -> None:
    page = (await public.ask("GET", f"/verify?id={ID}&token={TOKEN}")).text
    assert f'<input type="hidden" name="token" value="{TOKEN}">' in page
    assert '<form id="form" method="post" action="verify" autocomplete="off">' in page
    assert "<noscript>" not in page


async def test_page_without_a_token_explains_itself_without_scripts(public: Port) -> None:
    page = (await public.ask("GET", f"/verify?id={ID}")).text
    assert 'autocomplete="off" hidden>' in page
    assert "<noscript>" in page


@pytest.mark.parametrize(
    "token",
    ['"><script>alert(1)</script>', "a b", "%00", "%ED%A0%80", "%FF", "a" * 600, "{{7*7}}", "é"],
)
async def test_page_leaves_out_what_is_no_token(public: Port, token: str) -> None:
    answer = await public.ask("GET", f"/verify?token={token}")
    assert answer.status == 200
    assert answer.body == (await public.ask("GET", "/verify")).body


async def test_sign_up_page_is_there_unless_turned_off(
    public: Port, open_port: Open, signups: FakeSignups, probe: FakeProbe
) -> None:
    page = await public.ask("GET", "/")
    assert (page.status, page.headers["Content-Type"]) == (200, HTML)
    assert '<form id="form" method="post" action="signup">' in page.text
    deps = PublicDeps(signups=signups, probe=probe, version="1", signup_page=False)
    without = await (await open_port(create_public_app(deps))).ask("GET", "/")
    assert (without.status, without.json["code"]) == (404, "not_found")
