from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.errors import QuarryError
from conf.settings import DetectorSettings, DetectSettings
from detectors.detections import Detections
from detectors.detector import Detector
from detectors.stage_clock import StageClock
from tests.udfs.mutated_images import mutated_images
from udfs import detect
from udfs.detect import detect_batches
from udfs.detection_rows import DETECT_SCHEMA, TIMINGS, detection_id
from udfs.prediction import Prediction

MAX_PIXELS = 10_000
MODEL_ID = "model-1"
PATHS = pa.schema([("image_id", pa.string()), ("uri", pa.string())])


class BrightnessDetector:
    """As many boxes as the red value of the first pixel says, placed by it; remembers its batches."""

    model_id = MODEL_ID
    classes = ("car", "person")
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.clock = StageClock(self.device)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        self.batch_sizes.append(len(images))
        return [self._found(int(image[0, 0, 0])) for image in images]

    def _found(self, n: int) -> Detections:
        corners = np.arange(n, dtype=np.float32)[:, None] + np.array([0, 1, n, n + 1], np.float32)
        return Detections(
            boxes_xyxy=corners.astype(np.float32),
            scores=np.linspace(0.9, 0.1, n).astype(np.float32),
            labels=(np.arange(n) % 2 + 1).astype(np.int64),
            logits=np.full((n, 3), n, np.float32),
        )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> BrightnessDetector:
    fake = BrightnessDetector()
    prediction = Prediction(cast(Detector, fake))
    monkeypatch.setattr(detect, "worker_model", lambda *_: prediction)
    return fake


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Images with 0, 1, 2 ... boxes, and between them files that cannot be used."""
    uris = []
    for i in range(8):
        uris.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (30 + i, 20), (i, 0, 0)).save(uris[-1])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (101, 100)).save(tmp_path / "large.png")
    for place, name in ((2, "empty.jpg"), (3, "text.jpg"), (3, "absent.jpg"), (9, "large.png")):
        uris.insert(place, str(tmp_path / name))
    return uris


def _rows(uris: Sequence[str], batch_size: int = 4, arrow_rows: int = 5) -> list[dict[str, Any]]:
    rows = [{"image_id": f"id-{i}", "uri": uri} for i, uri in enumerate(uris)]
    batches = [
        pa.RecordBatch.from_pylist(rows[i : i + arrow_rows], schema=PATHS)
        for i in range(0, len(rows), arrow_rows)
    ]
    run = DetectSettings(batch_size=batch_size)
    found = list(detect_batches(iter(batches), DetectorSettings(), run, MAX_PIXELS, MODEL_ID))
    assert all(batch.schema == DETECT_SCHEMA for batch in found)
    return sorted(
        (row for batch in found for row in batch.to_pylist()), key=lambda row: int(row["image_id"][3:])
    )


def _without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = {"latency_ms", *TIMINGS}
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def test_every_image_gives_one_row(model: BrightnessDetector, files: list[str]) -> None:
    rows = sorted(_rows(files), key=lambda row: int(row["image_id"][3:]))
    assert [row["image_id"] for row in rows] == [f"id-{i}" for i in range(len(files))]
    assert [row["uri"] for row in rows] == files
    assert {(row["model_id"], row["view"]) for row in rows} == {("model-1", "original")}
    readable = [row for row in rows if row["error_class"] is None]
    assert [row["n_detections"] for row in readable] == list(range(8))
    assert [(row["width"], row["height"]) for row in readable] == [(30 + i, 20) for i in range(8)]
    assert all(row["latency_ms"] >= 0 for row in readable)


def test_a_file_that_cannot_be_used_becomes_a_reason(model: BrightnessDetector, files: list[str]) -> None:
    faults = {Path(row["uri"]).name: row for row in _rows(files) if row["error_class"] is not None}
    assert {name: row["error_class"] for name, row in faults.items()} == {
        "empty.jpg": "empty",
        "text.jpg": "not_an_image",
        "absent.jpg": "missing",
        "large.png": "too_large",
    }
    for row in faults.values():
        assert row["message"]
        unknown = ("width", "height", "detections", "n_detections", "latency_ms", "image_hash")
        assert {row[name] for name in unknown} == {None}


def test_detections_carry_the_model_s_arrays(model: BrightnessDetector, files: list[str]) -> None:
    found = _rows(files)[-1]["detections"]
    assert len(found) == 7
    third = found[2]
    assert (third["label"], third["label_name"]) == (1, "car")
    assert found[1]["label_name"] == "person"
    assert [third[name] for name in ("x1", "y1", "x2", "y2")] == [2.0, 3.0, 9.0, 10.0]
    assert third["score"] == pytest.approx(0.9 - 2 * 0.8 / 6, abs=1e-6)
    assert third["logits"] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("arrow_rows", [1, 4, 100])
def test_results_do_not_depend_on_batches(
    model: BrightnessDetector, files: list[str], batch_size: int, arrow_rows: int
) -> None:
    expected = _without_times(_rows(files))
    model.batch_sizes.clear()
    assert _without_times(_rows(files, batch_size, arrow_rows)) == expected
    assert max(model.batch_sizes) <= min(batch_size, arrow_rows)


def test_a_group_without_a_readable_image_does_not_run_the_model(
    model: BrightnessDetector, files: list[str]
) -> None:
    rows = _rows([uri for uri in files if "absent" in uri] * 3)
    assert [row["error_class"] for row in rows] == ["missing"] * 3
    assert model.batch_sizes == []


def test_no_images_give_no_rows(model: BrightnessDetector) -> None:
    empty = pa.RecordBatch.from_pylist([], schema=PATHS)
    assert (
        list(detect_batches(iter([empty]), DetectorSettings(), DetectSettings(), MAX_PIXELS, MODEL_ID)) == []
    )
    assert list(detect_batches(iter([]), DetectorSettings(), DetectSettings(), MAX_PIXELS, MODEL_ID)) == []


def test_detection_ids_are_unique_and_stay_the_same(model: BrightnessDetector, files: list[str]) -> None:
    ids = [d["detection_id"] for row in _rows(files) for d in row["detections"] or ()]
    assert len(ids) == sum(range(8)) == len(set(ids))
    assert ids == [d["detection_id"] for row in _rows(files, 1, 1) for d in row["detections"] or ()]
    # Labels that come back refer to these ids, so that they may never change between versions.
    assert detection_id("image", "model", "original", 0) == "2672b06be3d18727"
    parts = [
        ("image", "model", "original", 0),
        ("imag", "emodel", "original", 0),
        ("image", "model", "hflip", 0),
    ]
    assert len({detection_id(*part) for part in parts}) == 3


def test_a_model_that_keeps_no_logits_leaves_them_out(
    model: BrightnessDetector, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model._found
    monkeypatch.setattr(
        model, "_found", lambda n: Detections(whole(n).boxes_xyxy, whole(n).scores, whole(n).labels)
    )
    assert [d["logits"] for d in _rows(files)[-1]["detections"]] == [None] * 7


def test_an_image_the_model_refuses_spares_the_others(model: BrightnessDetector, files: list[str]) -> None:
    usable = _without_times(_rows(files))
    predict = model.predict

    def picky(images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        if any(image[0, 0, 0] == 3 for image in images):
            raise QuarryError("too thin for the model")
        return predict(images)

    model.predict = picky  # type: ignore[method-assign]
    rows = _without_times(_rows(files))
    refused = [row for row in rows if row["error_class"] == "undetectable"]
    assert [row["message"] for row in refused] == ["too thin for the model"]
    assert [row for row in rows if row not in refused] == [row for row in usable if row["n_detections"] != 3]


def test_a_flipped_view_is_a_second_row_in_pixels_of_the_image(
    model: BrightnessDetector, files: list[str], tmp_path: Path
) -> None:
    halves = np.zeros((20, 30, 3), np.uint8)
    halves[:, :15, 0], halves[:, 15:, 0] = 2, 5
    uri = str(tmp_path / "halves.png")
    Image.fromarray(halves).save(uri)
    batch = pa.RecordBatch.from_pylist([{"image_id": "id-0", "uri": uri}], schema=PATHS)
    run = DetectSettings(views=("original", "hflip"))
    rows = pa.Table.from_batches(
        detect_batches(iter([batch]), DetectorSettings(), run, MAX_PIXELS, MODEL_ID)
    ).to_pylist()
    assert [(row["view"], row["n_detections"]) for row in rows] == [("original", 2), ("hflip", 5)]
    # The detector said x from 0 to 5 of the mirrored image, which is 30 px wide.
    first = rows[1]["detections"][0]
    assert (first["x1"], first["y1"], first["x2"], first["y2"]) == (25.0, 1.0, 30.0, 6.0)
    assert rows[0]["fetch_ms"] is not None and rows[1]["fetch_ms"] is None
    ids = {d["detection_id"] for row in rows for d in row["detections"]}
    assert len(ids) == 7
    # Both speak of the image as it is: brightness rises once a row, where the right half begins.
    assert [row["image_hash"] for row in rows] == [int("00011000" * 8, 2)] * 2


def test_only_the_views_an_image_lacks_are_run(model: BrightnessDetector, files: list[str]) -> None:
    uris = [uri for uri in files if uri.endswith("png")][:3]
    wanted = [["hflip"], ["original", "hflip"], ["original"]]
    schema = pa.schema([*PATHS, ("views", pa.list_(pa.string()))])
    rows = [
        {"image_id": f"id-{i}", "uri": uri, "views": views}
        for i, (uri, views) in enumerate(zip(uris, wanted, strict=True))
    ]
    run = DetectSettings(views=("original", "hflip"))
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    found = pa.Table.from_batches(
        detect_batches(iter([batch]), DetectorSettings(), run, MAX_PIXELS, MODEL_ID)
    ).to_pylist()
    seen = sorted((row["image_id"], row["view"]) for row in found)
    assert seen == [("id-0", "hflip"), ("id-1", "hflip"), ("id-1", "original"), ("id-2", "original")]
    assert [row["error_class"] for row in found] == [None] * 4


def test_an_image_s_place_in_its_video_stays_with_it(model: BrightnessDetector, files: list[str]) -> None:
    schema = pa.schema([*PATHS, ("sequence_id", pa.string()), ("frame_index", pa.int32())])
    rows = [
        {"image_id": f"id-{i}", "uri": uri, "sequence_id": "drive", "frame_index": 7 + i}
        for i, uri in enumerate(files)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    found = pa.Table.from_batches(
        detect_batches(iter([batch]), DetectorSettings(), DetectSettings(batch_size=3), MAX_PIXELS, MODEL_ID)
    ).to_pylist()
    places = {row["image_id"]: (row["sequence_id"], row["frame_index"]) for row in found}
    assert places == {f"id-{i}": ("drive", 7 + i) for i in range(len(files))}


def test_box_and_image_features_reach_the_rows(
    model: BrightnessDetector, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model._found

    def with_features(n: int) -> Detections:
        features = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
        return replace(whole(n), features=features, image_feature=np.float32([n, 0.5]))

    monkeypatch.setattr(model, "_found", with_features)
    last = _rows(files)[-1]
    assert [d["feature"] for d in last["detections"]][1] == [4.0, 5.0, 6.0, 7.0]
    assert last["image_feature"] == [7.0, 0.5]


@pytest.mark.filterwarnings("ignore")  # of Pillow's readers, which a test run would turn into faults
def test_a_thousand_mutated_images_are_all_accounted_for(model: BrightnessDetector, tmp_path: Path) -> None:
    uris = []
    for name, content in mutated_images(seed=20260, n=1000):
        uris.append(str(tmp_path / name))
        Path(uris[-1]).write_bytes(content)
    rows = _rows(uris, batch_size=16, arrow_rows=400)
    assert [row["image_id"] for row in rows] == [f"id-{i}" for i in range(1000)]
    for row in rows:
        assert (row["error_class"] is None) == (row["detections"] is not None) == (row["width"] is not None)
        assert (row["error_class"] is None) != bool(row["message"])
    faults = Counter(row["error_class"] for row in rows)
    assert faults[None] > 100 and len(faults) >= 5


def test_a_worker_with_other_weights_than_the_job_s_is_refused(model: BrightnessDetector) -> None:
    with pytest.raises(QuarryError, match="this worker loads model model-1, the job runs model-2"):
        list(detect_batches(iter([]), DetectorSettings(), DetectSettings(), MAX_PIXELS, "model-2"))


def test_logits_of_some_images_only_and_of_several_widths_are_kept(
    model: BrightnessDetector, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model._found

    def uneven(n: int) -> Detections:
        logits = None if n % 3 == 0 else np.full((n, n % 3), n, np.float32)
        return replace(whole(n), logits=logits)

    monkeypatch.setattr(model, "_found", uneven)
    rows = [row for row in _rows(files) if row["error_class"] is None]
    kept = {row["n_detections"]: [d["logits"] for d in row["detections"]] for row in rows}
    assert kept[3] == [None] * 3 and kept[2] == [[2.0, 2.0]] * 2 and kept[4] == [[4.0]] * 4
