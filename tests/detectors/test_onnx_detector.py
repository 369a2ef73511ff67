"""ONNX files: the same numbers as torch, and boxes in px of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, box_convert

from conf.errors import QuarryError
from conf.onnx_spec import OnnxSpec
from conf.settings import DetectorSettings
from detectors.load import describe_detector, load_detector
from detectors.onnx_input import model_input, placement
from detectors.onnx_output import candidates
from detectors.outputs import Outputs
from tests.detectors.onnx_models import (
    DETR,
    N_CLASSES,
    TORCHVISION,
    YOLO,
    DenseHead,
    detr_bytes,
    onnx_detector,
    torchvision_bytes,
    yolo_bytes,
)
from tests.detectors.tiny_detectors import CLASSES, random_images


def blocky(image: Any) -> Any:
    """Twice the size of equal pixels: halving it by any bilinear rule gives the image back."""
    return image.repeat(2, axis=0).repeat(2, axis=1)


def expected_by_torch(small: Any, mapping: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Boxes in px of the input, scores and labels of an image that fits the input after halving."""
    pixels = np.full((64, 64, 3), 114, np.uint8)
    top, left = (64 - small.shape[0]) // 2, (64 - small.shape[1]) // 2
    pixels[top : top + small.shape[0], left : left + small.shape[1]] = small
    if mapping.get("color") == "bgr":
        pixels = pixels[..., ::-1].copy()
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(mapping[key]).view(3, 1, 1) for key in ("mean", "std"))
    fractions, scores = DenseHead()((values - mean) / std)
    boxes = box_convert(fractions[0], "cxcywh", "xyxy") * 64
    best = torch.sigmoid(scores[0]).max(dim=1)
    return boxes, best.values, best.indices + 1


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("resize", "size_hw"), [("letterbox", (64, 40)), ("letterbox", (30, 64)), ("stretch", (64, 64))]
)
def test_yolo_like_equals_torch(resize: str, size_hw: tuple[int, int], color: str) -> None:
    mapping = {**YOLO, "resize": resize, "color": color, "mean": (0.4, 0.5, 0.3), "std": (0.2, 0.3, 0.25)}
    small = random_images([size_hw])[0]
    found = onnx_detector(yolo_bytes(), mapping).predict([blocky(small)])[0]
    boxes, scores, labels = expected_by_torch(small, mapping)
    offset = torch.tensor([(64 - size_hw[1]) // 2, (64 - size_hw[0]) // 2] * 2)
    boxes = (boxes - offset) * 2
    boxes[:, 0::2].clamp_(0, size_hw[1] * 2)
    boxes[:, 1::2].clamp_(0, size_hw[0] * 2)
    rows = torch.where((scores >= 0.05) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1))[0]
    rows = rows[batched_nms(boxes[rows], scores[rows], labels[rows], 0.5)]
    assert 5 < len(rows) < 64
    np.testing.assert_array_equal(found.labels, labels[rows])
    np.testing.assert_allclose(found.scores, scores[rows], atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, boxes[rows], atol=1e-3)


@pytest.mark.parametrize("side_px", [64, "side"])
def test_batches_where_the_model_can(side_px: int | str) -> None:
    size = {} if side_px == 64 else {"input_hw": (64, 64)}
    batched = onnx_detector(yolo_bytes(side_px=side_px), {**YOLO, **size})
    alone = onnx_detector(yolo_bytes(batch=1), YOLO)
    runs: list[tuple[int, ...]] = []
    for model in (batched, alone):
        run = model._session.run
        model._session.run = lambda v, n, run=run: (runs.append(v.shape), run(v, n))[1]  # type: ignore[method-assign]
    images = random_images([(120, 200), (150, 150), (97, 301)])
    for one, other in zip(batched.predict(images), alone.predict(images), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)  # type: ignore[arg-type]
    assert runs == [(3, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64)]
    assert batched.predict([]) == []
    assert set(batched.clock.take()) == {"transfer", "forward", "post_process"}
    assert (batched.card.min_size, batched.card.max_size, batched.head) == (64, 64, "sigmoid")


def test_detr_like_equals_torch() -> None:
    small = random_images([(64, 64)])[0]
    model = onnx_detector(detr_bytes(), DETR, classes=None)
    found = model.predict([blocky(small)])[0]
    fractions, logits = DenseHead(N_CLASSES + 1)(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)
    scores = torch.softmax(logits[0], dim=1)[:, :N_CLASSES].max(dim=1)
    order = torch.argsort(scores.values, descending=True, stable=True)
    order = order[scores.values[order] >= 0.05]
    assert len(order) > 30
    np.testing.assert_array_equal(found.labels, scores.indices[order] + 1)
    np.testing.assert_allclose(found.scores, scores.values[order], atol=1e-5)
    np.testing.assert_allclose(found.logits, logits[0][order].roll(1, dims=1), atol=1e-4)  # type: ignore[arg-type]
    boxes = box_convert(fractions[0][order], "cxcywh", "xyxy").clamp(0, 1) * 128
    np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=1e-3)
    assert (model.head, model.classes) == ("softmax", ("class_1", "class_2", "class_3"))


