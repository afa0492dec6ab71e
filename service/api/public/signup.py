"""Sign up, and ask where a signup stands.

Nothing here depends on whether an address is known: a stranger learns it from no answer and no
time. That is decided behind `Signups`, and comes back the same either way.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from service.accounts.address import parse_address
from service.accounts.signup import SignupRequest
from service.api.answers import answer_json
from service.api.application import add_handler
from service.api.bodies import is_form, read_members, validate
from service.api.ids import path_id
from service.api.ports import Signups
from service.api.problems import Problem
from service.api.public.page import Pages, wants_page
from service.api.schemas import LOCALE_CHARACTERS_MAX, LOCALE_PATTERN, SignupBody, SignupForm

_LANGUAGE: Final = re.compile(LOCALE_PATTERN)


class SignupHandlers:
    """The handlers of `/signup`, and of the page at `/`."""

    def __init__(self, signups: Signups, pages: Pages, *, allow_test_domains: bool) -> None:
        self._signups = signups
        self._pages = pages
        self._allow_test_domains = allow_test_domains

    def add_to(self, app: web.Application, *, with_page: bool) -> None:
        """Add the handlers to the public port's application."""
        add_handler(app, "POST", "/signup", self.begin)
        add_handler(app, "GET", "/signup/{id}", self.status)
        if with_page:
            add_handler(app, "GET", "/", self.page)

    async def begin(self, request: web.Request) -> web.Response:
        """Take a signup; the mail goes out later."""
        begun = await self._signups.begin(await self._read(request))
        if wants_page(request):
            return self._pages.outcome("accepted", status=202)
        return answer_json(
            {"id": str(begun.id), "secret": begun.secret, "status": "pending"}, status=202
        )

    async def _read(self, request: web.Request) -> SignupRequest:
        members = await read_members(request)
        if is_form(request):
            form = validate(SignupForm, members)
            locale, data = form.locale or _first_language(request), {}
        else:
            form = body = validate(SignupBody, members)
            locale, data = body.locale, body.data
        address = parse_address(form.email, allow_test_domains=self._allow_test_domains)
        return SignupRequest(address, name=form.name or None, locale=locale, data=data)

    async def status(self, request: web.Request) -> web.Response:
        """Answer where a signup stands to whoever holds its secret."""
        secret = _bearer_secret(request)
        id = path_id(request)
        status = None if id is None else await self._signups.status(id, secret)
        if status is None:
            raise Problem("unknown_signup", "No signup has this id and secret.")
        return answer_json({"id": str(id), "status": status})

    async def page(self, request: web.Request) -> web.Response:
        """Answer the sign-up page."""
        return self._pages.signup()


def _first_language(request: web.Request) -> str | None:
    """Return the language that the browser asks for first; a form without scripts has no other."""
    first = request.headers.get("Accept-Language", "").split(",")[0].split(";")[0].strip()
    is_tag = len(first) <= LOCALE_CHARACTERS_MAX and _LANGUAGE.fullmatch(first)
    return first if is_tag else None


def _bearer_secret(request: web.Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Problem(
            "unauthorized",
            "The signup's secret is needed: Authorization: Bearer <secret>.",
            headers={"WWW-Authenticate": 'Bearer realm="signup"'},
        )
    return secret.strip()
