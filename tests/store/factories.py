"""Builders of rows for the tests of the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from service.asl import Status
from service.engine.ids import new_id
from service.engine.ports import Checkpoint, Claim, Effect, HistoryRow, Key, NewExecution

ALICE = UUID(int=0xA11CE)
BOB = UUID(int=0xB0B)
DEFINITION = b"\x01" * 32
STARTED = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAR_OFF = datetime(2100, 1, 1, tzinfo=UTC)
DATA = '{"plan":"free","number":1E5,"nul":"\\u0000"}'


def new_key(bucket: int = 7, *, at: datetime = STARTED) -> Key:
    """Return a fresh key in this bucket."""
    return Key(bucket, new_id(at, bucket))


def checkpoint(key: Key, epoch: int = 1, **changes: Any) -> Checkpoint:
    """Return where a running execution stands that Alice holds."""
    at = Checkpoint(key, epoch, Status.RUNNING, None, ALICE, b"at first", None, None, None, None)
    return replace(at, **changes)


def resting(key: Key, epoch: int = 1, *, due_at: datetime = LONG_AGO) -> Checkpoint:
    """Return where a running execution stands that waits for its timer."""
    return checkpoint(key, epoch, owner=None, due_at=due_at)


def ended(key: Key, epoch: int, *, stopped_at: datetime = STARTED) -> Checkpoint:
    """Return where an execution stands that has succeeded."""
    return checkpoint(
        key,
        epoch,
        status=Status.SUCCEEDED,
        owner=None,
        document=None,
        output='{"done":true}',
        stopped_at=stopped_at,
    )


def execution(first: Checkpoint, **changes: Any) -> NewExecution:
    """Return the row of a start, named after its id."""
    row = NewExecution("signup", DEFINITION, str(first.key.id), '{"n":1}', STARTED, first)
    return replace(row, **changes)


def claimed(row: NewExecution, epoch: int, claims: int = 1, **changes: Any) -> Claim:
    """Return the claim of an execution that is as it was inserted but for these."""
    claim = Claim(
        key=row.first.key,
        epoch=epoch,
        machine=row.machine,
        definition=row.definition,
        name=row.name,
        input=row.input,
        started_at=row.started_at,
        checkpoint=row.first.document,
        is_signalled=False,
        claims=claims,
        quarantined=0,
        claimed_at=STARTED,
    )
    return claim._replace(**changes)


def timeless(claim: Claim | None) -> Claim | None:
    """Return a claim without the moment it was made at, which is the database's to say."""
    return None if claim is None else claim._replace(claimed_at=STARTED)


def step(key: Key, first_event_id: int, events: bytes = b"events") -> HistoryRow:
    """Return the history of one step."""
    return HistoryRow(key, first_event_id, events)


def insert_account(key: Key, identity_key: str = "ada@example.org") -> Effect:
    """Return the effect that adds a pending account."""
    return Effect("insert_account", (*key, "Ada@example.org", identity_key, 1, "Ada", "en", DATA))


def verify_account(key: Key, n: int = 1) -> Effect:
    """Return the effect that decides an account by its n-th link."""
    return Effect("verify_account", (*key, n))


def get_account(key: Key) -> Effect:
    """Return the effect that reads an account."""
    return Effect("get_account", tuple(key))


def delete_account(key: Key) -> Effect:
    """Return the effect that deletes an account which nobody verified."""
    return Effect("delete_unverified_account", tuple(key))


def later(moment: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds after another."""
    return moment + timedelta(seconds=seconds)
