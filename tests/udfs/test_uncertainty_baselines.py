from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from conf import settings
from conf.errors import QuarryError
from tests.udfs.detection_scenes import box, parsed
from udfs.uncertainty_baselines import BASELINES, uncertainty_baselines


def _scene(scores: list[float], logits: list[list[float]] | None = None):
    boxes = [box((0, 0, 10, 10), score=s) for s in scores]
    if logits is not None:
        boxes = [{**b, "logits": row} for b, row in zip(boxes, logits, strict=True)]
    return parsed([boxes, []])[0]


def test_softmax_measures_equal_their_formulas() -> None:
    logits = np.random.default_rng(41).normal(0, 3, (6, 4)).astype(np.float32).astype(np.float64)
    p = softmax(logits, axis=1)
    two = np.sort(p, axis=1)[:, -2:]
    expected = {
        "entropy": entropy(p, axis=1),
        "dempster_shafer": 4 / (4 + np.exp(logits).sum(axis=1)),
        "max_uncertainty": 1 - p.max(axis=1),
        "margin": 1 - (two[:, 1] - two[:, 0]),
        "least_confidence": np.array([0.75, 0.5, 0.25, 0.5, 0.0, 1.0]),
    }
    scores = (1 - expected["least_confidence"]).tolist()
    values = uncertainty_baselines(_scene(scores, logits.tolist()), list(BASELINES), "softmax")
    for name, (image, empty) in zip(BASELINES, values, strict=True):
        measure = expected[BASELINES[name][0]]
        reduce = np.mean if name.endswith("_mean") else np.max if name.endswith("_max") else np.sum
        assert image == pytest.approx(reduce(measure), rel=1e-12) and empty == 0.0


def test_sigmoid_measures_equal_their_formulas() -> None:
    p = np.array([0.125, 0.5, 0.875, 0.0625])
    logit = np.log(p / (1 - p))
    expected = [
        entropy(np.stack((p, 1 - p)), axis=0).sum(),
        (2 / (2 + np.exp(logit) + np.exp(-logit))).sum(),
        (1 - p).sum(),
        (1 - np.abs(2 * p - 1)).max(),
        (1 - p).mean(),
    ]
    names = ["entropy", "dempster_shafer", "max_uncertainty", "margin_max", "least_confidence_mean"]
    assert uncertainty_baselines(_scene(p.tolist()), names, "sigmoid")[:, 0] == pytest.approx(expected)


def test_certainty_is_finite_in_both_heads() -> None:
    certain = _scene([0.0, 1.0], [[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 3.0]])
    names = ["entropy", "dempster_shafer", "margin"]
    assert uncertainty_baselines(certain, names, "softmax")[:, 0].tolist() == [0, 0, 0]
    assert uncertainty_baselines(certain, names, "sigmoid")[:, 0].tolist() == [0, 0, 0]


def test_models_with_different_numbers_of_classes_share_a_batch() -> None:
    scene = _scene([0.5, 0.5], [[0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    mixed = uncertainty_baselines(scene, ["entropy"], "softmax")
    assert mixed[0, 0] == pytest.approx(np.log(2) + np.log(4))


def test_errors_say_what_to_do() -> None:
    with pytest.raises(QuarryError, match="image-0.*logits.*sigmoid"):
        uncertainty_baselines(_scene([0.5]), ["entropy"], "softmax")
    with pytest.raises(QuarryError, match="image-0.*nan"):
        uncertainty_baselines(_scene([0.5], [[0.0, float("nan")]]), ["entropy"], "softmax")
    with pytest.raises(QuarryError, match="'entropy'"):
        uncertainty_baselines(_scene([0.5]), ["entropie"], "sigmoid")


def test_settings_know_every_baseline() -> None:
    assert set(settings.BASELINES) == set(BASELINES), "no query may take a baseline's name"
