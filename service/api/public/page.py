"""The pages of the public port: self-contained, usable without scripts, under a strict policy."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service.api.answers import JSON_TYPE, answer_html
from service.api.bodies import is_form
from service.api.problems import Problem, render_json
from service.api.schemas import NAME_CHARACTERS_MAX, TOKEN_CHARACTERS_MAX

_FOLDER: Final = Path(__file__).parent / "pages"
_TOKEN: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{TOKEN_CHARACTERS_MAX}}}")


class Words(NamedTuple):
    """What an outcome is called on a page. `is_final`: trying again would not change it."""

    title: str
    text: str
    is_final: bool


WORDS: Final[Mapping[str, Words]] = {
    "accepted": Words(
        "Check your mail",
        "We sent a message to the address you gave. Open the link in it to confirm the address. "
        "If nothing comes within a few minutes, look into the spam folder.",
        True,
    ),
    "verified": Words(
        "Address confirmed", "Thank you. Your address is confirmed; you can close this page.", True
    ),
    "expired": Words(
        "This link has expired",
        "The time to confirm this address is over. Please sign up again to get a new link.",
        True,
    ),
    "superseded": Words(
        "This address is confirmed already",
        "It was confirmed by the link of another sign-up, so this one is no longer needed.",
        True,
    ),
    "unknown_token": Words(
        "This link is not valid",
        "It may have been cut off. Open the link in the message again, or copy all of it.",
        True,
    ),
    "incomplete": Words(
        "This link is incomplete",
        "The part that proves it is yours is missing. Open the link in the message again, or copy "
        "all of it into the address bar.",
        True,
    ),
    "invalid_email": Words(
        "Mail cannot be sent to this address", "Please look for a typing mistake.", False
    ),
    "invalid_request": Words("Please check what you filled in", "Something in it is wrong.", False),
    "overloaded": Words("Please try again", "Too much is going on just now.", False),
    "unavailable": Words("Please try again", "The service is not available just now.", False),
    "failed": Words("That did not work", "Please try again in a moment.", False),
}
"""Outcomes by the code of the answer; `failed` stands for every code that is not here."""


def wants_page(request: web.BaseRequest) -> bool:
    """Return whether a form was sent that is to be answered by a page: unless JSON is asked for."""
    return is_form(request) and JSON_TYPE not in request.headers.get("Accept", "")


class Pages:
    """The templates, compiled once, and the answers made of them."""

    def __init__(self) -> None:
        environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = _read("page.css")
        self._verify = _Page(environment, "verify.html", style, _scripts("verify.js"))
        self._outcome = _Page(environment, "outcome.html", style, "")
        self._signup = _Page(environment, "signup.html", style, _scripts("signup.js"))

    def signup(self) -> web.Response:
        """Return the sign-up page."""
        return self._signup.answer(words=WORDS, name_characters_max=NAME_CHARACTERS_MAX)

    def verify(self, token: str) -> web.Response:
        """Return the confirm page; with a token it needs no script. A malformed one is left out."""
        return self._verify.answer(words=WORDS, token=token if _TOKEN.fullmatch(token) else "")

    def outcome(
        self,
        code: str,
        *,
        status: int = 200,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Return the page that says how a form sent without a script came out."""
        words = WORDS.get(code, WORDS["failed"])
        return self._outcome.answer(status=status, headers=headers, words=words, detail=detail)

    def render_problem(self, request: web.BaseRequest, problem: Problem) -> web.Response:
        """Return a problem as a page to a form, and as a problem document to everything else."""
        if not wants_page(request):
            return render_json(request, problem)
        detail = problem.detail if problem.errors else ""
        return self.outcome(
            problem.code, status=problem.status, detail=detail, headers=problem.headers
        )


class _Page:
    """One template with its style and script, and the policy that lets through only those two."""

    def __init__(self, environment: Environment, name: str, style: str, script: str) -> None:
        self._template = environment.get_template(name)
        # Our own files, so they are markup as they stand; a `</script>` in them would break out.
        assert "</" not in style + script, name
        self._parts = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
        self._policy = (
            f"default-src 'none'; style-src '{_digest(style)}'; "
            f"script-src {_quoted(script)}; img-src data:; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    def answer(
        self, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: object
    ) -> web.Response:
        """Return the page with these values in it."""
        page = self._template.render(**self._parts, **values)
        return answer_html(page, policy=self._policy, status=status, headers=headers)


def _scripts(name: str) -> str:
    return _read("outcomes.js") + _read(name)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _quoted(script: str) -> str:
    return f"'{_digest(script)}'" if script else "'none'"


def _digest(text: str) -> str:
    """Return what a Content-Security-Policy calls a text by (CSP Level 3, hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
