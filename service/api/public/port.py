"""The public port's application: signup, verify, their pages, their description, health."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from service import documents
from service.api.answers import answer_bytes
from service.api.application import add_handler, new_application
from service.api.middleware import allow_origins, answer_problems
from service.api.openapi import openapi_document
from service.api.ports import Signups
from service.api.probes import Health, Probe, live, ready
from service.api.public.page import Pages
from service.api.public.signup import SignupHandlers
from service.api.public.verify import VerifyHandlers


@dataclass(frozen=True, slots=True)
class PublicDeps:
    """What the public port is made of. `cors_origins`: exactly as browsers write them.

    `allow_test_domains`: whether addresses in `.test` are taken.
    """

    signups: Signups
    probe: Probe
    version: str
    signup_page: bool = True
    cors_origins: Collection[str] = ()
    allow_test_domains: bool = False


def create_public_app(deps: PublicDeps) -> web.Application:
    """Return the public port's application. Its paths hold behind a proxy that strips a prefix."""
    pages = Pages()
    middlewares = [answer_problems(pages.render_problem)]
    if deps.cors_origins:
        # Outermost, for a page of another origin is to read the problems too.
        middlewares.insert(0, allow_origins(frozenset(deps.cors_origins)))
    app = new_application(middlewares)
    signups = SignupHandlers(deps.signups, pages, allow_test_domains=deps.allow_test_domains)
    signups.add_to(app, with_page=deps.signup_page)
    VerifyHandlers(deps.signups, pages).add_to(app)
    add_handler(app, "GET", "/openapi.json", _description(deps))
    add_handler(app, "GET", "/health/live", live)
    add_handler(app, "GET", "/health/ready", ready(Health(deps.probe), with_reasons=False))
    return app


def _description(deps: PublicDeps) -> Handler:
    document = openapi_document(version=deps.version, signup_page=deps.signup_page)
    body = documents.dumps(document)

    async def handler(request: web.Request) -> web.Response:
        return answer_bytes(body)

    return handler
