"""The command line: what is told, and answered, when a part refuses its configuration."""

from __future__ import annotations

import os

import pytest

from service import cli


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("ada@b.org\nBcc: eve@c.org", "'ada@b.org\\nBcc: eve@c.org' is not of the form"),
        ("a,b@example.org", "'a,b@example.org' is not of the form Name <address>"),
        (f"{'A' * 101} <a@b.org>", "From: 101 characters, at most 100 allowed"),
    ],
)
def test_a_sender_that_mail_refuses_is_a_problem_of_the_configuration(
    sender: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = {
        "DATABASE_URL": "postgresql://db/countersign",
        "SMTP_URL": "smtp://mail",
        "SECRET_KEY": "k" * 32,
        "MAIL_FROM": sender,
    }
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(cli, "configure", lambda log_format, log_level: None)
    assert cli.main(["serve"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"countersign: the configuration is wrong:\n  MAIL_FROM: {message}")
