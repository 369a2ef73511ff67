"""Areas, intersections and IoU of boxes, dense for one pair of sets and sparse for a whole batch of images.

Boxes are x1, y1, x2, y2 in absolute pixels, x2 >= x1 and y2 >= y1. All arithmetic is float64. A box without
area has IoU 0 with every box, itself included, as in pycocotools' `maskUtils.iou`; no function here returns
NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class BoxPairs(NamedTuple):
    """Pairs of boxes that share area: positions of both boxes and the shared area in px²."""

    first: IntArray
    second: IntArray
    inter_px: FloatArray


def area_px(boxes_xyxy: FloatArray) -> FloatArray:
    """Area of every box.

    Args:
        boxes_xyxy: (m, 4), px.

    Returns:
        (m,), px², >= 0.
    """
    area: FloatArray = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    return area


def pairwise_inter_px(first_xyxy: FloatArray, second_xyxy: FloatArray) -> FloatArray:
    """Shared area of every box of one set with every box of another.

    Args:
        first_xyxy: (..., m, 4), px.
        second_xyxy: (..., n, 4), px.

    Returns:
        (..., m, n), px²; 0 for boxes that only touch.
    """
    low = np.maximum(first_xyxy[..., :, None, :2], second_xyxy[..., None, :, :2])
    high = np.minimum(first_xyxy[..., :, None, 2:], second_xyxy[..., None, :, 2:])
    size = np.maximum(high - low, 0.0)  # (..., m, n, 2)
    inter: FloatArray = size[..., 0] * size[..., 1]
    return inter


def iou_of(inter_px: FloatArray, union_px: FloatArray) -> FloatArray:
    """IoU from shared and united areas; 0 where nothing is shared.

    Args:
        inter_px: Shared areas, px².
        union_px: United areas, px², same shape.

    Returns:
        IoU, 0..1, same shape.
    """
    return np.divide(inter_px, union_px, out=np.zeros_like(inter_px), where=inter_px > 0.0)


def pairwise_iou(
    detections_xyxy: FloatArray, truth_xyxy: FloatArray, is_crowd: BoolArray | None = None
) -> FloatArray:
    """IoU of every detection with every ground-truth box.

    Args:
        detections_xyxy: (..., m, 4), px.
        truth_xyxy: (..., n, 4), px.
        is_crowd: (n,); against a crowd the union is the detection's own area, as in pycocotools.

    Returns:
        (..., m, n), 0..1; 0 where either box has no area.
    """
    inter = pairwise_inter_px(detections_xyxy, truth_xyxy)
    first_size = detections_xyxy[..., 2:] - detections_xyxy[..., :2]
    second_size = truth_xyxy[..., 2:] - truth_xyxy[..., :2]
    first_area = first_size.prod(axis=-1)[..., :, None]
    union = first_area + second_size.prod(axis=-1)[..., None, :] - inter
    if is_crowd is not None:
        union = np.where(is_crowd, first_area, union)
    return iou_of(inter, union)


def owners(offsets: IntArray) -> IntArray:
    """Index of the image every flat element belongs to.

    Args:
        offsets: (n + 1,), starts of the n images in the flat arrays, from 0.

    Returns:
        (m,), 0..n-1, not falling.
    """
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def sums_at(index: IntArray, values: FloatArray, size: int) -> FloatArray:
    """Sums of `values` by `index`, added in array order, so that a sum depends on its own terms only.

    Args:
        index: (k,), 0..size-1.
        values: (k,).
        size: Number of sums.

    Returns:
        (size,), float64; 0 where nothing is added.
    """
    return np.bincount(index, values, minlength=size).astype(np.float64, copy=False)


def overlapping_pairs(
    offsets: IntArray, boxes_xyxy: FloatArray, involving: BoolArray | None = None
) -> BoxPairs:
    """All pairs of boxes of the same image that share area, each once.

    A sweep along x: boxes are sorted by the cell x1 is in, and each looks only at those that start before it
    ends.

    Args:
        offsets: (n + 1,), starts of the n images in `boxes_xyxy`.
        boxes_xyxy: (m, 4), finite, px.
        involving: (m,), only pairs with at least one of these boxes; None for all.

    Returns:
        Pairs in an order that depends on the boxes of their image only, images in order.
    """
    m = len(boxes_xyxy)
    if m == 0:
        return BoxPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    image = owners(offsets) << 33
    key = image + _cell(boxes_xyxy[:, 0])
    order = np.argsort(key, kind="stable")
    x1, y1, x2, y2 = (boxes_xyxy[order, column] for column in range(4))
    start, stop = np.arange(1, m + 1), np.searchsorted(key[order], image + _cell(x2), side="right")
    if involving is not None:  # the others look only at those wanted, by rank among them
        wanted = involving[order]
        rank = np.concatenate(([0], np.cumsum(wanted)))
        start, stop = np.where(wanted, (start, stop), rank[[start, np.maximum(start, stop)]])
    counts = np.maximum(stop - start, 0)
    ends = np.cumsum(counts)
    left = np.repeat(np.arange(m), counts)
    right = np.arange(ends[-1]) - np.repeat(ends - counts - start, counts)
    if involving is not None:
        by_rank = ~wanted[left]
        right[by_rank] = np.flatnonzero(wanted)[right[by_rank]]
    height = np.minimum(y2[left], y2[right]) - np.maximum(y1[left], y1[right])
    keep = np.flatnonzero(height > 0.0)
    left, right, height = left[keep], right[keep], height[keep]
    inter = (np.minimum(x2[left], x2[right]) - np.maximum(x1[left], x1[right])) * height
    keep = np.flatnonzero(inter > 0.0)
    return BoxPairs(order[left[keep]], order[right[keep]], inter[keep])


def _cell(x_px: FloatArray) -> IntArray:
    """Column of 1/256 px, in 32 bits: an integer key sorts fast, and equally in every batch."""
    # Floor and clip keep the order: cells can only let in a box too many, which the exact test drops again.
    return np.clip(np.floor(x_px * 256.0), -(2**31), 2**31 - 1).astype(np.int64)
