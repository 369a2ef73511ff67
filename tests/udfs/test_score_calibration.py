"""Curves from score to probability: against scikit-learn, by hand, and blind to an image's own labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from conf.errors import QuarryError
from tests.udfs.detection_scenes import box, scene_batch
from udfs import score_calibration
from udfs.boxes import BoolArray, FloatArray, IntArray
from udfs.detection_batch import DetectionBatch
from udfs.score_calibration import (
    NO_FOLD,
    CalibrationMethod,
    Curve,
    ScoreCalibration,
    calibrated_presence,
    calibration_of_matches,
    fit_calibration,
    with_presence,
)

METHODS: tuple[CalibrationMethod, ...] = ("temperature", "isotonic")
N_FOLDS = 4


def _labeled(
    seed: int, n: int = 2000, slope: float = 2.0
) -> tuple[IntArray, FloatArray, BoolArray, IntArray]:
    """Detections of three classes that find an object with logit p = slope * logit score."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 1.0, n).round(3)
    is_true = rng.uniform(size=n) < expit(slope * logit(np.clip(scores, 1e-4, 1 - 1e-4)))
    return rng.integers(1, 4, n), scores, is_true, rng.integers(0, N_FOLDS, n)


def _curve(slope: float) -> Curve:
    return Curve((-10.0, 10.0), (-10.0 * slope, 10.0 * slope))


HAND_MADE = ScoreCalibration(
    method="temperature",
    curves={1: _curve(2.0)},
    curves_without=({1: _curve(1.0)}, {}),
    n_detections=1,
    raw_log_loss=0.5,
    log_loss=0.4,
)


def test_a_score_of_four_to_one_at_slope_two_is_sixteen_to_one() -> None:
    labels, scores = np.array([1, 1, 1, 7]), np.array([0.8, 0.5, 0.2, 0.8])
    presence = calibrated_presence(HAND_MADE, labels, scores, np.full(4, NO_FOLD))
    assert presence == pytest.approx([16 / 17, 0.5, 1 / 17, 0.8])  # class 7 has no curve
    of_folds = calibrated_presence(HAND_MADE, np.ones(2, int), np.array([0.8, 0.8]), np.array([0, 1]))
    assert of_folds == pytest.approx([0.8, 0.8])
    assert HAND_MADE.gain == pytest.approx(0.2)
    assert calibrated_presence(HAND_MADE, labels[:0], scores[:0], labels[:0]).shape == (0,)


def test_isotonic_equals_scikit_learn_at_every_score() -> None:
    labels, scores, is_true, folds = _labeled(1)
    fitted = fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS, method="isotonic")
    everywhere = calibrated_presence(fitted, labels, scores, np.full(len(scores), NO_FOLD))
    out_of_fold = calibrated_presence(fitted, labels, scores, folds)
    for label in (1, 2, 3):
        mine = labels == label
        oracle = IsotonicRegression(y_min=1e-4, y_max=1 - 1e-4).fit(scores[mine], is_true[mine])
        assert everywhere[mine] == pytest.approx(oracle.predict(scores[mine]), abs=1e-6)
        others, here = mine & (folds != 2), mine & (folds == 2) & np.isin(scores, scores[mine & (folds != 2)])
        oracle = IsotonicRegression(y_min=1e-4, y_max=1 - 1e-4).fit(scores[others], is_true[others])
        assert out_of_fold[here] == pytest.approx(oracle.predict(scores[here]), abs=1e-6)


def test_temperature_without_prior_equals_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, is_true, folds = _labeled(2)
    monkeypatch.setattr(score_calibration, "_PRIOR_WEIGHT", 0.0)
    fitted = fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS)
    presence = calibrated_presence(fitted, labels, scores, np.full(len(scores), NO_FOLD))
    for label in (1, 2, 3):
        mine = labels == label
        score_logit = logit(np.clip(scores[mine], 1e-4, 1 - 1e-4))[:, None]
        oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(score_logit, is_true[mine])
        assert presence[mine] == pytest.approx(oracle.predict_proba(score_logit)[:, 1], abs=1e-4)


def test_the_prior_keeps_a_class_with_few_labels_near_its_scores() -> None:
    labels, scores = np.ones(4, int), np.array([0.9, 0.8, 0.2, 0.1])
    is_true = scores > 0.5
    few = fit_calibration(labels, scores, is_true, np.arange(4) % 2, n_folds=2)
    many = fit_calibration(*(np.tile(a, 500) for a in (labels, scores, is_true, np.arange(4) % 2)), n_folds=2)
    at_most = [np.abs(expit(c.curves[1].presence_logit[1] * logit(0.9) / 9.21) - 0.9) for c in (few, many)]
    assert 0.0 < at_most[0] < 0.01
    assert at_most[1] > 0.09


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_presence_rises_with_the_score_and_stays_between_0_and_1(
    method: CalibrationMethod, seed: int
) -> None:
    labels, scores, is_true, folds = _labeled(seed, n=400, slope=0.5)
    fitted = fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS, method=method)
    grid = np.linspace(0.0, 1.0, 2001)
    for label in (1, 2, 3, 9):
        for fold in (NO_FOLD, *range(N_FOLDS)):
            presence = calibrated_presence(fitted, np.full(2001, label), grid, np.full(2001, fold))
            assert (np.diff(presence) >= -1e-12).all()
            assert presence.min() >= 0.0 and presence.max() <= 1.0


