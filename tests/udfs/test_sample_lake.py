"""The written lake: layout, COCO labels, damaged and rotated files, identical bytes on a second run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools.coco import COCO

from conf.errors import QuarryError
from udfs.sample_lake import FRAME_NAME, WRITTEN_FILES, frame_bytes, write_drives
from udfs.street.layout import drive_plan
from udfs.street.scene import sequence_frames
from udfs.street.world import StreetSettings, frame_damage, frame_is_rotated

SEED = 3
SETTINGS = StreetSettings(n_images=21, frames_per_sequence=4, damaged_share=0.2, rotated_share=0.2)


def _batches(*drives: int) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pydict({"drive_index": pa.array(drives, pa.int64())})]


def _digests(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A lake of 21 images in three drives, one file in five damaged and one in five rotated."""
    root = tmp_path_factory.mktemp("lake")
    batches = list(write_drives(iter(_batches(0, 1, 2)), str(root), SEED, SETTINGS))
    return root, pa.Table.from_batches(batches)


def test_rows_match_the_files(lake: tuple[Path, pa.Table]) -> None:
    root, table = lake
    assert table.schema.equals(WRITTEN_FILES)
    paths = table.column("path").to_pylist()
    assert len(paths) == 21 == len(set(paths))
    found = {str(p.relative_to(root)) for p in (root / "images").rglob("*") if p.is_file()}
    assert found == set(paths)
    for row in table.to_pylist():
        match = FRAME_NAME.search(row["path"])
        assert match is not None
        assert (match["sequence"], int(match["frame"])) == (row["sequence_id"], row["frame_index"])
        folder = f"images/dataset={row['dataset']}/date={row['date']}/vehicle={row['vehicle']}/"
        assert row["path"].startswith(folder)


def test_labels_load_in_pycocotools(lake: tuple[Path, pa.Table]) -> None:
    root, table = lake
    n_boxes = {r["path"]: r["n_boxes"] for r in table.to_pylist()}
    image_ids: list[int] = []
    annotation_ids: list[int] = []
    for path in sorted((root / "labels").rglob("instances.json")):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
        assert [c["name"] for c in coco.loadCats([1, 2, 3, 4])] == [
            "pedestrian",
            "car",
            "cyclist",
            "traffic_sign",
        ]
        image_ids += coco.getImgIds()
        annotation_ids += coco.getAnnIds()
        for image in coco.loadImgs(coco.getImgIds()):
            boxes = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
            assert len(boxes) == n_boxes[f"images/{image['file_name']}"]
            assert (root / "images" / image["file_name"]).parent.relative_to(
                root / "images"
            ) == path.parent.relative_to(root / "labels")
            for box in boxes:
                x, y, w, h = box["bbox"]
                assert x >= 0 and y >= 0 and x + w <= 640.01 and y + h <= 384.01
                assert box["area"] == pytest.approx(w * h, abs=0.01) and 0.25 <= box["visibility"] <= 1.0
    assert len(image_ids) == len(set(image_ids)) == sum(r["corrupt"] is None for r in table.to_pylist())
    assert len(annotation_ids) == len(set(annotation_ids)) > 20


def test_labels_equal_the_drawn_frame(lake: tuple[Path, pa.Table]) -> None:
    root, _ = lake
    plan = drive_plan(SEED, 1, SETTINGS)
    coco = json.loads((root / "labels" / plan.partition / "instances.json").read_text())
    frames = [f for s in plan.sequences for f in sequence_frames(s, SETTINGS)]
    for image in coco["images"]:
        frame = frames[image["id"] - plan.first_image_id]
        boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
        wanted = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in frame.boxes_xyxy.tolist()]
        assert len(boxes) == len(wanted)
        for got, want in zip(boxes, wanted, strict=True):
            assert got == pytest.approx(want, abs=0.011)


