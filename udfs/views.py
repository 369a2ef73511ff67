"""Test-time views: the same image seen another way, its detections brought back to the image as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detectors.detections import Detections

ORIGINAL_VIEW = "original"
HFLIP_VIEW = "hflip"


def seen_as(image: NDArray[np.uint8], view: str) -> NDArray[np.uint8]:
    """What the detector is shown: the image itself, or its mirror image (`hflip`).

    Args:
        image: (h, w, 3) uint8.
        view: `original` or `hflip`.

    Returns:
        (h, w, 3) uint8; for `original` the very same array.
    """
    return np.ascontiguousarray(image[:, ::-1]) if view == HFLIP_VIEW else image


def in_original_px(found: Detections, view: str, width_px: int) -> Detections:
    """Detections of a view in pixels of the image as it is: mirrored boxes are mirrored back.

    Feature vectors and maps stay as the detector saw them.
    """
    if view == ORIGINAL_VIEW:
        return found
    x1, y1, x2, y2 = found.boxes_xyxy.T
    mirrored = np.stack([np.float32(width_px) - x2, y1, np.float32(width_px) - x1, y2], axis=1)
    # Close to the right border a float32 side can vanish in the difference.
    solid = mirrored[:, 2] > mirrored[:, 0]
    return replace(
        found,
        boxes_xyxy=mirrored[solid],
        scores=found.scores[solid],
        labels=found.labels[solid],
        logits=None if found.logits is None else found.logits[solid],
        features=None if found.features is None else found.features[solid],
    )
