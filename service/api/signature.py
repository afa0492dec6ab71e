"""AWS Signature Version 4, checked: who signed a request, and that nobody has changed it since.

Source: IAM user guide, "Create a signed AWS API request". What was signed is what SignedHeaders
says, byte for byte as it came; region and service are the signer's to choose, since SDKs are
configured with any.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from multidict import CIMultiDictProxy
from yarl import URL

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW: Final = timedelta(minutes=5)

_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} +Credential=(?P<id>[^/,]+)/"
    r"(?P<scope>(?P<day>\d{8})/[^/,]+/[^/,]+/aws4_request),"
    r" *SignedHeaders=(?P<headers>[a-z0-9;._-]+), *Signature=(?P<signature>[0-9a-f]{64})"
)
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"


class BadSignature(Exception):
    """The request is not one that a holder of a key has just signed."""


def check_signature(
    method: str,
    url: URL,
    headers: CIMultiDictProxy[str],
    body: bytes,
    keys: Mapping[str, str],
    now: datetime,
) -> None:
    """Return if the request was signed with one of the keys within SKEW of `now`.

    Raise BadSignature otherwise. `url` is the request's own, undecoded.
    """
    match = _AUTHORIZATION.fullmatch(headers.get("Authorization", "").strip())
    if match is None:
        raise BadSignature("the Authorization header is not of Signature Version 4")
    signed = match["headers"].split(";")
    _check_signed(signed, headers)
    time = headers.get("X-Amz-Date", "")
    _check_time(time, match["day"], now)
    canonical = "\n".join(
        (
            method,
            quote(url.raw_path, safe="/~-._"),
            "&".join(sorted(url.raw_query_string.split("&"))),
            *(f"{name}:{_value(headers, name)}" for name in signed),
            "",
            match["headers"],
            hashlib.sha256(body).hexdigest(),
        )
    )
    digest = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
    text = "\n".join((ALGORITHM, time, match["scope"], digest))
    key = f"AWS4{keys.get(match['id'], '')}".encode()
    for part in (*match["scope"].split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    # Compared for an unknown id too, so that the time does not tell which ids there are.
    if not hmac.compare_digest(key.hex(), match["signature"]) or match["id"] not in keys:
        raise BadSignature("no key of OPS_KEYS makes this signature of this request")


def _check_signed(signed: list[str], headers: CIMultiDictProxy[str]) -> None:
    needed = {"host"} | {name.lower() for name in headers if name.lower().startswith("x-amz-")}
    missing = sorted((needed | {"x-amz-date"}) - set(signed))
    if missing:
        raise BadSignature(f"{', '.join(missing)} must be there and among SignedHeaders")


def _check_time(text: str, day: str, now: datetime) -> None:
    try:
        time = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise BadSignature("X-Amz-Date is not of the form 20261122T120000Z") from None
    if abs(now - time) > SKEW or not text.startswith(day):
        raise BadSignature(
            f"X-Amz-Date is {text}, here it is {now:{_TIME_FORMAT}}; "
            f"{SKEW.seconds // 60} minutes may lie between them"
        )


def _value(headers: CIMultiDictProxy[str], name: str) -> str:
    return ",".join(" ".join(value.split()) for value in headers.getall(name, []))
