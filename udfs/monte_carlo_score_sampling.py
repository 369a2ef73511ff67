"""Score sampling by Monte Carlo: expected hardness over random pseudo ground truth.

Source: score_sampling, Algorithm 1 and Eq. 5. Each detection is pseudo ground truth with the probability of
its score (or its calibrated presence), independently; a query is evaluated on every sample and averaged.
Differences: a detection is confirmed when score >= eta (the paper: > eta), and the standard error of the mean
comes with the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.boxes import BoolArray, FloatArray
from udfs.detection_batch import DetectionBatch
from udfs.error_masses import Outcome, error_sets
from udfs.image_random import image_keys, image_uniforms
from udfs.matching import Matcher
from udfs.outcome_matching import OutcomeMatches, match_outcomes
from udfs.queries import Query, query_values, with_fixed_weights
from udfs.self_overlaps import SelfOverlaps, self_overlaps

ESTIMATORS = ("exact", "mixed", "monte_carlo")
EXACT, MIXED, MONTE_CARLO = range(3)


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """Values of q queries on n images.

    Attributes:
        value: (q, n), expected hardness, larger is harder.
        std_error: (q, n), standard error of the mean; 0 where exact, NaN where one sample tells nothing.
        estimator: (q, n), position in `ESTIMATORS`: how the value was found. `mixed`: exact but for
            components too large to enumerate.
    """

    value: FloatArray
    std_error: FloatArray
    estimator: NDArray[np.int8]


def monte_carlo_hardness(
    detections: DetectionBatch,
    queries: Sequence[Query],
    *,
    eta: float,
    iou_threshold: float,
    matcher: Matcher = "coco",
    n_samples: int = 10,
    seed: int = 0,
) -> Hardness:
    """Mean query values over random pseudo ground truth.

    Args:
        detections: All detections above the collection threshold, confirmed or not.
        queries: Queries to estimate.
        eta: Confirmation threshold, 0..1.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.
        n_samples: Samples per image, >= 1.
        seed: With the image id, all that the samples depend on.

    Returns:
        Means and their standard errors; 0 and 0 for an image without detections.
    """
    samples = sampled_values(
        detections,
        queries,
        eta=eta,
        iou_threshold=iou_threshold,
        matcher=matcher,
        n_samples=n_samples,
        seed=seed,
    )
    return hardness_of_samples(samples)


def sampled_values(
    detections: DetectionBatch,
    queries: Sequence[Query],
    *,
    eta: float,
    iou_threshold: float,
    matcher: Matcher,
    n_samples: int,
    seed: int,
) -> FloatArray:
    """(n_samples, queries, images): what `monte_carlo_hardness` averages; the same arguments."""
    overlaps = self_overlaps(detections, eta=eta, iou_threshold=iou_threshold)
    is_present = pseudo_truth_samples(detections, n_samples=n_samples, seed=seed)
    outcomes = sampled_outcomes(overlaps, is_present, matcher)
    fixed = with_fixed_weights(queries, overlaps.boxes)
    return np.stack([query_values(fixed, error_sets(overlaps, outcome)) for outcome in outcomes])


def hardness_of_samples(samples: FloatArray) -> Hardness:
    """Means and standard errors of sampled values, (n_samples, queries, images)."""
    return Hardness(
        value=mean_of_samples(samples),
        std_error=std_error_of_mean(samples),
        estimator=np.full(samples.shape[1:], MONTE_CARLO, np.int8),
    )


def pseudo_truth_samples(detections: DetectionBatch, *, n_samples: int, seed: int) -> BoolArray:
    """Which detections are pseudo ground truth in which sample.

    Args:
        detections: Detections of n images, m in all.
        n_samples: Samples, >= 1.
        seed: With the image id and the sample's index, all that an image's samples depend on.

    Returns:
        (m, n_samples); always False for presence 0, always True for presence 1.
    """
    keys = image_keys(seed, detections.image_ids.to_pylist())
    presence = detections.scores if detections.presence is None else detections.presence
    is_present = np.empty((len(presence), n_samples), bool)
    for sample in range(n_samples):
        is_present[:, sample] = image_uniforms(keys, detections.offsets, sample) < presence
    return is_present


def match_samples(overlaps: SelfOverlaps, is_present: BoolArray, matcher: Matcher) -> OutcomeMatches:
    """Match confirmed detections with every sample of pseudo ground truth.

    Args:
        overlaps: Detections and their components.
        is_present: (m, samples), from `pseudo_truth_samples`.
        matcher: `coco` or `hungarian`.

    Returns:
        Two (m, samples) arrays. A box without area matches nothing, not even itself.
    """
    alone = is_present & (overlaps.is_confirmed & (overlaps.area_px > 0.0))[:, None]
    is_tp, is_found = alone, alone.copy()
    for members in overlaps.components_up_to(None):
        matches = match_outcomes(overlaps, members, is_present[members], matcher)
        is_tp[members], is_found[members] = matches
    return OutcomeMatches(is_tp, is_found)


def sampled_outcomes(overlaps: SelfOverlaps, is_present: BoolArray, matcher: Matcher) -> Iterator[Outcome]:
    """What happens to every detection, sample by sample.

    Args:
        overlaps: Detections and their components.
        is_present: (m, samples), from `pseudo_truth_samples`.
        matcher: `coco` or `hungarian`.

    Yields:
        One outcome of zeros and ones a sample.
    """
    matches = match_samples(overlaps, is_present, matcher)
    is_fp = overlaps.is_confirmed[:, None] & ~matches.is_tp
    is_fn = is_present & ~matches.is_found
    for fp, tp, fn in zip(is_fp.T, matches.is_tp.T, is_fn.T, strict=True):
        yield Outcome(fp.astype(np.float64), tp.astype(np.float64), fn.astype(np.float64))


def mean_of_samples(samples: FloatArray) -> FloatArray:
    """Mean over the first axis, added sample by sample."""
    # cumsum keeps this order for every shape; sum regroups some shapes, and bits would follow batch size.
    mean: FloatArray = np.cumsum(samples, axis=0)[-1] / len(samples)
    return mean


def std_error_of_mean(samples: FloatArray) -> FloatArray:
    """Standard error of the mean over the first axis; NaN for a single sample."""
    n = len(samples)
    if n == 1:
        return np.full(samples.shape[1:], np.nan)
    squares = (samples - mean_of_samples(samples)) ** 2
    error: FloatArray = np.sqrt(mean_of_samples(squares) / (n - 1))
    return error
