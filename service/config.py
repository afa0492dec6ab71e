"""Config: everything an operator can set, read from the environment once, reported on at once.

A field says by a function of ours how its text is read. pydantic-settings would coerce as well, but
`NAME_FILE`, messages in an operator's words and secrets that reach no message would each have to be
undone and done again on top of it.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from service.resources import resource_path

SECRET_BYTES_MIN: Final = 32
SECRETS_MAX: Final = 16
VALUE_FILE_CHARACTERS_MAX: Final = 65_536
OPS_HOST_DEFAULT: Final = "127.0.0.1"

TlsMode = Literal["implicit", "starttls", "opportunistic", "none"]
_TLS_MODES: Final[dict[str, TlsMode]] = {
    "starttls": "starttls",
    "opportunistic": "opportunistic",
    "none": "none",
}


class BadConfiguration(Exception):
    """The environment does not make a Config. `problems` names every variable at fault, and why."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{variable}: {message}" for variable, message in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class SmtpUrl:
    """A mail server and how to speak to it: `smtps://user:pass@host:465`, `smtp://host:587`.

    `tls` is "implicit" for smtps, else what `?tls=` says, else "starttls", which is then required.
    """

    host: str
    port: int
    tls: TlsMode
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> SmtpUrl:
        """Return the parts of a URL, user and password percent-decoded.

        Raises ValueError, which shows no credentials, for another scheme or `tls`, for a missing
        host, and for a user without password or the reverse.
        """
        url = _split_url(text, {"smtp", "smtps"})
        asked = parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
        tls = asked.pop("tls", ["implicit" if url.scheme == "smtps" else "starttls"])[-1]
        if url.scheme == "smtps" and tls != "implicit":
            raise ValueError(f"tls={tls} contradicts smtps, which is TLS from the first byte")
        if url.scheme == "smtp" and tls not in _TLS_MODES:
            raise ValueError(f"tls={tls} is none of {', '.join(_TLS_MODES)}")
        if asked or url.path not in ("", "/") or url.fragment:
            raise ValueError("only ?tls=… may follow the host and port")
        if (url.username is None) != (url.password is None):
            raise ValueError("user and password come together, as in smtps://user:pass@host")
        return cls(
            host=url.hostname or "",
            port=url.port or (465 if url.scheme == "smtps" else 587),
            tls="implicit" if url.scheme == "smtps" else _TLS_MODES[tls],
            username=None if url.username is None else unquote(url.username),
            password=None if url.password is None else unquote(url.password),
        )


def redacted_url(text: str) -> str:
    """Return a URL to show: its credentials and its query, which may hold others, left out."""
    try:
        url = urlsplit(text)
    except ValueError:
        return "[malformed URL]"
    hosts = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{hosts}{url.path}" if url.scheme else "[malformed URL]"


# Readers: text of a variable in, value out, ValueError with a sentence about what is wrong.
# Those of secrets never put the text into the sentence.


def _split_url(text: str, schemes: set[str]) -> SplitResult:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # Its own words may quote a part of the password.
        raise ValueError(
            "not a URL: its host or port is malformed"
            " (in a password, @ / : ? # are percent-encoded)"
        ) from None
    if url.scheme not in schemes:
        beginnings = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
        raise ValueError(f"not a URL that begins with {beginnings}")
    if not url.hostname:
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("the port is 0")
    return url


def _database_url(text: str) -> str:
    """Check only what is certain: of several hosts and libpq's parameters the driver knows more."""
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("not a URL") from None
    if url.scheme not in ("postgresql", "postgres"):
        raise ValueError("not a URL that begins with postgresql://")
    if not url.netloc.rpartition("@")[2] and "host" not in parse_qs(url.query):
        raise ValueError(
            "the URL names no host, neither before its path nor as ?host=/socket/folder"
        )
    return text


def _secrets(text: str) -> tuple[bytes, ...]:
    keys = tuple(key.strip().encode() for key in text.split(","))
    if len(keys) > SECRETS_MAX:
        raise ValueError(f"{len(keys)} keys, at most {SECRETS_MAX} are read")
    for place, key in enumerate(keys, start=1):
        if len(key) < SECRET_BYTES_MIN:
            raise ValueError(
                f"key {place} has {len(key)} bytes, fewer than {SECRET_BYTES_MIN};"
                " `openssl rand -hex 32` makes a good one"
            )
    if len(set(keys)) < len(keys):
        raise ValueError("one key stands there twice")
    return keys


def _ops_keys(text: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for place, pair in enumerate(_listed(text), start=1):
        name, colon, secret = pair.partition(":")
        if not (colon and name and secret):
            raise ValueError(f"entry {place} is not of the form id:secret")
        if name in keys:
            raise ValueError(f"id {name!r} stands there twice")
        keys[name] = secret
    return keys


def _mail_from(text: str) -> str:
    _name, address = parseaddr(text)
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", address) or not text.isprintable():
        raise ValueError(f"{text!r} is neither an address nor of the form Name <address>")
    return text


def _public_url(text: str) -> str:
    url = _split_url(text, {"http", "https"})
    if url.query or url.fragment or url.username is not None:
        raise ValueError(f"{redacted_url(text)!r} has more than a scheme, a host and a path")
    return text.rstrip("/")


def _origins(text: str) -> tuple[str, ...]:
    for origin in (origins := tuple(_listed(text))):
        url = _split_url(origin, {"http", "https"})
        if origin != f"{url.scheme}://{url.netloc}" or url.username is not None:
            raise ValueError(
                f"{redacted_url(origin)!r} is not an origin such as https://example.org"
            )
    return origins


def _modules(text: str) -> tuple[str, ...]:
    for module in (modules := tuple(_listed(text))):
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{module!r} is not the name of a Python module")
    return modules


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"{text!r} is not a folder")
    return path


