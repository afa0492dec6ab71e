"""The folder that stands for buckets: what is read, what is written, and that nothing leads out."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.asl import ExecutionError, Json
from service.asl.commands import ReadItems
from service.tasks import FolderBuckets, buckets
from service.tasks.item_formats import CHUNK_CHARACTERS, ITEM_CHARACTERS_MAX

JSON_FILE = {"InputType": "JSON"}
CSV_FILE = {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "buckets" / "data"
    folder.mkdir(parents=True)
    return folder


def items(
    bucket: Path, config: Any, key: str = "f", resource: str = "getObject", **more: str
) -> Any:
    parameters: dict[str, Json] = {"Bucket": bucket.name, "Key": key, **more}
    reader = ReadItems(resource, parameters, dict(config))
    return list(FolderBuckets(bucket.parent).items(reader))


def failure(bucket: Path, config: Any, key: str = "f", **more: str) -> str:
    """Return the cause of a read that fails."""
    with pytest.raises(ExecutionError) as caught:
        items(bucket, config, key, **more)
    assert caught.value.error == "States.ItemReaderFailed"
    return caught.value.cause or ""


# JSON


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        " [ ] ",
        "[1]",
        '[1, "two" , {"three": [4]}, null, 12345678901234567890123, 1.0]',
        "\ufeff[1,2]",
        "[" + ",".join(["123456789"] * 20_000) + "]",
        json.dumps(["x" * CHUNK_CHARACTERS * 3, 1]),
    ],
)
def test_elements_of_an_array_are_the_items(bucket: Path, text: str) -> None:
    (bucket / "f").write_text(text, encoding="utf-8")
    assert items(bucket, JSON_FILE) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "f does not hold a JSON array"),
        ('{"a": []}', "f does not hold a JSON array"),
        ("[1", "f: element 0: expected ',' or ']' behind it"),
        ("[1 2]", "element 0: expected ',' or ']' behind it"),
        ("[1,]", "element 1: not JSON"),
        ("[NaN]", "element 0: not JSON"),
        ("[" * 5_000, "element 0: not JSON"),
        ('["' + "x" * (ITEM_CHARACTERS_MAX * 3), "element 0: not JSON, or too long"),
    ],
)
def test_what_is_no_array_fails_with_the_place(bucket: Path, text: str, cause: str) -> None:
    (bucket / "f").write_text(text)
    assert cause in failure(bucket, JSON_FILE)


def test_text_that_is_not_utf_8_fails(bucket: Path) -> None:
    (bucket / "f").write_bytes(b'["\xff"]')
    assert "utf-8" in failure(bucket, JSON_FILE)


def test_a_pointer_leads_to_the_array(bucket: Path) -> None:
    (bucket / "f").write_text('{"a": [0, {"b/c": [1, 2]}]}')
    pointed = {**JSON_FILE, "ItemsPointer": "/a/1/b~1c"}
    assert items(bucket, pointed) == [1, 2]
    assert "leads nowhere" in failure(bucket, {**JSON_FILE, "ItemsPointer": "/a/7"})
    assert "to an array" in failure(bucket, {**JSON_FILE, "ItemsPointer": "/a/0"})


def test_no_more_items_are_read_than_a_run_may_have(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "MAP_RUN_ITEMS_MAX", 2)
    (bucket / "f").write_text("[1, 2, 3]")
    assert items(bucket, JSON_FILE) == [1, 2]


@pytest.mark.parametrize("token", ["1" * 5_000, "01", "\u0661", "-1", "+1"])
def test_an_index_in_a_pointer_is_written_as_rfc_6901_demands(bucket: Path, token: str) -> None:
    (bucket / "f").write_text("[[1], [2]]")
    assert failure(bucket, JSON_FILE | {"ItemsPointer": f"/{token}"}).endswith("leads nowhere")


def test_max_items_are_the_first(bucket: Path) -> None:
    (bucket / "f").write_text("[1, 2, 3, oops")
    assert items(bucket, {**JSON_FILE, "MaxItems": 2}) == [1, 2]


# JSON Lines


def test_each_line_is_an_item_and_empty_ones_are_none(bucket: Path) -> None:
    (bucket / "f").write_text('{"a": 1}\n\n  \r\n[2]\r\n"\u2028"', encoding="utf-8")
    assert items(bucket, {"InputType": "JSONL"}) == [{"a": 1}, [2], "\u2028"]


def test_a_line_that_is_no_json_or_too_long_fails_with_its_number(bucket: Path) -> None:
    (bucket / "f").write_text("1\n{\n")
    assert failure(bucket, {"InputType": "JSONL"}).startswith("f: line 2: not JSON")
    (bucket / "f").write_text(f'"{"x" * ITEM_CHARACTERS_MAX}"')
    assert "f: line 1 is longer" in failure(bucket, {"InputType": "JSONL"})


# CSV


def test_rows_are_objects_by_the_headers_of_the_first(bucket: Path) -> None:
    (bucket / "f").write_text('a,b\n1,"x, ""y""\nz"\n\n2\n3,4,5\n')
    assert items(bucket, CSV_FILE) == [
        {"a": "1", "b": 'x, "y"\nz'},
        {"a": "2", "b": ""},
        {"a": "3", "b": "4"},
    ]


def test_headers_may_be_given_and_the_delimiter_named(bucket: Path) -> None:
    (bucket / "f").write_text("1|2\n")
    given = {
        "InputType": "CSV",
        "CSVHeaderLocation": "GIVEN",
        "CSVHeaders": ["x", "y"],
        "CSVDelimiter": "PIPE",
    }
    assert items(bucket, given) == [{"x": "1", "y": "2"}]


def test_an_empty_csv_file_has_no_items(bucket: Path) -> None:
    (bucket / "f").write_text("")
    assert items(bucket, CSV_FILE) == []


def test_a_broken_row_and_long_headers_fail(bucket: Path) -> None:
    (bucket / "f").write_text('a\n"1" 2\n')
    assert failure(bucket, CSV_FILE).startswith("f: line 2: ")
    (bucket / "f").write_text("x" * 10_241)
    assert failure(bucket, CSV_FILE) == "f: the headers exceed 10240 bytes"


@pytest.mark.parametrize(
    "text", ["a\n1\n" + "x" * ITEM_CHARACTERS_MAX, 'a\n1\n"' + "x\n" * ITEM_CHARACTERS_MAX]
)
def test_a_row_longer_than_an_item_is_refused_before_all_of_it_is_read(
    bucket: Path, text: str
) -> None:
    (bucket / "f").write_text(text)
    cause = failure(bucket, CSV_FILE)
    assert f"the row is longer than {ITEM_CHARACTERS_MAX} characters" in cause or (
        "field larger than field limit" in cause
    )


def test_many_lines_of_quoted_fields_are_one_row_and_bounded_as_one(bucket: Path) -> None:
    (bucket / "f").write_text("a\n1\n" + '"x\n",' * (ITEM_CHARACTERS_MAX // 4))
    assert failure(bucket, CSV_FILE).endswith(
        f"the row is longer than {ITEM_CHARACTERS_MAX} characters"
    )


# Manifests


def manifest(*keys: str, **changed: Json) -> str:
    return json.dumps(
        {
            "sourceBucket": "source",
            "fileFormat": "CSV",
            "fileSchema": "Bucket, Key, Size",
            "files": [{"key": key, "size": 1} for key in keys],
            **changed,
        }
    )


def test_entries_of_an_inventory_are_the_items(bucket: Path) -> None:
    (bucket / "data").mkdir()
    rows = '"source","a%20b/c+d","12"\n"source","e","3"\n'
    (bucket / "data" / "1.csv.gz").write_bytes(gzip.compress(rows.encode()))
    (bucket / "data" / "2.csv").write_text('"source","f","4"\n')
    (bucket / "f").write_text(manifest("data/1.csv.gz", "data/2.csv"))
    assert items(bucket, {"InputType": "MANIFEST"}) == [
        {"Bucket": "source", "Key": "a b/c d", "Size": "12"},
        {"Bucket": "source", "Key": "e", "Size": "3"},
        {"Bucket": "source", "Key": "f", "Size": "4"},
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[]", "no manifest of an S3 inventory in CSV"),
        (manifest(fileFormat="ORC"), "no manifest of an S3 inventory in CSV"),
        (manifest(files=None), "fileSchema or files is missing"),
        (manifest(files=[{}]), "one of the files has no key"),
        (manifest("gone.csv"), "there is no object"),
        (manifest("../../secret"), "is not the key of an object here"),
        (manifest("torn.gz"), "damaged"),
    ],
)
def test_a_manifest_that_leads_nowhere_fails(bucket: Path, text: str, cause: str) -> None:
    (bucket / "torn.gz").write_bytes(gzip.compress(b"a,b,c\n" * 100)[:-9])
    (bucket / "f").write_text(text)
    assert cause in failure(bucket, {"InputType": "MANIFEST"})


# Listing


def test_objects_are_listed_in_the_order_of_their_keys(bucket: Path) -> None:
    for key in ("b", "a/x", "a-b", "a/b/c"):
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket / key).write_text(key)
    os.utime(bucket / "a-b", (7, 7))
    listed = items(bucket, {}, resource="listObjectsV2")
    assert [item["Key"] for item in listed] == ["a-b", "a/b/c", "a/x", "b"]
    assert {n: v for n, v in listed[0].items() if n != "Etag"} == {
        "Key": "a-b",
        "LastModified": 7,
        "Size": 3,
        "StorageClass": "STANDARD",
    }
    below = items(bucket, {}, resource="listObjectsV2", Prefix="a/")
    assert [item["Key"] for item in below] == ["a/b/c", "a/x"]


def test_listed_objects_may_be_loaded_and_flattened(bucket: Path) -> None:
    (bucket / "1").write_text("[1, 2]")
    (bucket / "2").write_text("[3]")
    config = {"Transformation": "LOAD_AND_FLATTEN", **JSON_FILE}
    assert items(bucket, config, resource="listObjectsV2") == [1, 2, 3]


def test_loading_without_knowing_the_form_fails(bucket: Path) -> None:
    (bucket / "1").write_text("[1]")
    config = {"Transformation": "LOAD_AND_FLATTEN"}
    assert "InputType" in failure(bucket, config, resource="listObjectsV2")


# Nothing leads out


@pytest.mark.parametrize(
    "key", ["../secret", "a/../../secret", "/etc/passwd", ".", "", "a//b", "a\0b", "k" * 1_025]
)
def test_a_key_that_is_no_object_of_the_bucket_is_refused(bucket: Path, key: str) -> None:
    (bucket.parent / "secret").write_text("[1]")
    assert "is not the key of an object here" in failure(bucket, JSON_FILE, key)


def test_links_do_not_lead_out_of_a_bucket(bucket: Path) -> None:
    outside = bucket.parent.parent / "secret"
    outside.write_text("[1]")
    (bucket / "link").symlink_to(outside)
    (bucket / "folder").symlink_to(outside.parent)
    assert "not inside its bucket" in failure(bucket, JSON_FILE, "link")
    assert "not inside its bucket" in failure(bucket, JSON_FILE, "folder/secret")
    assert items(bucket, {}, resource="listObjectsV2") == []
    (bucket.parent / "linked").symlink_to(outside.parent)
    assert failure(bucket, JSON_FILE, Bucket="linked") == "there is no bucket 'linked'"


def test_links_that_lead_to_each_other_are_no_objects(bucket: Path) -> None:
    (bucket / "one").symlink_to("two")
    (bucket / "two").symlink_to("one")
    assert failure(bucket, JSON_FILE, "one") == "there is no object 'one' in the bucket 'data'"
    assert items(bucket, {}, resource="listObjectsV2") == []


def test_a_manifest_that_lists_what_is_no_file_fails_at_once(bucket: Path) -> None:
    os.mkfifo(bucket / "pipe")
    (bucket / "f").write_text(manifest("pipe"))
    config = {"InputType": "MANIFEST"}
    assert failure(bucket, config) == "there is no object 'pipe' in the bucket 'data'"


@pytest.mark.parametrize("name", ["gone", "..", ".", "", "a/b", "-", "a\0b", "a\ud800"])
def test_what_is_no_bucket_is_refused(bucket: Path, name: str) -> None:
    assert failure(bucket, JSON_FILE, Bucket=name) == f"there is no bucket {name!r}"


def test_an_object_that_is_not_there_is_refused_by_its_name(bucket: Path) -> None:
    assert failure(bucket, JSON_FILE, "no") == "there is no object 'no' in the bucket 'data'"


# Writing


def test_an_object_is_written_in_one_step_in_place_of_another(bucket: Path) -> None:
    folder = FolderBuckets(bucket.parent)
    assert folder.write("data", "a/b.json", [b"[1,", b"2]"]) == 5
    assert folder.write("data", "a/b.json", [b"[]"]) == 2
    assert [path.name for path in (bucket / "a").iterdir()] == ["b.json"]
    assert (bucket / "a" / "b.json").read_bytes() == b"[]"


def test_an_object_that_was_written_may_be_read_by_whoever_reads_the_others(bucket: Path) -> None:
    (bucket / "by_hand").write_bytes(b"")
    FolderBuckets(bucket.parent).write("data", "f", [b"x"])
    assert (bucket / "f").stat().st_mode == (bucket / "by_hand").stat().st_mode


def test_a_draft_that_a_kill_left_behind_is_no_object(bucket: Path) -> None:
    seen: list[list[Path]] = []

    def chunks() -> Any:
        seen.append(list(bucket.iterdir()))
        yield b"x"

    FolderBuckets(bucket.parent).write("data", "f", chunks())
    ((draft,),) = seen
    draft.write_bytes(b"half of it")
    assert [item["Key"] for item in items(bucket, {}, resource="listObjectsV2")] == ["f"]


def test_a_write_that_fails_leaves_what_was_there(bucket: Path) -> None:
    folder = FolderBuckets(bucket.parent)
    folder.write("data", "f", [b"old"])

    def broken() -> Any:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(ExecutionError) as caught:
        folder.write("data", "f", broken())
    assert caught.value.error == "States.ResultWriterFailed"
    assert caught.value.cause == "the object cannot be read or written: No space left on device"
    assert [path.read_bytes() for path in bucket.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("gone", "f"),
        ("data", "../f"),
        ("data", "link/f"),
        ("a\0b", "f"),
        ("data", "\ud800"),
        ("\ud800", "f"),
    ],
)
def test_nothing_is_written_outside_of_a_bucket(bucket: Path, name: str, key: str) -> None:
    (bucket / "link").symlink_to(bucket.parent.parent)
    with pytest.raises(ExecutionError, match=r"States\.ResultWriterFailed"):
        FolderBuckets(bucket.parent).write(name, key, [b"x"])
    assert [path.name for path in bucket.parent.parent.iterdir()] == ["buckets"]
