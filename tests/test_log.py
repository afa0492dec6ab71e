"""What reaches the log: one line per event, and no address, token or password in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog

from service import log

ID = UUID("01890000-0000-7000-8000-000000000000")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in log.QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    log.bind_request_id(None)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    for line in found:
        assert line.pop("timestamp").endswith("Z")
    return found


def test_an_event_is_a_line_of_json_with_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    log.bind_request_id("r1")
    structlog.get_logger().info("timer_fired", execution=ID, late_ms=1.5, tries=(1, 2), cause=None)
    assert lines(capsys) == [
        {
            "event": "timer_fired",
            "level": "info",
            "request_id": "r1",
            "execution": str(ID),
            "late_ms": 1.5,
            "tries": [1, 2],
            "cause": None,
        }
    ]


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "warning")
    structlog.get_logger().info("ours")
    logging.getLogger("theirs").info("theirs")
    logging.getLogger("apscheduler.scheduler").info("theirs too")
    assert lines(capsys) == []


def test_a_librarys_message_is_an_event_redacted_as_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("json", "info")
    logging.getLogger("some.library").warning("cannot mail to <%s>", "ada@example.org")
    logging.getLogger("apscheduler.scheduler").info("Added job")
    assert lines(capsys) == [
        {"event": "cannot mail to <[redacted]>", "level": "warning", "logger": "some.library"}
    ]


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"email": "whatever"}, {"email": "[redacted]"}),
        ({"task_token": "abc"}, {"task_token": "[redacted]"}),
        ({"Authorization": "Bearer abc"}, {"Authorization": "[redacted]"}),
        ({"recipients": ["abc"]}, {"recipients": "[redacted]"}),
        ({"email_domain": "example.org"}, {"email_domain": "example.org"}),
        ({"tokens": 3}, {"tokens": 3}),
        ({"to": "Ada <ada+x@exämple.org>, Bob"}, {"to": "Ada <[redacted]>, Bob"}),
        ({"d": {"a": [{"password": "p"}]}}, {"d": {"a": [{"password": "[redacted]"}]}}),
        ({"d": {"ada@example.org": 1}}, {"d": {"[redacted]": 1}}),
        ({"url": "/verify?id=1&token=abc&x=1"}, {"url": "/verify?id=1&token=[redacted]&x=1"}),
        ({"url": "smtp://u:pw@mail:25"}, {"url": "smtp://u:[redacted]:25"}),
        ({"error": ValueError("no ada@example.org")}, {"error": "ValueError('no [redacted]')"}),
        ({"text": b"ada@example.org"}, {"text": "b'[redacted]'"}),
    ],
)
def test_what_is_personal_or_secret_is_left_out(
    fields: dict[str, Any], written: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("json", "info")
    structlog.get_logger().info("happened", **fields)
    assert lines(capsys) == [{"event": "happened", "level": "info", **written}]


def test_a_traceback_is_redacted_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    try:
        raise ValueError("duplicate key: (address)=(ada@example.org)")
    except ValueError:
        structlog.get_logger().exception("commit_failed")
    (line,) = lines(capsys)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: duplicate key: (address)=([redacted])")


def test_no_value_costs_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    deep: Any = "bottom"
    for _ in range(10_000):
        deep = [deep]
    structlog.get_logger().info("odd", huge=2**80, lone="\ud800", deep=deep, nul="\x00")
    (line,) = lines(capsys)
    assert (line["huge"], line["lone"], line["nul"]) == (2**80, "\ud800", "\x00")
    assert json.dumps(line["deep"]) == "[" * 8 + '"[redacted]"' + "]" * 8


def test_the_console_shows_a_line_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    structlog.get_logger().info("ready", port=8080, email="x", lone="\ud800")
    text = capsys.readouterr().err
    assert "ready" in text
    assert "port=8080" in text
    assert "email=[redacted]" in text
    assert "\x1b" not in text


def test_a_logger_in_use_follows_a_second_configure(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    logger = structlog.get_logger()
    logger.info("first")
    capsys.readouterr()
    log.configure("json", "info")
    logger.info("second")
    assert lines(capsys) == [{"event": "second", "level": "info"}]