def _workflows_dir() -> Path:
    here = Path("workflows")
    return here if here.is_dir() else resource_path("workflows")


def _matching(pattern: str, rule: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {rule}")
        return text

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _number_above(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low < number <= high:
            raise ValueError(f"{text!r} is not a number above {low:g} and up to {high:g}")
        return number

    return read


def _choice(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"{text!r} is none of {', '.join(values)}")
        return text.lower()

    return read


def _switch(text: str) -> bool:
    return _choice("on", "off")(text) == "on"


_name = _matching(r"[A-Za-z0-9_-]{1,80}", "a name of 1 to 80 letters, digits, hyphens, underscores")
_host = _matching(r"[A-Za-z0-9.:_-]{1,253}", "a host name or an address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an operator can set: one field, one environment variable of the same name.

    Secrets are left out of the representation, so that a Config may be printed.
    """

    database_url: Annotated[str, _database_url] = field(repr=False)
    database_pooler: Annotated[Literal["off", "transaction"], _choice("off", "transaction")] = "off"
    database_pool_size: Annotated[int, _whole(2, 1000)] = 10
    migrate: Annotated[bool, _switch] = False
    smtp_url: Annotated[SmtpUrl, SmtpUrl.parse]
    mail_from: Annotated[str, _mail_from] = "Countersign <no-reply@localhost>"
    secret_key: Annotated[tuple[bytes, ...], _secrets] = field(repr=False)
    public_url: Annotated[str, _public_url] = "http://localhost:8080"
    cors_origins: Annotated[tuple[str, ...], _origins] = ()
    signup_page: Annotated[bool, _switch] = True
    host: Annotated[str, _host] = "0.0.0.0"  # noqa: S104 - the public port is for everyone
    port: Annotated[int, _whole(0, 65_535)] = 8080
    ops_host: Annotated[str, _host] = OPS_HOST_DEFAULT
    ops_port: Annotated[int, _whole(0, 65_535)] = 8081
    ops_keys: Annotated[Mapping[str, str], _ops_keys] = field(default_factory=dict, repr=False)
    workflows_dir: Annotated[Path, _folder] = field(default_factory=_workflows_dir)
    verification_workflow: Annotated[str, _name] = "verification"
    handlers: Annotated[tuple[str, ...], _modules] = ()
    wait_time_scale: Annotated[float, _number_above(0, 1000)] = 1.0
    lease_seconds: Annotated[float, _number_above(0, 3600)] = 30.0  # longer than the slowest commit
    shutdown_seconds: Annotated[float, _number_above(0, 3600)] = 10.0  # Kubernetes kills after 30
    retention_days: Annotated[int, _whole(14, 36_500)] = 30  # a redrive may come 14 days later
    tombstone_days: Annotated[int, _whole(1, 36_500)] = 30
    link_seconds_max: Annotated[int, _whole(60, 31_536_000)] = 604_800
    aws_region: Annotated[str, _matching(r"[a-z]{2}(-[a-z]+)+-[0-9]", "a region")] = "us-east-1"
    aws_account_id: Annotated[str, _matching(r"[0-9]{12}", "12 digits")] = "000000000000"
    log_format: Annotated[Literal["json", "console"], _choice("json", "console")] = "json"
    log_level: Annotated[str, _choice("debug", "info", "warning", "error", "critical")] = "info"


def load_config(environ: Mapping[str, str]) -> Config:
    """Return the Config of an environment; an empty variable is an unset one.

    `NAME_FILE` names a file that holds the value of NAME, its last line end apart.
    Raises BadConfiguration with every missing or malformed variable, in the order of the fields.
    """
    values: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    types = get_type_hints(Config, include_extras=True)
    for option in fields(Config):
        variable = option.name.upper()
        try:
            text = _text_of(variable, environ)
            if text is not None:
                (read,) = types[option.name].__metadata__
                values[option.name] = read(text)
            elif option.default is MISSING and option.default_factory is MISSING:
                raise ValueError(f"is needed: set it, or {variable}_FILE")
        except ValueError as error:
            problems.append((variable, str(error)))
    ops_host = values.get("ops_host", OPS_HOST_DEFAULT)
    is_open = "ops_keys" not in values and "OPS_KEYS" not in dict(problems)
    if is_open and not _is_loopback(ops_host):
        problems.append(("OPS_KEYS", f"is needed when OPS_HOST ({ops_host}) is not loopback"))
    if problems:
        raise BadConfiguration(problems)
    return Config(**values)


def _text_of(variable: str, environ: Mapping[str, str]) -> str | None:
    """Return the value of a variable, from its file if it names one; None when it is not set."""
    text, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if text and path:
        raise ValueError(f"is set, and {variable}_FILE is too: one of them must go")
    if not path:
        return text or None
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(VALUE_FILE_CHARACTERS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {variable}_FILE: {error}") from None
    if len(text) > VALUE_FILE_CHARACTERS_MAX:
        raise ValueError(f"{path} is longer than {VALUE_FILE_CHARACTERS_MAX} characters")
    return text.removesuffix("\n").removesuffix("\r") or None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
