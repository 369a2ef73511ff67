"""Query values given real ground truth: what a detector's errors on an image are.

Source: score_sampling, "Defining Query-Based Hardness", Eq. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from udfs.boxes import BoolArray, FloatArray, sums_at
from udfs.detection_batch import DetectionBatch, TruthBatch
from udfs.matching import Matcher, match_by_shared_area, shared_areas
from udfs.queries import ErrorBoxes, ErrorMass, ErrorSets, Query, query_values
from udfs.self_overlaps import detection_boxes


def supervised_hardness(
    detections: DetectionBatch,
    truth: TruthBatch,
    queries: Sequence[Query],
    *,
    eta: float,
    iou_threshold: float,
    matcher: Matcher = "coco",
) -> FloatArray:
    """Value of every query on every image with known ground truth.

    Args:
        detections: Detections; only those with score >= eta take part.
        truth: Ground truth of the same images in the same order.
        queries: Queries to evaluate.
        eta: Confirmation threshold, 0..1.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.

    Returns:
        (queries, images), larger is harder. Detections absorbed by a crowd are neither tp nor fp; crowds are
        never fn. A ground-truth box without area is always fn.
    """
    confirmed = detections.where(detections.scores >= eta)
    shared = shared_areas(confirmed, truth)
    matches = match_by_shared_area(confirmed, truth, shared.detection_truth, iou_threshold, matcher)
    is_tp = matches.truth_of_detection >= 0
    is_fp = ~is_tp & ~matches.is_absorbed
    is_fn = ~matches.is_found & ~truth.is_crowd
    first, second, inter = shared.detection_detection
    fp_overlap_px = sums_at(first, inter * is_tp[second], len(is_tp))
    fp_overlap_px += sums_at(second, inter * is_tp[first], len(is_tp))
    detection, box, inter = shared.detection_truth
    fn_overlap_px = sums_at(box, inter * is_tp[detection], len(is_fn))
    sets = ErrorSets(
        fp_boxes=detection_boxes(confirmed),
        fp=_known(is_fp, fp_overlap_px),
        fn_boxes=_truth_boxes(truth, detections),
        fn=_known(is_fn, fn_overlap_px),
        n_images=detections.n_images,
    )
    return query_values(queries, sets)


def _known(is_error: BoolArray, tp_overlap_px: FloatArray) -> ErrorMass:
    return ErrorMass(probability=is_error.astype(np.float64), tp_overlap_px=is_error * tp_overlap_px)


def _truth_boxes(truth: TruthBatch, detections: DetectionBatch) -> ErrorBoxes:
    return ErrorBoxes(
        boxes_xyxy=truth.boxes_xyxy,
        labels=truth.labels,
        image_sizes_px=detections.image_wh_px,
        image_index=truth.image_index,
    )
