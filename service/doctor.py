"""The doctor: looks at every part an operator has to provide, and says what to do about what is
wrong.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from service.app import missing_handlers, smtp_transport
from service.asl import InvalidDefinition
from service.config import Config, redacted_url
from service.definition_files import SUFFIX, read_definition
from service.engine.ports import Unavailable
from service.mail import MailUnavailable
from service.store import Database, database_time, pending_migrations

# Leases and timers go by the database's clock, so skew is harmless; it shows a host without time
# service.
CLOCK_SKEW_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one part; `advice` says what to do when it is not well."""

    part: str
    is_well: bool
    text: str
    advice: str = ""


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Yield a finding for each part: database, clock, schema, SMTP (no mail is sent), workflows."""
    async for finding in _examine_database(config):
        yield finding
    yield await _examine_smtp(config)
    for finding in _examine_workflows(config):
        yield finding


async def _examine_database(config: Config) -> AsyncIterator[Finding]:
    url = redacted_url(config.database_url)
    database = Database(config.database_url, pool_size=2, pooler=config.database_pooler)
    try:
        await database.open()
        before = time.time()
        now = (await database_time(database)).timestamp()
        skew = now - (before + time.time()) / 2
        pending = await pending_migrations(database)
    except Unavailable as error:
        yield Finding(
            "database",
            False,
            f"{url}: {error}",
            "check DATABASE_URL, and that the server accepts this user from here",
        )
        return
    finally:
        await database.close()
    yield Finding("database", True, f"{url} answers")
    yield Finding(
        "clock",
        abs(skew) <= CLOCK_SKEW_SECONDS_MAX,
        f"the database's clock is {skew:+.1f} seconds from this machine's",
        "" if abs(skew) <= CLOCK_SKEW_SECONDS_MAX else "run a time service (NTP) on both machines",
    )
    yield Finding(
        "schema",
        not pending,
        f"lacks {', '.join(pending)}" if pending else "up to date",
        "run `countersign migrate`" if pending else "",
    )


async def _examine_smtp(config: Config) -> Finding:
    url = config.smtp_url
    place = f"{url.host}:{url.port} ({url.tls})"
    transport = smtp_transport(url)
    await transport.open()
    try:
        await transport.check()
    except MailUnavailable as error:
        return Finding(
            "smtp", False, f"{place}: {error}", "check SMTP_URL: host, port, ?tls=, user, password"
        )
    finally:
        await transport.close()
    login = "logged in" if url.username else "no login asked for"
    return Finding("smtp", True, f"{place} answers, {login}")


def _examine_workflows(config: Config) -> list[Finding]:
    missing = missing_handlers(
        config.handlers,
        region=config.aws_region,
        account=config.aws_account_id,
        lambda_endpoint=config.lambda_endpoint,
    )
    paths = sorted(config.workflows_dir.glob(f"*{SUFFIX}"))
    findings = []
    for path in paths:
        try:
            read_definition(path, missing)
        except (InvalidDefinition, OSError) as error:
            findings.append(
                Finding("workflow", False, f"{path.name}: {error}", f"countersign validate {path}")
            )
        else:
            findings.append(Finding("workflow", True, f"{path.name} is valid"))
    if config.verification_workflow not in {path.name.removesuffix(SUFFIX) for path in paths}:
        findings.append(
            Finding(
                "workflow",
                False,
                f"{config.verification_workflow}{SUFFIX} is not in {config.workflows_dir}",
                "set WORKFLOWS_DIR or VERIFICATION_WORKFLOW",
            )
        )
    return findings
