"""Config: everything an operator can set, read from the environment once, reported on at once.

pydantic-settings holds the fields and checks what is ordinary: ranges, choices, patterns, URLs,
folders. Ours are `NAME_FILE`, the values no library knows (SMTP_URL, SECRET_KEY, OPS_KEYS) and how
a problem is told: with its variable, without a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    DirectoryPath,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.resources import resource_path

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SECRET_BYTES_MIN: Final = 32
SECRETS_MAX: Final = 16
VALUE_FILE_CHARACTERS_MAX: Final = 65_536

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


# Validators: ValueError with a sentence about what is wrong. Those of secrets never put the text
# into the sentence.


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
    """Check only what is certain: of several hosts and libpq's parameters the driver knows more.

    PostgresDsn would refuse a user without a host, as in `postgresql://user@/name?host=/socket`.
    """
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


def _needed_when_open(keys: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
    """Without keys the ops port is for this machine alone; a malformed OPS_HOST is told itself."""
    host = info.data.get("ops_host", "localhost")
    if not keys and not _is_loopback(host):
        raise ValueError(f"is needed when OPS_HOST ({host}) is not loopback")
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base_url(text: str) -> str:
    url = AnyHttpUrl(text)
    if url.query or url.fragment or url.username or url.password:
        raise ValueError(f"{redacted_url(text)!r} has more than a scheme, a host and a path")
    return str(url).rstrip("/")


def _origin(text: str) -> str:
    """Take only what a browser would send: its host in lower case, no port that goes without."""
    if "@" in text or str(AnyHttpUrl(text)) != f"{text}/":
        raise ValueError(f"{redacted_url(text)!r} is not an origin such as https://example.org")
    return text


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _switched(text: str) -> bool:
    """Two words only: a switch that read `1`, `y` and `t` as well would be set by accident."""
    if text.lower() not in ("on", "off"):
        raise ValueError(f"{text!r} should be 'on' or 'off'")
    return text.lower() == "on"


def _workflows_dir() -> Path:
    here = Path("workflows")
    return here if here.is_dir() else resource_path("workflows")


_AnyCase = BeforeValidator(str.lower)
_Switch = Annotated[bool, BeforeValidator(_switched)]
_Port = Annotated[int, Field(ge=0, le=65_535)]
_Host = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="a host name or an address")
]
_Module = Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")]


class Config(BaseSettings):
    """Everything an operator can set: one field, one environment variable of the same name.

    Secrets are left out of the representation, so that a Config may be printed. A description says
    what a text that does not match the pattern is not.
    """

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, validate_default=False
    )

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(repr=False)
    database_pooler: Annotated[Literal["off", "transaction"], _AnyCase] = "off"
    database_pool_size: int = Field(10, ge=2, le=1000)
    migrate: _Switch = False
    """PostgreSQL: where it is, how it is reached, whether a start brings its schema up to date."""

    smtp_url: Annotated[SmtpUrl, BeforeValidator(SmtpUrl.parse)]
    mail_from: str = Field(
        "Countersign <no-reply@localhost>",
        # No stricter than the mail package, which has the last word when it is given its sender.
        pattern=r"^([^<>\r\n]*<[^<>@]+@[^<>@]+>\s*|[^<>@]+@[^<>@]+)$",
        description="of the form Name <address>",
    )
    """Mail: the server that takes it, and whom it comes from."""

    secret_key: Annotated[tuple[bytes, ...], BeforeValidator(_secrets)] = Field(repr=False)
    """The keys of the links in mails: the first signs, all of them are believed."""

    public_url: Annotated[str, AfterValidator(_base_url)] = "http://localhost:8080"
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_listed)
    ] = ()
    signup_page: _Switch = True
    host: _Host = "0.0.0.0"  # noqa: S104 - the public port is for everyone
    port: _Port = 8080
    """The public port: where it listens, the URL it is known by, and which pages may call it."""

    ops_host: _Host = "127.0.0.1"
    ops_port: _Port = 8081
    ops_keys: Annotated[
        Mapping[str, str], BeforeValidator(_ops_keys), AfterValidator(_needed_when_open)
    ] = Field("", validate_default=True, repr=False)
    """The ops port: where it listens, and the secrets of those who may use it, by their ids."""

    workflows_dir: DirectoryPath = Field(default_factory=_workflows_dir)
    verification_workflow: str = Field(
        "verification",
        pattern="^[A-Za-z0-9_-]{1,80}$",
        description="a name of 1 to 80 letters, digits, hyphens, underscores",
    )
    handlers: Annotated[tuple[_Module, ...], BeforeValidator(_listed)] = Field(
        (), description="the name of a Python module"
    )
    lambda_endpoint: Annotated[str, AfterValidator(_base_url)] | None = None
    buckets_dir: DirectoryPath | None = None
    wait_time_scale: float = Field(1.0, gt=0, le=1000)
    """Workflows: their files, the one a signup starts, the tasks they may call, the folder whose
    sub-folders stand for S3 buckets, how time passes.
    """

    lease_seconds: float = Field(30.0, gt=0, le=3600)  # longer than the slowest commit
    shutdown_seconds: float = Field(10.0, gt=0, le=3600)  # Kubernetes kills after 30
    """The process: how long it may be silent before another takes over, how long it may end."""

    retention_days: int = Field(30, ge=14, le=36_500)  # a redrive may come 14 days later
    tombstone_days: int = Field(30, ge=1, le=36_500)
    link_seconds_max: int = Field(604_800, ge=60, le=31_536_000)
    """How long is kept what has ended: executions, signups; and how long a link may be good."""

    aws_region: str = Field(
        "us-east-1", pattern="^[a-z]{2}(-[a-z]+)+-[0-9]$", description="a region"
    )
    aws_account_id: str = Field("000000000000", pattern="^[0-9]{12}$", description="12 digits")
    """What ARNs are formed with, and nothing else."""

    log_format: Annotated[Literal["json", "console"], _AnyCase] = "json"
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], _AnyCase] = (
        "info"
    )
    """The log on stderr: its form, and from which level on."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the one source: the values that load_config hands in, never the process's own."""
        return (init_settings,)


