"""The pages hold nothing from elsewhere, and their policy lets in what is in them and no more."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from service.api.public.page import WORDS
from tests.api.conftest import Answer, Port
from tests.api.fakes import TOKEN

PATHS = ["/", "/verify", f"/verify?token={TOKEN}"]


class Elements(HTMLParser):
    """Every start tag of a page with its attributes, and the text inside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, str] = {}
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("style", "script"):
            self.inline[self._within] = self.inline.get(self._within, "") + data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def policy(answer: Answer) -> dict[str, str]:
    parts = answer.headers["Content-Security-Policy"].split("; ")
    return dict(part.split(" ", 1) for part in parts)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("path", PATHS)
async def test_policy_allows_the_inline_parts_and_nothing_else(public: Port, path: str) -> None:
    answer = await public.ask("GET", path)
    elements = Elements(answer.text)
    assert policy(answer) == {
        "default-src": "'none'",
        "style-src": digest(elements.inline["style"]),
        "script-src": digest(elements.inline["script"]),
        "img-src": "data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_outcome_page_has_no_script_at_all(public: Port) -> None:
    answer = await public.ask("POST", "/verify", data={"token": TOKEN})
    assert policy(answer)["script-src"] == "'none'"
    assert Elements(answer.text).of("script") == []


@pytest.mark.parametrize("path", PATHS)
async def test_pages_refer_to_nothing_absolute(public: Port, path: str) -> None:
    for tag, attributes in Elements((await public.ask("GET", path)).text).tags:
        for name in ("href", "src", "action", "formaction", "data", "poster"):
            address = attributes.get(name) or ""
            assert re.fullmatch(r"(data:.*|[a-z]*)", address), (tag, name, address)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", PATHS)
async def test_pages_can_be_used_by_everyone(public: Port, path: str) -> None:
    elements = Elements((await public.ask("GET", path)).text)
    assert elements.of("html") == [{"lang": "en"}]
    labelled = {label["for"] for label in elements.of("label")}
    fields = [field for field in elements.of("input") if field.get("type") != "hidden"]
    assert labelled == {field["id"] for field in fields}
    assert [div for div in elements.of("div") if div.get("aria-live") == "polite"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in elements.of(
        "meta"
    )


@pytest.mark.parametrize("path", PATHS)
async def test_pages_have_words_for_every_outcome(public: Port, path: str) -> None:
    elements = Elements((await public.ask("GET", path)).text)
    assert {template["data-code"] for template in elements.of("template")} == set(WORDS)


@pytest.mark.parametrize("path", PATHS)
async def test_scripts_send_only_when_a_person_submits(public: Port, path: str) -> None:
    script = Elements((await public.ask("GET", path)).text).inline["script"]
    assert script.count("fetch(") == 1
    calls = [line for line in script.splitlines() if "send(" in line and "function" not in line]
    handler = script.split('form.addEventListener("submit"')[1].split("\n});")[0]
    assert [line for line in calls if line not in handler.splitlines()] == []
    assert not re.search(r"\.(submit|requestSubmit|click)\(", script)
