"""How well estimated hardness ranks images by true hardness.

Source: score_sampling, Eq. 6 (nDCG), "Query-Based Hard-Image Classification" (AUROC), Figure 4 (cumulative
hardness). Every function takes true and estimated hardness of the same n images and does not depend on their
order. A result that is not defined, e.g. because all images are equally hard, is None, never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from conf.errors import QuarryError
from udfs.boxes import BoolArray, FloatArray

HARD_FRACTIONS = (0.05, 0.10, 0.25, 0.50)


class CumulativeHardness(NamedTuple):
    """Share of all hardness found within a budget; both (n + 1,), from 0 to 1."""

    budget_share: FloatArray
    hardness_share: FloatArray


def ndcg(true_hardness: FloatArray, estimated_hardness: FloatArray) -> float | None:
    """Normalised discounted cumulative gain of the ranking by estimated hardness, Eq. 6.

    Images with equal estimates share the mean of their gains, so their order does not matter; equal to
    scikit-learn's `ndcg_score(ignore_ties=False)`.

    Args:
        true_hardness: (n,), >= 0.
        estimated_hardness: (n,), larger ranks first; only the order matters.

    Returns:
        0..1, 1 is the perfect ranking; None where no image has any hardness.

    Raises:
        QuarryError: Different lengths, no image, a value that is not finite, or negative true hardness.
    """
    truth, estimate = _checked(true_hardness, estimated_hardness)
    if truth.min() < 0.0:
        raise QuarryError(f"nDCG needs true hardness >= 0, got {truth.min()}")
    discount = 1.0 / np.log2(np.arange(2, len(truth) + 2))
    ideal = float(np.sort(truth)[::-1] @ discount)
    if ideal == 0.0:
        return None
    return float(_gains_by_estimate(truth, estimate) @ discount) / ideal


def hard_images(true_hardness: FloatArray, fraction: float) -> BoolArray | None:
    """Which images are hard when about `fraction` of them shall be: true hardness above a threshold.

    Of all thresholds that leave both hard and easy images, the one whose hard share is nearest to `fraction`;
    of two equally near, the smaller share. Equally hard images are never split.

    Args:
        true_hardness: (n,).
        fraction: Wanted share of hard images, 0..1.

    Returns:
        (n,), True for hard; None where all images are equally hard.
    """
    values, counts = np.unique(true_hardness, return_counts=True)
    if len(values) < 2:
        return None
    n_above = len(true_hardness) - np.cumsum(counts)[:-1]  # falls
    distance = np.abs(n_above - fraction * len(true_hardness))
    threshold = values[len(distance) - 1 - int(np.argmin(distance[::-1]))]
    is_hard: BoolArray = true_hardness > threshold
    return is_hard


def auroc(is_hard: BoolArray, estimated_hardness: FloatArray) -> float | None:
    """Area under the ROC curve of telling hard from easy images by estimated hardness.

    Args:
        is_hard: (n,).
        estimated_hardness: (n,).

    Returns:
        0..1, P(a hard image is estimated harder than an easy one), ties count half; None without both kinds.
    """
    n_hard = int(is_hard.sum())
    n_easy = len(is_hard) - n_hard
    if n_hard == 0 or n_easy == 0:
        return None
    rank_sum = float(rankdata(estimated_hardness)[is_hard].sum())
    return (rank_sum - n_hard * (n_hard + 1) / 2) / (n_hard * n_easy)


def auroc_at_fraction(
    true_hardness: FloatArray, estimated_hardness: FloatArray, fraction: float
) -> float | None:
    """AUROC of finding the hardest `fraction` of the images.

    Args:
        true_hardness: (n,).
        estimated_hardness: (n,).
        fraction: Share called hard, see `hard_images`.

    Returns:
        0..1, 0.5 is chance; None where all images are equally hard.

    Raises:
        QuarryError: Different lengths, no image, or a value that is not finite.
    """
    truth, estimate = _checked(true_hardness, estimated_hardness)
    is_hard = hard_images(truth, fraction)
    return None if is_hard is None else auroc(is_hard, estimate)


def mean_auroc(
    true_hardness: FloatArray,
    estimated_hardness: FloatArray,
    fractions: Sequence[float] = HARD_FRACTIONS,
) -> float | None:
    """Mean of `auroc_at_fraction` over the fractions (mAUC), 0..1; None where all images are equally hard."""
    values = [auroc_at_fraction(true_hardness, estimated_hardness, fraction) for fraction in fractions]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def cumulative_hardness(
    true_hardness: FloatArray, estimated_hardness: FloatArray
) -> CumulativeHardness | None:
    """Share of all true hardness in the first images by falling estimate, Figure 4.

    Args:
        true_hardness: (n,), >= 0.
        estimated_hardness: (n,); images with equal estimates share the mean of their hardness.

    Returns:
        Curve from (0, 0) to (1, 1); the diagonal is a random order. None where no image has any hardness.

    Raises:
        QuarryError: Different lengths, no image, or a value that is not finite.
    """
    truth, estimate = _checked(true_hardness, estimated_hardness)
    found = np.cumsum(_gains_by_estimate(truth, estimate))
    if found[-1] <= 0.0:
        return None
    budget: FloatArray = np.linspace(0.0, 1.0, len(truth) + 1)
    return CumulativeHardness(budget, np.concatenate(([0.0], found / found[-1])))


def cumulative_hardness_area(true_hardness: FloatArray, estimated_hardness: FloatArray) -> float | None:
    """Area under the cumulative hardness curve, by trapezoids.

    Args:
        true_hardness: (n,), >= 0.
        estimated_hardness: (n,).

    Returns:
        0..1, 0.5 for a random order; None where no image has any hardness.
    """
    curve = cumulative_hardness(true_hardness, estimated_hardness)
    if curve is None:
        return None
    share = curve.hardness_share
    return float((share[1:] + share[:-1]).sum()) / (2 * (len(share) - 1))


def spearman(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's rank correlation of two hardness values of the same images.

    Args:
        first: (n,).
        second: (n,).

    Returns:
        -1..1, ties by mean rank; None where either is constant.

    Raises:
        QuarryError: Different lengths, no image, or a value that is not finite.
    """
    ranks = [rankdata(values) for values in _checked(first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return None if norm == 0.0 else min(1.0, max(-1.0, float(centred[0] @ centred[1]) / norm))


def _gains_by_estimate(truth: FloatArray, estimate: FloatArray) -> FloatArray:
    """True hardness in order of falling estimate, averaged over equal estimates."""
    _, tie, counts = np.unique(-estimate, return_inverse=True, return_counts=True)
    means = np.bincount(tie, truth) / counts
    gains: FloatArray = np.repeat(means, counts)
    return gains


def _checked(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    pair = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1 or len(pair[0]) == 0:
        raise QuarryError(f"expected two equally long 1-d arrays, got {pair[0].shape} and {pair[1].shape}")
    if not (np.isfinite(pair[0]).all() and np.isfinite(pair[1]).all()):
        raise QuarryError("hardness must be finite; leave images without a value out")
    return pair
