"""AWS Signature V4: what a holder of a key has signed passes, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from service.api import OpsDeps, create_ops_app
from service.api.signature import SKEW, BadSignature, check_signature
from tests.api.conftest import Answer, Open, Port
from tests.api.fakes import FakeDirectory, FakeProbe

ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS = {"other": "secret", ID: SECRET}
SIGNED_AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)

# The worked example of the AWS General Reference, "Examples of the complete Signature Version 4
# signing process": its key, request and signature.
EXAMPLE_URL = URL("/?Action=ListUsers&Version=2010-05-08", encoded=True)
EXAMPLE_SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


def example(**changed: str) -> CIMultiDictProxy[str]:
    headers = CIMultiDict(
        {
            "Host": "iam.amazonaws.com",
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "X-Amz-Date": "20150830T123600Z",
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/iam/aws4_request, "
                f"SignedHeaders=content-type;host;x-amz-date, Signature={EXAMPLE_SIGNATURE}"
            ),
        }
    )
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    return CIMultiDictProxy(headers)


def check(
    headers: CIMultiDictProxy[str],
    *,
    method: str = "GET",
    url: URL = EXAMPLE_URL,
    body: bytes = b"",
    now: datetime = SIGNED_AT,
) -> None:
    check_signature(method, url, headers, body, KEYS, now)


def test_the_worked_example_of_aws_holds() -> None:
    check(example())
    check(example(), now=SIGNED_AT + SKEW)
    check(example(), now=SIGNED_AT - SKEW)


def test_order_of_the_query_and_spaces_in_headers_do_not_matter() -> None:
    check(
        example(Content_Type="application/x-www-form-urlencoded;   charset=utf-8 "),
        url=URL("/?Version=2010-05-08&Action=ListUsers", encoded=True),
    )


def test_anything_changed_since_is_noticed() -> None:
    authorization = example()["Authorization"]
    for change in (
        {"method": "POST"},
        {"url": URL("/?Action=ListUsers&Version=2010-05-09", encoded=True)},
        {"url": URL("/more?Action=ListUsers&Version=2010-05-08", encoded=True)},
        {"body": b"x"},
        {"headers": example(Host="IAM.amazonaws.com")},
        {"headers": example(Content_Type="text/plain")},
        {"headers": example(Authorization=authorization.replace(ID, "other"))},
        {"headers": example(Authorization=authorization.replace(ID, "nobody"))},
        {"headers": example(Authorization=authorization.replace("us-east-1", "us-east-2"))},
        {"headers": example(Authorization=authorization.replace("5d672d", "5d672e"))},
    ):
        with pytest.raises(BadSignature, match="no key of OPS_KEYS makes this signature"):
            check(**({"headers": example()} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("off", [SKEW + timedelta(seconds=1), -SKEW - timedelta(seconds=1)])
def test_a_clock_too_far_off_is_told(off: timedelta) -> None:
    with pytest.raises(BadSignature, match="5 minutes may lie between them"):
        check(example(), now=SIGNED_AT + off)


def test_headers_of_aws_that_were_not_signed_are_refused() -> None:
    with pytest.raises(BadSignature, match="x-amz-target must be there and among SignedHeaders"):
        check(example(X_Amz_Target="AWSStepFunctions.DeleteStateMachine"))
    authorization = example()["Authorization"].replace("content-type;host;", "content-type;")
    with pytest.raises(BadSignature, match="host must be there"):
        check(example(Authorization=authorization))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"Authorization": "AWS4-HMAC-SHA256 nonsense"}, "not of Signature Version 4"),
        ({"Authorization": ""}, "not of Signature Version 4"),
        ({"X_Amz_Date": "today"}, "not of the form"),
        ({"X_Amz_Date": "20150831T000000Z"}, "minutes may lie between"),
    ],
)
def test_what_is_no_signature_is_told(changed: dict[str, str], rule: str) -> None:
    with pytest.raises(BadSignature, match=rule):
        check(example(**changed))


# On the port


def signed(port: Port, body: bytes, target: str, secret: str = SECRET) -> dict[str, str]:
    """Return the headers of a request as an SDK signs it."""
    host = port.url.removeprefix("http://")
    time, scope = "20150830T123600Z", "20150830/us-east-1/states/aws4_request"
    canonical = (
        f"POST\n/\n\nhost:{host}\nx-amz-date:{time}\nx-amz-target:{target}\n\n"
        f"host;x-amz-date;x-amz-target\n{hashlib.sha256(body).hexdigest()}"
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode(), "sha256")
    return {
        "Host": host,
        "X-Amz-Date": time,
        "X-Amz-Target": target,
        "Authorization": (
            f"AWS4-HMAC-SHA256 Credential={ID}/{scope}, "
            f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={key.hex()}"
        ),
    }


async def ask(port: Port, body: bytes, headers: dict[str, str]) -> Answer:
    return await port.ask("POST", "/", data=body, headers=headers)


async def test_the_port_takes_a_signed_request_and_no_other(open_port: Open) -> None:
    async def echo(members: dict[str, object]) -> dict[str, object]:
        return members

    deps = OpsDeps(FakeDirectory(), FakeProbe(), {"Echo": echo}, keys=KEYS, now=lambda: SIGNED_AT)  # type: ignore[dict-item]
    port = await open_port(create_ops_app(deps))
    body, target = b'{"n":1}', "AWSStepFunctions.Echo"
    taken = await ask(port, body, signed(port, body, target))
    assert (taken.status, taken.json) == (200, {"n": 1})
    for other in (
        await ask(port, b'{"n":2}', signed(port, body, target)),
        await ask(port, body, signed(port, body, target, secret="wrong")),
        await ask(port, body, {"X-Amz-Target": target}),
    ):
        assert (other.status, other.json["__type"]) == (401, "UnrecognizedClientException")
