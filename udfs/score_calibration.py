"""Scores made probabilities: P(a detection finds an object | its score and class), learned from labels.

Score sampling takes a score for the probability that there is an object. Where a detector is badly calibrated
the ranking suffers; a curve per class, fitted on held-out labeled images, mends that. The raw score still
decides what is confirmed and who matches first.

What is fitted is the outcome of COCO's greedy matching over all detections above the collection threshold. A
second, lower detection of an object that is already found is no true positive, and rightly so: it stands for
no further object. Since higher scores match first, confirmed detections match as if the others were absent,
and an unconfirmed true positive is an object that no confirmed detection found. Sums of calibrated
probabilities are therefore right on average for Total_fp, and for Total_fn over objects with any detection;
that does not make every ranking better (docs/score_sampling.md has the measured costs).

Fit on images that had no part in the detector's training: on those it finds nearly everything, and the
curves would promise the same elsewhere. Draw them at random: images picked because they are hard make curves
that are too low for the rest.

Source: temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017, here per class and
with a prior; isotonic regression: Zadrozny and Elkan, "Transforming Classifier Scores into Accurate
Multiclass Probability Estimates", 2002; cross-fitting: Chernozhukov et al., 2018.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit, logit

from conf.errors import QuarryError
from conf.settings import settings_hash
from udfs.boxes import BoolArray, FloatArray, IntArray
from udfs.detection_batch import DetectionBatch

CalibrationMethod = Literal["temperature", "isotonic"]

NO_FOLD = -1
FOLD_COLUMN = "calibration_fold"

# Scores and probabilities beyond are as sure as any sample of labels can tell.
_EPSILON = 1e-4
_MAX_LOG_SLOPE = 3.0
# Times the squared log slope, nats: a standard deviation of 0.22 around slope 1. Without it a class with few
# labels cost up to 0.019 nDCG (docs/score_sampling.md).
_PRIOR_WEIGHT = 10.0
_MIN_ISOTONIC_DETECTIONS = 50


class Curve(NamedTuple):
    """A rising, piecewise linear map from the logit of a score to the logit of a probability.

    Attributes:
        score_logit: Knots, rising; beyond the ends the curve is level.
        presence_logit: Values at the knots, never falling.
    """

    score_logit: tuple[float, ...]
    presence_logit: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """Fitted curves.

    Attributes:
        method: `temperature` or `isotonic`.
        curves: Label id -> curve fitted on all folds. A class without a curve keeps its raw scores.
        curves_without: Entry f: the same, fitted on all folds but f.
        n_detections: Detections fitted on.
        raw_log_loss: Mean log loss of the raw scores on them, nats.
        log_loss: Mean log loss of the calibrated ones, each by the fit of the other folds, nats.
    """

    method: CalibrationMethod
    curves: Mapping[int, Curve]
    curves_without: tuple[Mapping[int, Curve], ...]
    n_detections: int
    raw_log_loss: float
    log_loss: float

    @property
    def gain(self) -> float:
        """Share of the raw scores' log loss that calibration takes off, out of fold; < 0 where it adds."""
        return 1.0 - self.log_loss / self.raw_log_loss

    @property
    def digest(self) -> str:
        """16 hexadecimal characters that change with any curve."""
        return settings_hash(self.to_json())

    def to_json(self) -> str:
        """Text that `from_json` reads back to an equal value; equal values give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ScoreCalibration:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        fields["curves"] = _curves_of(fields["curves"])
        fields["curves_without"] = tuple(map(_curves_of, fields["curves_without"]))
        return cls(**fields)


def fit_calibration(
    labels: IntArray,
    scores: FloatArray,
    is_true_positive: BoolArray,
    folds: IntArray,
    *,
    n_folds: int,
    method: CalibrationMethod = "temperature",
) -> ScoreCalibration:
    """Fit a curve per class on all labeled detections, and on all but each fold.

    `temperature`: logit p = a * logit s, a > 0, by maximum likelihood with a prior of log a around 0, so that
    a class with few labels stays near its raw scores. `isotonic`: the rising step function of least squares;
    a class with fewer than 50 labeled detections keeps its raw scores.

    Args:
        labels: (m,), class ids.
        scores: (m,), 0..1.
        is_true_positive: (m,).
        folds: (m,), 0..n_folds - 1; images that look alike (frames of a video) share one.
        n_folds: >= 2.
        method: `temperature` or `isotonic`.

    Returns:
        Curves that do not depend on the order of the detections.

    Raises:
        QuarryError: No detection, an unknown method, or a fold outside its range.
    """
    if method not in get_args(CalibrationMethod):
        raise QuarryError(f"calibration method must be one of {get_args(CalibrationMethod)}, got {method!r}")
    if len(scores) == 0:
        raise QuarryError("expected labeled detections to calibrate scores with, got none")
    if n_folds < 2 or folds.min() < 0 or folds.max() >= n_folds:
        raise QuarryError(f"expected folds 0..{n_folds - 1}, at least 2, got {folds.min()}..{folds.max()}")
    order = np.lexsort((folds, is_true_positive, scores, labels))  # makes sums the same bits in any order
    labels, scores, folds = labels[order], scores[order], folds[order]
    is_true = is_true_positive[order]
    unsure = ScoreCalibration(
        method=method,
        curves=_class_curves(labels, scores, is_true, method),
        curves_without=tuple(
            _class_curves(labels[folds != f], scores[folds != f], is_true[folds != f], method)
            for f in range(n_folds)
        ),
        n_detections=len(scores),
        raw_log_loss=_log_loss(scores, is_true),
        log_loss=np.nan,
    )
    return replace(unsure, log_loss=_log_loss(calibrated_presence(unsure, labels, scores, folds), is_true))


def calibration_of_matches(matches: pa.Table, *, n_folds: int, method: CalibrationMethod) -> ScoreCalibration:
    """`fit_calibration` of a table with columns label, score, is_true_positive and calibration_fold."""
    columns = ("label", "score", "is_true_positive", FOLD_COLUMN)
    labels, scores, is_true, folds = (matches.column(name).to_numpy() for name in columns)
    return fit_calibration(
        labels.astype(np.int64), scores, is_true, folds.astype(np.int64), n_folds=n_folds, method=method
    )


def calibrated_presence(
    calibration: ScoreCalibration, labels: IntArray, scores: FloatArray, folds: IntArray
) -> FloatArray:
    """P(there is an object of this class at this box) of every detection.

    Args:
        calibration: Fitted curves.
        labels: (m,), class ids.
        scores: (m,), 0..1.
        folds: (m,), fold of the detection's image in the fit, `NO_FOLD` where it took no part. An image never
            meets a curve that saw its labels.

    Returns:
        (m,), 0..1, never falling with the score inside a class and fold.
    """
    presence = scores.astype(np.float64, copy=True)
    order = np.lexsort((labels, folds))
    changes = (np.diff(labels[order]) != 0) | (np.diff(folds[order]) != 0)
    for rows in np.split(order, np.flatnonzero(changes) + 1) if len(order) else ():
        fold = int(folds[rows[0]])
        curves = calibration.curves if fold == NO_FOLD else calibration.curves_without[fold]
        curve = curves.get(int(labels[rows[0]]))
        if curve is not None:
            presence[rows] = expit(np.interp(_logit(scores[rows]), *curve))
    return presence


def with_presence(
    detections: DetectionBatch, batch: pa.RecordBatch, calibration: ScoreCalibration
) -> DetectionBatch:
    """The detections of a batch with calibrated probabilities.

    Args:
        detections: Of the images of `batch`, in its order.
        batch: Column `calibration_fold`: fold of the image in the fit, null where it took no part.
        calibration: Fitted curves.

    Raises:
        QuarryError: The column is missing.
    """
    if FOLD_COLUMN not in batch.schema.names:
        raise QuarryError(f"column {FOLD_COLUMN!r} is missing; got {', '.join(batch.schema.names)}")
    folds = pc.fill_null(batch.column(FOLD_COLUMN).cast(pa.int64()), NO_FOLD).to_numpy(zero_copy_only=False)
    of_detection = folds[detections.image_index]
    presence = calibrated_presence(calibration, detections.labels, detections.scores, of_detection)
    return replace(detections, presence=presence)


def _class_curves(
    labels: IntArray, scores: FloatArray, is_true: BoolArray, method: CalibrationMethod
) -> dict[int, Curve]:
    curves = {}
    for label in np.unique(labels).tolist():
        mine = labels == label
        if method == "temperature":
            curves[label] = _temperature_curve(scores[mine], is_true[mine])
        elif mine.sum() >= _MIN_ISOTONIC_DETECTIONS:
            curves[label] = _isotonic_curve(scores[mine], is_true[mine])
    return curves


def _temperature_curve(scores: FloatArray, is_true: BoolArray) -> Curve:
    agreement = np.where(is_true, 1.0, -1.0) * _logit(scores)

    def loss(log_slope: float) -> float:
        misfit = np.logaddexp(0.0, -np.exp(log_slope) * agreement).sum()
        return float(misfit) + _PRIOR_WEIGHT * log_slope**2

    best = minimize_scalar(loss, bounds=(-_MAX_LOG_SLOPE, _MAX_LOG_SLOPE), method="bounded")
    end = float(logit(1.0 - _EPSILON))
    return _curve((-end, end), np.exp(best.x) * np.array([-end, end]))


def _isotonic_curve(scores: FloatArray, is_true: BoolArray) -> Curve:
    knots, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    values = isotonic_regression(np.bincount(index, is_true) / counts, weights=counts).x
    steps = values[1:] != values[:-1]
    # Between its ends a plateau needs no knots.
    ends = np.concatenate(([True], steps)) | np.concatenate((steps, [True]))
    return _curve(_logit(knots[ends]).tolist(), _logit(values[ends]))


def _curve(score_logit: Sequence[float], presence_logit: FloatArray) -> Curve:
    # Rounded so that the last bits of another machine's arithmetic do not put all hardness out of date.
    return Curve(tuple(score_logit), tuple(round(value, 6) for value in presence_logit.tolist()))


def _curves_of(fields: dict[str, list[list[float]]]) -> dict[int, Curve]:
    return {int(label): Curve(*map(tuple, knots)) for label, knots in fields.items()}


def _logit(probability: FloatArray) -> FloatArray:
    clipped: FloatArray = logit(np.clip(probability, _EPSILON, 1.0 - _EPSILON))
    return clipped


def _log_loss(probability: FloatArray, is_true: BoolArray) -> float:
    return round(float(np.logaddexp(0.0, np.where(is_true, -1.0, 1.0) * _logit(probability)).mean()), 9)
