from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from conf.settings import DetectorSettings, DetectSettings
from udfs.box_pictures import PICTURE_SCHEMA
from udfs.detect import detect_batches, detector_card
from udfs.heat_maps import draw_heat_map, heat_map_batches, largest_regions, scale_colors

SETTINGS = DetectorSettings(pixel_scores=("pixel_divergence", "pixel_entropy_mean"))
MAX_PIXELS = 1_000_000


@pytest.fixture
def street(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(3).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(drawn).resize((320, 192)).save(tmp_path / "street.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return tmp_path


def image_rows(*paths: Path) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"image_id": path.stem, "uri": str(path)} for path in paths])


def test_detection_rows_carry_the_scores_of_each_view(street: Path) -> None:
    card = detector_card(SETTINGS)
    run = DetectSettings(device="cpu", views=("original", "hflip"))
    images = image_rows(street / "street.png", street / "broken.png")
    batches = detect_batches(iter([images]), SETTINGS, run, MAX_PIXELS, card.model_id)
    rows = [row for batch in batches for row in batch.to_pylist()]
    scores = {row["view"]: dict(row["pixel_scores"]) for row in rows if row["pixel_scores"] is not None}
    assert set(scores) == {"original", "hflip"}
    assert all(set(found) == set(SETTINGS.pixel_scores) for found in scores.values())
    assert scores["original"] != scores["hflip"]
    assert {row["image_id"] for row in rows if row["pixel_scores"] is None} == {"broken"}
    seen = [row for row in rows if row["error_class"] is None]
    assert all(0 < row["pixel_scores_ms"] < row["latency_ms"] for row in seen)


def test_without_the_setting_rows_carry_none(street: Path) -> None:
    plain = DetectorSettings()
    run = DetectSettings(device="cpu")
    batches = detect_batches(
        iter([image_rows(street / "street.png")]), plain, run, MAX_PIXELS, detector_card(plain).model_id
    )
    (row,) = [row for batch in batches for row in batch.to_pylist()]
    assert row["pixel_scores"] is None and row["pixel_scores_ms"] is None


def test_workers_draw_what_can_be_drawn_and_tell_the_rest(street: Path) -> None:
    batches = [
        image_rows(street / "street.png", street / "broken.png", street / "absent.png"),
        image_rows(street / "street.png").slice(0, 0),
    ]
    draw = {"detector": SETTINGS, "name": "pixel_divergence", "width_px": 160, "max_pixels": MAX_PIXELS}
    model_id = detector_card(SETTINGS).model_id
    found = list(heat_map_batches(batches, model_id=model_id, **draw))  # type: ignore[arg-type]
    assert [batch.schema for batch in found] == [PICTURE_SCHEMA] * 2
    good, broken, absent = found[0].to_pylist()
    assert Image.open(io.BytesIO(good["jpeg"])).size == (160, 96) and good["error"] is None
    assert broken["jpeg"] is None and broken["error"]
    assert absent["error"].startswith("missing")
    other = next(iter(heat_map_batches(batches, model_id="other", **draw)))  # type: ignore[arg-type]
    assert "is now model" in other.to_pylist()[0]["error"]


def test_the_hot_place_is_bright_and_outlined_and_the_rest_is_grey() -> None:
    image = np.full((120, 160, 3), (40, 160, 90), np.uint8)
    scores = np.zeros((120, 160), np.float32)
    scores[35:45, 125:135] = 0.5
    scores[100, 20] = 0.1
    picture = np.asarray(draw_heat_map(image, scores, 160, 30)).astype(int)
    assert picture.shape == (120, 160, 3)
    assert picture[40, 130].sum() > 600 and picture[40, 130, 2] < picture[40, 130, 0]
    assert np.ptp(picture[70, 70]) == 0 and 0 < picture[70, 70, 0] < 128
    assert picture[30, 125].tolist() == picture[45, 120].tolist() == [255, 255, 255]
    assert image.max() == 160 and scores.max() == 0.5


def test_an_image_without_any_score_is_grey() -> None:
    picture = draw_heat_map(np.full((40, 50, 3), 200, np.uint8), np.zeros((40, 50), np.float32), 25, 30)
    assert picture.size == (25, 20)
    assert len(set(np.asarray(picture).reshape(-1, 3).max(axis=1))) <= 2


def test_regions_by_their_maxima_with_those_cut_at_the_border() -> None:
    scores = np.zeros((35, 70), np.float32)
    scores[34, 69], scores[0, 0], scores[5, 31] = 3.0, 2.0, 1.0
    assert largest_regions(scores, 30) == [(60, 30, 70, 35), (0, 0, 30, 30), (30, 0, 60, 30)]
    assert largest_regions(np.zeros((5, 5), np.float32), 30) == []


def test_the_scale_runs_from_dark_to_bright_without_turning_back() -> None:
    colors = scale_colors(np.linspace(-0.1, 1.1, 200, dtype=np.float32))
    lightness = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) >= 0).all()
    assert colors[0].tolist() == [0, 0, 4] and colors[-1].tolist() == [252, 255, 164]
