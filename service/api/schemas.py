"""The public port's bodies as models, which check requests and become the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service import documents
from service.api.problems import STATUS_BY_CODE

NAME_CHARACTERS_MAX: Final = 100
LOCALE_CHARACTERS_MAX: Final = 35
"""RFC 5646, section 4.4.1: a buffer of 35 characters holds every tag in use."""

DATA_BYTES_MAX: Final = 4096
DATA_DEPTH_MAX: Final = 8
TOKEN_CHARACTERS_MAX: Final = 512

LOCALE_PATTERN: Final = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"
_NAME_PATTERN: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
"""One line of text: a line break in a name could end a header or fake a paragraph of a mail."""


def _check_data(data: dict[str, Any]) -> dict[str, Any]:
    """Return `data` as it is. Raise ValueError when it is too deep or too large to be kept."""
    depth = 0
    level: list[Any] = [data] if data else []
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if depth > DATA_DEPTH_MAX:
        raise ValueError(f"{depth} levels deep; at most {DATA_DEPTH_MAX} are kept")
    size = len(documents.dumps(data))
    if size > DATA_BYTES_MAX:
        raise ValueError(f"{size} bytes as compact JSON; at most {DATA_BYTES_MAX} are kept")
    return data


class _Request(BaseModel):
    """A request knows every member it has: a typo must not pass for a default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SignupForm(_Request):
    """What a visitor fills in to ask for an address."""

    email: str = Field(
        description="At most 64 bytes before the @-sign and 254 in all, in a domain that can have "
        "mail.",
        json_schema_extra={"format": "email"},
    )
    name: str | None = Field(
        default=None,
        max_length=NAME_CHARACTERS_MAX,
        pattern=_NAME_PATTERN,
        description="How mails address the person: one line without control characters.",
    )
    locale: str | None = Field(
        default=None,
        max_length=LOCALE_CHARACTERS_MAX,
        pattern=LOCALE_PATTERN,
        description="The language of the mails as a BCP 47 tag, such as `de-CH`.",
    )


class SignupBody(SignupForm):
    """What a client sends to ask for an address."""

    data: Annotated[dict[str, Any], AfterValidator(_check_data)] = Field(
        default_factory=dict,
        description=f"Kept with the account: at most {DATA_BYTES_MAX} bytes as compact JSON and "
        f"{DATA_DEPTH_MAX} levels deep.",
    )


class VerifyBody(_Request):
    """What the confirm page sends, by script or as a form."""

    token: str = Field(
        max_length=TOKEN_CHARACTERS_MAX, description="The token of the link in the mail."
    )


class SignupAccepted(BaseModel):
    """A signup that was taken, whoever the address belongs to."""

    id: UUID
    secret: str = Field(description="Shown once; needed to ask about this signup.")
    status: Literal["pending"]


class SignupStatus(BaseModel):
    """Where a signup stands."""

    id: UUID
    status: Literal["pending", "verified", "expired"]


class Verified(BaseModel):
    """A signup whose address is now the account's own."""

    id: UUID
    status: Literal["verified"]


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"]


class Readiness(BaseModel):
    """Whether the service can take signups now."""

    status: Literal["ready", "unready"]


class ProblemError(BaseModel):
    """One thing wrong with a request."""

    pointer: str = Field(description="Where: a JSON pointer as a URI fragment (RFC 6901).")
    detail: str


class ProblemDocument(BaseModel):
    """Why a request was not done (RFC 9457). `code` is stable, the sentences are not."""

    type: Literal["about:blank"]
    title: str
    status: int
    code: str = Field(json_schema_extra={"enum": [*sorted(STATUS_BY_CODE)]})
    detail: str
    errors: list[ProblemError] | None = None
    request_id: str | None = Field(
        default=None, description="With `internal_error`: what to look for in the log."
    )
