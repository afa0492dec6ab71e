"""Execution and account ids: UUIDv7 whose last byte is the bucket that every key begins with.

Time-ordered ids keep inserts at one end of each index (random ones cost several times the WAL), and
every id, ARN, token and page cursor leads to its bucket without a look-up.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime
from typing import Final
from uuid import UUID

from service.engine.ports import BUCKETS, Key

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}(?![^-])")
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_NOISE_BITS: Final = 66  # 12 above the variant, 54 between it and the bucket


def new_id(now: datetime, bucket: int) -> UUID:
    """Return a fresh UUIDv7 (RFC 9562) of this moment in this bucket (0-255)."""
    return _id(int(now.timestamp() * 1000), secrets.randbits(_NOISE_BITS), bucket)


def derived_id(id: UUID, seed: str, bucket: int) -> UUID:
    """Return a UUIDv7 in this bucket that is the same for ever for an id and a seed.

    Its moment is that of `id`, so that the history of both is kept and dropped by the same days.
    """
    noise = int.from_bytes(hashlib.sha256(f"{id}\n{seed}".encode()).digest()[:9]) >> 6
    return _id(id.int >> 80, noise, bucket)


def _id(milliseconds: int, noise: int, bucket: int) -> UUID:
    assert 0 <= bucket < BUCKETS, bucket
    rand_a, rand_b = noise >> 54, noise & ((1 << 54) - 1)
    return UUID(
        int=(milliseconds << 80) | _VERSION_AND_VARIANT | (rand_a << 64) | (rand_b << 8) | bucket
    )


def bucket_of(id: UUID) -> int:
    """Return the bucket (0-255) that an id carries."""
    return id.int & (BUCKETS - 1)


def key_of(id: UUID) -> Key:
    """Return the key of the execution with this id."""
    return Key(bucket_of(id), id)


def name_bucket(machine: str, name: str) -> int:
    """Return the bucket (0-255) of an execution by its name, the same for ever.

    A name that begins with a UUIDv7, as an account's executions do, is in that id's bucket; any
    other's is a hash of (machine, name).
    """
    if _UUID7.match(name):
        return bucket_of(UUID(name[:36]))
    return hashlib.sha256(f"{machine}\n{name}".encode("utf-8", "surrogatepass")).digest()[0]
