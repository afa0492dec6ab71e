"""The ops port: health with reasons, metrics, accounts, and the demo's inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service import metrics
from service.api.admin import Accounts
from service.api.answers import answer_bytes, answer_html, answer_json
from service.api.application import add_handler, new_application
from service.api.guard import guard
from service.api.middleware import answer_problems
from service.api.ports import Directory, Inbox
from service.api.probes import Health, Probe, live, ready
from service.api.problems import Problem, render_json
from service.api.stepfunctions import BODY_BYTES_MAX, Action, StepFunctions, render_fault

# The inbox is a page of the demo's own making, mails in it are in sandboxed frames without scripts;
# frames made of `srcdoc` come under the same policy, and mails bring their styles in line.
_INBOX_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class OpsDeps:
    """What the ops port is made of. `actions`: those of the Step Functions API; `keys`: id to
    secret; `inbox`: in the demo only; `now`: what signatures are judged by.
    """

    directory: Directory
    probe: Probe
    actions: Mapping[str, Action] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    inbox: Inbox | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def create_ops_app(deps: OpsDeps) -> web.Application:
    """Return the ops port's application. Without keys it is for a loopback address only."""
    middlewares = [answer_problems(_render), guard(deps.keys, BODY_BYTES_MAX, deps.now)]
    app = new_application(middlewares, BODY_BYTES_MAX)
    add_handler(app, "GET", "/health/live", live)
    add_handler(app, "GET", "/health/ready", ready(Health(deps.probe), with_reasons=True))
    add_handler(app, "GET", "/metrics", _metrics)
    StepFunctions(deps.actions).add_to(app)
    Accounts(deps.directory).add_to(app)
    if deps.inbox is not None:
        add_handler(app, "GET", "/inbox", _inbox_page(deps.inbox))
        add_handler(app, "GET", "/inbox/messages", _inbox_messages(deps.inbox))
    return app


def _render(request: web.BaseRequest, problem: Problem) -> web.Response:
    """Return a problem in the form that the caller of this path knows."""
    return (render_fault if request.path == "/" else render_json)(request, problem)


async def _metrics(request: web.Request) -> web.Response:
    body, content_type = metrics.render()
    return answer_bytes(body, headers={"Content-Type": content_type})


def _inbox_page(inbox: Inbox) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return answer_html(inbox.render_page(), policy=_INBOX_POLICY)

    return handler


def _inbox_messages(inbox: Inbox) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return answer_json([dict(message) for message in inbox.messages()])

    return handler
