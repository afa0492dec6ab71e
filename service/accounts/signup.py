"""What a visitor can do: ask for an address, see what became of it, prove that it is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from service import metrics
from service.accounts.address import IDENTITY_VERSION, Address, identity_bucket
from service.accounts.ports import Accounts, Clock, Engine
from service.accounts.tokens import Tokens, UnknownToken
from service.asl import Json
from service.documents import dumps_own
from service.engine.ids import key_of
from service.engine.ports import Effect, Key

VISIBLE_STATUS: Final = {"superseded": "pending"}
"""What a visitor reads instead: that somebody else owns the address is no stranger's business."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SignupRequest:
    """What a visitor asks for. `data` is kept with the account and never interpreted."""

    address: Address
    name: str | None
    locale: str | None
    data: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Begun:
    """A signup that is stored: its id and the secret that lets the visitor ask about it."""

    id: UUID
    secret: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a link led to: `status` is "verified", "expired" or "superseded"."""

    id: UUID
    status: str


class Signups:
    """The visitor's side. Every method raises Overloaded or Unavailable when it cannot now."""

    def __init__(
        self,
        engine: Engine,
        accounts: Accounts,
        tokens: Tokens,
        clock: Clock,
        *,
        workflow: str,
        link_seconds_max: int,
    ) -> None:
        """Start signups on the machine `workflow`; honour links for `link_seconds_max` at most."""
        self._engine = engine
        self._accounts = accounts
        self._tokens = tokens
        self._clock = clock
        self._workflow = workflow
        self._link_age_max = timedelta(seconds=link_seconds_max)

    async def begin(self, request: SignupRequest) -> Begun:
        """Return the id and secret of a new signup, whose account and execution are then stored.

        Nothing is asked about the address first: new, pending or taken, it takes the same path,
        and only the mail that its owner gets tells them apart.
        """
        id = self._engine.new_id(identity_bucket(request.address.identity_key))
        key, name = key_of(id), str(id)
        # State data is shown to operators and kept as history: it tells nothing of the person.
        input: Json = {
            "account_id": name,
            "email_domain": request.address.domain,
            "locale": request.locale,
        }
        await self._engine.start(
            self._workflow, name, input, key=key, effects=(_insertion(key, request),)
        )
        metrics.SIGNUPS.inc()
        log.info("signup_accepted", account=name)
        return Begun(id, self._tokens.bearer_secret(id))

    async def status(self, account_id: UUID, secret: str) -> str | None:
        """Return "pending", "verified" or "expired"; None for an unknown id or a wrong secret.

        A superseded signup reads pending until its workflow ends it, as an ignored one would.
        """
        if not self._tokens.is_bearer_secret(account_id, secret):
            return None
        status = await self._accounts.status(*key_of(account_id))
        return None if status is None else VISIBLE_STATUS.get(status, status)

    async def verify(self, token: str) -> Verification:
        """Return what was decided about the signup of this link, now or by an earlier use of it.

        Raise UnknownToken when no key of ours made the token, or its account is no longer kept.
        """
        link = self._tokens.read_link_token(token)
        key = key_of(link.account_id)
        if self._clock.now() - asked_at(key.id) > self._link_age_max:
            status = await self._outlived(key)
        else:
            status = await verify_account(self._engine, self._clock, key, link.n)
        if status is None:
            raise UnknownToken("the token's account is no longer kept")
        return Verification(key.id, status)

    async def _outlived(self, key: Key) -> str | None:
        """Return what a link that is too old to decide anything finds decided."""
        status = await self._accounts.status(*key)
        return "expired" if status == "pending" else status


async def verify_account(engine: Engine, clock: Clock, key: Key, n: int) -> str | None:
    """Have link `n` decide an account; return "verified", "expired" or "superseded".

    The effect decides once, by a conditional statement; the transaction in which it decides for
    the account also ends its execution's Wait. Return None for an account that is not kept.
    """
    row = await engine.request(
        Effect("verify_account", (key.bucket, key.id, n)),
        signal=lambda row: key if row is not None and row["newly"] else None,
    )
    if row is None:
        return None
    if row["newly"]:
        metrics.VERIFIED.inc()
        metrics.TIME_TO_VERIFY_SECONDS.observe((clock.now() - asked_at(key.id)).total_seconds())
        log.info("account_verified", account=str(key.id))
    return str(row["status"])


def asked_at(account_id: UUID) -> datetime:
    """Return when the signup was made, to the millisecond: a UUIDv7 begins with it (RFC 9562)."""
    return datetime.fromtimestamp((account_id.int >> 80) / 1000, UTC)


def _insertion(key: Key, request: SignupRequest) -> Effect:
    return Effect(
        "insert_account",
        (
            key.bucket,
            key.id,
            request.address.canonical,
            request.address.identity_key,
            IDENTITY_VERSION,
            request.name,
            request.locale,
            dumps_own(request.data).decode(),
        ),
    )
