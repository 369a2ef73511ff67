"""Which detection finds which ground-truth box: greedy as in pycocotools, or by maximum total IoU.

Both match inside one image and one class, at one IoU threshold, over boxes of all areas. A crowd box can
absorb any number of detections; what it absorbs is neither a true nor a false positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from udfs.boxes import BoolArray, BoxPairs, FloatArray, IntArray, area_px, iou_of, overlapping_pairs
from udfs.connected_boxes import component_heads
from udfs.detection_batch import DetectionBatch, TruthBatch

Matcher = Literal["coco", "hungarian"]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Result of matching d detections with g ground-truth boxes.

    Attributes:
        truth_of_detection: (d,), index of the matched non-crowd box, -1 where there is none.
        is_absorbed: (d,), unmatched but inside a crowd box: neither true nor false positive.
        is_found: (g,), non-crowd boxes with a detection.
    """

    truth_of_detection: IntArray
    is_absorbed: BoolArray
    is_found: BoolArray


class MatchEdges(NamedTuple):
    """Pairs allowed to match: a detection, a ground-truth box of its image and class, their IoU >= t."""

    detection: IntArray
    truth: IntArray
    iou: FloatArray


class SharedAreas(NamedTuple):
    """Pairs that share area between detections and ground truth, and among detections."""

    detection_truth: BoxPairs
    detection_detection: BoxPairs


def effective_threshold(iou_threshold: float) -> float:
    """The IoU a match needs, as pycocotools has it: min(t, 1 - 1e-10), so that t = 1 survives rounding."""
    return min(iou_threshold, 1.0 - 1e-10)


def match_detections(
    detections: DetectionBatch, truth: TruthBatch, *, iou_threshold: float, matcher: Matcher = "coco"
) -> Matches:
    """Match detections with ground truth, image by image and class by class.

    `coco`: detections by falling score (stable) take the free box of highest IoU >= min(t, 1 - 1e-10); of
    equal IoUs the later box wins, as in COCOeval. `hungarian`: the assignment of maximum total IoU over pairs
    with IoU >= t. In both, crowd boxes come last.

    Args:
        detections: Detections that take part; filter by score before.
        truth: Ground truth of the same images in the same order.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.

    Returns:
        Matches over the flat arrays of both batches.
    """
    areas = shared_areas(detections, truth)
    return match_by_shared_area(detections, truth, areas.detection_truth, iou_threshold, matcher)


def shared_areas(detections: DetectionBatch, truth: TruthBatch) -> SharedAreas:
    """Pairs of boxes that share area, from one sweep over both sets of boxes.

    Args:
        detections: Detections of n images.
        truth: Ground truth of the same images.

    Returns:
        Detection with ground truth, and detection with detection (each pair once).
    """
    n_detections = len(detections.scores)
    order = np.argsort(np.concatenate((detections.image_index, truth.image_index)), kind="stable")
    boxes = np.concatenate((detections.boxes_xyxy, truth.boxes_xyxy))[order]
    pairs = overlapping_pairs(detections.offsets + truth.offsets, boxes)
    low = np.minimum(order[pairs.first], order[pairs.second])
    high = np.maximum(order[pairs.first], order[pairs.second])
    crossing = (low < n_detections) & (high >= n_detections)
    inside = high < n_detections
    return SharedAreas(
        BoxPairs(low[crossing], high[crossing] - n_detections, pairs.inter_px[crossing]),
        BoxPairs(low[inside], high[inside], pairs.inter_px[inside]),
    )


def match_by_shared_area(
    detections: DetectionBatch,
    truth: TruthBatch,
    shared: BoxPairs,
    iou_threshold: float,
    matcher: Matcher,
) -> Matches:
    """`match_detections` for callers that know which detection shares how much area with which box.

    Args:
        detections: Detections that take part.
        truth: Ground truth of the same images.
        shared: Detection, ground-truth box, shared area.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.

    Returns:
        Matches over the flat arrays of both batches.
    """
    edges = _edges(detections, truth, shared, effective_threshold(iou_threshold))
    on_crowd = truth.is_crowd[edges.truth]
    candidates = MatchEdges(edges.detection[~on_crowd], edges.truth[~on_crowd], edges.iou[~on_crowd])
    if matcher == "coco":
        truth_of_detection = _greedy(candidates, detections)
    else:
        truth_of_detection = maximum_total_iou(candidates, len(detections.scores), len(truth.labels))
    matched = truth_of_detection >= 0
    touches_crowd = np.zeros(len(matched), bool)
    touches_crowd[edges.detection[on_crowd]] = True
    is_found = np.zeros(len(truth.labels), bool)
    is_found[truth_of_detection[matched]] = True
    return Matches(
        truth_of_detection=truth_of_detection, is_absorbed=touches_crowd & ~matched, is_found=is_found
    )


def _edges(detections: DetectionBatch, truth: TruthBatch, shared: BoxPairs, threshold: float) -> MatchEdges:
    same_class = detections.labels[shared.first] == truth.labels[shared.second]
    detection, box = shared.first[same_class], shared.second[same_class]
    inter = shared.inter_px[same_class]
    own = area_px(detections.boxes_xyxy)[detection]
    union = np.where(truth.is_crowd[box], own, own + area_px(truth.boxes_xyxy)[box] - inter)
    iou = iou_of(inter, union)
    keep = iou >= threshold
    return MatchEdges(detection[keep], box[keep], iou[keep])


def _greedy(edges: MatchEdges, detections: DetectionBatch) -> IntArray:
    truth_of_detection = np.full(len(detections.scores), -1, np.int64)
    # By falling score, equal scores in their given order; then by falling IoU, equal IoUs last box first.
    order = np.lexsort((-edges.truth, -edges.iou, edges.detection, -detections.scores[edges.detection]))
    placed: set[int] = set()
    taken: set[int] = set()
    # A pair costs two set look-ups, and a detection has one or two pairs: cheaper than a vectorised fixed
    # point.
    for detection, box in zip(edges.detection[order].tolist(), edges.truth[order].tolist(), strict=True):
        if detection not in placed and box not in taken:
            truth_of_detection[detection] = box
            placed.add(detection)
            taken.add(box)
    return truth_of_detection


def maximum_total_iou(edges: MatchEdges, n_detections: int, n_truth: int) -> IntArray:
    """Assignment of maximum total IoU over the allowed pairs.

    Args:
        edges: Allowed pairs, from any number of images and classes.
        n_detections: Number of detections.
        n_truth: Number of ground-truth boxes.

    Returns:
        (n_detections,), index of the matched box, -1 where there is none.
    """
    truth_of_detection = np.full(n_detections, -1, np.int64)
    if len(edges.iou) == 0:
        return truth_of_detection
    heads = component_heads(edges.detection, edges.truth + n_detections, n_detections + n_truth)
    group = heads[edges.detection]
    order = np.argsort(group, kind="stable")
    # Solving every connected group on its own is faster, and makes ties independent of the rest of the image.
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        detection, row = np.unique(edges.detection[part], return_inverse=True)
        box, column = np.unique(edges.truth[part], return_inverse=True)
        gain = np.zeros((len(detection), len(box)))
        gain[row, column] = edges.iou[part]
        chosen_row, chosen_column = linear_sum_assignment(gain, maximize=True)
        allowed = gain[chosen_row, chosen_column] > 0.0
        truth_of_detection[detection[chosen_row[allowed]]] = box[chosen_column[allowed]]
    return truth_of_detection
