"""Matching detections with many random subsets of themselves at once.

An outcome says which detections of a component are pseudo ground truth. The matchers are those of
`udfs.matching`, arranged over stacks of components of one size and over outcomes instead of over images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from udfs.boxes import BoolArray, FloatArray, IntArray, pairwise_iou
from udfs.matching import MatchEdges, Matcher, maximum_total_iou
from udfs.self_overlaps import SelfOverlaps


class OutcomeMatches(NamedTuple):
    """Per detection and outcome: is it a true positive, is the pseudo ground truth at its box found."""

    is_tp: BoolArray
    is_found: BoolArray


def match_outcomes(
    overlaps: SelfOverlaps, members: IntArray, is_present: BoolArray, matcher: Matcher
) -> OutcomeMatches:
    """Match the confirmed detections of components with the pseudo ground truth present in them.

    Args:
        overlaps: Detections the components are taken from.
        members: (components, size), indices of detections, rising in every row.
        is_present: (components, size, outcomes), which detections are pseudo ground truth.
        matcher: `coco` or `hungarian`.

    Returns:
        Two (components, size, outcomes) arrays.
    """
    boxes = overlaps.boxes.boxes_xyxy[members]
    iou = pairwise_iou(boxes, boxes)
    allowed = (iou >= overlaps.threshold) & overlaps.is_confirmed[members][:, :, None]
    if matcher == "coco":
        return _greedy(iou, allowed, overlaps.scores[members], is_present)
    return _best_total(iou, allowed, is_present)


def _greedy(iou: FloatArray, allowed: BoolArray, scores: FloatArray, is_present: BoolArray) -> OutcomeMatches:
    n_components, size, _ = is_present.shape
    rows = np.arange(n_components)
    by_score = np.argsort(-scores, axis=1, kind="stable")
    # Highest IoU first, equal IoUs last box first: a stable sort of the reversed columns, mapped back.
    preference = size - 1 - np.argsort(-np.where(allowed, iou, -1.0)[:, :, ::-1], axis=2, kind="stable")
    n_choices = allowed.sum(axis=2)
    is_free = is_present.copy()
    is_tp = np.zeros_like(is_present)
    for rank in range(size):
        detection = by_score[:, rank]
        is_open = np.ones(is_present[:, 0].shape, bool)
        for choice in range(int(n_choices[rows, detection].max(initial=0))):
            box = preference[rows, detection, choice]
            takes = is_open & is_free[rows, box] & allowed[rows, detection, box][:, None]
            is_free[rows, box] &= ~takes
            is_open &= ~takes
        is_tp[rows, detection] = ~is_open
    return OutcomeMatches(is_tp, is_present & ~is_free)


def _best_total(iou: FloatArray, allowed: BoolArray, is_present: BoolArray) -> OutcomeMatches:
    n_components, size, n_outcomes = is_present.shape
    component, detection, box = np.nonzero(allowed)
    edge, outcome = np.nonzero(is_present[component, box])
    component, detection, box = component[edge], detection[edge], box[edge]
    block = (component * n_outcomes + outcome) * size
    total = n_components * n_outcomes * size
    edges = MatchEdges(block + detection, block + box, iou[component, detection, box])
    truth_of_detection = maximum_total_iou(edges, total, total)
    is_tp = truth_of_detection >= 0
    is_found = np.zeros(total, bool)
    is_found[truth_of_detection[is_tp]] = True
    shape = (n_components, n_outcomes, size)
    by_detection = (np.ascontiguousarray(flat.reshape(shape).swapaxes(1, 2)) for flat in (is_tp, is_found))
    return OutcomeMatches(*by_detection)
