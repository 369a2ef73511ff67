"""Score sampling without sampling: the expectation that Algorithm 1 estimates, worked out.

Source: score_sampling, Eq. 5; this form is ours. Matching outcomes of one connected component of same-class
detections with IoU >= t depend on that component's Bernoulli variables only. A single detection, the rule
after class-wise NMS, has P(tp) = s and P(fp) = 1 - s when confirmed and P(fn) = s when not. Small components
are enumerated through the matcher, with joint probabilities inside and products across. Larger ones alone are
sampled, and so are queries that have no exact form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from udfs.boxes import BoolArray, FloatArray, pairwise_inter_px
from udfs.component_values import ComponentValues, combined_expectation, is_combinable, stack_values
from udfs.detection_batch import DetectionBatch
from udfs.error_masses import InnerOverlap, Outcome, error_sets
from udfs.matching import Matcher
from udfs.monte_carlo_score_sampling import (
    EXACT,
    MIXED,
    MONTE_CARLO,
    Hardness,
    mean_of_samples,
    monte_carlo_hardness,
    pseudo_truth_samples,
    sampled_outcomes,
    std_error_of_mean,
)
from udfs.outcome_stacks import OutcomeStack, drawn_stack, enumerated_stacks, single_stack
from udfs.queries import Query
from udfs.self_overlaps import SelfOverlaps, self_overlaps


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
        max_component: Most uncertain detections in a component that is enumerated; its 2^max_component
            outcomes are held in memory.
        n_samples: Samples for larger components, and for queries without an exact form, >= 1.
        seed: With the image id, all that those samples depend on.

    Returns:
        Values with standard error 0. For images with a larger component, the mean over samples of that
        component of the value exact in all others (`mixed`). For queries without an exact form (plugins,
        comparisons or maxima of overlaps, comparisons of areas), plain Monte Carlo.
    """
    options = {"eta": eta, "iou_threshold": iou_threshold}
    expectation = _Expectation.of(self_overlaps(detections, **options), queries, matcher, max_component)
    value = expectation.values(queries)
    std_error, estimator = np.zeros_like(value), np.full(value.shape, EXACT, np.int8)
    is_mixed = expectation.has_large()
    if is_mixed.any():
        part = detections.images_where(is_mixed)
        partly = _Expectation.of(self_overlaps(part, **options), queries, matcher, max_component)
        is_present = pseudo_truth_samples(part, n_samples=n_samples, seed=seed)
        drawn = sampled_outcomes(partly.overlaps, is_present, matcher)
        samples = np.stack([partly.values(queries, outcome) for outcome in drawn])
        value[:, is_mixed] = mean_of_samples(samples)
        std_error[:, is_mixed], estimator[:, is_mixed] = std_error_of_mean(samples), MIXED
    for row in np.flatnonzero(np.isnan(value).any(axis=1)).tolist():
        missing = np.isnan(value[row])
        sampled = monte_carlo_hardness(
            detections.images_where(missing),
            queries[row : row + 1],
            **options,
            matcher=matcher,
            n_samples=n_samples,
            seed=seed,
        )
        value[row, missing], std_error[row, missing] = sampled.value[0], sampled.std_error[0]
        estimator[row, missing] = MONTE_CARLO
    return Hardness(value=value, std_error=std_error, estimator=estimator)


@dataclass(frozen=True, kw_only=True)
class _Expectation:
    """All that is exact about a batch; what happens in its large components may come from a sample."""

    overlaps: SelfOverlaps
    outcome: Outcome
    inner: InnerOverlap | None
    is_large: BoolArray
    parts: dict[str, list[ComponentValues]]

    @classmethod
    def of(
        cls, overlaps: SelfOverlaps, queries: Sequence[Query], matcher: Matcher, max_component: int
    ) -> _Expectation:
        """All components of the batch worked out, those that are too large left open."""
        presence, confirmed = overlaps.presence, overlaps.is_confirmed
        # A confirmed box without area matches nothing.
        tp = np.where(confirmed & (overlaps.area_px > 0.0), presence, 0.0)
        outcome, inner = Outcome(confirmed - tp, tp, presence - tp), None
        combinable = [query for query in queries if is_combinable(query)]
        parts: dict[str, list[ComponentValues]] = {}
        if combinable:
            singles = single_stack(overlaps)
            parts = {query.name: [stack_values(query, overlaps, singles)] for query in combinable}
        if (overlaps.component_size > 1).any():
            inner = InnerOverlap(np.zeros(len(tp), bool), np.zeros(len(tp)), np.zeros(len(tp)))
            for stack in enumerated_stacks(overlaps, matcher, max_component):
                _add_masses(stack, overlaps, outcome, inner)
                for query in combinable:
                    parts[query.name].append(stack_values(query, overlaps, stack))
        is_large = overlaps.is_large(max_component)
        return cls(overlaps=overlaps, outcome=outcome, inner=inner, is_large=is_large, parts=parts)

    def has_large(self) -> BoolArray:
        """(images,), images with a component too large to enumerate."""
        boxes = self.overlaps.boxes
        has: BoolArray = np.bincount(boxes.image_index, self.is_large, minlength=self.overlaps.n_images) > 0
        return has

    def values(self, queries: Sequence[Query], drawn: Outcome | None = None) -> FloatArray:
        """(queries, images), large components as drawn; NaN where a query has no exact form."""
        outcome, stack = self.outcome, None
        if drawn is not None:
            pairs = zip(drawn, outcome, strict=True)
            outcome = Outcome(*(np.where(self.is_large, sample, known) for sample, known in pairs))
            stack = drawn_stack(np.flatnonzero(self.is_large), drawn)
        sets = error_sets(self.overlaps, outcome, self.inner)
        values = np.full((len(queries), sets.n_images), np.nan)
        for row, query in zip(values, queries, strict=True):
            if query.is_linear:
                row[:] = query.rule.value(sets)
            elif query.name in self.parts:
                more = [] if stack is None else [stack_values(query, self.overlaps, stack)]
                row[:] = combined_expectation(query, [*self.parts[query.name], *more], sets.n_images)
        return values


def _add_masses(stack: OutcomeStack, overlaps: SelfOverlaps, outcome: Outcome, inner: InnerOverlap) -> None:
    """Puts the probabilities and the joint overlaps of enumerated components in their places."""
    members, weight = stack.members, stack.probability[:, None]
    tp, fp, fn = stack.is_tp.astype(np.float64), stack.is_fp * weight, stack.is_fn * weight
    outcome.fp[members], outcome.fn[members] = fp.sum(axis=2), fn.sum(axis=2)
    outcome.tp[members] = (tp * weight).sum(axis=2)
    boxes = overlaps.boxes.boxes_xyxy[members]
    inter = pairwise_inter_px(boxes, boxes)
    inner.is_inner[members] = True
    inner.fp_px[members] = (np.einsum("cio,cko->cik", fp, tp) * inter).sum(axis=2)
    inner.fn_px[members] = (np.einsum("cio,cko->cik", fn, tp) * inter).sum(axis=2)
