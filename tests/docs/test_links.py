"""Links, images and commands in the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.cli import main
from tests.docs.pages import PAGES, ROOT, blocks, headings

LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[\s`/])countersign ([a-z]+)\b(?! is| in| on| was)")
TARGET = re.compile(r"(?:^|`|\$ )make ([a-z][a-z0-9-]*)", re.MULTILINE)
IMAGE_BYTES_MAX = 150_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_and_heading(page: Path) -> None:
    lost = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in headings(target.read_text())):
            lost.append(link)
    assert lost == []


def test_images_are_small_enough_to_be_cloned_by_everyone() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/images").iterdir()}
    assert sizes
    assert {name for name, size in sizes.items() if size > IMAGE_BYTES_MAX} == set()


def test_every_command_that_is_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^    ([a-z]+)  ", capsys.readouterr().out, re.MULTILINE))
    shown = {
        command
        for page in PAGES
        for language in ("sh", "console")
        for block in blocks(page.read_text(encoding="utf-8"), language)
        for line in block.splitlines()
        if "docker build" not in line
        for command in COMMAND.findall(line)
    }
    assert {"migrate", "serve", "doctor", "validate"} <= shown
    assert shown - known == set()


def test_every_make_target_that_is_shown_exists() -> None:
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        target for page in PAGES for target in TARGET.findall(page.read_text(encoding="utf-8"))
    }
    assert {"run", "test", "check"} <= shown
    assert shown - known == set()