class _Variables(PydanticBaseSettingsSource):
    """The texts of an environment, each from its variable or from the file that NAME_FILE names.

    What cannot be read is not a value and stands in `problems`, by its variable, once called.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Config)
        self._environ = environ
        self.problems: dict[str, str] = {}

    def __call__(self) -> dict[str, Any]:
        texts: dict[str, Any] = {}
        for name, option in Config.model_fields.items():
            try:
                text, key, _is_json = self.get_field_value(option, name)
            except ValueError as error:
                self.problems[name.upper()] = str(error)
            else:
                if text:  # An empty variable is an unset one.
                    texts[key] = text
        return texts

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str, str, bool]:
        variable = field_name.upper()
        text = self._environ.get(variable, "")
        path = self._environ.get(f"{variable}_FILE", "")
        if text and path:
            raise ValueError(f"is set, and {variable}_FILE is too: one of them must go")
        return _content(path, variable) if path else text, field_name, False


def _content(path: str, variable: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(VALUE_FILE_CHARACTERS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {variable}_FILE: {error}") from None
    if len(text) > VALUE_FILE_CHARACTERS_MAX:
        raise ValueError(f"{path} is longer than {VALUE_FILE_CHARACTERS_MAX} characters")
    return text.removesuffix("\n").removesuffix("\r")


def load_config(environ: Mapping[str, str]) -> Config:
    """Return the Config of an environment; an empty variable is an unset one.

    `NAME_FILE` names a file that holds the value of NAME, its last line end apart.
    Raises BadConfiguration with every missing or malformed variable, in the order of the fields.
    """
    variables = _Variables(environ)
    texts = variables()
    problems = list(variables.problems.items())
    try:
        config = Config(**texts)
    except ValidationError as error:
        told = (_problem(details) for details in error.errors())
        problems += [problem for problem in told if problem[0] not in variables.problems]
    if problems:
        order = [name.upper() for name in Config.model_fields]
        raise BadConfiguration(sorted(problems, key=lambda problem: order.index(problem[0])))
    return config


def _problem(details: ErrorDetails) -> tuple[str, str]:
    """Return the variable at fault and, in pydantic's words or in ours, why."""
    name = str(details["loc"][0])
    option, variable = Config.model_fields[name], name.upper()
    match details["type"]:
        case "missing":
            return variable, f"is needed: set it, or {variable}_FILE"
        case "value_error":
            return variable, str(details["ctx"]["error"])
        case "string_pattern_mismatch":
            return variable, f"{details['input']!r} is not {option.description}"
    is_shown = option.repr and not details["type"].startswith("url_")  # It may hold a password.
    shown = f"{details['input']!r} " if is_shown else ""
    return variable, re.sub("^(Input|Path) ", lambda _: shown, details["msg"])
