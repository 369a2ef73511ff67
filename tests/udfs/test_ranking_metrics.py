from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import auc, ndcg_score, roc_auc_score

from conf.errors import QuarryError
from udfs.ranking_metrics import (
    auroc,
    auroc_at_fraction,
    cumulative_hardness,
    cumulative_hardness_area,
    hard_images,
    mean_auroc,
    ndcg,
    spearman,
)


def _tied(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.poisson(1.5, n).astype(float), np.round(rng.normal(0, 1, n), 1)


def test_hand_worked_ndcg() -> None:
    # Gains 3, then the mean of 0 and 1 twice, over log2 of 2, 3, 4; ideal order 3, 1, 0.
    expected = (3 + 0.5 / np.log2(3) + 0.5 / 2) / (3 + 1 / np.log2(3))
    assert ndcg(np.array([0.0, 3.0, 1.0]), np.array([0.2, 0.9, 0.2])) == pytest.approx(expected)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(3, 60))
def test_equal_scikit_learn_and_scipy(seed: int, n: int) -> None:
    truth, estimate = _tied(seed, n)
    truth[0], truth[1], estimate[0], estimate[1] = 3.0, 0.0, 0.5, -0.5
    assert ndcg(truth, estimate) == pytest.approx(ndcg_score([truth], [estimate], ignore_ties=False))
    assert auroc(truth > 1, estimate) == pytest.approx(roc_auc_score(truth > 1, estimate))
    assert spearman(truth, estimate) == pytest.approx(spearmanr(truth, estimate).statistic)
    curve = cumulative_hardness(truth, estimate)
    assert curve is not None
    assert cumulative_hardness_area(truth, estimate) == pytest.approx(auc(*curve))
    order = np.random.default_rng(seed).permutation(n)
    assert ndcg(truth[order], estimate[order]) == pytest.approx(ndcg(truth, estimate))


def test_perfect_and_random_rankings() -> None:
    truth = np.arange(40.0)
    assert ndcg(truth, truth) == pytest.approx(1.0)
    assert mean_auroc(truth, truth) == 1.0 and mean_auroc(truth, -truth) == 0.0
    assert cumulative_hardness_area(truth, np.zeros(40)) == pytest.approx(0.5)
    assert auroc_at_fraction(truth, np.zeros(40), 0.1) == 0.5
    assert spearman(truth, -truth) == -1.0


def test_hard_images_are_the_share_nearest_to_the_fraction() -> None:
    truth = np.array([0.0] * 6 + [1.0, 1.0, 1.0, 5.0])
    shares = {}
    for fraction in (0.05, 0.10, 0.25, 0.26, 0.50):
        is_hard = hard_images(truth, fraction)
        assert is_hard is not None
        shares[fraction] = int(is_hard.sum())
    assert shares == {0.05: 1, 0.10: 1, 0.25: 1, 0.26: 4, 0.50: 4}
    assert hard_images(np.arange(20.0), 0.25).sum() == 5  # type: ignore[union-attr]


def test_undefined_is_none() -> None:
    zeros, rising = np.zeros(4), np.arange(4.0)
    assert ndcg(zeros, rising) is None
    assert mean_auroc(zeros, rising) is None
    assert cumulative_hardness_area(zeros, rising) is None
    assert spearman(zeros, rising) is None


@pytest.mark.parametrize("bad", [np.array([1.0]), np.array([1.0, np.nan]), np.array([])])
def test_bad_input_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(QuarryError):
        ndcg(bad, np.array([1.0, 2.0]))
    with pytest.raises(QuarryError, match=">= 0"):
        ndcg(np.array([-1.0, 2.0]), np.array([1.0, 2.0]))
