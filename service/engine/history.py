"""The history of one step as it is stored: its events in one compressed row.

A row is written with every step and read by few, so writing is what has to be cheap.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import orjson

from service.asl import HistoryEvent
from service.documents import dumps_own, loads

# Level, method, window bits, memory level. zlib's defaults fetch and clear 256 kB for each row; a
# window of 4 kB holds the kilobyte or so that is in one, and the result has the same size.
COMPRESSION: Final = (1, zlib.DEFLATED, 12, 5)


def pack(events: Sequence[HistoryEvent]) -> bytes:
    """Return the row that holds these events."""
    try:
        text = orjson.dumps([tuple(event) for event in events], option=orjson.OPT_UTC_Z)
    except TypeError:  # an integer beyond 64 bits, a lone surrogate
        text = dumps_own([event.to_json() for event in events])
    compressor = zlib.compressobj(*COMPRESSION)
    return compressor.compress(text) + compressor.flush()


def unpack(row: bytes) -> list[HistoryEvent]:
    """Return the events of a row. Raise ValueError when it is nothing that `pack` writes."""
    try:
        stored = loads(zlib.decompress(row))
        if not isinstance(stored, list):
            raise ValueError(f"no list of events: {stored!r:.200}")
        return [HistoryEvent.from_json(event) for event in stored]
    except (zlib.error, ValueError) as error:
        raise ValueError(f"the row of history cannot be read: {error}") from error
