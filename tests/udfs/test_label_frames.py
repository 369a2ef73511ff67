"""Returned boxes on the original image, whatever the tool showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps

from udfs.label_frames import moved_corners, original_px_batches
from udfs.labels import TRUTH_BOX_TYPE

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("said_width", pa.int32()),
        ("said_height", pa.int32()),
        ("boxes", pa.list_(TRUTH_BOX_TYPE)),
        ("complete", pa.bool_()),
        ("reason", pa.string()),
        ("outside", pa.list_(pa.string())),
    ]
)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_box_of_the_stored_pixels_lands_where_a_viewer_shows_them(orientation: int) -> None:
    stored = np.zeros((40, 60), np.uint8)
    stored[5:12, 20:50] = 255  # box 20, 5, 50, 12
    image = Image.fromarray(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    shown = np.asarray(ImageOps.exif_transpose(image))
    ys, xs = np.nonzero(shown)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert shown.shape == (60, 40)
    assert moved_corners((20, 5, 50, 12), (60, 40), (40, 60), orientation) == expected


def test_previews_are_scaled_and_other_shapes_fit_nothing() -> None:
    assert moved_corners((10, 20, 40, 60), (320, 240), (640, 480), 1) == (20, 40, 80, 120)
    assert moved_corners((10, 20, 40, 60), (333, 250), (1000, 750), 1) is not None, "sides are whole px"
    assert moved_corners((10, 20, 40, 60), (640, 480), (640, 400), 1) is None
    assert moved_corners((10, 20, 40, 60), (480, 640), (640, 480), 1) is None, "nothing was turned"


def _placed(**given: Any) -> dict[str, Any]:
    box = {"label_name": "car", "x1": 10.0, "y1": 20.0, "x2": 40.0, "y2": 60.0, "status": "labeled"}
    row = {"uri": "none", "width": 100, "height": 80, "boxes": [box], "outside": [], "complete": True} | given
    (batch,) = original_px_batches([pa.RecordBatch.from_pylist([row], schema=SCHEMA)], max_pixels=10**6)
    (found,) = batch.to_pylist()
    assert batch.schema == SCHEMA
    return dict(found)


def _corners(row: dict[str, Any]) -> list[tuple[float, ...]]:
    return [tuple(box[side] for side in ("x1", "y1", "x2", "y2")) for box in row["boxes"]]


def test_a_file_that_ignored_exif_is_read_with_the_image_s_header(tmp_path: Path) -> None:
    path = tmp_path / "turned ü.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 100)).save(path, exif=exif)  # shown as 100 x 80
    row = _placed(uri=str(path), said_width=80, said_height=100)
    assert _corners(row) == [(40.0, 10.0, 80.0, 40.0)]
    lost = _placed(uri=str(tmp_path / "gone.jpg"), said_width=80, said_height=100)
    assert lost["boxes"] is None and lost["reason"].startswith(
        "the file says 80 x 100 px, the image has 100 x 80"
    )


def test_boxes_outside_are_told_and_the_others_stay() -> None:
    row = _placed(
        boxes=[
            {"label_name": "car", "x1": 150.0, "y1": 20.0, "x2": 190.0, "y2": 60.0},
            {"label_name": "car", "x1": -5.0, "y1": 0.0, "x2": 10.0, "y2": 90.0},
        ]
    )
    assert _corners(row) == [(-5.0, 0.0, 10.0, 90.0)]
    assert not row["complete"] and _placed()["complete"]
    assert row["outside"] == ["'car': box 150, 20, 190, 60 lies outside the image of 100 x 80 px"]


def test_a_file_without_sizes_and_an_image_without_one() -> None:
    assert _corners(_placed()) == [(10.0, 20.0, 40.0, 60.0)]
    assert _corners(_placed(width=None, height=None, said_width=5, said_height=5)) == [
        (10.0, 20.0, 40.0, 60.0)
    ]
