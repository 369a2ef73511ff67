from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from udfs.box_pictures import PICTURE_SCHEMA, ROLE_COLOURS, PictureBox, box_role, draw_boxes, picture_batches

MAX_PIXELS = 10**6


def _box(score: float, x1: float = 100, y1: float = 100, x2: float = 200, y2: float = 180) -> PictureBox:
    return PictureBox(label_name="pedestrian", score=score, x1=x1, y1=y1, x2=x2, y2=y2)


def _close(pixels: Any, colour: tuple[int, int, int], within: int = 2) -> Any:
    return (np.abs(np.asarray(pixels).astype(int) - np.array(colour)) <= within).all(axis=-1)


@pytest.mark.parametrize(
    ("score", "role"),
    [
        (1.0, "confirmed"),
        (0.75, "confirmed"),
        (0.7499, "likely_false"),
        (0.5, "likely_false"),
        (0.4999, "likely_missed"),
        (0.25, "likely_missed"),
        (0.2499, None),
        (0.0, None),
    ],
)
def test_the_role_changes_exactly_at_the_thresholds(score: float, role: str | None) -> None:
    assert box_role(score, 0.5) == role


@pytest.mark.parametrize(
    ("score", "role"), [(0.9, "confirmed"), (0.6, "likely_false"), (0.3, "likely_missed")]
)
def test_a_box_is_drawn_in_its_colour_at_its_place(score: float, role: Any) -> None:
    picture = np.asarray(draw_boxes(Image.new("RGB", (400, 300)), [_box(score)], 400))
    right_side = _close(picture[100:181, 199:202], ROLE_COLOURS[role]).any(axis=1)
    drawn = right_side.mean()
    assert drawn > 0.98 if role != "likely_missed" else 0.4 < drawn < 0.85
    assert not _close(picture[120:160, 120:180], ROLE_COLOURS[role]).any()


def test_low_detections_leave_the_image_as_it_was() -> None:
    image = Image.new("RGB", (400, 300), (40, 50, 60))
    assert draw_boxes(image, [_box(0.2)], 400).tobytes() == image.tobytes()


def test_a_dark_rim_surrounds_the_line_on_a_white_image() -> None:
    picture = np.asarray(draw_boxes(Image.new("RGB", (400, 300), "white"), [_box(0.9)], 400))
    assert picture[140, 190:210].sum(axis=-1).min() < 100


def test_a_label_stays_inside_the_picture_and_off_a_small_box() -> None:
    small = _box(0.9, 2, 2, 22, 22)
    with_label = np.asarray(draw_boxes(Image.new("RGB", (400, 300), (200, 0, 200)), [small], 400))
    inside = with_label[6:18, 6:18]
    assert _close(inside, (200, 0, 200), within=0).all()
    white_text = _close(with_label, (255, 255, 255), within=20)
    assert white_text.sum() > 20


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    boxes = [_box(0.9, 100 + 4 * k, 100 + 3 * k, 200 + 4 * k, 180 + 3 * k) for k in range(3)]
    alone = np.asarray(draw_boxes(Image.new("RGB", (600, 400)), boxes[:1], 600))
    together = np.asarray(draw_boxes(Image.new("RGB", (600, 400)), boxes, 600))
    white = [int(_close(picture, (255, 255, 255), within=40).sum()) for picture in (alone, together)]
    assert white[1] >= 2.9 * white[0]


def test_boxes_shrink_with_the_picture_and_small_images_keep_their_size() -> None:
    wide = draw_boxes(Image.new("RGB", (1600, 800)), [_box(0.9, 800, 400, 1200, 600)], 400)
    assert wide.size == (400, 200)
    assert _close(np.asarray(wide)[120, 298:302], ROLE_COLOURS["confirmed"]).any()
    assert draw_boxes(Image.new("L", (90, 60)), [], 400).size == (90, 60)


def test_ground_truth_is_thin_dotted_white() -> None:
    truth = PictureBox(label_name="car", x1=100, y1=100, x2=200, y2=180)
    picture = np.asarray(draw_boxes(Image.new("RGB", (400, 300), (90, 90, 90)), [], 400, truths=[truth]))
    side = _close(picture[100:181, 200], (255, 255, 255), within=0)
    assert 0.15 < side.mean() < 0.6


def test_sixteen_bit_grey_keeps_its_contrast() -> None:
    grey = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(9, axis=0))
    values = np.asarray(draw_boxes(grey, [], 256))[0, :, 0]
    assert (values[0], values[-1]) == (0, 255)
    assert 120 <= values[128] <= 136


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    box = pa.struct(
        [("label_name", pa.string()), ("score", pa.float32())]
        + [(name, pa.float32()) for name in ("x1", "y1", "x2", "y2")]
    )
    schema = pa.schema([("image_id", pa.string()), ("uri", pa.string()), ("detections", pa.list_(box))])
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def test_a_batch_gives_pictures_and_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "with space ü%20"
    folder.mkdir()
    good, upright = folder / "good.png", folder / "turned.jpg"
    Image.new("RGB", (400, 300)).save(good)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 300)).save(upright, exif=exif)
    broken, cut = folder / "broken.jpg", folder / "cut.png"
    broken.write_bytes(b"no image")
    cut.write_bytes(good.read_bytes()[:-40])
    box = {"label_name": "car", "score": 0.9, "x1": 10.0, "y1": 10.0, "x2": 50.0, "y2": 50.0}
    uris = [
        str(good),
        str(upright),
        str(broken),
        str(cut),
        str(folder / "absent.jpg"),
        "nosuch://x/y.jpg",
        None,
    ]
    rows = [
        {"image_id": f"i{k}", "uri": uri, "detections": [box] if k else None} for k, uri in enumerate(uris)
    ]
    (batch,) = picture_batches([_batch(rows)], 200, 0.5, MAX_PIXELS)
    assert batch.schema == PICTURE_SCHEMA
    out = batch.to_pylist()
    assert [row["image_id"] for row in out] == [row["image_id"] for row in rows]
    assert [row["error"] is None for row in out] == [True, True] + [False] * 5
    assert [row["jpeg"] is None for row in out] == [False, False] + [True] * 5
    sizes = [Image.open(io.BytesIO(row["jpeg"])).size for row in out[:2]]
    assert sizes == [(200, 150), (200, 267)]
    assert [row["error"].partition(":")[0] for row in out[2:]] == [
        "not_an_image",
        "truncated",
        "missing",
        "unreachable",
        "unreachable",
    ]


def test_an_image_above_the_limit_gives_a_reason(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows = [{"image_id": "i", "uri": str(tmp_path / "a.png"), "detections": []}]
    (batch,) = picture_batches([_batch(rows)], 200, 0.5, max_pixels=1199)
    assert batch.column("error").to_pylist() == ["too_large: 40 x 30 px, the limit is 1199 px in all"]


@pytest.mark.parametrize("style", ["file:{}", "file://{}", "{}"])
def test_file_uris_are_read(tmp_path: Path, style: str) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows = [{"image_id": "i", "uri": style.format(tmp_path / "a.png"), "detections": []}]
    (batch,) = picture_batches([_batch(rows)], 200, 0.5, MAX_PIXELS)
    assert batch.column("error").to_pylist() == [None]


def test_an_empty_batch_stays_empty() -> None:
    (batch,) = picture_batches([_batch([])], 200, 0.5, MAX_PIXELS)
    assert (batch.num_rows, batch.schema) == (0, PICTURE_SCHEMA)
