"""Properties: whatever is sent, no answer is a fault of ours, and nothing unfit gets through."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import aiohttp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.accounts.address import Address
from service.accounts.signup import SignupRequest
from service.api import OpsDeps, PublicDeps, create_ops_app, create_public_app, serve_app
from service.api.problems import STATUS_BY_CODE
from tests.api.conftest import Answer, Port
from tests.api.fakes import FakeDirectory, FakeProbe, FakeSignups

EXAMPLES_MAX = 60
UNFIT = re.compile("[\x00\ud800-\udfff]")
TYPES = ["application/json", "application/x-www-form-urlencoded", "text/plain", ""]

any_text = st.text(st.characters(codec=None), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
signups_of_a_kind = st.fixed_dictionaries(
    {"email": any_text | st.just("ada@example.org") | st.emails()},
    optional={
        "name": any_text | documents,
        "locale": any_text | st.sampled_from(["de", "x"]),
        "data": documents | st.dictionaries(any_text, documents, max_size=3),
        "token": any_text,
    },
)
bodies = st.binary(max_size=60) | (documents | signups_of_a_kind).map(
    lambda value: json.dumps(value).encode()
)


async def answered(app: aiohttp.web.Application, method: str, path: str, **options: Any) -> Answer:
    served = await serve_app(app, "127.0.0.1", 0, shutdown_seconds=1)
    try:
        async with aiohttp.ClientSession() as session:
            port = Port(f"http://127.0.0.1:{served.port}", session, served)
            return await port.ask(method, path, **options)
    finally:
        await served.close()


def all_text(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in all_text(each)]
    return [text for each in value for text in all_text(each)] if isinstance(value, list) else []


def assert_fit(request: SignupRequest) -> None:
    assert isinstance(request.address, Address)
    texts = [request.address.given, request.name, request.locale, request.data]
    assert not [text for text in all_text(texts) if UNFIT.search(text)]


@given(body=bodies, content_type=st.sampled_from(TYPES), path=st.sampled_from(["signup", "verify"]))
@settings(max_examples=EXAMPLES_MAX, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_junk_is_a_problem_and_is_not_passed_on(
    body: bytes, content_type: str, path: str
) -> None:
    signups = FakeSignups()
    app = create_public_app(PublicDeps(signups=signups, probe=FakeProbe(), version="1"))
    answer = await answered(
        app, "POST", f"/{path}", data=body, headers={"Content-Type": content_type}
    )
    if answer.status == 202:
        assert_fit(signups.calls[0][1])
    elif answer.headers["Content-Type"] == "application/problem+json":
        assert answer.status == STATUS_BY_CODE[answer.json["code"]] < 500
        assert [name for name, _ in signups.calls] in ([], ["verify"])
    else:
        assert (content_type, answer.status < 500) == (TYPES[1], True)


@given(path=st.binary(max_size=20), method=st.sampled_from(["GET", "HEAD", "POST", "DELETE", "X"]))
@settings(max_examples=EXAMPLES_MAX, deadline=None)
async def test_no_path_or_query_is_a_fault_of_ours(path: bytes, method: str) -> None:
    public = create_public_app(PublicDeps(FakeSignups(), FakeProbe(), version="1"))
    ops = create_ops_app(OpsDeps(FakeDirectory(), FakeProbe()))
    junk = quote(path, safe="?&=/")
    for app, prefix in [
        (public, "/signup/"),
        (public, "/verify?token="),
        (ops, "/accounts?email="),
    ]:
        answer = await answered(app, method, prefix + junk)
        assert answer.status < 500
