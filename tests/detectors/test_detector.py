"""Prediction against torchvision's own models, logits, batches, boxes and identity."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from conf.errors import QuarryError
from detectors.detections import Detections
from detectors.outputs import Outputs
from detectors.thresholds import KeepThresholds
from tests.detectors.tiny_detectors import CLASSES, random_detector, random_images, random_model

SMALL = ("small_fasterrcnn", "small_retinanet")
SIZES_HW = [(120, 200), (150, 150), (97, 301)]


def set_thresholds(model: Any, keep: KeepThresholds) -> None:
    """Give torchvision's model the same thresholds; its comparison is >, ours >=."""
    below = float(np.nextafter(keep.eta0, 0))
    if hasattr(model, "roi_heads"):
        owner = model.roi_heads
        owner.nms_thresh, owner.score_thresh = keep.nms_iou, below
        owner.detections_per_img = keep.detections_per_image
    else:
        model.nms_thresh, model.score_thresh = keep.nms_iou, below
        model.detections_per_img = keep.detections_per_image


@pytest.mark.parametrize(
    "architecture", [*SMALL, "fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn"]
)
def test_equals_torchvision(architecture: str) -> None:
    keep = KeepThresholds(eta0=0.1, detections_per_image=40, nms_iou=0.4)
    detector = random_detector(architecture, keep=keep)
    oracle = random_model(architecture)
    set_thresholds(oracle, keep)
    seen = 0
    for image in random_images(SIZES_HW):
        with torch.inference_mode():
            expected = oracle([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
        found = detector.predict([image])[0]
        seen += len(found)
        assert len(found) == len(expected["scores"])
        order, oracle_order = (
            sort_order(found.boxes_xyxy, found.labels),
            sort_order(expected["boxes"].numpy(), expected["labels"].numpy()),
        )
        np.testing.assert_array_equal(found.labels[order], expected["labels"].numpy()[oracle_order])
        np.testing.assert_allclose(found.scores[order], expected["scores"].numpy()[oracle_order], atol=1e-4)
        np.testing.assert_allclose(
            found.boxes_xyxy[order], expected["boxes"].numpy()[oracle_order], atol=1e-3, rtol=0
        )
    assert seen > 20


def sort_order(boxes: Any, labels: Any) -> Any:
    return np.lexsort((*np.round(boxes, 1).T, labels))


@pytest.mark.parametrize("architecture", SMALL)
def test_logits_give_the_score(architecture: str) -> None:
    detector = random_detector(architecture)
    for found in detector.predict(random_images(SIZES_HW)):
        assert len(found) > 5
        assert found.logits is not None
        logits = torch.from_numpy(found.logits)
        rows = torch.arange(len(found))
        labels = torch.from_numpy(found.labels)
        if detector.head == "softmax":
            assert logits.shape == (len(found), len(CLASSES) + 1)
            scores = torch.softmax(logits, -1)[rows, labels]
        else:
            assert logits.shape == (len(found), len(CLASSES))
            scores = torch.sigmoid(logits)[rows, labels - 1]
        np.testing.assert_allclose(scores.numpy(), found.scores, atol=1e-6)


@pytest.mark.parametrize("architecture", SMALL)
def test_batch_does_not_change_results(architecture: str) -> None:
    detector = random_detector(architecture)
    images = random_images([*SIZES_HW, (120, 200), (300, 97)])
    together = detector.predict(images)
    for image, batched in zip(images, together, strict=True):
        alone = detector.predict([image])[0]
        np.testing.assert_array_equal(alone.labels, batched.labels)
        np.testing.assert_allclose(alone.boxes_xyxy, batched.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-4)
        assert alone.logits is not None and batched.logits is not None
        np.testing.assert_allclose(alone.logits, batched.logits, atol=1e-4)


@pytest.mark.parametrize("architecture", SMALL)
def test_boxes_are_inside_the_image_and_best_first(architecture: str) -> None:
    detector = random_detector(architecture)
    for image, found in zip(random_images(SIZES_HW), detector.predict(random_images(SIZES_HW)), strict=True):
        height, width = image.shape[:2]
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [width, height, width, height]).all()
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores >= detector.keep.eta0).all()


def test_features_and_logits_are_optional() -> None:
    image = random_images([(120, 200)])
    plain = random_detector("small_fasterrcnn", outputs=Outputs(logits=False)).predict(image)[0]
    assert plain.logits is None and plain.features is None
    kept = Outputs(features=True)
    with_features = random_detector("small_fasterrcnn", outputs=kept).predict(image)[0]
    assert with_features.features is not None
    assert with_features.features.shape == (len(with_features), 128)
    assert random_detector("small_retinanet", outputs=kept).predict(image)[0].features is None


def test_no_images_read_only_images_and_no_detections() -> None:
    detector = random_detector(
        "small_fasterrcnn", keep=KeepThresholds(eta0=1.0, detections_per_image=5, nms_iou=0.5)
    )
    assert detector.predict([]) == []
    image = random_images([(120, 200)])[0]
    image.setflags(write=False)
    found = detector.predict([image])[0]
    assert len(found) == 0
    assert found.logits is not None and found.logits.shape == (0, len(CLASSES) + 1)


def test_refuses_what_is_no_rgb_image() -> None:
    detector = random_detector("small_fasterrcnn")
    with pytest.raises(QuarryError, match=r"image 1 of the batch: expected \(h, w, 3\) uint8"):
        detector.predict([*random_images([(50, 50)]), np.zeros((50, 50), np.uint8)])
    with pytest.raises(QuarryError, match="no pixel left"):
        detector.predict([np.zeros((1, 5000, 3), np.uint8)])


def test_identity() -> None:
    reference = random_detector("small_fasterrcnn", name="a").model_id
    assert len(reference) == 16
    assert random_detector("small_fasterrcnn", name="b", uri="elsewhere").model_id == reference
    for keep in (
        KeepThresholds(eta0=0.06, detections_per_image=100, nms_iou=0.5),
        KeepThresholds(eta0=0.05, detections_per_image=99, nms_iou=0.5),
        KeepThresholds(eta0=0.05, detections_per_image=100, nms_iou=0.6),
    ):
        assert random_detector("small_fasterrcnn", keep=keep).model_id != reference
    assert random_detector("small_fasterrcnn", classes=("a", "b", "c")).model_id != reference


def test_weights_must_be_finite() -> None:
    from detectors.torchvision_detector import TorchvisionDetector

    model = random_model("small_fasterrcnn")
    model.roi_heads.box_predictor.cls_score.bias.data[0] = float("nan")
    keep = KeepThresholds(eta0=0.05, detections_per_image=5, nms_iou=0.5)
    with pytest.raises(QuarryError, match="cls_score.bias is not finite"):
        TorchvisionDetector(model, architecture="small_fasterrcnn", classes=CLASSES, keep=keep)


def test_detections_refuse_misfits() -> None:
    boxes, scores = np.array([[0, 0, 4, 4]], np.float32), np.array([0.5], np.float32)
    labels = np.array([1], np.int64)
    Detections(boxes, scores, labels)
    for bad in (
        (boxes[:, ::-1].copy(), scores, labels),
        (boxes, scores * 3, labels),
        (boxes, scores, labels - 1),
        (boxes, scores[:0], labels),
        (boxes.astype(np.float64), scores, labels),
        (boxes * np.nan, scores, labels),
    ):
        with pytest.raises(QuarryError):
            Detections(*bad)


def test_imports_neither_spark_nor_pandas() -> None:
    code = (
        "import sys, detectors.load, detectors.training\n"
        "print([m for m in ('pyspark', 'pandas', 'pyarrow', 'udfs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
