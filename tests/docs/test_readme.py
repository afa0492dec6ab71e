"""README.md shows what the service really prints, mails and accepts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from service.app import Ports
from service.cli import main
from service.config import load_config
from service.mail import Envelope, Mailbox, Templates, Variables
from service.run_demo import _announcement, _environment
from tests.docs.pages import ROOT, blocks, read, section

README = read("README.md")
FLOW = read("workflows/verification.asl.json")
LINK = re.compile(r"http://localhost:8080/verify\?id=[0-9a-f-]{36}#token=[A-Za-z0-9_-]{76}")


def test_the_demo_announces_what_the_readme_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    environment = _environment(tmp_path, {}, "postgresql://localhost/demo", "smtp://localhost")
    _announcement(load_config(environment), Path(".data"))(Ports(8080, 8081))
    shown = next(block for block in blocks(README, "") if "Countersign is ready" in block)
    assert capsys.readouterr().out.strip() == shown.strip()


def test_the_mail_reads_as_shown() -> None:
    transcript = next(block for block in blocks(README, "console") if "Hello Ada" in block)
    shown = transcript.partition("Hello Ada,")[2].partition("\n\n$ ")[0]
    (link,) = LINK.findall(shown)
    sent = Templates.load().render(
        "verification",
        "en",
        Variables(product="Countersign", name="Ada", link=link, expires_in_seconds=60),
        Envelope(
            message_id="<1@localhost>",
            date=datetime(2026, 1, 1, tzinfo=UTC),
            sender=Mailbox("Countersign", "no-reply@localhost"),
            recipient="ada@example.test",
        ),
    )
    message = message_from_bytes(sent, policy=default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(("plain",))
    assert body is not None
    assert body.get_content().splitlines() == f"Hello Ada,{shown}".splitlines()


def _edited() -> str:
    """Return the shipped flow with the README's states in place of its Wait."""
    (states,) = blocks(section(README, "## Change the flow"), "json")
    wait = r'    "WaitForVerification": \{.*?\n    \},\n'
    text, edits = re.subn(wait, lambda _: states, FLOW, count=1, flags=re.DOTALL)
    assert edits == 1
    return text


def test_the_edited_flow_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = tmp_path / "verification.asl.json"
    edited.write_text(_edited())
    assert main(["validate", str(edited)]) == 0
    assert capsys.readouterr().out == ""
    states = json.loads(edited.read_text())["States"]
    waits = [state["Seconds"] for state in states.values() if state["Type"] == "Wait"]
    assert sum(waits) == json.loads(FLOW)["States"]["WaitForVerification"]["Seconds"]


def test_the_typing_mistake_is_told_as_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflows").mkdir()
    before, last_wait, after = _edited().partition('"WaitAfterReminder": {')
    mistake = before + last_wait + after.replace('"GetAccount"', '"GetAccoun"', 1)
    (tmp_path / "workflows/verification.asl.json").write_text(mistake)
    assert main(["validate", "workflows/verification.asl.json"]) == 1
    command, _, shown = blocks(section(README, "## Change the flow"), "console")[0].partition("\n")
    assert command == "$ .venv/bin/countersign validate workflows/verification.asl.json"
    assert capsys.readouterr().out == shown


def test_the_deployment_that_is_shown_is_a_configuration() -> None:
    (script,) = blocks(section(README, "## Deploy it"), "sh")
    lines = script.partition("<<END\n")[2].partition("\nEND\n")[0].splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment.pop("SECRET_KEY") == "$(openssl rand -hex 32)"
    config = load_config({**environment, "SECRET_KEY": "0" * 64})
    assert (config.smtp_url.host, config.smtp_url.tls) == ("mail.internal", "starttls")
