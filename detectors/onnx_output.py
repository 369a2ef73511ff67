"""From the outputs of an ONNX model to candidate boxes, as the mapping `detector.onnx` declares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import QuarryError
from conf.onnx_spec import OnnxOutputSpec, OnnxSpec
from detectors.kept_detections import Candidates
from detectors.onnx_input import Placement
from detectors.onnx_scores import candidates_above, class_logits, class_probabilities, require_probabilities

Outputs = Mapping[str, NDArray[Any]]


def image_outputs(outputs: Outputs, spec: OnnxSpec, n_images: int) -> list[dict[str, NDArray[Any]]]:
    """The outputs of each image of a batch, without batch axis.

    Raises:
        QuarryError: The boxes have neither 2 axes nor 3, or a batch axis is not as long as the batch.
    """
    boxes = outputs[spec.boxes.output]
    columns = "columns, candidates" if spec.transposed else "candidates, columns"
    if boxes.ndim not in (2, 3):
        raise QuarryError(
            f"boxes: output {spec.boxes.output!r} expected axes (batch, {columns}) or ({columns}), "
            f"got shape {boxes.shape}; write a plugin for outputs that need decoding (docs/detectors.md)"
        )
    if boxes.ndim == 2:
        if n_images != 1:
            raise QuarryError(f"output {spec.boxes.output!r} has no batch axis, got {n_images} images")
        return [dict(outputs)]
    for name, values in outputs.items():
        if values.ndim == 0 or values.shape[0] != n_images:
            raise QuarryError(f"output {name!r} expected {n_images} along the first axis, got {values.shape}")
    return [{name: values[i] for name, values in outputs.items()} for i in range(n_images)]


def class_columns(outputs: Outputs, spec: OnnxSpec) -> int | None:
    """Number of classes K that the score columns of one image stand for; none when there are only labels.

    Raises:
        QuarryError: The scores have no two axes, or background is their only column.
    """
    if spec.labels is not None:
        return None
    columns: int = _columns("scores", spec.scores, outputs, spec).shape[1]
    n_classes = columns - (spec.background != "none")
    if n_classes < 1:
        raise QuarryError(f"scores: expected background and at least one class, got {columns} columns")
    return n_classes


def candidates(
    outputs: Outputs, spec: OnnxSpec, placed: Placement, *, n_classes: int, eta0: float, logits: bool
) -> Candidates:
    """One image's boxes with a score of at least eta0.

    Args:
        outputs: Arrays by name, without batch axis.
        spec: What they mean.
        placed: Where the image lies in the model's input.
        n_classes: Classes without background.
        eta0: Boxes below are left out.
        logits: Whether class logits are kept; models with labels have none. Raw scores where the activation
            is ours and there is no objectness, else those of the probabilities, kept float32's epsilon away
            from 0 and 1. A softmax without background column gets one of probability epsilon.

    Returns:
        Boxes in px of the original image, unclipped.

    Raises:
        QuarryError: Shapes do not fit the mapping, a score is no probability, a label no class, or a value
            of a kept box is not finite.
    """
    boxes = _four_columns(outputs, spec)
    objectness = _objectness(outputs, spec, len(boxes))
    kept_logits: NDArray[np.float32] | None = None
    if spec.labels is not None:
        scores, labels, rows = _best_class(outputs, spec, objectness, n_classes, eta0)
    else:
        raw = _raw_scores(outputs, spec, len(boxes), n_classes)
        probabilities = class_probabilities(raw, spec)
        if objectness is not None:
            probabilities = probabilities * objectness[:, None]
        rows, columns = candidates_above(probabilities, eta0, spec.multi_label)
        scores, labels = probabilities[rows, columns].numpy(), columns.numpy() + 1
        if logits:
            kept_logits = class_logits(raw[rows], probabilities[rows], spec).numpy()
    boxes_xyxy = input_boxes_xyxy(boxes[rows.numpy()], spec, placed.input_hw)
    if not np.isfinite(boxes_xyxy).all():
        raise QuarryError("boxes: a box above eta0 is not finite")
    return Candidates(
        boxes_xyxy=placed.to_original_px(boxes_xyxy), scores=scores, labels=labels, logits=kept_logits
    )


def input_boxes_xyxy(boxes: NDArray[Any], spec: OnnxSpec, input_hw: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes (n, 4) in the mapping's format and units as corners in px of the model's input."""
    first, second = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    if spec.box_format == "xywh":
        second = first + second
    elif spec.box_format == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.concatenate([first, second], axis=1)
    if spec.box_units == "fraction":
        corners *= np.array([input_hw[1], input_hw[0]] * 2)
    return corners


