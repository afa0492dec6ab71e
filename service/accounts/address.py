"""Judge an email address and bring it to the forms in which it is kept, sent to and owned."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

IDENTITY_VERSION = 1
"""Version of the key's rule, stored beside each key: existing rows are never recomputed."""

ADDRESS_BYTES_MAX = 254
"""RFC 5321 4.5.3.1.3, with the errata of RFC 3696: a path is 256 bytes including its brackets."""

LOCAL_PART_BYTES_MAX = 64
"""RFC 5321 4.5.3.1.1. email-validator leaves this one to its strict mode, and counts characters."""

DOMAINS_REMEMBERED = 4096
"""Verdicts on domains kept in memory: nearly all sign-ups come from a handful of domains."""

# An address of plain ASCII atoms. The library takes 50 µs for one, nearly all of it spent on
# Unicode that is not there; this and the remembered domain take 2 µs. A property test holds the
# two ways to the same answers.
_PLAIN = re.compile(
    r"(?P<local>[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+(?:\.[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+)*)"
    r"@(?P<domain>[A-Za-z0-9.-]+)"
)


class InvalidAddress(ValueError):
    """The text is no address that mail can be sent to; the message says which rule it breaks."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Address:
    """An email address in the forms that matter (OWASP: keep the typed and a canonical one)."""

    given: str
    """As the visitor typed it, without surrounding blanks: for display only."""

    canonical: str
    """Where mail goes: NFC, local part as typed (its case may matter), domain as A-labels."""

    identity_key: str
    """What ownership is decided by: equal for two addresses that nobody tells apart.

    Tags (`+news`) and dots stay: whether they matter is the mail host's business.
    """

    domain: str
    """The domain in lower case, as IDNA 2008 A-labels."""

    needs_smtputf8: bool
    """Whether only a mail server with SMTPUTF8 (RFC 6531) can take it."""


def parse_address(text: str, *, allow_test_domains: bool = False) -> Address:
    """Return the address that `text` is, surrounding blanks apart.

    No DNS is asked. Refused beyond syntax: control characters, quoted local parts, addresses in
    brackets, a local part over 64 or a whole over 254 bytes, and names reserved for special use
    (`.invalid`, `.localhost`, `.local`, `.onion`, `.arpa`; `.test` unless `allow_test_domains`).
    `example.org` and its like are accepted, as RFC 6761 asks of applications.

    Raise InvalidAddress with a message fit for the visitor.
    """
    given = text.strip()
    # Checked before anything that looks at each character: the library's cost grows with length.
    if len(given) > ADDRESS_BYTES_MAX:
        raise InvalidAddress(
            f"The email address has {len(given)} characters; at most {ADDRESS_BYTES_MAX} bytes fit."
        )
    plain = _PLAIN.fullmatch(given)
    if plain is not None:
        local, domain = plain["local"], _domain(plain["domain"].lower(), allow_test_domains)
    else:
        local, domain = _split(given, allow_test_domains)
    canonical = f"{local}@{domain}"
    _check_lengths(local, canonical)
    return Address(
        given=given,
        canonical=canonical,
        identity_key=f"{_fold(local)}@{domain}",
        domain=domain,
        needs_smtputf8=not local.isascii(),
    )


def identity_bucket(identity_key: str) -> int:
    """Return the bucket, 0 to 255, of everything that belongs to this address.

    It is the first byte of the key's SHA-256 and part of every stored id: fixed for ever.
    """
    return hashlib.sha256(identity_key.encode()).digest()[0]


@lru_cache(maxsize=DOMAINS_REMEMBERED)
def _domain(domain: str, allow_test_domains: bool) -> str:
    """Return the A-labels of a domain, judged behind a local part that cannot be at fault."""
    return _split(f"x@{domain}", allow_test_domains)[1]


def _split(text: str, allow_test_domains: bool) -> tuple[str, str]:
    """Return local part (NFC, as typed) and domain (A-labels) as email-validator finds them."""
    try:
        found = validate_email(
            text, check_deliverability=False, test_environment=allow_test_domains
        )
    except EmailNotValidError as error:
        raise InvalidAddress(str(error)) from error
    # Not `found.local_part`: that one puts the role names of RFC 2142 (Postmaster) in lower case.
    return unicodedata.normalize("NFC", found.original.rpartition("@")[0]), found.ascii_domain


def _check_lengths(local: str, canonical: str) -> None:
    for what, value, limit in (
        ("part before the @-sign", local, LOCAL_PART_BYTES_MAX),
        ("email address", canonical, ADDRESS_BYTES_MAX),
    ):
        size = len(value.encode())
        if size > limit:
            raise InvalidAddress(f"The {what} has {size} bytes; at most {limit} fit.")


def _fold(local: str) -> str:
    """Return the local part's caseless form (Unicode 3.13, D145), composed again.

    Decomposed first: folding composed text leaves pairs apart that differ in their marks' order.
    """
    folded = unicodedata.normalize("NFD", local).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded))
