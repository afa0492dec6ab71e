"""The environment: what it makes, and how everything wrong with it is told at once."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import BadConfiguration, Config, SmtpUrl, load_config, redacted_url

KEY = "k" * 32
NEEDED = {
    "DATABASE_URL": "postgresql://ada:hunter2@db/countersign",
    "SMTP_URL": "smtps://mailer:hunter3@mail:465",
    "SECRET_KEY": KEY,
}


def problems_of(**environ: str) -> list[tuple[str, str]]:
    with pytest.raises(BadConfiguration) as caught:
        load_config(NEEDED | environ)
    return caught.value.problems


def test_what_is_needed_is_enough_and_the_rest_has_its_documented_default() -> None:
    config = load_config(NEEDED)
    assert {name: getattr(config, name) for name in Config.model_fields} == {
        "database_url": "postgresql://ada:hunter2@db/countersign",
        "database_pooler": "off",
        "database_pool_size": 10,
        "migrate": False,
        "smtp_url": SmtpUrl("mail", 465, "implicit", "mailer", "hunter3"),
        "mail_from": "Countersign <no-reply@localhost>",
        "secret_key": (KEY.encode(),),
        "public_url": "http://localhost:8080",
        "cors_origins": (),
        "signup_page": True,
        "host": "0.0.0.0",  # noqa: S104
        "port": 8080,
        "ops_host": "127.0.0.1",
        "ops_port": 8081,
        "ops_keys": {},
        "workflows_dir": config.workflows_dir,
        "verification_workflow": "verification",
        "handlers": (),
        "lambda_endpoint": None,
        "buckets_dir": None,
        "wait_time_scale": 1.0,
        "lease_seconds": 30.0,
        "shutdown_seconds": 10.0,
        "retention_days": 30,
        "tombstone_days": 30,
        "link_seconds_max": 604_800,
        "aws_region": "us-east-1",
        "aws_account_id": "000000000000",
        "log_format": "json",
        "log_level": "info",
    }


def test_every_variable_is_read(tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": "postgres://a,b:5433/x?target_session_attrs=read-write",
        "DATABASE_POOLER": "transaction",
        "DATABASE_POOL_SIZE": "4",
        "MIGRATE": "on",
        "SMTP_URL": "smtp://mail",
        "MAIL_FROM": "Ada <ada@example.org>",
        "SECRET_KEY": f"{KEY}, {'o' * 40}",
        "PUBLIC_URL": "https://example.org/accounts/",
        "CORS_ORIGINS": "https://example.org, http://localhost:3000",
        "SIGNUP_PAGE": "off",
        "HOST": "::",
        "PORT": "0",
        "OPS_HOST": "10.0.0.1",
        "OPS_PORT": "65535",
        "OPS_KEYS": "ada:s:1,bob:s2",
        "WORKFLOWS_DIR": str(tmp_path),
        "VERIFICATION_WORKFLOW": "verify-2",
        "HANDLERS": "shop.handlers, shop.more",
        "LAMBDA_ENDPOINT": "http://lambda:9001/",
        "BUCKETS_DIR": str(tmp_path),
        "WAIT_TIME_SCALE": "0.0333",
        "LEASE_SECONDS": "2",
        "SHUTDOWN_SECONDS": "2.5",
        "RETENTION_DAYS": "14",
        "TOMBSTONE_DAYS": "1",
        "LINK_SECONDS_MAX": "3600",
        "AWS_REGION": "us-gov-west-1",
        "AWS_ACCOUNT_ID": "123456789012",
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "WARNING",
    }
    assert set(given) == {name.upper() for name in Config.model_fields}
    config = load_config(given)
    assert {name: getattr(config, name) for name in Config.model_fields} == {
        "database_url": "postgres://a,b:5433/x?target_session_attrs=read-write",
        "database_pooler": "transaction",
        "database_pool_size": 4,
        "migrate": True,
        "smtp_url": SmtpUrl("mail", 587, "starttls"),
        "mail_from": "Ada <ada@example.org>",
        "secret_key": (KEY.encode(), b"o" * 40),
        "public_url": "https://example.org/accounts",
        "cors_origins": ("https://example.org", "http://localhost:3000"),
        "signup_page": False,
        "host": "::",
        "port": 0,
        "ops_host": "10.0.0.1",
        "ops_port": 65_535,
        "ops_keys": {"ada": "s:1", "bob": "s2"},
        "workflows_dir": tmp_path,
        "verification_workflow": "verify-2",
        "handlers": ("shop.handlers", "shop.more"),
        "lambda_endpoint": "http://lambda:9001",
        "buckets_dir": tmp_path,
        "wait_time_scale": 0.0333,
        "lease_seconds": 2.0,
        "shutdown_seconds": 2.5,
        "retention_days": 14,
        "tombstone_days": 1,
        "link_seconds_max": 3600,
        "aws_region": "us-gov-west-1",
        "aws_account_id": "123456789012",
        "log_format": "console",
        "log_level": "warning",
    }


def test_an_empty_environment_is_told_all_it_lacks() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_config({"DATABASE_URL": ""})
    assert str(caught.value).splitlines() == [
        "DATABASE_URL: is needed: set it, or DATABASE_URL_FILE",
        "SMTP_URL: is needed: set it, or SMTP_URL_FILE",
        "SECRET_KEY: is needed: set it, or SECRET_KEY_FILE",
    ]


def test_what_is_missing_and_what_is_wrong_are_told_together() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_config(
            {"PORT": "http", "LOG_LEVEL": "loud", "SECRET_KEY": KEY, "SMTP_URL": "smtp://m"}
        )
    assert caught.value.problems == [
        ("DATABASE_URL", "is needed: set it, or DATABASE_URL_FILE"),
        ("PORT", "'http' should be a valid integer, unable to parse string as an integer"),
        ("LOG_LEVEL", "'loud' should be 'debug', 'info', 'warning', 'error' or 'critical'"),
    ]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DATABASE_URL", "mysql://ada:pw@db/x", "not a URL that begins with postgresql://"),
        ("DATABASE_URL", "postgresql://ada:pw@[db/x", "not a URL"),
        (
            "DATABASE_URL",
            "postgresql://ada:pw@/x",
            "the URL names no host, neither before its path nor as ?host=/socket/folder",
        ),
        ("DATABASE_POOLER", "session", "'session' should be 'off' or 'transaction'"),
        ("DATABASE_POOL_SIZE", "1", "'1' should be greater than or equal to 2"),
        ("MIGRATE", "yes", "'yes' should be 'on' or 'off'"),
        (
            "MAIL_FROM",
            "Countersign",
            "'Countersign' is not of the form Name <address>",
        ),
        (
            "MAIL_FROM",
            "A <a@b.c>\nBcc: x@y.z",
            "'A <a@b.c>\\nBcc: x@y.z' is not of the form Name <address>",
        ),
        (
            "SECRET_KEY",
            f"{KEY},short",
            "key 2 has 5 bytes, fewer than 32; `openssl rand -hex 32` makes a good one",
        ),
        ("SECRET_KEY", f"{KEY},{KEY}", "one key stands there twice"),
        ("SECRET_KEY", ",".join(f"{KEY}{n}" for n in range(17)), "17 keys, at most 16 are read"),
        ("PUBLIC_URL", "example.org", "should be a valid URL, relative URL without a base"),
        ("PUBLIC_URL", "https://", "should be a valid URL, empty host"),
        (
            "PUBLIC_URL",
            "https://x:99999",
            "should be a valid URL, invalid port number",
        ),
        (
            "PUBLIC_URL",
            "https://u:pw@x/?a=pw",
            "'https://x/' has more than a scheme, a host and a path",
        ),
        ("PUBLIC_URL", "ftp://example.org", "URL scheme should be 'http' or 'https'"),
        ("CORS_ORIGINS", "*", "should be a valid URL, relative URL without a base"),
        (
            "CORS_ORIGINS",
            "https://a.org/",
            "'https://a.org/' is not an origin such as https://example.org",
        ),
        (
            "CORS_ORIGINS",
            "https://A.org:443",
            "'https://A.org:443' is not an origin such as https://example.org",
        ),
        ("HOST", "a b", "'a b' is not a host name or an address"),
        ("PORT", "-1", "'-1' should be greater than or equal to 0"),
        ("PORT", "70000", "'70000' should be less than or equal to 65535"),
        ("PORT", "٨", "'٨' should be a valid integer, unable to parse string as an integer"),
        ("OPS_KEYS", "ada", "entry 1 is not of the form id:secret"),
        ("OPS_KEYS", "ada:x,ada:y", "id 'ada' stands there twice"),
        ("WORKFLOWS_DIR", "/no/such/folder", "'/no/such/folder' does not point to a directory"),
        (
            "VERIFICATION_WORKFLOW",
            "a/b",
            "'a/b' is not a name of 1 to 80 letters, digits, hyphens, underscores",
        ),
        ("LAMBDA_ENDPOINT", "lambda:9001", "URL scheme should be 'http' or 'https'"),
        ("HANDLERS", "shop-handlers", "'shop-handlers' is not the name of a Python module"),
        ("WAIT_TIME_SCALE", "nan", "'nan' should be less than or equal to 1000"),
        ("WAIT_TIME_SCALE", "0", "'0' should be greater than 0"),
        ("LEASE_SECONDS", "inf", "'inf' should be less than or equal to 3600"),
        (
            "SHUTDOWN_SECONDS",
            "ten",
            "'ten' should be a valid number, unable to parse string as a number",
        ),
        ("RETENTION_DAYS", "13", "'13' should be greater than or equal to 14"),
        ("AWS_REGION", "here", "'here' is not a region"),
        ("AWS_ACCOUNT_ID", "1", "'1' is not 12 digits"),
        ("LOG_FORMAT", "xml", "'xml' should be 'json' or 'console'"),
    ],
)
def test_a_malformed_value_is_told_with_its_rule(variable: str, value: str, message: str) -> None:
    assert problems_of(**{variable: value}) == [(variable, message)]


def test_problems_of_every_kind_are_told_together_in_the_order_of_the_fields() -> None:
    assert problems_of(
        LOG_LEVEL="loud",
        OPS_HOST="::",
        PORT_FILE="/dev/zero",
        CORS_ORIGINS="https://a.org,nowhere,https://b.org/",
        SECRET_KEY="",
        SECRET_KEY_FILE="/no/such/file",
    ) == [
        (
            "SECRET_KEY",
            "cannot read SECRET_KEY_FILE: [Errno 2] No such file or directory: '/no/such/file'",
        ),
        ("CORS_ORIGINS", "should be a valid URL, relative URL without a base"),
        ("CORS_ORIGINS", "'https://b.org/' is not an origin such as https://example.org"),
        ("PORT", "/dev/zero is longer than 65536 characters"),
        ("OPS_KEYS", "is needed when OPS_HOST (::) is not loopback"),
        ("LOG_LEVEL", "'loud' should be 'debug', 'info', 'warning', 'error' or 'critical'"),
    ]


def test_no_problem_shows_a_secret_nor_does_its_traceback() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_config(
            {
                "DATABASE_URL": "mysql://ada:hunter2@db/x",
                "SMTP_URL": "smtp://ada:hunter2@mail:x",
                "SECRET_KEY": "hunter2",
                "PUBLIC_URL": "https://ada:hunter2@x:y",
                "CORS_ORIGINS": "https://ada:hunter2@x,ftp://ada:hunter2@x",
                "OPS_KEYS": "hunter2",
            }
        )
    assert len(caught.value.problems) == 7
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_environment_of_the_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9999")
    assert load_config(NEEDED).port == 8080


def test_a_public_url_is_taken_as_a_browser_would_write_it() -> None:
    config = load_config(NEEDED | {"PUBLIC_URL": "HTTPS://Exämple.org:443/sign up/"})
    assert config.public_url == "https://xn--exmple-cua.org/sign%20up"


@pytest.mark.parametrize("host", ["::", "10.0.0.1", "ops.example.org"])
def test_an_ops_port_that_others_reach_needs_keys(host: str) -> None:
    assert problems_of(OPS_HOST=host) == [
        ("OPS_KEYS", f"is needed when OPS_HOST ({host}) is not loopback")
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_ops_port_needs_no_keys(host: str) -> None:
    assert load_config(NEEDED | {"OPS_HOST": host}).ops_keys == {}


def test_malformed_keys_of_an_open_ops_port_are_one_problem() -> None:
    assert problems_of(OPS_HOST="::", OPS_KEYS="ada") == [
        ("OPS_KEYS", "entry 1 is not of the form id:secret")
    ]


def test_a_file_gives_a_value_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(f"{KEY} \r\n".encode())
    environ = NEEDED | {"SECRET_KEY": "", "SECRET_KEY_FILE": str(tmp_path / "key")}
    assert load_config(environ).secret_key == (KEY.encode(),)


def test_a_value_and_a_file_for_one_variable_are_refused() -> None:
    assert problems_of(PORT="1", PORT_FILE="/x") == [
        ("PORT", "is set, and PORT_FILE is too: one of them must go")
    ]


def test_a_file_that_cannot_be_read_is_told() -> None:
    assert problems_of(PORT_FILE="/no/such/file") == [
        ("PORT", "cannot read PORT_FILE: [Errno 2] No such file or directory: '/no/such/file'")
    ]


def test_a_file_without_end_is_not_read_whole() -> None:
    assert problems_of(PORT_FILE="/dev/zero") == [
        ("PORT", "/dev/zero is longer than 65536 characters")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smtps://mail", SmtpUrl("mail", 465, "implicit")),
        ("smtps://u%40x:p%3A%2Fw@mail:4650", SmtpUrl("mail", 4650, "implicit", "u@x", "p:/w")),
        ("smtp://mail", SmtpUrl("mail", 587, "starttls")),
        ("smtp://mail:25?tls=none", SmtpUrl("mail", 25, "none")),
        ("smtp://[::1]:25/?tls=opportunistic", SmtpUrl("::1", 25, "opportunistic")),
        ("smtp://mail?tls=starttls", SmtpUrl("mail", 587, "starttls")),
    ],
)
def test_smtp_urls(text: str, expected: SmtpUrl) -> None:
    assert SmtpUrl.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://u:hunter2@mail", "begins with smtp:// or smtps://"),
        ("smtp://u:hunter2@", "names no host"),
        ("smtp://u:hunter2@mail:0", "port is 0"),
        ("smtp://u:hunter2@mail:x", "host or port is malformed"),
        ("smtp://u:hunter2/x@mail", "host or port is malformed"),
        ("smtp://u:hunter2@mail?tls=maybe", "tls=maybe is none of starttls, opportunistic, none"),
        ("smtps://u:hunter2@mail?tls=none", "tls=none contradicts smtps"),
        ("smtp://u:hunter2@mail?timeout=3", "only \\?tls="),
        ("smtp://u:hunter2@mail/path", "only \\?tls="),
        ("smtp://hunter2@mail", "user and password come together"),
    ],
)
def test_a_bad_smtp_url_is_told_without_its_password(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SmtpUrl.parse(text)
    assert "hunter2" not in str(caught.value)


def test_a_config_can_be_printed_and_not_changed() -> None:
    config = load_config(NEEDED | {"OPS_KEYS": "ada:hunter4"})
    assert not any(secret in repr(config) for secret in ("hunter", KEY))
    with pytest.raises(ValidationError):
        config.port = 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@a:1,b:2/x?password=pw", "postgresql://a:1,b:2/x"),
        ("postgresql://u:p@w@db/x", "postgresql://db/x"),
        ("postgresql://[u:pw@db", "[malformed URL]"),
        ("secret", "[malformed URL]"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redacted_url(url) == shown
