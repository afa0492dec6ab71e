"""All SQL is in sql/: no string in the code is a statement."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import service

PACKAGE = Path(service.__file__).parent

STATEMENT = re.compile(
    r"""\s*(
        select\s.*\b(from|where)\b | select\s+\w+\( | insert\s+into\s
        | update\s+\w+\s+(as\s+\w+\s+)?set\s
        | delete\s+from\s | with\s+(recursive\s+)?\w+\s+as\s | merge\s+into\s | truncate\s
        | (create|alter|drop)\s+(table|index|database|type|function|role|schema)\s
        | (un)?listen\s+[\w"]+\s*;?\s*$ | notify\s+[\w"]+\s*(,|;?\s*$)
        | set\s+(local\s+)?\w+\s*(=|to)\s
        | lock\s+table\s | (vacuum|analyze)\s+\w+\s*;?\s*$
        | copy\s+\w+\s.*\b(from|to)\b | explain\s | prepare\s+\w+\s+as\s | reindex\s
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield every string of a module with its line, docstrings left out."""
    tree = ast.parse(source)
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
        ):
            yield node.lineno, node.value


def test_no_string_of_the_service_is_a_statement() -> None:
    # A single word, such as `begin`, is the name of one in sql/queries.
    found = {
        f"{path.relative_to(PACKAGE)}:{line}": text
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in strings(path.read_text(encoding="utf-8"))
        if STATEMENT.match(text)
    }
    assert found == {}


def test_statements_of_every_kind_would_be_found() -> None:
    files = sorted((PACKAGE.parent / "sql").rglob("*.sql"))
    texts = [re.sub(r"--.*", "", path.read_text()) for path in files]
    statements = [text for text in re.split(r";\s*\n|\n\n", "\n\n".join(texts)) if text.strip()]
    openings = {text.split()[0].lower() for text in statements if STATEMENT.match(text)}
    assert {"select", "insert", "update", "delete", "with", "create", "alter", "set"} <= openings
