"""Query-free uncertainties of an image: a measure per detection, aggregated over all detections above eta0.

Source: score_sampling, Eq. 1 (entropy) and Eq. 2 (Dempster-Shafer). Softmax heads: the distribution over all
K classes, background included, from the logits of the kept box. Sigmoid heads: binary, K = 2, on the
detection score p with logits +-log(p / (1 - p)). All measures are finite for scores of exactly 0 and 1.

A baseline is named `measure` (summed, as in the paper) or `measure_sum`, `measure_mean`, `measure_max`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from scipy.special import entr, expit, log_softmax, logsumexp

from conf.errors import QuarryError, nearest
from udfs.boxes import FloatArray, IntArray, owners, sums_at
from udfs.detection_batch import DetectionBatch

Head = Literal["softmax", "sigmoid"]
Measure = Callable[[FloatArray], FloatArray]
Aggregation = Callable[[FloatArray, IntArray], FloatArray]
# 1 - detection score for either head: of a softmax head, max_uncertainty counts the background as a class.
LEAST_CONFIDENCE = "least_confidence"


def entropy_of_logits(logits: FloatArray) -> FloatArray:
    """Entropy of softmax(logits), Eq. 1: (m, K) -> (m,), nats, 0..log K."""
    log_p = log_softmax(logits, axis=1)
    # 0 * log 0 is 0: an underflown probability times a large finite log.
    entropy: FloatArray = np.maximum(-(np.exp(log_p) * log_p).sum(axis=1), 0.0)
    return entropy


def dempster_shafer_of_logits(logits: FloatArray) -> FloatArray:
    """K / (K + sum_k exp(l_k)), Eq. 2: (m, K) -> (m,), 0..1; written as a sigmoid, which cannot overflow."""
    mass: FloatArray = expit(np.log(logits.shape[1]) - logsumexp(logits, axis=1))
    return mass


def max_uncertainty_of_logits(logits: FloatArray) -> FloatArray:
    """1 - largest class probability: (m, K) -> (m,), 0..1."""
    uncertainty: FloatArray = -np.expm1(log_softmax(logits, axis=1).max(axis=1))
    return uncertainty


def margin_of_logits(logits: FloatArray) -> FloatArray:
    """1 - difference of the two largest class probabilities: (m, K) -> (m,), 0..1; 0 for one class."""
    p = np.exp(log_softmax(logits, axis=1))
    if p.shape[1] == 1:
        return np.zeros(len(p))
    best = np.partition(p, -2, axis=1)[:, -2:]
    margin: FloatArray = 1.0 - (best[:, 1] - best[:, 0])
    return margin


def entropy_of_scores(p: FloatArray) -> FloatArray:
    """Binary entropy, Eq. 1 with K = 2: (m,) -> (m,), nats, 0..log 2."""
    entropy: FloatArray = entr(p) + entr(1.0 - p)
    return entropy


def dempster_shafer_of_scores(p: FloatArray) -> FloatArray:
    """Eq. 2 with K = 2 and evidences p/(1-p), (1-p)/p: (m,) -> (m,), 0..1/2.

    2 / (2 + p/(1-p) + (1-p)/p) simplifies to 2 p (1 - p), which is also right at p = 0 and 1.
    """
    return 2.0 * p * (1.0 - p)


def max_uncertainty_of_scores(p: FloatArray) -> FloatArray:
    """1 - score: (m,) -> (m,), 0..1."""
    return 1.0 - p


def margin_of_scores(p: FloatArray) -> FloatArray:
    """1 - |p - (1 - p)|: (m,) -> (m,), 0..1."""
    return 1.0 - np.abs(2.0 * p - 1.0)


_MEASURES: dict[str, dict[Head, Measure]] = {
    LEAST_CONFIDENCE: {"softmax": max_uncertainty_of_scores, "sigmoid": max_uncertainty_of_scores},
    "entropy": {"softmax": entropy_of_logits, "sigmoid": entropy_of_scores},
    "dempster_shafer": {"softmax": dempster_shafer_of_logits, "sigmoid": dempster_shafer_of_scores},
    "max_uncertainty": {"softmax": max_uncertainty_of_logits, "sigmoid": max_uncertainty_of_scores},
    "margin": {"softmax": margin_of_logits, "sigmoid": margin_of_scores},
}


def _sum(values: FloatArray, offsets: IntArray) -> FloatArray:
    return sums_at(owners(offsets), values, len(offsets) - 1)


def _mean(values: FloatArray, offsets: IntArray) -> FloatArray:
    return _sum(values, offsets) / np.maximum(np.diff(offsets), 1)


def _max(values: FloatArray, offsets: IntArray) -> FloatArray:
    largest = np.zeros(len(offsets) - 1)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        largest[filled] = np.maximum.reduceat(values, offsets[filled])
    return largest


_AGGREGATIONS: dict[str, Aggregation] = {"": _sum, "_sum": _sum, "_mean": _mean, "_max": _max}

BASELINES: dict[str, tuple[str, Aggregation]] = {
    measure + suffix: (measure, aggregate)
    for measure in _MEASURES
    for suffix, aggregate in _AGGREGATIONS.items()
}


def check_baselines(names: Sequence[str]) -> None:
    """Fail for a name that is no baseline, with the nearest known ones.

    Raises:
        QuarryError: An unknown name.
    """
    for name in names:
        if name not in BASELINES:
            raise QuarryError(f"no baseline {name!r}; {nearest(name, BASELINES)}")


def uncertainty_baselines(detections: DetectionBatch, names: Sequence[str], head: Head) -> FloatArray:
    """Query-free uncertainty of every image.

    Args:
        detections: All detections above the collection threshold.
        names: Keys of `BASELINES`.
        head: How the detector makes scores from logits; `softmax` reads logits, `sigmoid` scores only.

    Returns:
        (len(names), images), larger is more uncertain; 0 for an image without detections.

    Raises:
        QuarryError: An unknown name; a softmax head without logits for every detection.
    """
    check_baselines(names)
    measures = {BASELINES[name][0] for name in names}
    values = {measure: _per_detection(detections, measure, head) for measure in sorted(measures)}
    rows = [BASELINES[name][1](values[BASELINES[name][0]], detections.offsets) for name in names]
    return np.stack(rows) if rows else np.zeros((0, detections.n_images))


def _per_detection(detections: DetectionBatch, measure: str, head: Head) -> FloatArray:
    function = _MEASURES[measure][head]
    if head == "sigmoid" or measure == LEAST_CONFIDENCE:
        return function(detections.scores)
    values = np.zeros(len(detections.scores))
    if len(values) == 0:
        return values
    n_classes = _logit_counts(detections)
    starts = np.cumsum(n_classes) - n_classes
    assert detections.logits is not None
    flat = detections.logits.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    _check_finite(flat, n_classes, detections)
    for k in np.unique(n_classes).tolist():  # one K, unless models are mixed in a batch
        rows = np.flatnonzero(n_classes == k)
        values[rows] = function(flat[starts[rows, None] + np.arange(k)])
    return values


def _logit_counts(detections: DetectionBatch) -> IntArray:
    counts = np.zeros(len(detections.scores), np.int64)
    if detections.logits is not None:
        counts = pc.fill_null(pc.list_value_length(detections.logits), 0).to_numpy(zero_copy_only=False)
    if not counts.all():
        image_id = detections.image_ids[int(detections.image_index[int(np.argmin(counts))])].as_py()
        raise QuarryError(
            f"image {image_id!r}: a detection has no logits, which baselines of a softmax head need; detect "
            "with logits kept, declare head 'sigmoid' to use scores, or ask for no baselines"
        )
    return counts.astype(np.int64)


def _check_finite(flat: FloatArray, n_classes: IntArray, detections: DetectionBatch) -> None:
    bad = ~np.isfinite(flat)
    if bad.any():
        detection = int(np.searchsorted(np.cumsum(n_classes), int(np.argmax(bad)), side="right"))
        image_id = detections.image_ids[int(detections.image_index[detection])].as_py()
        raise QuarryError(f"image {image_id!r}: a logit is {flat[np.argmax(bad)]}, expected a finite number")
