"""What decides which of a model's candidate boxes are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KeepThresholds:
    """Adapter settings of post-processing; part of a model's identity.

    Attributes:
        eta0: Collection threshold in [0, 1]: candidates with a score below are dropped.
        detections_per_image: Most detections kept, by falling score.
        nms_iou: Class-wise non-maximum suppression drops a box whose IoU with a better one is above this.
    """

    eta0: float
    detections_per_image: int
    nms_iou: float
