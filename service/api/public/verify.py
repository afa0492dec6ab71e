"""Verify an address: an inert page that any link scanner may fetch, and the deed a click does."""

from __future__ import annotations

from aiohttp import web

from service.api.answers import answer_json
from service.api.application import add_handler
from service.api.bodies import read_members, validate
from service.api.ports import Signups
from service.api.problems import Problem
from service.api.public.page import Pages, wants_page
from service.api.schemas import VerifyBody


class VerifyHandlers:
    """The handlers of `/verify`."""

    def __init__(self, signups: Signups, pages: Pages) -> None:
        self._signups = signups
        self._pages = pages

    def add_to(self, app: web.Application) -> None:
        """Add the handlers to the public port's application."""
        add_handler(app, "GET", "/verify", self.page)
        add_handler(app, "POST", "/verify", self.verify)

    async def page(self, request: web.Request) -> web.Response:
        """Answer the confirm page. Nothing is asked of the signups, so nothing can change."""
        return self._pages.verify(request.query.get("token", ""))

    async def verify(self, request: web.Request) -> web.Response:
        """Verify by a link's token, as often as it is sent."""
        body = validate(VerifyBody, await read_members(request))
        verification = await self._signups.verify(body.token)
        if verification.status == "expired":
            raise Problem("expired", "The signup ended before its address was confirmed.")
        if verification.status == "superseded":
            raise Problem("superseded", "Another signup has made this address its own.")
        if wants_page(request):
            return self._pages.outcome("verified")
        return answer_json({"id": str(verification.id), "status": verification.status})
