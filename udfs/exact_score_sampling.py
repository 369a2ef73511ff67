"""Score sampling without sampling: the expectation that Algorithm 1 estimates, worked out.

Source: score_sampling, Eq. 5; this form is ours. Matching outcomes of one connected component of same-class
detections with IoU >= t depend on that component's Bernoulli variables only. A single detection, the rule
after class-wise NMS, has P(tp) = s and P(fp) = 1 - s when confirmed and P(fn) = s when not. Small components
are enumerated through the matcher, with joint probabilities inside and products across. Larger ones alone are
sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from udfs.boxes import BoolArray, FloatArray, IntArray, pairwise_inter_px
from udfs.detection_batch import DetectionBatch
from udfs.error_masses import InnerOverlap, Outcome, error_masses
from udfs.matching import Matcher
from udfs.monte_carlo_score_sampling import (
    Hardness,
    mean_of_samples,
    pseudo_truth_samples,
    sampled_outcomes,
    std_error_of_mean,
    with_fixed_weights,
)
from udfs.outcome_matching import match_outcomes
from udfs.queries import Query, query_values
from udfs.self_overlaps import SelfOverlaps, self_overlaps

_MAX_STACK_ELEMENTS = 2**20


def exact_hardness(
    detections: DetectionBatch,
    queries: Sequence[Query],
    *,
    eta: float,
    iou_threshold: float,
    matcher: Matcher = "coco",
    max_component: int = 12,
    n_samples: int = 10,
    seed: int = 0,
) -> Hardness:
    """Expected query values over pseudo ground truth.

    Args:
        detections: All detections above the collection threshold, confirmed or not.
        queries: Queries to evaluate.
        eta: Confirmation threshold, 0..1.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.
        max_component: Largest component that is enumerated; its 2^size outcomes are held in memory.
        n_samples: Samples for larger components, >= 1.
        seed: With the image id, all that those samples depend on.

    Returns:
        Values with standard error 0, or, for images with a larger component, the mean over samples of that
        component of the value exact in all others, its standard error, and `is_sampled` True.
    """
    overlaps = self_overlaps(detections, eta=eta, iou_threshold=iou_threshold)
    outcome, inner = outcome_probabilities(overlaps, matcher, max_component)
    fp, fn = error_masses(overlaps, outcome, inner)
    value = query_values(queries, overlaps.boxes, fp, overlaps.boxes, fn, overlaps.n_images)
    std_error = np.zeros_like(value)
    is_large = overlaps.component_size > max_component
    is_sampled = np.bincount(overlaps.boxes.image_index, is_large, minlength=overlaps.n_images) > 0
    for image in np.flatnonzero(is_sampled).tolist():
        samples = _partly_sampled(
            detections.images(image, image + 1),
            queries,
            eta=eta,
            iou_threshold=iou_threshold,
            matcher=matcher,
            max_component=max_component,
            n_samples=n_samples,
            seed=seed,
        )
        value[:, image] = mean_of_samples(samples)
        std_error[:, image] = std_error_of_mean(samples)
    return Hardness(value=value, std_error=std_error, is_sampled=is_sampled)


def outcome_probabilities(
    overlaps: SelfOverlaps, matcher: Matcher, max_component: int
) -> tuple[Outcome, InnerOverlap | None]:
    """Probabilities of fp, tp and fn of every detection, in closed form or by enumeration of its component.

    Args:
        overlaps: Detections and their components.
        matcher: `coco` or `hungarian`.
        max_component: Larger components are left at their single-detection values, for the caller to replace.

    Returns:
        Probabilities, and the joint overlaps of enumerated components; None where there is no component of
        two or more. A confirmed box without area matches nothing: P(fp) = 1, P(tp) = 0, P(fn) = s.
    """
    scores, confirmed = overlaps.scores, overlaps.is_confirmed
    tp = np.where(confirmed & (overlaps.area_px > 0.0), scores, 0.0)
    outcome = Outcome(confirmed - tp, tp, scores - tp)
    if not (overlaps.component_size > 1).any():
        return outcome, None
    inner = InnerOverlap(np.zeros(len(tp), bool), np.zeros(len(tp)), np.zeros(len(tp)))
    for stack in overlaps.components_up_to(max_component):
        step = max(1, _MAX_STACK_ELEMENTS // (stack.shape[1] << stack.shape[1]))
        for start in range(0, len(stack), step):
            _enumerate(overlaps, stack[start : start + step], matcher, outcome, inner)
    return outcome, inner


def _enumerate(
    overlaps: SelfOverlaps, members: IntArray, matcher: Matcher, outcome: Outcome, inner: InnerOverlap
) -> None:
    present = _all_subsets(members.shape[1])  # (size, outcomes)
    scores = overlaps.scores[members][:, :, None]
    probability = np.where(present, scores, 1.0 - scores).prod(axis=1)  # (components, outcomes)
    is_present = np.broadcast_to(present, (len(members), *present.shape))
    matches = match_outcomes(overlaps, members, is_present, matcher)
    tp = matches.is_tp.astype(np.float64)
    fp = (overlaps.is_confirmed[members][:, :, None] & ~matches.is_tp) * probability[:, None]
    fn = (is_present & ~matches.is_found) * probability[:, None]
    outcome.fp[members] = fp.sum(axis=2)
    outcome.tp[members] = (tp * probability[:, None]).sum(axis=2)
    outcome.fn[members] = fn.sum(axis=2)
    boxes = overlaps.boxes.boxes_xyxy[members]
    inter = pairwise_inter_px(boxes, boxes)
    inner.is_inner[members] = True
    inner.fp_px[members] = (np.einsum("cio,cko->cik", fp, tp) * inter).sum(axis=2)
    inner.fn_px[members] = (np.einsum("cio,cko->cik", fn, tp) * inter).sum(axis=2)


def _all_subsets(size: int) -> BoolArray:
    outcomes = np.arange(1 << size)
    return (outcomes >> np.arange(size)[:, None] & 1).astype(bool)


def _partly_sampled(
    image: DetectionBatch,
    queries: Sequence[Query],
    *,
    eta: float,
    iou_threshold: float,
    matcher: Matcher,
    max_component: int,
    n_samples: int,
    seed: int,
) -> FloatArray:
    """(samples, queries): large components sampled, the rest replaced by its exact probabilities."""
    overlaps = self_overlaps(image, eta=eta, iou_threshold=iou_threshold)
    exact, inner = outcome_probabilities(overlaps, matcher, max_component)
    is_large = overlaps.component_size > max_component
    fixed = with_fixed_weights(queries, overlaps.boxes)
    is_present = pseudo_truth_samples(image, n_samples=n_samples, seed=seed)
    values = []
    for sample in sampled_outcomes(overlaps, is_present, matcher):
        mixed = (np.where(is_large, drawn, known) for drawn, known in zip(sample, exact, strict=True))
        outcome = Outcome(*mixed)
        fp, fn = error_masses(overlaps, outcome, inner)
        values.append(query_values(fixed, overlaps.boxes, fp, overlaps.boxes, fn, 1)[:, 0])
    return np.stack(values)
