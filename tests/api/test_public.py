"""What holds for every answer of the public port: headers, methods, errors, origins, bad HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import structlog
from aiohttp import web

from service.api import PublicDeps, create_public_app, serve_app
from service.api.application import new_application
from service.api.bodies import BODY_BYTES_MAX
from service.log import add_request_id
from tests.api.conftest import Open, Port
from tests.api.fakes import ID, SECRET, TOKEN, FakeProbe, FakeSignups

ADA = {"email": "ada@example.org"}
SHOP = "https://shop.example.org"
PATHS = ["/", "/verify", "/openapi.json", "/health/live", "/health/ready"]


async def raw(port: Port, request: bytes) -> tuple[bytes, bytes]:
    """Send bytes, and return the interim responses and head of the answer, and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.served.port)
    writer.write(request)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        while b"\r\nContent-Length: " not in head:
            head += await reader.readuntil(b"\r\n\r\n")
        length = head.partition(b"\r\nContent-Length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()
    return head, body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", path) for path in PATHS],
        ("POST", "/signup"),
        ("POST", "/verify"),
        ("GET", "/nowhere"),
        ("DELETE", "/verify"),
        ("GET", f"/signup/{ID}"),
    ],
)
async def test_every_answer_has_its_headers(public: Port, method: str, path: str) -> None:
    answer = await public.ask(method, path)
    assert {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }.items() <= dict(answer.headers).items()
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_head_answers_as_get_does_without_a_body(public: Port, path: str) -> None:
    get = await public.ask("GET", path)
    head = await public.ask("HEAD", path)
    assert (head.status, head.body) == (get.status, b"")
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (b"HTTP/1.1\r\nHost: a", b""),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: close", b"close"),
        (b"HTTP/1.0", b""),
        (b"HTTP/1.0\r\nConnection: keep-alive", b"keep-alive"),
    ],
)
async def test_connection_is_kept_as_the_client_asks(
    public: Port, asked: bytes, answered: bytes
) -> None:
    head, body = await raw(public, b"GET /health/live " + asked + b"\r\n\r\n")
    status_line, *lines = head.rstrip().split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert status_line == asked[:8] + b" 200 OK"
    assert headers.get(b"Connection", b"") == answered
    assert headers[b"Content-Length"] == b"%d" % len(body)
    assert parsedate_to_datetime(headers[b"Date"].decode()).tzinfo is UTC


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/signup", "POST"),
        ("PUT", "/verify", "GET, HEAD, POST"),
        ("OPTIONS", "/signup", "POST"),
        ("PATCH", f"/signup/{ID}", "GET, HEAD"),
        ("DELETE", f"/signup/{ID}", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
async def test_other_methods_are_named_as_not_allowed(
    public: Port, method: str, path: str, allow: str
) -> None:
    answer = await public.ask(method, path)
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == allow
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/nowhere", f"/signup/{ID}/resend", "/suppress", "/accounts", "/metrics", "/signup/"]
)
async def test_other_paths_are_not_found(public: Port, path: str) -> None:
    answer = await public.ask("POST", path)
    assert answer.status == 404
    assert answer.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "Nothing is at this path.",
    }


async def test_fault_of_ours_is_logged_once_and_not_shown(
    public: Port, signups: FakeSignups
) -> None:
    signups.error = RuntimeError("the password is hunter2")
    with structlog.testing.capture_logs(processors=[add_request_id]) as lines:
        answer = await public.ask("POST", "/signup", json=ADA)
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text
    assert lines == [
        {
            "event": "request_failed",
            "log_level": "error",
            "exc_info": True,
            "method": "POST",
            "route": "/signup",
            "request_id": answer.json["request_id"],
        }
    ]


