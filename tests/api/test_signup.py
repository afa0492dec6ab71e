"""POST /signup and GET /signup/{id}: what is taken, what is refused, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.accounts.address import parse_address
from service.accounts.signup import SignupRequest
from service.api.bodies import BODY_BYTES_MAX, BODY_DEPTH_MAX, FORM_FIELDS_MAX
from service.api.schemas import DATA_BYTES_MAX, DATA_DEPTH_MAX, NAME_CHARACTERS_MAX
from service.engine.ports import Overloaded, Unavailable
from tests.api.conftest import Answer, Port
from tests.api.fakes import ID, OTHER_ID, SECRET, FakeSignups

ADA = {"email": "ada@example.org"}


async def sign_up(public: Port, body: Any) -> Answer:
    return await public.ask("POST", "/signup", json=body)


async def send(public: Port, body: bytes, content_type: str = "application/json") -> Answer:
    return await public.ask("POST", "/signup", data=body, headers={"Content-Type": content_type})


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


async def test_signup_is_taken(public: Port, signups: FakeSignups) -> None:
    answer = await sign_up(
        public, {**ADA, "name": "Ada", "locale": "de-CH", "data": {"plan": [1, None]}}
    )
    assert answer.status == 202
    assert answer.json == {"id": str(ID), "secret": SECRET, "status": "pending"}
    assert signups.calls == [
        (
            "begin",
            SignupRequest(parse_address("ada@example.org"), "Ada", "de-CH", {"plan": [1, None]}),
        )
    ]


async def test_signup_needs_an_address_only(public: Port, signups: FakeSignups) -> None:
    assert (await sign_up(public, ADA)).status == 202
    assert (await sign_up(public, {**ADA, "name": None, "locale": None})).status == 202
    assert (await sign_up(public, {**ADA, "name": ""})).status == 202
    bare = SignupRequest(parse_address("ada@example.org"), None, None, {})
    assert signups.calls == [("begin", bare)] * 3


async def test_exact_numbers_of_data_are_kept(public: Port, signups: FakeSignups) -> None:
    await send(
        public, b'{"email": "ada@example.org", "data": {"n": 123456789012345678901234567890}}'
    )
    assert signups.calls[0][1].data == {"n": 123456789012345678901234567890}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/email"),
        ({"email": 5}, "#/email"),
        ({"email": None}, "#/email"),
        ({**ADA, "name": ["Ada"]}, "#/name"),
        ({**ADA, "name": "a" * (NAME_CHARACTERS_MAX + 1)}, "#/name"),
        ({**ADA, "name": "Ada\r\nBcc: eve@example.org"}, "#/name"),
        ({**ADA, "name": "Ada\u2028Eve"}, "#/name"),
        ({**ADA, "name": "Ada\u0000"}, "#/name"),
        ({**ADA, "locale": "de_CH"}, "#/locale"),
        ({**ADA, "locale": "de-CH\n"}, "#/locale"),
        ({**ADA, "locale": "de-" + "-".join(["abcdefgh"] * 4)}, "#/locale"),
        ({**ADA, "data": []}, "#/data"),
        ({**ADA, "data": None}, "#/data"),
        ({**ADA, "data": "plan"}, "#/data"),
        ({**ADA, "data": {"a": "x" * DATA_BYTES_MAX}}, "#/data"),
        ({**ADA, "data": nested(DATA_DEPTH_MAX + 1)}, "#/data"),
        ({**ADA, "data": {"a/b": {"c~": ["\u0000"]}}}, "#/data/a~1b/c~0/0"),
        ({**ADA, "data": {"k\u0000": 1}}, "#/data/k%00"),
        ({**ADA, "redirect_url": "https://example.org"}, "#/redirect_url"),
        ([], "#"),
        ("ada@example.org", "#"),
    ],
)
async def test_wrong_member_is_named(
    public: Port, signups: FakeSignups, body: Any, pointer: str
) -> None:
    answer = await sign_up(public, body)
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert signups.calls == []


async def test_all_faults_are_named_at_once(public: Port) -> None:
    answer = await sign_up(public, {"name": 1, "plan": "free"})
    assert answer.json == {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "code": "invalid_request",
        "detail": "email is missing. name: Input should be a valid string. "
        "plan is not a member of this request.",
        "errors": [
            {"pointer": "#/email", "detail": "email is missing."},
            {"pointer": "#/name", "detail": "name: Input should be a valid string."},
            {"pointer": "#/plan", "detail": "plan is not a member of this request."},
        ],
    }


@pytest.mark.parametrize(
    "email",
    ["", " ", "ada", "ada@", "@example.org", "ada@example.org\r\nBcc: eve@example.org", "a" * 300],
)
async def test_what_is_no_address_is_refused(
    public: Port, signups: FakeSignups, email: str
) -> None:
    answer = await sign_up(public, {"email": email})
    assert (answer.status, answer.json["code"]) == (422, "invalid_email")
    assert [error["pointer"] for error in answer.json["errors"]] == ["#/email"]
    assert signups.calls == []


@pytest.mark.parametrize("half", ["\\ud800", "\\udfff", "\\udc00\\ud800"])
@pytest.mark.parametrize("member", ["email", "name"])
async def test_half_a_surrogate_pair_is_refused(
    public: Port, signups: FakeSignups, member: str, half: str
) -> None:
    body = json.dumps({**ADA, member: "HALF"}).replace("HALF", half)
    answer = await send(public, body.encode())
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")
    assert answer.json["errors"][0]["pointer"] == f"#/{member}"
    assert signups.calls == []


async def test_whole_surrogate_pair_is_a_character(public: Port, signups: FakeSignups) -> None:
    await send(public, b'{"email": "ada@example.org", "name": "\\ud83d\\ude00"}')
    assert signups.calls[0][1].name == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'email': 1}",
        b"nope",
        b"[1e400]",
        b"[NaN]",
        b'{"a": 1} {"b": 2}',
        b"\xef\xbb\xbf{}",
    ],
)
async def test_malformed_json_is_refused(public: Port, signups: FakeSignups, body: bytes) -> None:
    answer = await send(public, body)
    assert (answer.status, answer.json["code"]) == (400, "malformed_json")
    assert signups.calls == []


async def test_deep_nesting_is_refused(public: Port, signups: FakeSignups) -> None:
    for depth in (BODY_DEPTH_MAX, 8000):
        answer = await send(public, b'{"data":' + b"[" * depth + b"]" * depth + b"}")
        assert (answer.status, answer.json["code"]) == (400, "malformed_json")
    assert signups.calls == []


async def test_data_at_its_bounds_is_taken(public: Port, signups: FakeSignups) -> None:
    largest = {"a": "x" * (DATA_BYTES_MAX - len('{"a":""}'))}
    for data in (largest, nested(DATA_DEPTH_MAX)):
        assert (await sign_up(public, {**ADA, "data": data})).status == 202
    assert [call[1].data for call in signups.calls] == [largest, nested(DATA_DEPTH_MAX)]


@pytest.mark.parametrize(
    "body", [b'{"email": "\xff"}', b'{"name": "\xed\xa0\x80"}', b"\xfe\xff\x00{"]
)
async def test_what_is_no_utf_8_is_refused(public: Port, body: bytes) -> None:
    answer = await send(public, body)
    assert (answer.status, answer.json["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data"])
async def test_other_content_types_are_refused(
    public: Port, signups: FakeSignups, content_type: str
) -> None:
    answer = await send(public, json.dumps(ADA).encode(), content_type)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
    assert signups.calls == []


async def test_packed_body_is_refused(public: Port, signups: FakeSignups) -> None:
    answer = await public.ask("POST", "/signup", json=ADA, compress="deflate")
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
    assert signups.calls == []


async def test_body_of_16_kib_is_read_and_one_byte_more_is_not(
    public: Port, signups: FakeSignups
) -> None:
    body = json.dumps(ADA).encode()
    assert (await send(public, body.ljust(BODY_BYTES_MAX))).status == 202
    answer = await send(public, body.ljust(BODY_BYTES_MAX + 1))
    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
    assert len(signups.calls) == 1


async def test_large_body_of_unknown_length_is_refused(public: Port, signups: FakeSignups) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 4096

    answer = await public.ask(
        "POST", "/signup", data=chunks(), headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
    assert signups.calls == []


@pytest.mark.parametrize(
    ("error", "code", "seconds"),
    [(Overloaded(), "overloaded", "1"), (Unavailable(), "unavailable", "2")],
)
async def test_busy_service_says_when_to_come_back(
    public: Port, signups: FakeSignups, error: Exception, code: str, seconds: str
) -> None:
    signups.error = error
    answer = await sign_up(public, ADA)
    assert (answer.status, answer.json["code"]) == (503, code)
    assert answer.headers["Retry-After"] == seconds


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (2.5, "3")])
async def test_time_to_come_back_is_whole_seconds_and_never_at_once(
    public: Port, signups: FakeSignups, seconds: float, header: str
) -> None:
    signups.error = Overloaded()
    signups.error.retry_after_seconds = seconds
    assert (await sign_up(public, ADA)).headers["Retry-After"] == header


async def test_form_is_answered_by_a_page(public: Port, signups: FakeSignups) -> None:
    answer = await public.ask(
        "POST",
        "/signup",
        data={"email": "ada@example.org", "name": ""},
        headers={"Accept-Language": "fr-CA;q=0.9, en"},
    )
    assert answer.status == 202
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Check your mail" in answer.text
    assert SECRET not in answer.text
    request = SignupRequest(parse_address("ada@example.org"), None, "fr-CA", {})
    assert signups.calls == [("begin", request)]


async def test_form_that_asks_for_json_gets_it(public: Port) -> None:
    answer = await public.ask("POST", "/signup", data=ADA, headers={"Accept": "application/json"})
    assert answer.json == {"id": str(ID), "secret": SECRET, "status": "pending"}


@pytest.mark.parametrize("header", ["*", "", "de_CH", "x" * 40, "<script>"])
async def test_form_without_a_usable_language_has_none(
    public: Port, signups: FakeSignups, header: str
) -> None:
    await public.ask("POST", "/signup", data=ADA, headers={"Accept-Language": header})
    assert signups.calls[0][1].locale is None


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"email": "ada"}, 422, "Mail cannot be sent to this address"),
        ({"name": "Ada"}, 422, "email is missing."),
        ({"email": "ada@example.org", "name": "a\nb"}, 422, "Please check what you filled in"),
        ({f"f{n}": "1" for n in range(FORM_FIELDS_MAX + 1)}, 400, "That did not work"),
    ],
)
async def test_bad_form_is_answered_by_a_page(
    public: Port, signups: FakeSignups, form: dict[str, str], status: int, words: str
) -> None:
    answer = await public.ask("POST", "/signup", data=form)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert words in answer.text
    assert signups.calls == []


async def test_page_of_a_bad_form_escapes_what_was_sent(public: Port) -> None:
    answer = await public.ask("POST", "/signup", data={"<script>alert(1)</script>": "1", **ADA})
    assert answer.status == 422
    assert "<script>" not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text


@pytest.mark.parametrize("status", ["pending", "verified", "expired"])
async def test_status_is_told_to_the_holder_of_the_secret(
    public: Port, signups: FakeSignups, status: str
) -> None:
    signups.current = status
    answer = await public.ask("GET", f"/signup/{ID}", headers={"Authorization": f"Bearer {SECRET}"})
    assert (answer.status, answer.json) == (200, {"id": str(ID), "status": status})


async def test_unknown_id_and_wrong_secret_answer_alike(public: Port) -> None:
    answers = [
        await public.ask("GET", f"/signup/{id}", headers={"Authorization": f"bearer {secret}"})
        for id, secret in [
            (ID, "wrong"),
            (OTHER_ID, SECRET),
            ("no-uuid", SECRET),
            (ID.hex, SECRET),
        ]
    ]
    assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert answers[0].json["code"] == "unknown_signup"


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic YTpi"}]
)
async def test_status_needs_a_secret(
    public: Port, signups: FakeSignups, headers: dict[str, str]
) -> None:
    answer = await public.ask("GET", f"/signup/{ID}", headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="signup"'
    assert signups.calls == []
