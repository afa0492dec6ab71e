"""Items out of files: JSON arrays, JSON Lines, CSV, and the manifests of S3 inventories.

Source: Step Functions guide, "ItemReader". Items are yielded one by one.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import unquote_plus

from service.asl import Json
from service.asl.document import tokens_of
from service.asl.states.distributed_map import CSV_HEADER_BYTES_MAX
from service.documents import INPUT_DEPTH_MAX, loads

ITEM_CHARACTERS_MAX: Final = 1024 * 1024
"""An item is refused beyond 256 KiB anyway; white space within it may take more."""

DOCUMENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of what is read as a whole: a JSON file with an ItemsPointer, a manifest."""

CHUNK_CHARACTERS: Final = 65_536
_SPACE: Final = " \t\n\r"
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,17}")  # RFC 6901, of an array shorter than any memory
_DELIMITERS: Final = {"COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "SPACE": " ", "TAB": "\t"}

Locate = Callable[[str], Path]
"""From a key to the file of an object in the same bucket. Raises BadItems when there is none."""


class BadItems(Exception):
    """A file is not what its reader takes it for, or an object is not where it should be."""


def read_file(path: Path, config: dict[str, Json], locate: Locate) -> Iterator[Json]:
    """Yield the items of a file, as a ReaderConfig says. Raise BadItems, OSError, UnicodeError."""
    match config.get("InputType"):
        case "JSON":
            return _json(path, config.get("ItemsPointer"))
        case "JSONL":
            return _lines(path)
        case "CSV":
            return _csv(path, config)
        case "MANIFEST":
            return _manifest(path, locate)
    raise BadItems("ReaderConfig names no InputType: one of CSV, JSON, JSONL, MANIFEST is needed")


def read_text(text: str, config: dict[str, Json], place: str) -> Iterator[Json]:
    """Yield the items of a text as `read_file` would those of a file. Raise BadItems.

    What is no JSONL or CSV, or made of other objects as a manifest is, is taken for JSON.
    """
    match config.get("InputType"):
        case "JSONL":
            return _values(StringIO(text, newline="\n"), place)
        case "CSV":
            return _records(StringIO(text, newline=""), config, place)
    return _pointed(_value(text, place), config.get("ItemsPointer"), place)


def _json(path: Path, pointer: Json) -> Iterator[Json]:
    if pointer:
        yield from _pointed(_whole(path), pointer, path.name)
        return
    with path.open(encoding="utf-8-sig") as file:
        yield from _elements(file, path.name)


def _pointed(value: Json, pointer: Json, place: str) -> Iterator[Json]:
    """Yield the elements of the array that a JSON pointer, which may be None, leads to."""
    for token in tokens_of(str(pointer or "")):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            raise BadItems(f"{place}: ItemsPointer {pointer!r} leads nowhere")
    if not isinstance(value, list):
        if not pointer:
            raise BadItems(_no_array(place))
        raise BadItems(f"{place}: ItemsPointer {pointer!r} does not lead to an array")
    yield from value


def _no_array(place: str) -> str:
    return f"{place} does not hold a JSON array"


def _whole(path: Path) -> Json:
    if path.stat().st_size > DOCUMENT_BYTES_MAX:
        raise BadItems(f"{path.name} is larger than {DOCUMENT_BYTES_MAX} bytes")
    return _value(path.read_text(encoding="utf-8-sig"), path.name)


def _value(text: str, place: str) -> Json:
    try:
        return loads(text, depth_max=INPUT_DEPTH_MAX)
    except ValueError as error:
        raise BadItems(f"{place}: not JSON: {error}") from error


class _Text:
    """A file's text of which only what is being looked at is in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.text = ""
        self.at = 0
        self.is_over = False

    def read_more(self) -> None:
        """Read on, by so much that a long element is not looked at over and over."""
        rest = self.text[self.at :]
        more = self._file.read(max(CHUNK_CHARACTERS, len(rest)))
        self.text, self.at, self.is_over = rest + more, 0, not more

    def next_character(self) -> str:
        """Return the next character that is no white space, or "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if self.is_over:
                return ""
            self.read_more()

    def element(self, place: str) -> Json:
        """Return the JSON value that begins here. What follows it has been read as well."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if self.is_over or len(self.text) - self.at > ITEM_CHARACTERS_MAX:
                    raise BadItems(f"{place}: not JSON, or too long: {error}") from error
            else:
                # At the end of what was read, a number may go on.
                if end < len(self.text) or self.is_over:
                    value = _value(self.text[self.at : end], place)
                    self.at = end
                    return value
            self.read_more()


_DECODER: Final = json.JSONDecoder()


def _elements(file: TextIO, place: str) -> Iterator[Json]:
    """Yield the elements of a JSON array."""
    text = _Text(file)
    if text.next_character() != "[":
        raise BadItems(_no_array(place))
    text.at += 1
    if text.next_character() == "]":
        return
    for index in count():
        text.next_character()
        yield text.element(f"{place}: element {index}")
        separator = text.next_character()
        text.at += 1
        if separator == "]":
            return
        if separator != ",":
            raise BadItems(f"{place}: element {index}: expected ',' or ']' behind it")


def _lines(path: Path) -> Iterator[Json]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from _values(file, path.name)


def _values(file: TextIO, place: str) -> Iterator[Json]:
    """Yield the values of JSON Lines. Empty lines are left out."""
    number = 0
    while line := file.readline(ITEM_CHARACTERS_MAX):
        number += 1
        if len(line) >= ITEM_CHARACTERS_MAX:
            limit = f"is longer than {ITEM_CHARACTERS_MAX} characters"
            raise BadItems(f"{place}: line {number} {limit}")
        if line.strip():
            yield _value(line, f"{place}: line {number}")


def _csv(path: Path, config: dict[str, Json]) -> Iterator[Json]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _records(file, config, path.name)


def _records(file: TextIO, config: dict[str, Json], place: str) -> Iterator[Json]:
    """Yield the rows of a CSV file, each as an object whose members the headers name."""
    rows = _rows(file, _DELIMITERS[str(config.get("CSVDelimiter", "COMMA"))], place)
    given = config.get("CSVHeaders")
    headers = [str(h) for h in given] if isinstance(given, list) else next(rows, [])
    if sum(len(header.encode("utf-8", "surrogatepass")) for header in headers) > (
        CSV_HEADER_BYTES_MAX
    ):
        raise BadItems(f"{place}: the headers exceed {CSV_HEADER_BYTES_MAX} bytes")
    yield from (_record(headers, row) for row in rows)


def _rows(file: TextIO, delimiter: str, place: str) -> Iterator[list[str]]:
    """Yield the rows that are not empty. One may take many lines, but no more than an item."""
    row_characters = 0

    def lines() -> Iterator[str]:
        nonlocal row_characters
        while line := file.readline(ITEM_CHARACTERS_MAX):
            row_characters += len(line)
            if row_characters >= ITEM_CHARACTERS_MAX:
                rule = f"the row is longer than {ITEM_CHARACTERS_MAX} characters"
                raise BadItems(f"{place}: line {rows.line_num + 1}: {rule}")
            yield line

    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            row_characters = 0
            if row:
                yield row
    except csv.Error as error:
        raise BadItems(f"{place}: line {rows.line_num}: {error}") from error


def _record(headers: list[str], row: list[str]) -> Json:
    """Return a row by its headers: cells that are missing are empty, those beyond left out."""
    row += [""] * (len(headers) - len(row))
    return {header: row[index] for index, header in enumerate(headers)}


def _manifest(path: Path, locate: Locate) -> Iterator[Json]:
    """Yield the entries of the files that an S3 inventory's manifest lists.

    Source: S3 user guide, "Locating your inventory list".
    """
    manifest = _whole(path)
    if not isinstance(manifest, dict) or manifest.get("fileFormat") != "CSV":
        raise BadItems(f"{path.name} is no manifest of an S3 inventory in CSV")
    schema, files = manifest.get("fileSchema"), manifest.get("files")
    if not isinstance(schema, str) or not isinstance(files, list):
        raise BadItems(f"{path.name}: fileSchema or files is missing")
    headers = [name.strip() for name in schema.split(",")]
    for listed in files:
        key = listed.get("key") if isinstance(listed, dict) else None
        if not isinstance(key, str):
            raise BadItems(f"{path.name}: one of the files has no key")
        yield from _inventory(locate(key), headers)


def _inventory(path: Path, headers: list[str]) -> Iterator[Json]:
    unpack = gzip.open if path.suffix == ".gz" else open
    try:
        with unpack(path, "rt", encoding="utf-8", newline="") as text:
            for row in _rows(text, ",", path.name):
                record = _record(headers, row)
                assert isinstance(record, dict), record
                if isinstance(key := record.get("Key"), str):
                    record["Key"] = unquote_plus(key)  # as inventories write keys
                yield record
    except (EOFError, zlib.error) as error:
        raise BadItems(f"{path.name}: the compressed file is damaged: {error}") from error