def test_torchvision_like_by_hand() -> None:
    image = np.full((80, 60, 3), (51, 204, 102), np.uint8)
    found = onnx_detector(torchvision_bytes(), TORCHVISION).predict([image, image[:, :40]])
    # The third box has no width; the second is clipped to the image.
    np.testing.assert_allclose(found[0].scores, [0.8, 0.2], atol=1e-5)
    np.testing.assert_array_equal(found[0].labels, [1, 2])
    np.testing.assert_allclose(found[0].boxes_xyxy, [[5.5, 0, 60, 20], [1, 2, 30, 40]])
    np.testing.assert_allclose(found[1].boxes_xyxy[0], [5.5, 0, 40, 20])
    assert found[0].logits is None
    blue_first = onnx_detector(torchvision_bytes(), {**TORCHVISION, "color": "bgr"}).predict([image])[0]
    np.testing.assert_allclose(blue_first.scores, [0.8, 0.4], atol=1e-5)
    card = onnx_detector(torchvision_bytes(), TORCHVISION).card
    assert (card.min_size, card.max_size, card.head, card.architecture) == (0, 0, "sigmoid", "onnx")


def test_letterbox_by_hand() -> None:
    spec = OnnxSpec.model_validate({**YOLO, "pad_value": 7})
    placed = placement((50, 100), (64, 64), spec)
    assert (placed.image_hw, placed.top_px, placed.left_px) == ((32, 64), 16, 0)
    corners = placed.to_original_px(np.array([[0, 16, 64, 48], [32, 32, 48, 40]]))
    np.testing.assert_allclose(corners, [[0, 0, 100, 50], [50, 25, 75, 37.5]])
    pixels = model_input(np.full((50, 100, 3), 255, np.uint8), placed, spec, np.dtype(np.float32))
    assert pixels.shape == (3, 64, 64)
    np.testing.assert_allclose(pixels[:, 16:48], 1.0)
    np.testing.assert_allclose(pixels[:, :16], 7 / 255)
    np.testing.assert_allclose(pixels[:, 48:], 7 / 255)
    top_left = placement((50, 100), (64, 64), spec.model_copy(update={"letterbox_anchor": "top_left"}))
    assert (top_left.image_hw, top_left.top_px, top_left.left_px) == ((32, 64), 0, 0)
    with pytest.raises(QuarryError, match="2000x4 px has no pixel left"):
        placement((4, 2000), (64, 64), spec)


