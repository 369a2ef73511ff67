from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from conf.errors import QuarryError
from udfs.ingest import HEADER_SCHEMA, header_batches

LISTED = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.timestamp("us", tz="UTC")),
    ]
)
MTIME = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
PATTERN = r"(?P<sequence>.*seq-\d+)-frame-(?P<frame>\w+)"


def _headers(root: Path, paths: list[str], pattern: str | None = None) -> list[dict[str, Any]]:
    rows = [
        {"image_id": f"id-{i}", "uri": f"{root}/{path}", "path": path, "size_bytes": i, "mtime": MTIME}
        for i, path in enumerate(paths)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=LISTED)
    found = list(header_batches(iter([batch]), "fallback", pattern, max_pixels=10_000))
    assert all(one.schema == HEADER_SCHEMA for one in found)
    return [row for one in found for row in one.to_pylist()]


def _save(root: Path, path: str, size: tuple[int, int] = (30, 20), **options: Any) -> str:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / path, **options)
    return path


def test_a_row_has_everything_the_images_table_needs(tmp_path: Path) -> None:
    path = _save(tmp_path, "dataset=a/date=2026-01-01/x.png")
    (row,) = _headers(tmp_path, [path])
    assert row == {
        "image_id": "id-0",
        "uri": f"{tmp_path}/{path}",
        "path": path,
        "dataset": "a",
        "partitions": [("dataset", "a"), ("date", "2026-01-01")],
        "width": 30,
        "height": 20,
        "sequence_id": None,
        "frame_index": None,
        "size_bytes": 0,
        "mtime": MTIME,
        "error_class": None,
        "message": None,
    }


def test_a_turned_image_has_its_displayed_size_and_the_settings_dataset(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (row,) = _headers(tmp_path, [_save(tmp_path, "x.jpg", exif=exif)])
    assert (row["width"], row["height"]) == (20, 30)
    assert (row["dataset"], row["partitions"]) == ("fallback", [])


def test_an_unreadable_file_keeps_its_place_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    names = [
        _save(tmp_path, "a.png"),
        "empty.jpg",
        "text.jpg",
        "absent.jpg",
        _save(tmp_path, "big.png", (101, 100)),
    ]
    rows = _headers(tmp_path, [*names, _save(tmp_path, "z.png")])
    assert [row["image_id"] for row in rows] == [f"id-{i}" for i in range(6)]
    assert [row["error_class"] for row in rows] == [
        None,
        "empty",
        "not_an_image",
        "missing",
        "too_large",
        None,
    ]
    for row in rows:
        assert (row["width"] is None) == (row["height"] is None) == (row["message"] is not None)


def test_sequences_come_from_the_path(tmp_path: Path) -> None:
    names = ["d/seq-01-frame-0007.jpg", "d/seq-01-frame-2147483647.jpg", "d/other.jpg"]
    for name in names:
        _save(tmp_path, name)
    rows = _headers(tmp_path, names, PATTERN)
    assert [(row["sequence_id"], row["frame_index"]) for row in rows] == [
        ("d/seq-01", 7),
        ("d/seq-01", 2**31 - 1),
        (None, None),
    ]


@pytest.mark.parametrize("frame", ["2147483648", "1533151603512404", "left"])
def test_a_frame_that_is_no_frame_number_names_the_setting_and_the_file(tmp_path: Path, frame: str) -> None:
    with pytest.raises(QuarryError, match=rf"lake\.sequence_pattern: .*{frame}.*seq-01-frame-{frame}"):
        _headers(tmp_path, [f"seq-01-frame-{frame}.jpg"], PATTERN)


def test_long_batches_are_cut_and_empty_ones_give_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udfs.ingest.ROWS_PER_BATCH", 2)
    path = _save(tmp_path, "a.png")
    assert [row["image_id"] for row in _headers(tmp_path, [path] * 5)] == [f"id-{i}" for i in range(5)]
    assert _headers(tmp_path, []) == []
