"""Ingest opens what is new or changed and nothing else; what was unreadable leaves quarantine once mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.settings import LakeSettings
from pipelines.ingest import ingest
from pipelines.run import Run
from pipelines.tables import TableStore
from tests.small_lake import rows


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Path]:
    """Five images in nested folders with awkward names, one empty file, one file that is no image."""
    root = tmp_path / "lake"
    names = ("date=2026-01-01/a.jpg", "date=2026-01-01/sub/a.jpg", "date=2026-01-02/ä b%20c.PNG", "top.jpeg")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (9, 9, 9)).save(
            root / name, format="PNG" if name.endswith("PNG") else "JPEG"
        )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "date=2026-01-02" / "rotated.jpg", exif=exif)
    (root / "date=2026-01-02" / "empty.jpg").touch()
    (root / "readme.txt").write_text("not an image, by its ending")
    (root / "_hidden").mkdir()
    Image.new("RGB", (40, 30)).save(root / "_hidden" / "x.jpg")
    yield root


def run_at(session: SparkSession, folder: Path) -> Run:
    """A run on tables of its own."""
    return Run(store=TableStore(session, str(folder / "tables")))


def test_images_are_found_with_size_and_partitions(session: SparkSession, lake: Path, tmp_path: Path) -> None:
    counts = ingest(run_at(session, tmp_path), LakeSettings(uri=str(lake)))
    assert counts == {"files": 6, "new_or_changed": 6, "unreadable": 1}
    found = {row["path"]: row for row in rows(str(tmp_path / "tables"), "images")}
    assert set(found) == {
        "date=2026-01-01/a.jpg",
        "date=2026-01-01/sub/a.jpg",
        "date=2026-01-02/ä b%20c.PNG",
        "date=2026-01-02/rotated.jpg",
        "date=2026-01-02/empty.jpg",
        "top.jpeg",
    }
    assert (found["date=2026-01-02/rotated.jpg"]["width"], found["top.jpeg"]["width"]) == (30, 40)
    assert dict(found["date=2026-01-02/ä b%20c.PNG"]["partitions"]) == {"date": "2026-01-02"}
    assert found["date=2026-01-02/empty.jpg"]["width"] is None
    assert len({row["image_id"] for row in found.values()}) == 6


def test_only_new_and_changed_files_are_opened(session: SparkSession, lake: Path, tmp_path: Path) -> None:
    settings = LakeSettings(uri=str(lake))
    ingest(run_at(session, tmp_path), settings)
    before = rows(str(tmp_path / "tables"), "images", volatile=True)
    assert ingest(run_at(session, tmp_path), settings)["new_or_changed"] == 0
    assert rows(str(tmp_path / "tables"), "images", volatile=True) == before
    Image.new("RGB", (50, 60)).save(lake / "new.jpg")
    Image.new("RGB", (70, 80)).save(lake / "top.jpeg")
    assert ingest(run_at(session, tmp_path), settings)["new_or_changed"] == 2
    after = {row["path"]: row for row in rows(str(tmp_path / "tables"), "images", volatile=True)}
    assert (after["new.jpg"]["width"], after["top.jpeg"]["height"]) == (50, 80)
    unchanged = {row["path"]: row for row in before if row["path"] != "top.jpeg"}
    assert {path: after[path] for path in unchanged} == unchanged


def test_a_sequence_pattern_that_comes_later_places_known_frames_and_opens_none(
    session: SparkSession, tmp_path: Path
) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    for name in ("a-1.jpg", "a-02.jpg", "still.jpg"):
        Image.new("RGB", (40, 30)).save(root / name)
    plain = LakeSettings(uri=str(root))
    ingest(run_at(session, tmp_path), plain)
    before = {row["path"]: row for row in rows(str(tmp_path / "tables"), "images", volatile=True)}
    told: list[str] = []
    mine = Run(store=TableStore(session, str(tmp_path / "tables")), tell=told.append)
    pattern = {"sequence_pattern": r"(?P<sequence>\w+)-(?P<frame>\d+)"}
    counts = ingest(mine, plain.model_copy(update=pattern))
    assert counts["new_or_changed"] == 0
    assert told[-1].startswith("2 known images have another place in a video")
    after = {row["path"]: row for row in rows(str(tmp_path / "tables"), "images", volatile=True)}
    places = {"a-1.jpg": ("a", 1), "a-02.jpg": ("a", 2), "still.jpg": (None, None)}
    assert {p: (row["sequence_id"], row["frame_index"]) for p, row in after.items()} == places
    moved = {"sequence_id": None, "frame_index": None}
    assert {path: row | moved for path, row in after.items()} == before, "no other column changes"
    ingest(mine, plain)
    assert {r["path"]: r for r in rows(str(tmp_path / "tables"), "images", volatile=True)} == after


def test_a_repaired_file_leaves_quarantine(session: SparkSession, lake: Path, tmp_path: Path) -> None:
    settings = LakeSettings(uri=str(lake))
    ingest(run_at(session, tmp_path), settings)
    (row,) = rows(str(tmp_path / "tables"), "quarantine")
    assert (row["error_class"], row["stage"], row["attempts"], row["resolved"]) == (
        "empty",
        "ingest",
        1,
        False,
    )
    (lake / "date=2026-01-02" / "empty.jpg").write_text("still no image")
    ingest(run_at(session, tmp_path), settings)
    (row,) = rows(str(tmp_path / "tables"), "quarantine")
    assert (row["error_class"], row["attempts"], row["resolved"]) == ("not_an_image", 2, False)
    Image.new("RGB", (40, 30)).save(lake / "date=2026-01-02" / "empty.jpg")
    assert ingest(run_at(session, tmp_path), settings)["unreadable"] == 0
    (row,) = rows(str(tmp_path / "tables"), "quarantine")
    assert row["resolved"] and row["attempts"] == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_listing_takes_the_place_of_the_walk(
    session: SparkSession, lake: Path, tmp_path: Path, kind: str
) -> None:
    uris = [str(lake / "top.jpeg"), str(lake / "date=2026-01-01" / "a.jpg"), str(lake / "gone.jpg")]
    listing = tmp_path / f"listing.{kind}"
    frame = session.createDataFrame(
        [(uri, f"mine-{i}") for i, uri in enumerate(uris)], "uri STRING, image_id STRING"
    )
    writer = frame.coalesce(1).write
    if kind == "csv":
        writer.option("header", True).csv(str(listing))
    else:
        writer.parquet(str(listing))
    counts = ingest(run_at(session, tmp_path), LakeSettings(uri=str(lake), listing=str(listing)))
    assert counts == {"files": 3, "new_or_changed": 3, "unreadable": 1}
    found = {row["image_id"]: row for row in rows(str(tmp_path / "tables"), "images")}
    assert found["mine-1"]["path"] == "date=2026-01-01/a.jpg" and found["mine-0"]["width"] == 40
    (fault,) = rows(str(tmp_path / "tables"), "quarantine")
    assert (fault["image_id"], fault["error_class"]) == ("mine-2", "missing")


def test_one_id_for_two_files_is_refused(session: SparkSession, lake: Path, tmp_path: Path) -> None:
    listing = tmp_path / "listing.csv"
    listing.write_text(f"uri,image_id\n{lake}/top.jpeg,same\n{lake}/date=2026-01-01/a.jpg,same\n")
    with pytest.raises(QuarryError, match="image_id same stands for 2 files"):
        ingest(run_at(session, tmp_path), LakeSettings(listing=str(listing)))
    assert not os.path.exists(tmp_path / "tables")


def test_ids_by_path_stay_when_the_lake_moves(session: SparkSession, lake: Path, tmp_path: Path) -> None:
    ids = []
    for root in (lake, tmp_path / "moved"):
        if not root.exists():
            lake.rename(root)
        run = Run(store=TableStore(session, f"{root}-tables"))
        ingest(run, LakeSettings(uri=str(root), image_id="path"))
        ids.append({row["path"]: row["image_id"] for row in rows(run.store.root, "images")})
    assert ids[0] == ids[1]


def test_a_file_that_could_not_be_reached_is_tried_again(
    session: SparkSession, lake: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "listing.csv"
    listing.write_text(f"uri\n{lake}/top.jpeg\n{lake}/late.jpg\n")
    settings = LakeSettings(uri=str(lake), listing=str(listing))
    assert ingest(run_at(session, tmp_path), settings)["unreadable"] == 1
    shutil.copy(lake / "top.jpeg", lake / "late.jpg")
    counts = ingest(run_at(session, tmp_path), settings)
    assert counts == {"files": 2, "new_or_changed": 1, "unreadable": 0}
    (fault,) = rows(str(tmp_path / "tables"), "quarantine")
    assert fault["resolved"] and fault["error_class"] == "missing"
    assert ingest(run_at(session, tmp_path), settings)["new_or_changed"] == 0
