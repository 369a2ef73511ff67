"""The fixed boxes of the pixel network: their sizes, and how well they fit objects."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Height and width (px), finest block first; Aghdam et al. (2019), section 3, for pedestrians.
PAPER_SIZES_HW = ((55.0, 31.0), (80.0, 50.0), (145.0, 80.0), (225.0, 130.0), (270.0, 160.0))
LEAST_SIDE_PX = 2
_MOST_ROUNDS = 100


def fitted_box_sizes(
    boxes_hw: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int
) -> NDArray[np.float32]:
    """Box sizes of five blocks and K classes for objects of these sizes.

    The paper chose five sizes of about one aspect for its one class by hand. Here five scales (square root of
    the area) are the centers of k-means clusters of all objects' log scales, and every class keeps one
    aspect, the median of its objects': block k detects objects of scale k whatever their class.

    Args:
        boxes_hw: (n, 2) heights and widths in px of the network's input, n >= 1, positive.
        labels: (n,) in 1..K.
        n_classes: K; a class without objects gets the median aspect of all.

    Returns:
        (5, K, 2) heights and widths, smallest first, in whole px (which float16 holds exactly up to 2048) of
        at least 2.
    """
    log_hw = np.log(boxes_hw.astype(np.float64))
    scales = _cluster_centers(log_hw.mean(axis=1), len(PAPER_SIZES_HW))
    log_aspects = (log_hw[:, 0] - log_hw[:, 1]) / 2
    sizes = np.empty((len(scales), n_classes, 2))
    for column in range(n_classes):
        own = labels == column + 1
        log_aspect = np.median(log_aspects[own] if own.any() else log_aspects)
        sizes[:, column, 0], sizes[:, column, 1] = scales + log_aspect, scales - log_aspect
    return np.maximum(np.exp(sizes).round(), LEAST_SIDE_PX).astype(np.float32)


def centred_iou(box_xyxy: Tensor, sizes_hw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """IoU of one object with boxes of fixed sizes round the center of every pixel.

    Args:
        box_xyxy: (4,) float, px, with area.
        sizes_hw: (n, 2) float, heights and widths in px.
        size_hw: Height and width (px) of the image; boxes may reach beyond it.

    Returns:
        (n, h, w) in [0, 1]; element [i, y, x] is of the box round (x + 0.5, y + 0.5).
    """
    x1, y1, x2, y2 = box_xyxy
    overlap_y = _overlap(y1, y2, sizes_hw[:, :1], size_hw[0])
    overlap_x = _overlap(x1, x2, sizes_hw[:, 1:], size_hw[1])
    both = overlap_y[:, :, None] * overlap_x[:, None, :]
    areas = sizes_hw.prod(dim=1)[:, None, None] + (x2 - x1) * (y2 - y1)
    iou: Tensor = both / (areas - both)
    return iou


def _overlap(start: Tensor, end: Tensor, lengths: Tensor, pixels: int) -> Tensor:
    """(n, pixels): common part of an interval and intervals of lengths (n, 1) round every pixel's center."""
    centers = torch.arange(pixels, device=lengths.device) + 0.5
    overlap = torch.minimum(centers + lengths / 2, end) - torch.maximum(centers - lengths / 2, start)
    return overlap.clamp(min=0)


def _cluster_centers(values: NDArray[np.float64], clusters: int) -> NDArray[np.float64]:
    """Centers of k-means on a line, rising: Lloyd's rounds from quantiles; empty clusters stay put."""
    centers = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    for _ in range(_MOST_ROUNDS):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        moved = np.array(
            [values[nearest == i].mean() if (nearest == i).any() else centers[i] for i in range(clusters)]
        )
        if np.array_equal(moved, centers):
            break
        centers = moved
    return np.sort(centers)
