"""docs/operations.md names every setting, metric, log event and limit, as the code has it."""

from __future__ import annotations

import re

from prometheus_client import Metric

from service import metrics
from service.api import bodies, schemas, server
from service.config import Config
from service.demo import inbox
from service.engine import (
    claimer,
    committer,
    dispatch,
    map_items,
    map_results,
    map_run,
    quarantine,
    queue,
    rescuer,
    tenures,
    turn,
)
from service.mail import transport
from service.store import database, migrations
from service.tasks import item_formats, lambda_
from tests.docs.pages import ROOT, codes, read, rows, section

PAGE = read("docs/operations.md")
LOGGED = re.compile(
    r"log\.(?:info|warning|error|exception|critical)\(\s*\"([a-z_]+)\"", re.MULTILINE
)
PREFIX = "countersign_"


def test_every_setting_has_one_line_and_every_line_a_setting() -> None:
    named = [codes(cells[0]) for cells in rows(section(PAGE, "## Settings"))]
    fields = [[name.upper()] for name in Config.model_fields]
    assert sorted(named) == sorted(fields)


def test_defaults_of_plain_settings_are_as_documented() -> None:
    documented = {codes(c[0])[0]: c[1].strip("`") for c in rows(section(PAGE, "## Settings"))}
    plain = {
        name.upper(): field.default
        for name, field in Config.model_fields.items()
        if isinstance(field.default, str | int | float) and field.default != ""
    }
    assert plain
    told = {name: documented[name] for name in plain}
    assert told == {name: _shown(value) for name, value in plain.items()}


def _shown(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_metric_has_its_line_with_its_labels() -> None:
    documented = [name for cells in rows(section(PAGE, "### Metrics")) for name in codes(cells[0])]
    assert sorted(documented) == sorted(_with_labels(m) for m in _own_metrics())


def _own_metrics() -> list[Metric]:
    return [m for m in metrics.REGISTRY.collect() if m.name.startswith(PREFIX)]


def _with_labels(metric: Metric) -> str:
    name = metric.name.removeprefix(PREFIX) + ("_total" if metric.type == "counter" else "")
    collector = metrics.REGISTRY._names_to_collectors[metric.name]
    labels = ",".join(collector._labelnames)  # type: ignore[attr-defined]
    return f"{name}{{{labels}}}" if labels else name


def test_every_log_event_above_debug_has_its_line() -> None:
    documented = [name for cells in rows(section(PAGE, "### Log")) for name in codes(cells[0])]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "service").rglob("*.py")]
    logged = {event for source in sources for event in LOGGED.findall(source)}
    assert sorted(documented) == sorted(logged)


def test_limits_are_the_ones_of_the_code() -> None:
    documented = {cells[0]: cells[1] for cells in rows(section(PAGE, "## Limits"))}
    timeouts = transport.TIMEOUTS
    assert documented == {
        "body of a request": f"{bodies.BODY_BYTES_MAX:,} bytes, {bodies.BODY_SECONDS_MAX:g} s, "
        f"{bodies.BODY_DEPTH_MAX} levels",
        "request line; one header; headers": f"{server.REQUEST_LINE_BYTES_MAX:,} bytes; "
        f"{server.HEADER_BYTES_MAX:,} bytes; {server.HEADERS_MAX}",
        "connections of one port": f"{server.CONNECTIONS_MAX:,}",
        "`data` of a signup": f"{schemas.DATA_BYTES_MAX:,} bytes as compact JSON, "
        f"{schemas.DATA_DEPTH_MAX} levels",
        "steps that wait to be committed, in each of two queues": f"{committer.QUEUE_UNITS_MAX:,}",
        "executions in a process's hands; claimed at once; rescued at once": (
            f"{tenures.TENURES_MAX:,}; {claimer.CLAIMS_AT_ONCE}; {rescuer.RESCUES_AT_ONCE}"
        ),
        "handlers at work at once": f"{dispatch.CONCURRENT_TASKS_MAX}",
        "children of a Distributed Map started at once; items read from a file at once": (
            f"{map_run.SLICE}; {map_items.READ_AT_ONCE}"
        ),
        "an item in a file; a JSON file with ItemsPointer, a manifest; a file of results": (
            f"{item_formats.ITEM_CHARACTERS_MAX:,} characters; "
            f"{item_formats.DOCUMENT_BYTES_MAX:,} bytes; "
            f"{map_results.RESULT_FILE_BYTES_MAX:,} bytes"
        ),
        "a call of `LAMBDA_ENDPOINT`: connecting; in all; its answer; how many at once": (
            f"{lambda_.CONNECT_SECONDS_MAX:g} s; {lambda_.INVOKE_SECONDS_MAX:g} s; "
            f"{lambda_.ANSWER_BYTES_MAX:,} bytes; {lambda_.CONNECTIONS_MAX}"
        ),
        "SMTP connections; mails waiting for one; mails on one connection": (
            f"{transport.CONNECTIONS_MAX}; {transport.WAITERS_MAX:,}; "
            f"{transport.MAILS_PER_CONNECTION_MAX}"
        ),
        "SMTP: connecting; a command; each reply to DATA": (
            f"{timeouts.connect:g} s; {timeouts.command:g} s; {timeouts.data:g} s"
        ),
        "executions in a transaction; a lock waited for": (
            f"{queue.BATCH_UNITS_MAX}; {committer.LOCK_PATIENCE_MS} ms"
        ),
        "a database statement; a connection; one migration": (
            f"{database.COMMAND_SECONDS:g} s; {database.CONNECT_SECONDS:g} s; "
            f"{migrations.MIGRATION_SECONDS:g} s"
        ),
        "rounds of account functions in one transaction": f"{turn.EFFECT_ROUNDS_MAX}",
        "mails in the demo's inbox": f"{inbox.MESSAGES_MAX:,} of {inbox.MESSAGE_BYTES_MAX:,} bytes",
    }


def test_errors_of_the_engine_are_named_as_they_are() -> None:
    assert f"`{quarantine.POISONED}`" in PAGE
    assert f"`{committer.REJECTED}`" in PAGE
    assert quarantine.DEATHS_MAX == 3, "the page says three processes"