def test_layouts_and_types_of_the_input() -> None:
    image = random_images([(8, 8)])[0]
    changes = {"layout": "nhwc", "color": "bgr", "divisor": 2.0, "mean": (1, 2, 3), "std": (4, 5, 6)}
    spec = OnnxSpec.model_validate({**YOLO, **changes})
    placed = placement((8, 8), (8, 8), spec)
    expected = (image[..., ::-1] / 2 - [1, 2, 3]) / [4, 5, 6]
    np.testing.assert_allclose(model_input(image, placed, spec, np.dtype(np.float32)), expected, rtol=1e-5)
    half = model_input(image, placed, spec, np.dtype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(model_input(image, placed, spec, np.dtype(np.uint8)), image[..., ::-1])


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("objectness", [None, "o"])
@pytest.mark.parametrize(
    ("activation", "background"),
    [("none", "none"), ("none", "first"), ("none", "last"), ("sigmoid", "none"),
     ("softmax", "none"), ("softmax", "first"), ("softmax", "last")],
)  # fmt: skip
def test_logits_give_the_score(
    activation: str, background: str, objectness: str | None, multi_label: bool
) -> None:
    random = np.random.default_rng(3)
    columns = N_CLASSES + (background != "none")
    scores = random.normal(0, 4, (50, columns)).astype(np.float32)
    if activation == "none":
        tensor = torch.from_numpy(scores)
        scores = (torch.sigmoid(tensor) if background == "none" else torch.softmax(tensor, 1)).numpy()
        scores[0] = [1.0] + [0.0] * (columns - 1)
    boxes = random.uniform(0, 60, (50, 4))
    spec = OnnxSpec.model_validate(
        {"boxes": "b", "scores": "s", "objectness": objectness, "activation": activation,
         "background": background, "multi_label": multi_label}
    )  # fmt: skip
    placed = placement((64, 64), (64, 64), spec)
    outputs = {"b": boxes, "s": scores, "o": random.uniform(0.2, 1, 50).astype(np.float32)}
    found = candidates(outputs, spec, placed, n_classes=N_CLASSES, eta0=0.05, logits=True)
    assert len(found.scores) > 20 and (len(found.scores) > 50) <= multi_label
    assert found.logits is not None and np.isfinite(found.logits).all()
    logits, rows = torch.from_numpy(found.logits), torch.arange(len(found.scores))
    if activation == "softmax" or background != "none":
        assert logits.shape[1] == N_CLASSES + 1
        given = torch.softmax(logits, 1)[rows, torch.from_numpy(found.labels)]
    else:
        assert logits.shape[1] == N_CLASSES
        given = torch.sigmoid(logits)[rows, torch.from_numpy(found.labels) - 1]
    np.testing.assert_allclose(given, found.scores, atol=2e-6)


def test_fractions_and_best_class_columns_by_hand() -> None:
    rows = np.array([[0.25, 0.5, 0.5, 0.75, 0.9, 2], [0, 0, 1, 1, 0.01, -1]], np.float32)
    columns = {part: {"output": "o", "columns": span} for part, span in
               (("boxes", (0, 4)), ("scores", (4, 5)), ("labels", (5, 6)))}  # fmt: skip
    spec = OnnxSpec.model_validate({**columns, "box_units": "fraction", "resize": "stretch"})
    placed = placement((100, 300), (32, 64), spec)
    found = candidates({"o": rows}, spec, placed, n_classes=3, eta0=0.05, logits=True)
    np.testing.assert_allclose(found.boxes_xyxy, [[75, 50, 150, 75]])
    # Class index 2 from 0 is label 3; padding below eta0 may have any label.
    np.testing.assert_array_equal(found.labels, [3])
    assert found.logits is None


def test_a_softmax_without_background_stays_what_it_was() -> None:
    raw = np.array([[-60.0, -61.0, -62.0], [60.0, 61.0, 62.0]], np.float32)
    spec = OnnxSpec.model_validate({"boxes": "b", "scores": "s", "activation": "softmax"})
    boxes = np.array([[0, 0, 9, 9]] * 2, np.float32)
    placed = placement((64, 64), (64, 64), spec)
    found = candidates({"b": boxes, "s": raw}, spec, placed, n_classes=3, eta0=0.05, logits=True)
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits[:, 1:], raw)
    given = torch.softmax(torch.from_numpy(found.logits), dim=1)
    # exp(2) / (exp(2) + exp(1) + 1) for both rows
    np.testing.assert_allclose([given[0, 1], given[1, 3]], [0.66524096] * 2, rtol=1e-5)
    np.testing.assert_allclose(given[:, 0], np.finfo(np.float32).eps, rtol=1e-3)


