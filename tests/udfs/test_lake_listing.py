from __future__ import annotations

import datetime
import os
from pathlib import Path

import pyarrow as pa
import pytest

from conf.errors import QuarryError
from udfs.lake_listing import LISTING_SCHEMA, lake_folders, list_batches, partition_values

EXTENSIONS = ("jpg", "PNG")
IMAGES = (
    "top.jpg",
    "dataset=a/date=2026-01-01/vehicle=v1/one.jpg",
    "dataset=a/date=2026-01-01/vehicle=v1/deep/er/two.JPG",
    "dataset=a/date=2026-01-01/vehicle=v2/empty.jpg",
    "dataset=a/date=2026-01-02/with space %20 ü.png",
    "dataset=a/beside.jpg",
    "dataset=b/three.jpg",
)
OTHERS = (
    ".hidden.jpg",
    "_hidden.jpg",
    "dataset=a/_delta_log/no.jpg",
    "dataset=a/.cache/deep/no.jpg",
    "_temporary/no.jpg",
    "dataset=b/notes.txt",
    "dataset=b/jpg",
)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    for name in (*IMAGES, *OTHERS):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in name else name.encode())
    (root / "dataset=c" / "no files").mkdir(parents=True)
    return root


def _listed(root_uri: str, at_least: int, depth: int) -> list[dict[str, object]]:
    folders = lake_folders(root_uri, at_least, depth)
    schema = pa.schema([("folder", pa.string()), ("recursive", pa.bool_())])
    rows = [{"folder": folder, "recursive": recursive} for folder, recursive in folders]
    batches = (pa.RecordBatch.from_pylist([row], schema=schema) for row in rows)
    found = list(list_batches(batches, root_uri, EXTENSIONS))
    assert all(batch.schema == LISTING_SCHEMA for batch in found)
    return [row for batch in found for row in batch.to_pylist()]


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("at_least", [1, 2, 3, 4, 1000])
def test_every_image_is_found_once_however_the_lake_is_cut(lake: Path, at_least: int, depth: int) -> None:
    rows = _listed(str(lake), at_least, depth)
    assert sorted(str(row["path"]) for row in rows) == sorted(IMAGES)
    assert all(row["uri"] == f"{lake}/{row['path']}" for row in rows)


@pytest.mark.parametrize("style", ["{}", "{}/", "file:{}", "file://{}/"])
def test_the_root_may_be_written_in_several_ways(lake: Path, style: str) -> None:
    root = style.format(lake)
    rows = _listed(root, 2, 4)
    assert sorted(str(row["path"]) for row in rows) == sorted(IMAGES)
    assert all(str(row["uri"]).startswith(root.rstrip("/") + "/") for row in rows)


def test_a_relative_root_works(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lake.parent)
    for root in ("lake", "./lake", "lake/"):
        assert sorted(str(row["path"]) for row in _listed(root, 2, 4)) == sorted(IMAGES)


def test_size_and_time_are_the_file_s(lake: Path) -> None:
    os.utime(lake / "top.jpg", (1_700_000_000, 1_700_000_000))
    rows = {row["path"]: row for row in _listed(str(lake), 1, 4)}
    assert rows["top.jpg"]["size_bytes"] == len("top.jpg")
    assert rows["top.jpg"]["mtime"] == datetime.datetime(
        2023, 11, 14, 22, 13, 20, tzinfo=datetime.timezone.utc
    )
    assert rows[IMAGES[3]]["size_bytes"] == 0


def test_going_down_stops_once_there_are_enough_folders(lake: Path) -> None:
    assert lake_folders(str(lake), at_least=1) == [(str(lake), True)]
    folders = lake_folders(str(lake), at_least=3)
    assert folders == [(str(lake), False), *((f"{lake}/dataset={name}", True) for name in "abc")]


def test_more_files_than_a_batch_are_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udfs.lake_listing.ROWS_PER_BATCH", 3)
    for i in range(7):
        (tmp_path / f"{i}.jpg").touch()
    assert len(_listed(str(tmp_path), 1, 4)) == 7


@pytest.mark.parametrize("uri", ["{}/absent", "{}/top.jpg", "nosuch://bucket"])
def test_a_root_that_is_no_folder_is_refused(lake: Path, uri: str) -> None:
    with pytest.raises(QuarryError, match="lake.uri"):
        lake_folders(uri.format(lake), at_least=1)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a=1/b=2/x.jpg", {"a": "1", "b": "2"}),
        ("plain/b=x=y/c=/k=v.jpg", {"b": "x=y", "c": ""}),
        ("=1/x.jpg", {}),
        ("x.jpg", {}),
    ],
)
def test_partition_values(path: str, values: dict[str, str]) -> None:
    assert partition_values(path) == values


def test_a_file_name_that_is_not_utf8_is_listed_under_a_name_that_will_be_missing(lake: Path) -> None:
    (Path(os.fsdecode(os.fsencode(lake) + b"/dataset=b/caf\xe9.jpg"))).write_bytes(b"image")
    paths = [str(row["path"]) for row in _listed(str(lake), 4, 4)]
    assert sorted(paths) == sorted([*IMAGES, "dataset=b/caf\ufffd.jpg"])


def test_a_folder_name_that_is_not_utf8_is_refused(lake: Path) -> None:
    Path(os.fsdecode(os.fsencode(lake) + b"/caf\xe9")).mkdir()
    with pytest.raises(QuarryError, match="name is not UTF-8"):
        lake_folders(str(lake), 1000, 4)