async def test_parts_behind_the_port_log_under_the_request_id(
    public: Port, signups: FakeSignups, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    begin = signups.begin

    async def spy(request: Any) -> Any:
        seen.append(add_request_id(None, "info", {}))
        return await begin(request)

    monkeypatch.setattr(signups, "begin", spy)
    for _ in range(2):
        await public.ask("POST", "/signup", json=ADA)
    assert [set(bound) for bound in seen] == [{"request_id"}] * 2
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/9.9.9\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n",
        b"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_bad_http_is_answered_by_a_problem(public: Port, request_bytes: bytes) -> None:
    head, body = await raw(public, request_bytes)
    assert head.startswith(b"HTTP/1.1 400 ") or head.startswith(b"HTTP/1.0 400 ")
    assert json.loads(body)["code"] == "malformed_request"
    assert b"\r\nServer: " not in head
    assert b"application/problem+json" in head


async def test_what_the_http_server_answers_by_itself_bears_no_banner(public: Port) -> None:
    head, _ = await raw(public, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 417 ")
    assert b"\r\nServer: " not in head


async def test_bad_http_is_not_repeated_in_the_log(public: Port) -> None:
    with structlog.testing.capture_logs() as lines:
        await raw(public, b"GET /verify?token=secret\xff HTTP/1.1\r\nHost: a\r\n\r\n")
    assert lines == [
        {"event": "request_malformed", "log_level": "debug", "error": "InvalidURLError"}
    ]


async def test_fault_outside_the_middleware_is_logged_and_not_shown(open_port: Open) -> None:
    @web.middleware
    async def failing(request: web.Request, handler: Any) -> web.StreamResponse:
        raise RuntimeError("the password is hunter2")

    port = await open_port(new_application([failing]))
    with structlog.testing.capture_logs() as lines:
        answer = await port.ask("GET", "/")
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text
    assert [line["event"] for line in lines] == ["request_failed"]


async def test_broken_chunks_are_answered_by_a_problem(public: Port, signups: FakeSignups) -> None:
    head, body = await raw(
        public,
        b"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    )
    assert b" 400 " in head.splitlines()[0]
    assert json.loads(body)["code"] == "malformed_request"
    assert signups.calls == []


async def test_body_of_chunks_that_came_at_once_has_the_same_bound(
    public: Port, signups: FakeSignups
) -> None:
    size = BODY_BYTES_MAX + 1
    head, body = await raw(
        public,
        b"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size),
    )
    assert b" 413 " in head.splitlines()[0]
    assert json.loads(body)["code"] == "payload_too_large"
    assert signups.calls == []


async def test_slow_body_is_given_up(
    public: Port, signups: FakeSignups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.bodies.BODY_SECONDS_MAX", 0.01)
    head, body = await raw(
        public,
        b"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{",
    )
    assert b" 408 " in head.splitlines()[0]
    assert json.loads(body)["code"] == "body_timeout"
    assert signups.calls == []


async def test_client_waiting_for_leave_to_send_gets_it(public: Port) -> None:
    body = json.dumps(ADA).encode()
    head, _ = await raw(
        public,
        b"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
    )
    assert head.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n")


@pytest.mark.parametrize(
    ("expect", "length", "code"),
    [
        ("100-continue", BODY_BYTES_MAX + 1, "payload_too_large"),
        ("a-miracle", 0, "expectation_failed"),
    ],
)
async def test_expectations_that_cannot_be_met_are_answered_at_once(
    public: Port, expect: str, length: int, code: str
) -> None:
    head, body = await raw(
        public,
        f"POST /signup HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Expect: {expect}\r\nContent-Length: {length}\r\n\r\n".encode(),
    )
    assert b"100 Continue" not in head
    assert json.loads(body)["code"] == code


@pytest.fixture
async def shared(open_port: Open, signups: FakeSignups, probe: FakeProbe) -> Port:
    deps = PublicDeps(signups=signups, probe=probe, version="1", cors_origins=[SHOP])
    return await open_port(create_public_app(deps))


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method}


@pytest.mark.parametrize("path", ["/signup", "/verify", f"/signup/{ID}"])
async def test_named_origin_may_ask_to_call(shared: Port, signups: FakeSignups, path: str) -> None:
    answer = await shared.ask("OPTIONS", path, headers=preflight(SHOP))
    headers = {name: value for name, value in answer.headers.items() if "Access" in name}
    assert (answer.status, answer.body) == (204, b"")
    assert headers == {
        "Access-Control-Allow-Origin": SHOP,
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "authorization, content-type",
        "Access-Control-Max-Age": "600",
        "Access-Control-Expose-Headers": "Retry-After",
    }
    assert answer.headers["Vary"] == "Origin"
    assert signups.calls == []


@pytest.mark.parametrize("token", [TOKEN, "forged"])
async def test_named_origin_may_read_answers_and_problems(shared: Port, token: str) -> None:
    answer = await shared.ask("POST", "/verify", json={"token": token}, headers={"Origin": SHOP})
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"{SHOP}.evil.example",
        SHOP.upper(),
        f"{SHOP}:8443",
        "http://shop.example.org",
        "*",
    ],
)
async def test_other_origins_are_told_nothing(shared: Port, origin: str) -> None:
    asked = await shared.ask("OPTIONS", "/signup", headers=preflight(origin))
    called = await shared.ask("POST", "/signup", json=ADA, headers={"Origin": origin})
    for answer in (asked, called):
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert answer.headers["Vary"] == "Origin"
    assert asked.status == 405


async def test_pages_of_no_origin_may_read_other_paths(shared: Port) -> None:
    answer = await shared.ask("GET", "/openapi.json", headers={"Origin": SHOP})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_named_origins_there_is_no_preflight(public: Port) -> None:
    answer = await public.ask("OPTIONS", "/signup", headers=preflight(SHOP))
    assert answer.status == 405
    assert "Vary" not in answer.headers


async def test_closing_lets_a_request_in_flight_end(
    public: Port, signups: FakeSignups, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    status = signups.status

    async def slow(account_id: Any, secret: str) -> str | None:
        entered.set()
        await leave.wait()
        return await status(account_id, secret)

    monkeypatch.setattr(signups, "status", slow)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            public.ask("GET", f"/signup/{ID}", headers={"Authorization": f"Bearer {SECRET}"})
        )
        await entered.wait()
        closing = tasks.create_task(public.served.close())
        await asyncio.sleep(0)
        leave.set()
    assert closing.done()
    assert asking.result().json == {"id": str(ID), "status": "pending"}
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.1", int(public.url.rpartition(":")[2]))


async def test_taken_port_is_refused(public: Port, public_deps: PublicDeps) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await serve_app(create_public_app(public_deps), "127.0.0.1", public.served.port)


async def test_connections_beyond_the_bound_are_closed(
    public: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.server.CONNECTIONS_MAX", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", public.served.port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()
