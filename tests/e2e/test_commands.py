"""The command's exit codes and words: 0 done, 1 "no", 2 wrong usage or configuration."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.e2e.process import REPOSITORY, SECRET_KEY, base_environment, run_command
from tests.e2e.sink import MailSink

pytestmark = pytest.mark.e2e

SHIPPED = REPOSITORY / "workflows" / "verification.asl.json"
DANGLING = '{\n  "StartAt": "A",\n  "States": {"A": {"Type": "Pass", "Next": "B"}}\n}\n'
NOBODY = "smtp://127.0.0.1:1?tls=none"


def test_validate_says_nothing_of_a_valid_file_and_names_the_place_in_an_invalid_one(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.asl.json"
    broken.write_text(DANGLING)
    environment = base_environment()
    good = run_command("validate", str(SHIPPED), environment=environment)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = run_command("validate", str(SHIPPED), str(broken), environment=environment)
    assert (bad.returncode, bad.stderr) == (1, "")
    # The wording is the parser's and its tests' affair; the shape and the place are ours.
    line = rf"{re.escape(str(broken))}:\d+:\d+: [A-Z_]+ .+ \(at /\S*\)"
    assert all(re.fullmatch(line, printed) for printed in bad.stdout.splitlines())
    column = DANGLING.splitlines()[2].index('"B"') + 1
    at = f"{broken}:3:{column}: MISSING_TRANSITION_TARGET "
    (problem,) = [line for line in bad.stdout.splitlines() if line.startswith(at)]
    assert problem.endswith("(at /States/A/Next)")
    absent = run_command("validate", str(tmp_path / "none"), environment=environment)
    assert absent.returncode == 2
    print(json.dumps({"test": "validate", "codes": [0, 1, 2]}))


def test_serve_names_all_that_is_missing_at_once() -> None:
    result = run_command("serve", environment=base_environment())
    assert result.returncode == 2
    missing = [line.split(":")[0].strip() for line in result.stderr.splitlines()[1:]]
    assert missing == ["DATABASE_URL", "SMTP_URL", "SECRET_KEY"]
    print(json.dumps({"test": "serve_without_environment", "missing": missing}))


def test_a_wrong_command_is_wrong_usage() -> None:
    result = run_command("sevre", environment=base_environment())
    assert (result.returncode, "serve" in result.stderr) == (2, True)


def test_migrate_brings_up_to_date_once_and_serve_refuses_what_is_not(
    fresh_database: str,
) -> None:
    environment = base_environment(
        DATABASE_URL=fresh_database, SMTP_URL=NOBODY, SECRET_KEY=SECRET_KEY, PORT="0", OPS_PORT="0"
    )
    refused = run_command("serve", environment=environment)
    assert refused.returncode == 2
    assert "countersign migrate" in refused.stderr
    first = run_command("migrate", environment=environment)
    assert (first.returncode, first.stdout.split()[0]) == (0, "applied")
    second = run_command("migrate", environment=environment)
    assert (second.returncode, second.stdout) == (0, "the schema is up to date\n")
    nowhere = {**environment, "DATABASE_URL": "postgresql://u@127.0.0.1:1/nothing"}
    assert run_command("migrate", environment=nowhere).returncode == 1
    print(json.dumps({"test": "migrate", "codes": [0, 0, 1]}))


async def test_doctor_finds_every_part_well_or_says_what_to_do(
    fresh_database: str, sink: MailSink, tmp_path: Path
) -> None:
    environment = base_environment(
        DATABASE_URL=fresh_database, SMTP_URL=NOBODY, SECRET_KEY=SECRET_KEY
    )
    ill = run_command("doctor", environment=environment)
    assert ill.returncode == 1
    failures = [line.split(":")[0] for line in ill.stdout.splitlines() if line.startswith("FAIL")]
    assert failures == ["FAIL schema", "FAIL smtp"]
    assert "countersign migrate" in ill.stdout
    assert run_command("migrate", environment=environment).returncode == 0
    # In a thread: the mail server it asks runs on this very loop.
    well = await asyncio.to_thread(
        run_command, "doctor", environment={**environment, "SMTP_URL": sink.url}
    )
    assert (well.returncode, "FAIL" in well.stdout) == (0, False), well.stdout
    assert sink.deliveries == []
    print(json.dumps({"test": "doctor", "codes": [1, 0]}))
