"""Liveness and readiness, with reasons for operators and without for strangers."""

from __future__ import annotations

import asyncio

import pytest

from service.api import probes
from service.api.probes import Health, Readiness
from tests.api.conftest import Port
from tests.api.fakes import FakeProbe

DOWN = {"database": "connection refused"}
MAIL = {"smtp": "login refused"}


async def test_live_process_says_so_whatever_else_is_down(
    public: Port, ops: Port, probe: FakeProbe
) -> None:
    probe.hard = DOWN
    for port in (public, ops):
        answer = await port.ask("GET", "/health/live")
        assert (answer.status, answer.json) == (200, {"status": "live"})
    assert probe.asked == 0


async def test_ready_service_says_so(public: Port, ops: Port, probe: FakeProbe) -> None:
    probe.soft = MAIL
    answer = await public.ask("GET", "/health/ready")
    assert (answer.status, answer.json) == (200, {"status": "ready"})
    answer = await ops.ask("GET", "/health/ready")
    assert (answer.status, answer.json) == (
        200,
        {"status": "ready", "reasons": {}, "soft_reasons": MAIL},
    )


async def test_reasons_are_for_the_ops_port_only(public: Port, ops: Port, probe: FakeProbe) -> None:
    probe.hard = DOWN
    answer = await public.ask("GET", "/health/ready")
    assert (answer.status, answer.json) == (503, {"status": "unready"})
    answer = await ops.ask("GET", "/health/ready")
    assert (answer.status, answer.json) == (
        503,
        {"status": "unready", "reasons": DOWN, "soft_reasons": {}},
    )


async def test_many_questions_are_one_to_the_database(public: Port, probe: FakeProbe) -> None:
    await asyncio.gather(*(public.ask("GET", "/health/ready") for _ in range(20)))
    assert probe.asked == 1


async def test_old_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "READINESS_KEPT_SECONDS", 0.0)
    probe = FakeProbe()
    health = Health(probe)
    assert await health.readiness() == Readiness({}, {})
    probe.hard = DOWN
    assert await health.readiness() == Readiness(DOWN, {})


async def test_probe_that_hangs_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(FakeProbe):
        async def reasons(self) -> dict[str, str]:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    monkeypatch.setattr(probes, "PROBE_SECONDS_MAX", 0.01)
    assert await Health(Hanging()).readiness() == Readiness(
        {"probe": "no answer within 0.01 seconds"}, {}
    )