def test_a_distribution_rounded_above_1_is_scaled_back() -> None:
    mapping = {"boxes": "b", "scores": "s", "background": "first"}
    spec, boxes = OnnxSpec.model_validate(mapping), np.array([[0, 0, 9, 9]], np.float32)
    rounded = np.array([[0.2, 0.5, 0.308]], np.float32)
    placed = placement((64, 64), (64, 64), spec)
    found = candidates({"b": boxes, "s": rounded}, spec, placed, n_classes=2, eta0=0.05, logits=True)
    np.testing.assert_allclose(found.scores, [0.5 / 1.008], rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.logits), rounded / 1.008, rtol=1e-5)  # type: ignore[arg-type]


def test_objectness_by_hand() -> None:
    mapping = {"boxes": {"output": "o", "columns": (0, 4)}, "objectness": {"output": "o", "columns": (4, 5)},
               "scores": {"output": "o", "columns": (5, 7)}, "box_format": "xywh"}  # fmt: skip
    rows = np.array([[1, 2, 10, 20, 0.5, 0.2, 0.8], [0, 0, 5, 5, 0.04, 1, 1]], np.float32)
    spec = OnnxSpec.model_validate(mapping)
    placed = placement((64, 64), (64, 64), spec)
    found = candidates({"o": rows}, spec, placed, n_classes=2, eta0=0.05, logits=True)
    np.testing.assert_allclose(found.scores, [0.4])
    np.testing.assert_allclose(found.boxes_xyxy, [[1, 2, 11, 22]])
    np.testing.assert_allclose(found.logits, [[np.log(0.1 / 0.9), np.log(0.4 / 0.6)]], rtol=1e-5)  # type: ignore[arg-type]
    nothing = candidates({"o": rows}, spec, placed, n_classes=2, eta0=0.5, logits=True)
    assert len(nothing.scores) == 0 and nothing.logits is not None and nothing.logits.shape == (0, 2)


def test_identity_follows_file_mapping_and_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(yolo_bytes())

    def model_id(uri: str = str(path), mapping: dict[str, Any] | None = None, **changes: Any) -> str:
        settings = {"weights": uri, "onnx": {**YOLO, **(mapping or {})}, "classes": CLASSES, **changes}
        return describe_detector(DetectorSettings.model_validate(settings)).model_id

    reference = model_id()
    assert model_id(name="other") == reference == model_id(path.as_uri())
    assert model_id(mapping={"color": "rgb"}) == reference
    (tmp_path / "b.onnx").write_bytes(yolo_bytes(batch=1))
    others = [
        model_id(str(tmp_path / "b.onnx")), model_id(mapping={"color": "bgr"}), model_id(eta0=0.1),
        model_id(nms_iou=0.4), model_id(keep_logits=False), model_id(classes=("x", "y", "z")),
    ]  # fmt: skip
    assert len({reference, *others}) == 7
    card = describe_detector(DetectorSettings.model_validate({"weights": str(path), "onnx": YOLO}))
    assert (card.classes, card.uri) == (("class_1", "class_2", "class_3"), str(path))


def test_settings_reach_the_detector(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(yolo_bytes())
    settings = {"weights": str(path), "onnx": YOLO, "eta0": 0.5, "detections_per_image": 3}
    image = random_images([(120, 200)])
    found = load_detector(DetectorSettings.model_validate(settings), "cpu").predict(image)[0]
    assert len(found) == 3 and (found.scores >= 0.5).all() and found.logits is not None
    model = onnx_detector(yolo_bytes(), YOLO, outputs=Outputs(logits=False))
    assert model.predict(image)[0].logits is None
    with pytest.raises(QuarryError, match=r"image 0 of the batch: expected \(h, w, 3\)"):
        model.predict([image[0][..., 0]])