def require_plausible_boxes(outputs: Outputs, spec: OnnxSpec) -> None:
    """Fail where a mapping of boxes is most likely wrong, judged on all candidates of one image.

    Raises:
        QuarryError: A value is NaN, most corners are out of order, or sizes speak for the other unit.
    """
    boxes = _four_columns(outputs, spec).astype(np.float64)
    if np.isnan(boxes).any():
        raise QuarryError("boxes: a value is NaN")
    boxes = boxes[np.isfinite(boxes).all(axis=1)]  # low-scored ones may be infinite
    if len(boxes) < 10 or not boxes.any():  # too few to judge, or padding
        return
    corners = input_boxes_xyxy(boxes, spec, (1, 1))
    if np.mean((corners[:, 2:] < corners[:, :2]).any(axis=1)) > 0.5:
        raise QuarryError(
            f"boxes: most have x2 < x1 or y2 < y1 as {spec.box_format}: check box_format, columns and "
            "transposed"
        )
    largest = np.abs(boxes).max(axis=1)
    if spec.box_units == "input_px" and largest.max() <= 2:
        raise QuarryError("boxes: no value is above 2: set box_units to fraction")
    if spec.box_units == "fraction" and np.median(largest) > 8:
        raise QuarryError(
            f"boxes: values up to {largest.max():g} are no fractions: set box_units to input_px"
        )


def _four_columns(outputs: Outputs, spec: OnnxSpec) -> NDArray[Any]:
    boxes = _columns("boxes", spec.boxes, outputs, spec)
    if boxes.shape[1] != 4:
        raise QuarryError(f"boxes: expected 4 columns, got {boxes.shape[1]}; check columns and transposed")
    return boxes


def _columns(part: str, column: OnnxOutputSpec, outputs: Outputs, spec: OnnxSpec) -> NDArray[Any]:
    """(candidates, columns) of one image."""
    values = outputs[column.output]
    if values.ndim != 2:
        raise QuarryError(
            f"{part}: output {column.output!r} expected a row and a column axis beside the batch axis of "
            f"boxes, got shape {values.shape} an image"
        )
    if spec.transposed:
        values = values.T
    if column.columns is None:
        return values
    if column.columns[1] > values.shape[1]:
        raise QuarryError(
            f"{part}: columns {list(column.columns)} of output {column.output!r}, which has "
            f"{values.shape[1]} (shape {outputs[column.output].shape} an image); check columns and transposed"
        )
    return values[:, column.columns[0] : column.columns[1]]


def _vector(part: str, column: OnnxOutputSpec, outputs: Outputs, spec: OnnxSpec, n: int) -> Tensor:
    """(candidates,) float32 of one image."""
    values = outputs[column.output]
    if values.ndim != 1 or column.columns is not None:
        values = _columns(part, column, outputs, spec)
        if values.shape[1] != 1:
            raise QuarryError(
                f"{part}: expected one value a candidate, output {column.output!r} has "
                f"{values.shape[1]} columns"
            )
        values = values[:, 0]
    if len(values) != n:
        raise QuarryError(f"{part}: expected {n} candidates as boxes have, got {len(values)}")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _objectness(outputs: Outputs, spec: OnnxSpec, n: int) -> Tensor | None:
    if spec.objectness is None:
        return None
    raw = _vector("objectness", spec.objectness, outputs, spec, n)
    return require_probabilities("objectness", raw) if spec.activation == "none" else torch.sigmoid(raw)


def _best_class(
    outputs: Outputs, spec: OnnxSpec, objectness: Tensor | None, n_classes: int, eta0: float
) -> tuple[NDArray[Any], NDArray[Any], Tensor]:
    """Scores, labels and rows of candidates whose model names the best class only."""
    assert spec.labels is not None
    n = len(_four_columns(outputs, spec))
    raw = _vector("scores", spec.scores, outputs, spec, n)
    scores = require_probabilities("scores", raw) if spec.activation == "none" else torch.sigmoid(raw)
    if objectness is not None:
        scores = scores * objectness
    indices = _vector("labels", spec.labels, outputs, spec, n)
    rows = torch.where(scores >= eta0)[0]
    labels = indices[rows] + (0 if spec.background == "first" else 1)
    bad = (labels != labels.round()) | (labels < 1) | (labels > n_classes)
    if bad.any():
        first = 1 if spec.background == "first" else 0
        raise QuarryError(
            f"labels: expected whole numbers {first}..{first + n_classes - 1}, got "
            f"{indices[rows][bad][0]:g}; check detector.classes, and background: first if 0 is background"
        )
    return scores[rows].numpy(), labels.long().numpy(), rows


def _raw_scores(outputs: Outputs, spec: OnnxSpec, n: int, n_classes: int) -> Tensor:
    """(candidates, K or K + 1) float32, background first."""
    values = _columns("scores", spec.scores, outputs, spec)
    expected = n_classes + (spec.background != "none")
    if values.shape != (n, expected):
        raise QuarryError(f"scores: expected shape {(n, expected)} an image, got {values.shape}")
    raw = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return raw.roll(1, dims=1) if spec.background == "last" else raw
