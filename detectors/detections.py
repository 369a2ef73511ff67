"""One image's detections as aligned arrays: the contract between models and everything above them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError


@dataclass(frozen=True)
class Detections:
    """Detections of one image, row i of every array is detection i, by falling score.

    Attributes:
        boxes_xyxy: (n, 4) float32, px of the original image, x2 > x1 and y2 > y1.
        scores: (n,) float32 in [0, 1].
        labels: (n,) int64, 1..K; label i is class i - 1.
        logits: Class logits of the kept box, float32: (n, K + 1) with background first for a softmax head,
            (n, K) for a sigmoid head; none when not kept.
        features: (n, D) float32, what the last shared layer of the box head says of the box; none when the
            model has no such layer or it was not asked for.
        image_feature: (F,) float32, the pooled features of the image; none when not asked for.
        maps: One (h_l, w_l) float32 a level of a dense head, finest first: probability in [0, 1] that the
            cell shows any object, padding left out; none when there is no such head or it was not asked for.
        pixel_scores: Scores of the image from those maps by name, >= 0; none when not asked for.

    Raises:
        QuarryError: Shapes or types do not fit together, a box is empty, or a value is not finite.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    image_feature: NDArray[np.float32] | None = None
    maps: tuple[NDArray[np.float32], ...] | None = None
    pixel_scores: dict[str, float] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes_xyxy)
        _require_array("boxes_xyxy", self.boxes_xyxy, (n, 4), np.float32)
        _require_array("scores", self.scores, (n,), np.float32)
        _require_array("labels", self.labels, (n,), np.int64)
        for name, values in (("logits", self.logits), ("features", self.features)):
            if values is not None:
                _require_array(name, values, (n, values.shape[-1]), np.float32)
        if self.image_feature is not None:
            _require_array("image_feature", self.image_feature, (self.image_feature.size,), np.float32)
        for level, probabilities in enumerate(self.maps or ()):
            _require_map(f"maps[{level}]", probabilities)
        for name, score in (self.pixel_scores or {}).items():
            if not 0 <= score < math.inf:
                raise QuarryError(f"detections: pixel score {name} expected a number >= 0, got {score}")
        if np.any(self.boxes_xyxy[:, 2:] <= self.boxes_xyxy[:, :2]):
            raise QuarryError("detections: a box has no area; expected x2 > x1 and y2 > y1")
        if np.any((self.scores < 0) | (self.scores > 1)):
            raise QuarryError("detections: a score is outside [0, 1]")
        if np.any(self.labels < 1):
            raise QuarryError("detections: a label is below 1; 0 is background")

    def __len__(self) -> int:
        return len(self.boxes_xyxy)


def _require_array(name: str, values: NDArray[np.generic], shape: tuple[int, ...], dtype: type) -> None:
    if values.shape != shape or values.dtype != dtype:
        raise QuarryError(
            f"detections: {name} expected shape {shape} of {np.dtype(dtype)}, "
            f"got {values.shape} of {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise QuarryError(f"detections: {name} holds a value that is not finite")


def _require_map(name: str, probabilities: NDArray[np.float32]) -> None:
    if probabilities.ndim != 2 or probabilities.size == 0:
        raise QuarryError(f"detections: {name} expected shape (h, w), got {probabilities.shape}")
    _require_array(name, probabilities, probabilities.shape, np.float32)
    if np.any((probabilities < 0) | (probabilities > 1)):
        raise QuarryError(f"detections: {name} holds a probability outside [0, 1]")
