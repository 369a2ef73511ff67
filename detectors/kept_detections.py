"""Thresholds, class-wise suppression and top n on numpy arrays, for models that leave these to us."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from detectors.detections import Detections
from detectors.thresholds import KeepThresholds


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Aligned arrays of one image's boxes before any is dropped, in any order.

    Attributes:
        boxes_xyxy: (n, 4) float, px of the original image; may reach beyond it.
        scores: (n,) float in [0, 1].
        labels: (n,) int, 1..K.
        logits: (n, C) float, or none.
        features: (n, D) float, or none.
    """

    boxes_xyxy: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.integer]
    logits: NDArray[np.floating] | None = None
    features: NDArray[np.floating] | None = None


def kept_detections(
    candidates: Candidates,
    *,
    original_hw: tuple[int, int],
    keep: KeepThresholds,
    suppress: bool,
    image_feature: NDArray[np.float32] | None = None,
) -> Detections:
    """The candidates that a detector hands out, clipped to the image, best first.

    Scores at eta0 stay; boxes without area inside the image go; ties keep the order they came in.

    Args:
        candidates: One image's boxes.
        original_hw: Height and width of the image (px).
        keep: Thresholds.
        suppress: Whether boxes that overlap a better one of their class are dropped here.
        image_feature: (F,), handed through.
    """
    height, width = original_hw
    boxes = np.clip(candidates.boxes_xyxy, 0, [width, height, width, height]).astype(np.float32)
    scores = candidates.scores.astype(np.float32)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows = np.flatnonzero(solid & (scores >= np.float32(keep.eta0)))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    if suppress:
        rows = rows[_unsuppressed(boxes[rows], scores[rows], candidates.labels[rows], keep.nms_iou)]
    rows = rows[: keep.detections_per_image]
    return Detections(
        boxes_xyxy=boxes[rows],
        scores=scores[rows],
        labels=candidates.labels[rows].astype(np.int64),
        logits=_rows_float32(candidates.logits, rows),
        features=_rows_float32(candidates.features, rows),
        image_feature=image_feature,
    )


def _unsuppressed(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.integer], nms_iou: float
) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = batched_nms(
        torch.from_numpy(boxes_xyxy),
        torch.from_numpy(scores),
        torch.from_numpy(labels.astype(np.int64)),
        nms_iou,
    ).numpy()
    return np.sort(kept)  # rows came in order of score


def _rows_float32(
    values: NDArray[np.floating] | None, rows: NDArray[np.intp] | NDArray[np.int64]
) -> NDArray[np.float32] | None:
    return None if values is None else values[rows].astype(np.float32)


def probe_images() -> list[NDArray[np.uint8]]:
    """Two images of noise, (192, 256) and (224, 160), the same on every machine."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((192, 256), (224, 160))]
