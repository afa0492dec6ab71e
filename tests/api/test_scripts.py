"""What the scripts of the pages do in a browser, on a stand-in for one that Node runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.api.public.page import WORDS, Pages
from tests.api.fakes import ID, TOKEN
from tests.api.test_pages import Elements

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")

BROWSER = Path(__file__).with_name("browser.mjs")
LINK = f"https://example.org/prefix/verify?id={ID}#token={TOKEN}"
SHOWN = f"https://example.org/prefix/verify?id={ID}"
VERIFIED = {"ok": True, "json": {}}


def problem(code: str) -> dict[str, Any]:
    return {"ok": False, "json": {"code": code}}


def browse(page: bytes, url: str, fields: dict[str, str], answer: Any, steps: list[Any]) -> Any:
    given = {
        "script": Elements(page.decode()).inline["script"],
        "url": url,
        "codes": {code: words.is_final for code, words in WORDS.items()},
        "fields": fields,
        "answer": answer,
        "steps": steps,
    }
    ran = subprocess.run(
        ["node", str(BROWSER)], input=json.dumps(given), capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def confirm(url: str, steps: list[Any], *, answer: Any = VERIFIED, token: str = "") -> Any:
    page = Pages().verify(token).body
    assert isinstance(page, bytes)
    return browse(page, url, {"token": token}, answer, steps)


def sign_up(name: str, answer: Any) -> Any:
    page = Pages().signup().body
    assert isinstance(page, bytes)
    fields = {"email": "ada@example.org", "name": name}
    return browse(page, "https://example.org/", fields, answer, ["submit"])


def test_opening_the_link_takes_the_token_and_sends_nothing() -> None:
    assert confirm(LINK, []) == {
        "requests": [],
        "outcome": None,
        "url": SHOWN,
        "isFormHidden": False,
        "isButtonDisabled": False,
        "token": TOKEN,
    }


def test_pressing_the_button_sends_the_token_once() -> None:
    seen = confirm(LINK, ["submit"])
    assert seen["requests"] == [
        {
            "address": "where-the-form-goes",
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "body": {"token": TOKEN},
            "wasDisabled": True,
        }
    ]
    assert (seen["outcome"], seen["isFormHidden"]) == ("verified", True)


def test_token_of_the_query_leaves_the_address_bar_too() -> None:
    seen = confirm(f"{SHOWN}&token={TOKEN}", ["submit"], token=TOKEN)
    assert seen["url"] == SHOWN
    assert seen["requests"][0]["body"] == {"token": TOKEN}


def test_link_without_a_token_is_called_incomplete() -> None:
    seen = confirm(SHOWN, [])
    assert (seen["outcome"], seen["isFormHidden"], seen["requests"]) == ("incomplete", True, [])


def test_second_link_in_the_same_tab_replaces_the_first() -> None:
    seen = confirm(LINK, ["submit", {"hash": "#token=second"}, "submit"])
    assert [request["body"]["token"] for request in seen["requests"]] == [TOKEN, "second"]
    assert seen["url"] == SHOWN


@pytest.mark.parametrize(
    ("answer", "outcome", "can_try_again"),
    [
        (problem("expired"), "expired", False),
        (problem("superseded"), "superseded", False),
        (problem("unknown_token"), "unknown_token", False),
        (problem("unavailable"), "unavailable", True),
        (problem("internal_error"), "failed", True),
        (None, "failed", True),
    ],
)
def test_outcome_is_said_in_words(answer: Any, outcome: str, can_try_again: bool) -> None:
    seen = confirm(LINK, ["submit"], answer=answer)
    assert seen["outcome"] == outcome
    assert (seen["isFormHidden"], seen["isButtonDisabled"]) == (not can_try_again, False)


@pytest.mark.parametrize(("name", "sent"), [("Ada", {"name": "Ada"}), (" ", {})])
def test_signing_up_sends_what_was_filled_in(name: str, sent: dict[str, str]) -> None:
    seen = sign_up(name, {"ok": True, "json": {}})
    assert seen["requests"][0]["body"] == {"email": "ada@example.org", "locale": "de-CH", **sent}
    assert (seen["outcome"], seen["isFormHidden"]) == ("accepted", True)


def test_mistyped_address_can_be_corrected() -> None:
    seen = sign_up("", problem("invalid_email"))
    assert (seen["outcome"], seen["isFormHidden"]) == ("invalid_email", False)