@pytest.mark.parametrize("method", METHODS)
def test_an_image_never_meets_its_own_labels(method: CalibrationMethod) -> None:
    labels, scores, is_true, folds = _labeled(6)
    flipped = np.where(folds == 1, ~is_true, is_true)
    before, after = (
        calibrated_presence(
            fit_calibration(labels, scores, found, folds, n_folds=N_FOLDS, method=method),
            labels,
            scores,
            folds,
        )
        for found in (is_true, flipped)
    )
    assert (before[folds == 1] == after[folds == 1]).all()
    assert (before[folds != 1] != after[folds != 1]).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_order_changes_no_bit_and_labels_change_the_digest(
    method: CalibrationMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_calibration, "round", lambda value, _: value, raising=False)  # see all bits
    columns = _labeled(7)
    shuffled = np.random.default_rng(0).permutation(len(columns[0]))
    fits = [
        fit_calibration(*columns, n_folds=N_FOLDS, method=method),
        fit_calibration(*(column[shuffled] for column in columns), n_folds=N_FOLDS, method=method),
    ]
    assert fits[0] == fits[1] and fits[0].digest == fits[1].digest
    assert ScoreCalibration.from_json(fits[0].to_json()) == fits[0]
    labels, scores, is_true, folds = columns
    other = fit_calibration(labels, scores, ~is_true, folds, n_folds=N_FOLDS, method=method)
    assert other.digest != fits[0].digest


def test_a_calibrated_detector_stays_and_a_timid_one_gains() -> None:
    grid = np.linspace(0.05, 0.95, 181)
    gains = []
    for slope in (1.0, 2.0):
        labels, scores, is_true, folds = _labeled(8, n=9000, slope=slope)
        fitted = fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS)
        presence = calibrated_presence(fitted, np.full(181, 1), grid, np.full(181, NO_FOLD))
        assert np.abs(presence - expit(slope * logit(grid))).max() < 0.03  # 3000 labels: slope +- 0.05
        gains.append(fitted.gain)
    assert abs(gains[0]) < 0.005
    assert gains[1] > 0.1


def test_isotonic_leaves_rare_classes_as_they_are() -> None:
    labels, scores, is_true, folds = _labeled(9, n=600)
    labels = np.where(np.arange(600) < 49, 4, np.minimum(labels, 2))
    fitted = fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS, method="isotonic")
    assert set(fitted.curves) == {1, 2}
    rare = labels == 4
    presence = calibrated_presence(fitted, labels, scores, np.full(600, NO_FOLD))
    assert (presence[rare] == scores[rare]).all()
    assert set(fit_calibration(labels, scores, is_true, folds, n_folds=N_FOLDS).curves) == {1, 2, 4}


def test_scores_of_exactly_0_and_1_are_finite() -> None:
    scores = np.repeat([0.0, 1.0], 60)
    for method in METHODS:
        fitted = fit_calibration(
            np.ones(120, int), scores, scores == 1.0, np.arange(120) % 2, n_folds=2, method=method
        )
        presence = calibrated_presence(fitted, np.ones(2, int), np.array([0.0, 1.0]), np.array([0, NO_FOLD]))
        assert presence == pytest.approx([0.0, 1.0], abs=1e-3)
        assert np.isfinite([fitted.raw_log_loss, fitted.log_loss, fitted.gain]).all()


def test_presence_reaches_the_detections_of_a_batch() -> None:
    whole = box((0, 0, 10, 10), 1)
    batch = scene_batch(
        [[{**whole, "score": 0.75}], [], [{**whole, "score": 0.25}, {**whole, "score": 0.75}]]
    )
    folds = pa.array([0, None, None], pa.int32())
    tagged = batch.append_column("calibration_fold", folds)
    detections = with_presence(DetectionBatch.from_arrow(tagged), tagged, HAND_MADE)
    assert detections.presence == pytest.approx([0.75, 0.1, 0.9])
    assert detections.scores.tolist() == [0.75, 0.25, 0.75]
    with pytest.raises(QuarryError, match="'calibration_fold' is missing"):
        with_presence(DetectionBatch.from_arrow(batch), batch, HAND_MADE)


def test_a_table_of_matches_is_read_by_name() -> None:
    columns = _labeled(10, n=50)
    names = ("label", "score", "is_true_positive", "calibration_fold")
    table = pa.table({name: pa.array(a) for name, a in reversed(list(zip(names, columns, strict=True)))})
    found = calibration_of_matches(table, n_folds=N_FOLDS, method="temperature")
    assert found == fit_calibration(*columns, n_folds=N_FOLDS)


def test_what_cannot_be_fitted_is_refused() -> None:
    columns = _labeled(11, n=100)
    with pytest.raises(QuarryError, match=r"folds 0\.\.2, at least 2, got 0\.\.3"):
        fit_calibration(*columns, n_folds=3)
    with pytest.raises(QuarryError, match="must be one of .*'temperature', 'isotonic'.*got 'beta'"):
        fit_calibration(*columns, n_folds=N_FOLDS, method="beta")  # type: ignore[arg-type]
    with pytest.raises(QuarryError, match="got none"):
        fit_calibration(*(column[:0] for column in columns), n_folds=N_FOLDS)
