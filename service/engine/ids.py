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

# Of a child execution's id, above the bucket: its number within its map run, from 1. 100,000,000
# items are the most that a run may have.
_CHILD_BITS: Final = 27
CHILDREN_MAX: Final = (1 << _CHILD_BITS) - 1
_CHILD_MASK: Final = CHILDREN_MAX << 8


def new_id(now: datetime, bucket: int) -> UUID:
    """Return a fresh UUIDv7 (RFC 9562) of this moment in this bucket (0-255)."""
    return _id(int(now.timestamp() * 1000), secrets.randbits(_NOISE_BITS), bucket)


def derived_id(id: UUID, seed: str, bucket: int) -> UUID:
    """Return a UUIDv7 in this bucket that is the same for ever for an id and a seed.

    Its moment is that of `id`, so that the history of both is kept and dropped by the same days.
    """
    return _id(id.int >> 80, _noise(f"{id}\n{seed}"), bucket)


def map_run_key(entered_at: datetime, execution: Key, command_id: int) -> Key:
    """Return the key of the run that a command of an execution asks for: the same whenever asked.

    It is in the execution's bucket, and of the moment at which the state was entered.
    """
    milliseconds = int(entered_at.timestamp() * 1000)
    run = _id(milliseconds, _noise(f"{execution.id}/{command_id}"), execution.bucket)
    return Key(execution.bucket, UUID(int=run.int & ~_CHILD_MASK))


def child_key(run: Key, index: int) -> Key:
    """Return the key of a run's child by its index, from 0."""
    assert 0 <= index < CHILDREN_MAX, index
    return Key(run.bucket, UUID(int=run.id.int | (index + 1) << 8))


def child_index(id: UUID) -> int:
    """Return the index of a child within its run."""
    return ((id.int & _CHILD_MASK) >> 8) - 1


def run_of(child: Key) -> Key:
    """Return the key of the run that a child belongs to."""
    return Key(child.bucket, UUID(int=child.id.int & ~_CHILD_MASK))


def _noise(text: str) -> int:
    """Return the bits that stand in for random ones where an id follows from something."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:9]) >> 6


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
