"""The Dockerfile and the packaging: what they promise, as far as reading tells.

`make image-check` runs the installing steps themselves.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in DOCKERFILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in INSTRUCTIONS if instruction == name]


def last_stage() -> list[tuple[str, ...]]:
    start = max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
    return INSTRUCTIONS[start:]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = [
        source
        for arguments in arguments_of("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    ]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if source.split("/")[0] not in allowed] == []


def test_everything_installed_is_locked_by_hash_or_our_own_wheel() -> None:
    installs = [run for run in arguments_of("RUN") if " install " in run]
    assert len(installs) == 3
    for run in installs:
        assert "--require-hashes --requirement locks/" in run or "--no-deps --no-index" in run


def test_the_image_runs_as_a_number_that_is_not_root_and_answers_sigterm() -> None:
    (user,) = [arguments for name, arguments in last_stage() if name == "USER"]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    assert arguments_of("STOPSIGNAL") == ["SIGTERM"]
    # The exec form: no shell stands between the signal and the service.
    assert [json.loads(text) for text in arguments_of("ENTRYPOINT")] == [["countersign"]]
    assert [json.loads(text) for text in arguments_of("CMD")] == [["serve"]]


def test_the_health_check_is_a_program_that_asks_for_readiness() -> None:
    (check,) = arguments_of("HEALTHCHECK")
    program, flag, code = json.loads(check.split("CMD", 1)[1])
    assert (program, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert "/health/ready" in code


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_pins_everything_by_hash_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    pinned = re.findall(r"^[a-z0-9][a-z0-9._\[\]-]*==\S+(.*?)(?=^\S|\Z)", text, re.M | re.S)
    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.M)) > 0
    assert all("--hash=sha256:" in rest for rest in pinned)
    assert not re.search(r"://|--index|--find-links|file:", text)


def test_the_locks_agree_on_every_version() -> None:
    pins = [dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", p.read_text(), re.M)) for p in LOCKS]
    everything = {name: version for pin in pins for name, version in pin.items()}
    assert [pin for pin in pins if pin.items() - everything.items()] == []


def test_the_service_lock_holds_what_the_service_depends_on_and_nothing_embedded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", text)[0] for text in project["dependencies"]}
    embedded = {re.split(r"[<>=]", t)[0] for t in project["optional-dependencies"]["embedded"]}
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "locks/serve.txt").read_text(), re.M))
    assert needed - pinned == set()
    assert embedded & pinned == set()
