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


def new_id(now: datetime, bucket: int) -> UUID:
    """Return a fresh UUIDv7 (RFC 9562) of this moment in this bucket (0-255)."""
    assert 0 <= bucket < BUCKETS, bucket
    noise = secrets.randbits(66)  # 12 bits above the variant, 54 between it and the bucket
    rand_a, rand_b = noise >> 54, noise & ((1 << 54) - 1)
    milliseconds = int(now.timestamp() * 1000)
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
