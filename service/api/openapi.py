"""The OpenAPI 3.1 document of the public port, made of the models that check its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.answers import JSON_TYPE
from service.api.bodies import BODY_BYTES_MAX, FORM_TYPE
from service.api.problems import CONTENT_TYPE as PROBLEM_TYPE
from service.api.problems import STATUS_BY_CODE
from service.api.schemas import (
    Live,
    ProblemDocument,
    Readiness,
    SignupAccepted,
    SignupBody,
    SignupForm,
    SignupStatus,
    Verified,
    VerifyBody,
)

_REFERENCE: Final = "#/components/schemas/{model}"
_PAGE: Final[dict[str, Any]] = {"text/html": {"schema": {"type": "string"}}}

_ALWAYS: Final = ("malformed_request", "internal_error")
_BODY: Final = (
    "malformed_json",
    "malformed_form",
    "body_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "expectation_failed",
    "invalid_request",
)
_BUSY: Final = ("overloaded", "unavailable")


def openapi_document(*, version: str, signup_page: bool) -> dict[str, Any]:
    """Return the document for this version of the service, with or without the sign-up page."""
    paths = {
        "/signup": {"post": _signup()},
        "/signup/{id}": {"get": _signup_status()},
        "/verify": {"get": _verify_page(), "post": _verify()},
        "/openapi.json": {"get": _description()},
        "/health/live": {"get": _live()},
        "/health/ready": {"get": _ready()},
    }
    if signup_page:
        paths["/"] = {"get": _operation("signUpPage", "The sign-up page.", {"200": _page("It.")})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Countersign, public port",
            "version": version,
            "description": f"Sign up, and verify an email address. Bodies hold at most "
            f"{BODY_BYTES_MAX} bytes; errors are problem documents with a stable `code`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "secret": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The secret that the signup's 202 answer carried.",
                }
            },
        },
    }


def _schemas() -> dict[str, Any]:
    requests = (SignupBody, SignupForm, VerifyBody)
    answers = (SignupAccepted, SignupStatus, Verified, Live, Readiness, ProblemDocument)
    _, schema = models_json_schema(
        [(model, "validation") for model in (*requests, *answers)], ref_template=_REFERENCE
    )
    schemas: dict[str, Any] = schema["$defs"]
    return schemas


def _signup() -> dict[str, Any]:
    return _operation(
        "signUp",
        "Ask for an address. A mail with a link goes out; the answer does not wait for it and is "
        "the same whether the address is new, pending or verified.",
        {"202": _answer("Taken.", SignupAccepted, page=True)},
        codes=(*_BODY, "invalid_email", *_BUSY),
        body=_body(SignupBody, SignupForm),
    )


def _signup_status() -> dict[str, Any]:
    return {
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
            }
        ],
        "security": [{"secret": []}],
        **_operation(
            "getSignup",
            "Ask where a signup stands. An unknown id and a wrong secret answer alike.",
            {"200": _answer("Where it stands.", SignupStatus)},
            codes=("unauthorized", "unknown_signup", *_BUSY),
        ),
    }


def _verify_page() -> dict[str, Any]:
    parameters = [
        ("id", "The signup's id, for people to read; it decides nothing."),
        ("token", "The token, for browsers that run no scripts; what is none is ignored."),
    ]
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "description": description,
                "schema": {"type": "string"},
            }
            for name, description in parameters
        ],
        **_operation(
            "confirmPage",
            "The page that the mail's link opens. It changes nothing, whatever fetches it.",
            {"200": _page("A page with one button.")},
        ),
    }


def _verify() -> dict[str, Any]:
    return _operation(
        "verify",
        "Verify the address that the link was mailed to. Repeating it answers the same.",
        {"200": _answer("Verified, now or before.", Verified, page=True)},
        codes=(*_BODY, "unknown_token", "expired", "superseded", *_BUSY),
        body=_body(VerifyBody, VerifyBody),
    )


def _description() -> dict[str, Any]:
    answer = {"description": "It.", "content": {JSON_TYPE: {"schema": {"type": "object"}}}}
    return _operation("describe", "This document.", {"200": answer})


def _live() -> dict[str, Any]:
    return _operation("live", "Whether the process answers.", {"200": _answer("It does.", Live)})


def _ready() -> dict[str, Any]:
    return _operation(
        "ready",
        "Whether the service can take signups now.",
        {"200": _answer("It can.", Readiness), "503": _answer("It cannot.", Readiness)},
    )


def _operation(
    name: str,
    description: str,
    answers: dict[str, Any],
    *,
    codes: Sequence[str] = (),
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation = {
        "operationId": name,
        "description": description,
        "responses": answers | _problems((*_ALWAYS, *codes), page=body is not None),
    }
    return operation if body is None else operation | {"requestBody": body}


def _problems(codes: Sequence[str], *, page: bool) -> dict[str, Any]:
    """Return one response for each status, naming the codes that have it."""
    by_status: dict[str, list[str]] = {}
    for code in codes:
        by_status.setdefault(str(STATUS_BY_CODE[code].value), []).append(code)
    content = {PROBLEM_TYPE: _schema(ProblemDocument)} | (_PAGE if page else {})
    return {
        status: {"description": " or ".join(f"`{code}`" for code in codes), "content": content}
        | ({"headers": _RETRY_AFTER} if status == "503" else {})
        for status, codes in by_status.items()
    }


_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which another try makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def _body(json: type[BaseModel], form: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {JSON_TYPE: _schema(json), FORM_TYPE: _schema(form)}}


def _answer(description: str, model: type[BaseModel], *, page: bool = False) -> dict[str, Any]:
    content = {JSON_TYPE: _schema(model)} | (_PAGE if page else {})
    return {"description": description, "content": content}


def _page(description: str) -> dict[str, Any]:
    return {"description": description, "content": _PAGE}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
