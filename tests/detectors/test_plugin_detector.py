"""Plugins: what a good one gives, and that nothing wrong gets through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from detectors.detector import Detector
from detectors.load import describe_detector, load_detector
from tests.detectors.plugin_examples import BAD_FIELDS, BAD_RESULTS
from tests.detectors.tiny_detectors import random_images

FASTEST_DET = Path(__file__).resolve().parents[3] / "shared" / "data" / "fastestdet"


def load(function: str, weights: str | None = None, **changes: Any) -> Detector:
    settings = {"plugin": f"tests.detectors.plugin_examples:{function}", **changes}
    if weights is not None:
        settings["weights"] = weights
    return load_detector(DetectorSettings.model_validate(settings), "cpu")


def test_a_good_plugin_by_hand() -> None:
    image = random_images([(100, 200)])[0]
    image.setflags(write=False)
    found = load("good").predict([image[:, ::-1]])[0]
    # Best first; row 3 has no area, row 4 is below eta0, row 2 is clipped to the image.
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.3])
    np.testing.assert_array_equal(found.labels, [1, 2, 1])
    np.testing.assert_array_equal(found.boxes_xyxy, [[12, 10, 50, 60], [0, 5, 200, 40], [10, 10, 50, 60]])
    assert found.logits is not None and found.features is None and found.image_feature is None
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits[[0, 1, 2], [0, 1, 0]])), found.scores, atol=1e-6)


def test_thresholds_and_suppression_apply() -> None:
    image = random_images([(100, 200)])
    assert load("outside").predict(image)[0].scores.tolist() == pytest.approx([0.9, 0.6])
    assert len(load("outside", nms_iou=0.99).predict(image)[0]) == 3
    assert load("good", eta0=0.5).predict(image)[0].scores.tolist() == pytest.approx([0.9, 0.6])
    assert load("good", detections_per_image=1).predict(image)[0].scores.tolist() == pytest.approx([0.9])
    assert load("good", eta0=0.01).predict(image)[0].scores.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.04])


def test_features_where_asked_for() -> None:
    asked = {"keep_logits": False, "keep_features": True, "keep_image_feature": True}
    found = load("good", **asked).predict(random_images([(100, 200), (50, 60)]))
    assert found[0].logits is None
    np.testing.assert_array_equal(found[0].features, [[3, 4, 5], [6, 7, 8], [0, 1, 2]])  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[1].image_feature, [50, 60])  # type: ignore[arg-type]
    nothing = load("empty", **asked).predict(random_images([(100, 200)]))[0]
    assert len(nothing) == 0 and nothing.features is not None
    assert load("softmax").predict(random_images([(100, 200)]))[0].logits.shape == (1, 3)  # type: ignore[union-attr]


def test_card_and_identity() -> None:
    def model_id(function: str = "good", **changes: Any) -> str:
        return load(function, **changes).model_id

    card = load("good", "run-7", name="mine").card
    assert (card.name, card.uri, card.classes, card.head) == ("mine", "run-7", ("car", "sign"), "sigmoid")
    assert card.architecture == "tests.detectors.plugin_examples:good"
    assert card == describe_detector(DetectorSettings(plugin=card.architecture, weights="run-7", name="mine"))
    assert model_id(name="other") == model_id()
    ids = [
        model_id(), model_id(weights="run-7"), model_id(weights="run-8"), model_id("outside"),
        model_id("empty"), model_id(eta0=0.1), model_id(detections_per_image=5), model_id(keep_logits=False),
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_a_bad_result_is_refused_before_any_image_and_later(case: str) -> None:
    with pytest.raises(QuarryError, match=BAD_RESULTS[case][1]) as caught:
        load("bad", case)
    assert "detector.plugin tests.detectors.plugin_examples:bad: " in str(caught.value)
    late = load("bad_later", case)
    with pytest.raises(QuarryError, match=BAD_RESULTS[case][1]):
        late.predict(random_images([(192, 256), (224, 160)]))


@pytest.mark.parametrize("case", range(len(BAD_FIELDS)))
def test_a_bad_object_is_refused(case: int) -> None:
    with pytest.raises(QuarryError, match=BAD_FIELDS[case][1]):
        load("bad_fields", str(case))


def test_a_plugin_that_cannot_be_loaded() -> None:
    for function, message in (
        ("exits", "the factory failed: SystemExit: no licence"),
        ("wrong_arguments", "the factory failed: TypeError"),
        ("nothing", "detector.plugin: module tests.detectors.plugin_examples has no function 'nothing'"),
    ):
        with pytest.raises(QuarryError, match=message):
            load(function)
    with pytest.raises(QuarryError, match="detector.plugin: cannot import no_such_module: .*every worker"):
        load_detector(DetectorSettings(plugin="no_such_module:f"), "cpu")
    with pytest.raises(QuarryError, match="classes: detector.classes expected car, got car, sign"):
        load("good", classes=("car",))
    with pytest.raises(QuarryError, match=r"image 0 of the batch: expected \(h, w, 3\)"):
        load("good").predict([np.zeros((4, 4), np.uint8)])


def test_too_little_memory_passes_through() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        load("without_memory").predict(random_images([(64, 64)]))


@pytest.mark.skipif(not FASTEST_DET.exists(), reason="needs the photos beside the repository")
def test_a_real_detector_finds_what_photos_show() -> None:
    settings = {"plugin": "tests.detectors.fastestdet_plugin:detector", "nms_iou": 0.45}
    settings["weights"] = str(FASTEST_DET / "FastestDet.onnx")
    detector = load_detector(DetectorSettings.model_validate(settings), "cpu")
    seen = []
    for path in sorted((FASTEST_DET / "photos").glob("*.jpg")):
        found = detector.predict([np.asarray(Image.open(path).convert("RGB"))])[0]
        seen.append({detector.classes[label - 1] for label in found.labels[found.scores >= 0.5]})
    assert len(seen) == 5
    for expected, names in zip(["person", "bus", "person", "person", "bench"], seen, strict=True):
        assert expected in names
    onnx = {"boxes": {"output": "758", "columns": [1, 5]}, "scores": {"output": "758", "columns": [5, 85]}}
    with pytest.raises(QuarryError, match=r"got shape \(1, 85, 22, 22\); write a plugin"):
        load_detector(DetectorSettings.model_validate({"weights": settings["weights"], "onnx": onnx}), "cpu")
