"""The composition root: builds every part of one process, top-down and once, and opens and closes
them in order.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import structlog
from aiohttp import web

from service import metrics
from service.accounts.directory import Directory
from service.accounts.signup import Signups
from service.accounts.tokens import Tokens
from service.api.ops import OpsDeps, create_ops_app
from service.api.ports import Inbox
from service.api.public import PublicDeps, create_public_app
from service.api.server import Served, serve_app
from service.api.stepfunctions import Action, Executions, Machines, Members, Starts, Trials
from service.asl import Json, Problem, StateMachine
from service.config import Config, SmtpUrl
from service.definition_files import DefinitionFiles
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.engine import Engine, Settings
from service.engine.express import Express
from service.engine.ports import Answer, CoroutineHandler, Task, Unavailable
from service.engine.random import SystemRandom
from service.engine.timers import Timers
from service.engine.turn import Surroundings
from service.mail import MailUnavailable, SmtpTransport, Templates, parse_mailbox
from service.store import (
    Accounts,
    Database,
    DefinitionRows,
    ExecutionRows,
    MachineRows,
    Notifier,
    PostgresStore,
    migrate,
    pending_migrations,
)
from service.tasks import (
    ACCOUNT_TASKS,
    START_EXECUTION,
    EmailTasks,
    FolderBuckets,
    LambdaEndpoint,
    MailSettings,
    Registry,
    close_ended,
    load_handlers,
    start_execution,
)
from service.tasks.handlers import BUILT_IN

log = structlog.get_logger()

GARBAGE_THRESHOLD: Final = 50_000
DATABASE_WAIT_SECONDS: Final = 1.0
STATISTICS_SECONDS: Final = 5.0
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
SMTP_CHECK_SECONDS: Final = 60.0
TIDY_SECONDS: Final = 600.0
ROWS_AT_ONCE: Final = 1_000


class SchemaOutOfDate(Exception):
    """The database's schema is not this build's, and MIGRATE is off."""

    def __init__(self, pending: list[str]) -> None:
        super().__init__(
            f"the database lacks {', '.join(pending)}: run `countersign migrate`, or set MIGRATE=on"
        )
        self.pending = pending


def product_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("countersign")
    except PackageNotFoundError:
        return "0"


def smtp_transport(url: SmtpUrl) -> SmtpTransport:
    """Return the transport for an SMTP_URL. Raises ValueError for a combination that is unsafe."""
    return SmtpTransport(url.host, url.port, url.tls, url.username, url.password)


def missing_handlers(
    handlers: Sequence[str], *, region: str, account: str, lambda_endpoint: str | None = None
) -> Callable[[StateMachine], Sequence[Problem]]:
    """Return what says which tasks of a definition nothing here performs, without any part built.

    `handlers` are the modules of HANDLERS; at a `lambda_endpoint` there may be any function.
    Raises BadHandlers with all problems in them.
    """
    performers = {name: CoroutineHandler(_never) for name in BUILT_IN} | load_handlers(handlers)
    elsewhere = None if lambda_endpoint is None else LambdaEndpoint(lambda_endpoint)
    registry = Registry(
        performers,
        region=region,
        account=account,
        elsewhere=elsewhere,
        services={START_EXECUTION: CoroutineHandler(_never)},
    )
    return registry.missing


def _lambda_endpoint(config: Config) -> LambdaEndpoint | None:
    return None if config.lambda_endpoint is None else LambdaEndpoint(config.lambda_endpoint)


async def _never(input: Json, task: Task) -> Answer:
    raise AssertionError("a definition is only checked here, never run")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a running service listens."""

    public: int
    ops: int