def test_damaged_files_fail_as_named(lake: tuple[Path, pa.Table]) -> None:
    root, table = lake
    damaged = {r["path"]: r["corrupt"] for r in table.to_pylist() if r["corrupt"]}
    assert set(damaged.values()) == {"truncated", "empty", "text"}
    for path, kind in damaged.items():
        if kind == "truncated":
            with Image.open(root / path) as image:
                assert image.format == "JPEG" and set(image.size) == {640, 384}
                with pytest.raises(OSError, match="truncated"):
                    image.load()
        else:
            assert (len((root / path).read_bytes()) == 0) == (kind == "empty")
            with pytest.raises(UnidentifiedImageError):
                Image.open(root / path)


def test_rotated_files_turn_upright(lake: tuple[Path, pa.Table]) -> None:
    root, _ = lake
    checked = 0
    for drive in range(3):
        plan = drive_plan(SEED, drive, SETTINGS)
        frames = [(s, k, f) for s in plan.sequences for k, f in enumerate(sequence_frames(s, SETTINGS))]
        for n, (sequence, k, frame) in enumerate(frames):
            index = plan.first_image_id - 1 + n
            if not frame_is_rotated(SEED, index, SETTINGS) or frame_damage(SEED, index, SETTINGS):
                continue
            with Image.open(
                root / "images" / plan.partition / f"{sequence.sequence_id}-frame-{k:04d}.jpg"
            ) as stored:
                assert stored.size == (384, 640) and stored.getexif()[0x0112] == 6
                upright = ImageOps.exif_transpose(stored)
            assert upright.size == (640, 384)
            small = [im.resize((8, 5), Image.Resampling.BOX).tobytes() for im in (upright, frame.image)]
            assert max(abs(a - b) for a, b in zip(*small, strict=True)) < 8
            checked += 1
    assert checked >= 2


def test_second_run_writes_the_same_bytes_in_any_order(lake: tuple[Path, pa.Table], tmp_path: Path) -> None:
    root, _ = lake
    for drives in ((2,), (1, 0), (1,)):
        list(write_drives(iter(_batches(*drives)), tmp_path.as_uri(), SEED, SETTINGS))
    assert _digests(tmp_path) == _digests(root)


def test_other_seed_writes_other_bytes(lake: tuple[Path, pa.Table], tmp_path: Path) -> None:
    root, _ = lake
    list(write_drives(iter(_batches(0)), str(tmp_path), SEED + 1, SETTINGS))
    other = _digests(tmp_path)
    mine = set(_digests(root).values())
    same = {
        path for path, digest in other.items() if digest in mine and (tmp_path / path).stat().st_size > 100
    }
    assert len(other) == 9 and not same


def test_intact_bytes_hold_the_picture() -> None:
    image = Image.new("RGB", (640, 384), (200, 40, 40))
    data = frame_bytes(image, None, rotated=False, quality=88)
    with Image.open(io.BytesIO(data)) as back:
        assert back.size == (640, 384) and not back.getexif()
    assert frame_bytes(image, "truncated", rotated=False, quality=88) == data[: len(data) // 2]


def test_wrong_input_is_told(tmp_path: Path) -> None:
    wrong = pa.RecordBatch.from_pydict({"drive": [1]})
    with pytest.raises(QuarryError, match="drive_index"):
        list(write_drives(iter([wrong]), str(tmp_path), SEED, SETTINGS))
    null = pa.RecordBatch.from_pydict({"drive_index": pa.array([None], pa.int64())})
    with pytest.raises(QuarryError, match="null"):
        list(write_drives(iter([null]), str(tmp_path), SEED, SETTINGS))
    past = dataclasses.replace(SETTINGS, n_images=8)
    with pytest.raises(QuarryError, match="got 1"):
        list(write_drives(iter(_batches(1)), str(tmp_path), SEED, past))


def test_no_drives_no_rows(tmp_path: Path) -> None:
    empty = pa.RecordBatch.from_pydict({"drive_index": pa.array([], pa.int64())})
    assert list(write_drives(iter([empty]), str(tmp_path), SEED, SETTINGS)) == []
    assert not any(tmp_path.iterdir())
