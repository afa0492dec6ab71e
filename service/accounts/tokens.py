"""Derive and recognise a signup's secrets: the links it mails and the bearer secret it returns.

Nothing secret is stored. A link's token says which account and which link of it (n) it stands for
and proves that with an HMAC under a server key, so a database that leaks opens nothing, a mail
repeated after a crash carries the same link, and rotating keys needs no migration: the first key
signs, every listed key verifies, and a retired one stays listed until the signups that used it are
decided. Each use of a key has a context of its own, so that no secret can pass for another kind.

Layout of a link token, 57 bytes, 76 characters of base64url: version (1), account id (16), n (4,
big-endian), key id (4), HMAC-SHA256 (32). As 57 is a multiple of three there is no padding and no
spare bit: exactly one text stands for one token.
"""

import base64
import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

KEY_BYTES_MIN = 32
KEYS_MAX = 16
LINK_NUMBER_MAX = 2**32 - 1

_VERSION = 1
_SIGNED = struct.Struct(">B16sI4s")
_MAC_BYTES = 32
_LINK_TOKEN = re.compile(r"[A-Za-z0-9_-]{76}", re.ASCII)
_BEARER_SECRET = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_LINK_CONTEXT = b"countersign/link-token/1\0"
_BEARER_CONTEXT = b"countersign/bearer-secret/1\0"


class UnknownToken(Exception):
    """The text is no link token of ours: malformed, forged, or of a key no longer listed."""


@dataclass(frozen=True, slots=True)
class LinkToken:
    """What a link token stands for: the account and the number of the link mailed to it."""

    account_id: UUID
    n: int


class Tokens:
    """The server's keys and what is derived from them. The first key signs, all of them verify."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raise ValueError when there is no key, one is too short, or two are the same."""
        if not 1 <= len(keys) <= KEYS_MAX:
            raise ValueError(f"SECRET_KEY: {len(keys)} keys given, 1 to {KEYS_MAX} are allowed")
        for place, key in enumerate(keys, start=1):
            if len(key) < KEY_BYTES_MIN:
                raise ValueError(
                    f"SECRET_KEY: key {place} has {len(key)} bytes, at least {KEY_BYTES_MIN} needed"
                )
        self._keys = {_key_id(key): bytes(key) for key in keys}
        if len(self._keys) < len(keys):
            raise ValueError("SECRET_KEY: the same key is listed twice")
        self._signing_id = _key_id(keys[0])

    def link_token(self, account_id: UUID, n: int) -> str:
        """Return the token of link `n` of an account: 76 characters that are safe in a URL.

        Raise ValueError when `n` is not a 32-bit unsigned number.
        """
        if not 0 <= n <= LINK_NUMBER_MAX:
            raise ValueError(f"n: {n} is not between 0 and {LINK_NUMBER_MAX}")
        signed = _SIGNED.pack(_VERSION, account_id.bytes, n, self._signing_id)
        return _encode(signed + _mac(self._keys[self._signing_id], _LINK_CONTEXT, signed))

    def read_link_token(self, text: str) -> LinkToken:
        """Return what a link token stands for; raise UnknownToken unless a listed key made it."""
        if _LINK_TOKEN.fullmatch(text) is None:
            raise UnknownToken("the token is not 76 characters of base64url")
        raw = base64.urlsafe_b64decode(text)
        signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        version, account_id, n, key_id = _SIGNED.unpack(signed)
        key = self._keys.get(key_id)
        if version != _VERSION or key is None:
            raise UnknownToken("the token is of another version or of a key that is not listed")
        if not hmac.compare_digest(mac, _mac(key, _LINK_CONTEXT, signed)):
            raise UnknownToken("the token's signature is wrong")
        return LinkToken(UUID(bytes=account_id), n)

    def bearer_secret(self, account_id: UUID) -> str:
        """Return the secret that whoever signed up shows to ask about it, 43 characters."""
        return _bearer_secret(self._keys[self._signing_id], account_id)

    def is_bearer_secret(self, account_id: UUID, text: str) -> bool:
        """Return whether `text` is the account's bearer secret under any of the keys."""
        if _BEARER_SECRET.fullmatch(text) is None:
            return False
        return any(
            hmac.compare_digest(text, _bearer_secret(key, account_id))
            for key in self._keys.values()
        )


def _bearer_secret(key: bytes, account_id: UUID) -> str:
    return _encode(_mac(key, _BEARER_CONTEXT, account_id.bytes))


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:4]


def _mac(key: bytes, context: bytes, data: bytes) -> bytes:
    return hmac.digest(key, context + data, "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