class Service:
    """All parts of one process. `open` returns when it answers on both ports."""

    def __init__(
        self,
        config: Config,
        *,
        inbox: Inbox | None = None,
        allow_test_domains: bool = False,
        transport: SmtpTransport | None = None,
        mail_tasks: Mapping[str, CoroutineHandler] | None = None,
    ) -> None:
        """Build the parts; nothing is opened yet. Raises BadHandlers, BadTemplates, ValueError.

        `transport` takes the mails in place of the server at SMTP_URL; `mail_tasks`, by function
        name, take the place of the tasks that write them.
        """
        self._config = config
        self._clock = DatabaseClock()
        self._database = Database(
            config.database_url, pool_size=config.database_pool_size, pooler=config.database_pooler
        )
        self._transport = transport or smtp_transport(config.smtp_url)
        self._accounts = Accounts(self._database)
        self._notifier = Notifier(self._database)
        self._definitions = Definitions(DefinitionRows(self._database))
        self._arns = Arns(config.aws_region, config.aws_account_id)
        self._lambda = _lambda_endpoint(config)
        tokens = Tokens(config.secret_key)
        if mail_tasks is None:
            mail_tasks = self._email_tasks(self._accounts, tokens).handlers()
        registry = self._registry(mail_tasks)
        surroundings = Surroundings(
            handlers=registry,
            clock=self._clock,
            random=SystemRandom(),
            time_scale=config.wait_time_scale,
            on_ended=close_ended,
        )
        self.engine = self._engine(surroundings)
        self._express = Express(surroundings, self.engine.request)
        self._files = DefinitionFiles(config.workflows_dir, self._definitions, registry.missing)
        self.signups = Signups(
            self.engine,
            self._accounts,
            tokens,
            self._clock,
            workflow=config.verification_workflow,
            link_seconds_max=config.link_seconds_max,
        )
        self._starts = Starts(
            self.engine,
            self._express,
            MachineRows(self._database),
            ExecutionRows(self._database),
            self._definitions,
            self._arns,
            self._clock.now,
        )
        self._public = self._public_app(allow_test_domains)
        self._ops = self._ops_app(registry, inbox, allow_test_domains)
        self._smtp_reason: str | None = None
        self._duties: list[asyncio.Task[None]] = []
        self._served: list[Served] = []

    def _registry(self, mail_tasks: Mapping[str, CoroutineHandler]) -> Registry:
        config = self._config
        return Registry(
            {
                **ACCOUNT_TASKS,
                **mail_tasks,
                **load_handlers(config.handlers),
            },
            region=config.aws_region,
            account=config.aws_account_id,
            elsewhere=self._lambda,
            services={START_EXECUTION: start_execution(self._start_by_task)},
        )

    async def _start_by_task(self, members: Members, task: Task) -> Members:
        # The registry is made before what it calls: executions start executions.
        return await self._starts.start_by_task(members, task)

    def _engine(self, surroundings: Surroundings) -> Engine:
        config = self._config
        return Engine(
            PostgresStore(self._database),
            self._definitions,
            surroundings,
            self._clock,
            Settings(
                lease_seconds=config.lease_seconds,
                shutdown_seconds=config.shutdown_seconds,
                retention_days=config.retention_days,
            ),
            self._arns,
            Timers(self._clock),
            hint=self._notifier.notify,
            files=None if config.buckets_dir is None else FolderBuckets(config.buckets_dir),
        )

    def _public_app(self, allow_test_domains: bool) -> web.Application:
        return create_public_app(
            PublicDeps(
                signups=self.signups,
                probe=self,
                version=product_version(),
                signup_page=self._config.signup_page,
                cors_origins=self._config.cors_origins,
                allow_test_domains=allow_test_domains,
            )
        )

    def _ops_app(
        self, registry: Registry, inbox: Inbox | None, allow_test_domains: bool
    ) -> web.Application:
        return create_ops_app(
            OpsDeps(
                directory=Directory(
                    self.engine, self._accounts, self._clock, allow_test_domains=allow_test_domains
                ),
                probe=self,
                actions=self._actions(registry, self._arns),
                keys=self._config.ops_keys,
                inbox=inbox,
                now=self._clock.now,
            )
        )

    def _actions(self, registry: Registry, arns: Arns) -> dict[str, Action]:
        machines = MachineRows(self._database)
        executions = ExecutionRows(self._database)
        return {
            **Machines(machines, self._definitions, registry.missing, arns).actions(),
            **self._starts.actions(),
            **Executions(
                self.engine, machines, executions, self._definitions, arns, self._clock.now
            ).actions(),
            **Trials(self._express, arns, SystemRandom(), self._clock.now).actions(),
        }

    def _email_tasks(self, accounts: Accounts, tokens: Tokens) -> EmailTasks:
        config = self._config
        return EmailTasks(
            accounts,
            tokens,
            Templates.load(),
            self._transport,
            self._clock,
            MailSettings(
                sender=parse_mailbox(config.mail_from),
                public_url=config.public_url,
                link_seconds_max=config.link_seconds_max,
                time_scale=config.wait_time_scale,
            ),
        )

    async def open(self) -> Ports:
        """Open every part and return where it listens.

        Waits for a database that does not answer yet. Raises SchemaOutOfDate, OSError for a taken
        port.
        """
        await self._transport.open()
        await self._until_database_answers()
        await self._check_schema()
        await self._files.load()
        await self.engine.open()
        await self._notifier.listen(self.engine.id, self.engine.nudge)
        config = self._config
        ops = await self._serve(self._ops, config.ops_host, config.ops_port)
        public = await self._serve(self._public, config.host, config.port)
        for duty in (self._files.watch(), self._watch_smtp(), self._tidy_accounts(), self._count()):
            self._duties.append(asyncio.create_task(duty))
        ports = Ports(public.port, ops.port)
        _quieten_garbage_collector()
        log.info("service_ready", public_port=ports.public, ops_port=ports.ops)
        return ports

    async def _serve(self, app: web.Application, host: str, port: int) -> Served:
        served = await serve_app(app, host, port, shutdown_seconds=self._config.shutdown_seconds)
        self._served.append(served)
        return served

    async def _until_database_answers(self) -> None:
        while True:
            try:
                await self._database.open()
            except Unavailable as error:
                log.warning("database_awaited", reason=str(error))
                await asyncio.sleep(DATABASE_WAIT_SECONDS)
            else:
                return

    async def _check_schema(self) -> None:
        if self._config.migrate:
            await migrate(self._database)
        pending = await pending_migrations(self._database)
        if pending:
            raise SchemaOutOfDate(pending)

    async def close(self) -> None:
        """Stop accepting, finish what is in flight within SHUTDOWN_SECONDS, give up the lease."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._config.shutdown_seconds  # for all parts together
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await asyncio.gather(*(served.close() for served in reversed(self._served)))
        await self._express.close(max(ends_at - loop.time(), 0.0))
        await self.engine.close(max(ends_at - loop.time(), 0.0))
        if self._lambda is not None:
            await self._lambda.close()
        await self._notifier.close()
        await self._transport.close()
        await self._database.close()
        log.info("service_stopped")

    # Readiness (api.probes.Probe)

    async def reasons(self) -> Mapping[str, str]:
        """Return what keeps signups from being taken."""
        reasons = self.engine.reasons()
        try:
            pending = await pending_migrations(self._database)
        except Unavailable as error:
            reasons["database"] = str(error)
        else:
            if pending:
                reasons["schema"] = str(SchemaOutOfDate(pending))
        workflow = self._config.verification_workflow
        if not self._definitions.is_current(workflow):
            reasons["workflow"] = f"no valid definition is loaded for {workflow!r}"
        return reasons

    async def soft_reasons(self) -> Mapping[str, str]:
        """Return what is wrong though signups are taken: their mails wait."""
        return {"smtp": self._smtp_reason} if self._smtp_reason else {}

    # Regular duties

    async def _watch_smtp(self) -> None:
        while True:
            try:
                await self._transport.check()
                self._smtp_reason = None
            except MailUnavailable as error:
                if self._smtp_reason is None:
                    log.warning("smtp_unavailable", reason=str(error))
                self._smtp_reason = str(error)
            await asyncio.sleep(SMTP_CHECK_SECONDS)

    async def _tidy_accounts(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            try:
                await self._accounts.tombstones(self._config.tombstone_days, ROWS_AT_ONCE)
            except Exception as error:  # a locked row, an outage: this duty outlives them all
                log.warning("tombstones_kept", reason=str(error))

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(STATISTICS_SECONDS)
            metrics.EXECUTIONS_IN_FLIGHT.set(self.engine.in_flight)
            busy, idle = self._database.use()
            metrics.POOL_CONNECTIONS.labels("busy").set(busy)
            metrics.POOL_CONNECTIONS.labels("idle").set(idle)


def _quieten_garbage_collector() -> None:
    """Leave what lives for ever out of collections, and collect less often.

    Executions hold no cycles, and what is loaded by now stays; with Python's own thresholds a
    loaded service was seen to spend 3 to 10 % of its time looking through all of it again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)


async def run_until_stopped(
    service: Service, *, announce: Callable[[Ports], None] = lambda ports: None
) -> int:
    """Run a service until SIGTERM or Ctrl-C, end it in order, and return the exit code 0.

    `announce` is told where it listens once it does. Raises what `Service.open` raises.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    opening = asyncio.ensure_future(service.open())
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([opening, stop], return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            announce(opening.result())
            await stop
        return 0
    finally:
        opening.cancel()
        stop.cancel()
        await asyncio.gather(opening, stop, return_exceptions=True)
        await service.close()
