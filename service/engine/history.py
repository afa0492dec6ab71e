"""The history of one step as it is stored: its events in one compressed row.

A row is written with every step and read by few, so writing is what has to be cheap. It is short,
too: most of it is the words that every history is made of, and these stand in a dictionary, which
halves a row and the time it takes. zlib notes in a row which dictionary it was made with.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import orjson

from service.asl import HistoryEvent
from service.asl.history import stored
from service.documents import dumps_own, loads

# Never changed: every row that is stored needs it. What is put at its end is found soonest.
_DICTIONARY: Final = (
    files("service.engine").joinpath("history_dictionary.txt").read_bytes().replace(b"\n", b"")
)
# By default zlib fetches and clears 256 kB for each row; a window of 4 kB holds the dictionary and
# most of a row. Copying a compressor that has read the dictionary spares reading it for each row.
_COMPRESSOR: Final = zlib.compressobj(level=3, wbits=12, memLevel=4, zdict=_DICTIONARY)


def pack(events: Sequence[HistoryEvent]) -> bytes:
    """Return the row that holds these events."""
    return compress(text_of(events))


def text_of(events: Sequence[HistoryEvent]) -> bytes:
    """Return the JSON text of events, which is what a row holds."""
    rows = stored(events)
    try:
        return orjson.dumps(rows)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate
        return dumps_own(rows)


def compress(text: bytes) -> bytes:
    """Return the row that holds a text."""
    compressor = _COMPRESSOR.copy()
    return compressor.compress(text) + compressor.flush()


def unpack(row: bytes) -> list[HistoryEvent]:
    """Return the events of a row. Raise ValueError when it is nothing that `pack` writes."""
    try:
        rows = loads(_decompress(row))
        if not isinstance(rows, list):
            raise ValueError(f"no list of events: {rows!r:.200}")
        return [HistoryEvent.from_json(event) for event in rows]
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the row of history cannot be read: {error}") from error


def _decompress(row: bytes) -> bytes:
    decompressor = zlib.decompressobj(zdict=_DICTIONARY)
    text = decompressor.decompress(row)
    if not decompressor.eof:
        raise ValueError("it ends too early")
    return text
