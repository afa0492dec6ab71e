"""The folder that stands for S3 buckets: each of its sub-folders is one, each file in it an object.

Neither a name nor a symbolic link leads out of a bucket. Every read is bounded: items are yielded
one by one, and what must be in memory at once has its limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import uuid4

from service.asl import ExecutionError, Json
from service.asl.commands import ReadItems
from service.asl.errors import ITEM_READER_FAILED, RESULT_WRITER_FAILED
from service.asl.states.distributed_map import LIST_OBJECTS, MAP_RUN_ITEMS_MAX
from service.tasks.item_formats import BadItems, read_file

# S3 user guide, "Bucket naming rules", "Object key naming": the least that keeps paths inside.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY_BYTES_MAX: Final = 1_024
# What the names of files begin with that are being written, or were when a process was killed.
_DRAFT: Final = ".draft-"


class FolderBuckets:
    """The engine's `ItemFiles`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def items(self, reader: ReadItems) -> Iterator[Json]:
        """Yield the items that an ItemReader asks for; what is beyond MAP_RUN_ITEMS_MAX is left.

        Raise ExecutionError("States.ItemReaderFailed") when they cannot be read.
        """
        items_max = reader.config.get("MaxItems", MAP_RUN_ITEMS_MAX)
        assert isinstance(items_max, int), items_max
        try:
            yield from islice(self._read(reader), items_max)
        except (BadItems, OSError, UnicodeError) as error:
            raise ExecutionError(ITEM_READER_FAILED, _words(error)) from error

    def write(self, bucket: str, key: str, chunks: Iterable[bytes]) -> int:
        """Write an object, in place of one that is there; return its size in bytes.

        Raise ExecutionError("States.ResultWriterFailed") when it cannot be written.
        """
        try:
            path = self._object(bucket, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            return _replace(path, chunks)
        except (BadItems, OSError, UnicodeError) as error:
            raise ExecutionError(RESULT_WRITER_FAILED, _words(error)) from error

    def _read(self, reader: ReadItems) -> Iterator[Json]:
        bucket = str(reader.parameters["Bucket"])
        if reader.resource != LIST_OBJECTS:
            yield from self._object_items(bucket, str(reader.parameters["Key"]), reader.config)
            return
        prefix = str(reader.parameters.get("Prefix") or "")
        loads_objects = reader.config.get("Transformation") == "LOAD_AND_FLATTEN"
        for key, entry in self._listed(bucket, prefix):
            if loads_objects:
                yield from self._object_items(bucket, key, reader.config)
            else:
                yield _listing(key, entry.stat())

    def _object_items(self, bucket: str, key: str, config: dict[str, Json]) -> Iterator[Json]:
        return read_file(self._file(bucket, key), config, lambda other: self._file(bucket, other))

    def _file(self, bucket: str, key: str) -> Path:
        """Return the path of an object. Raise BadItems when there is none."""
        path = self._object(bucket, key)
        if not path.is_file():
            raise BadItems(f"there is no object {key!r} in the bucket {bucket!r}")
        return path

    def _bucket(self, bucket: str) -> Path:
        """Return the folder of a bucket. Raise BadItems when there is none."""
        root = _real(self._root)
        if _BUCKET.fullmatch(bucket):  # else it may be no name of a file at all
            path = _real(root / bucket)
            if path.parent == root and path.is_dir():
                return path
        raise BadItems(f"there is no bucket {bucket!r}")

    def _object(self, bucket: str, key: str) -> Path:
        """Return the path of an object, there or not. Raise BadItems for one outside its bucket."""
        folder = self._bucket(bucket)
        parts = key.split("/")
        is_plain = all(part not in ("", ".", "..") for part in parts) and "\0" not in key
        if not is_plain or len(key.encode("utf-8", "surrogatepass")) > _KEY_BYTES_MAX:
            raise BadItems(f"{key!r:.200} is not the key of an object here")
        path = folder.joinpath(*parts)
        if not _real(path).is_relative_to(folder):
            raise BadItems(f"the object {key!r} is not inside its bucket {bucket!r}")
        return path

    def _listed(self, bucket: str, prefix: str) -> Iterator[tuple[str, Path]]:
        """Yield the objects of a bucket with this prefix, by their keys, in the order of these."""
        folder = self._bucket(bucket)
        for path in _walk(folder):
            key = path.relative_to(folder).as_posix()
            if key.startswith(prefix) and _real(path).is_relative_to(folder):
                yield key, path


def _real(path: Path) -> Path:
    """Return where links lead. Of those that lead to each other `Path.resolve` makes an error of
    its own; here they stay what they are, and cannot be opened.
    """
    return Path(os.path.realpath(path))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in the order of their keys: a folder's name ends in "/"."""
    entries = sorted(
        os.scandir(folder), key=lambda e: e.name + "/" * e.is_dir(follow_symlinks=False)
    )
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)
        elif path.is_file() and not entry.name.startswith(_DRAFT):
            yield path


def _listing(key: str, stat: os.stat_result) -> Json:
    """Return what ListObjectsV2 tells of an object. The ETag changes whenever the file does."""
    return {
        "Etag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
        "Key": key,
        "LastModified": int(datetime.fromtimestamp(stat.st_mtime, UTC).timestamp()),
        "Size": stat.st_size,
        "StorageClass": "STANDARD",
    }


def _replace(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a file in one step: a reader sees the former one or this one, never half of it."""
    draft = path.with_name(f"{_DRAFT}{uuid4().hex}")
    try:
        with draft.open("xb") as file:
            size = sum(map(file.write, chunks))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    return size


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"the object cannot be read or written: {error.strerror}"
    return str(error)
