from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs import ranking_metrics
from udfs.ranking_bootstrap import multiplicities, percentile_interval, resampled_metrics

FRACTIONS = (0.05, 0.25, 0.5)


def _drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.poisson(0.7, n).astype(float), np.round(rng.normal(0.0, 1.0, n), 1)


def _plain(truth: np.ndarray, estimate: np.ndarray) -> list[float]:
    aurocs = [ranking_metrics.auroc_at_fraction(truth, estimate, fraction) for fraction in FRACTIONS]
    values = [
        ranking_metrics.ndcg(truth, estimate),
        *aurocs,
        ranking_metrics.mean_auroc(truth, estimate, FRACTIONS),
        ranking_metrics.cumulative_hardness_area(truth, estimate),
        ranking_metrics.spearman(truth, estimate),
    ]
    return [np.nan if value is None else value for value in values]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40))
def test_equals_a_loop_that_repeats_rows(seed: int, n: int) -> None:
    truth, estimate = _drawn(seed, n)
    found = resampled_metrics(truth, {"m": estimate}, FRACTIONS, n_resamples=6, key=str(seed))["m"]
    assert list(found) == [
        "ndcg",
        "auroc_05",
        "auroc_25",
        "auroc_50",
        "mauc",
        "area_under_curve",
        "spearman",
    ]
    drawn = np.concatenate(list(multiplicities(n, 6, str(seed)))).astype(int)
    loop = [_plain(np.repeat(truth, row), np.repeat(estimate, row)) for row in drawn]
    np.testing.assert_allclose(np.transpose(list(found.values())), loop, rtol=1e-12, atol=1e-12)


def test_methods_meet_the_same_resamples_so_equal_ones_never_differ() -> None:
    truth, estimate = _drawn(3, 200)
    found = resampled_metrics(
        truth, {"one": estimate, "same": 2.0 * estimate + 5.0}, FRACTIONS, n_resamples=30, key="k"
    )
    alone = resampled_metrics(truth, {"one": estimate}, FRACTIONS, n_resamples=30, key="k")
    for name, values in found["one"].items():
        np.testing.assert_array_equal(values, found["same"][name])
        np.testing.assert_array_equal(values, alone["one"][name])
        assert len(np.unique(values)) > 10


def test_draws_follow_the_key_and_not_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(multiplicities(50, 40, "a")))
    other = np.concatenate(list(multiplicities(50, 40, "b")))
    monkeypatch.setattr("udfs.ranking_bootstrap._BLOCK_CELLS", 150)
    blocks = list(multiplicities(50, 40, "a"))
    assert len(blocks) == 14
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert (whole.sum(axis=1) == 50).all() and whole.shape == (40, 50) and (whole != other).any()
    # An image is drawn 1 +- 1 times, 0 times with probability (1 - 1/n)^n.
    assert abs((whole == 0).mean() - 0.98**50) < 0.02


def test_the_interval_of_a_mean_has_the_width_theory_says() -> None:
    rng = np.random.default_rng(11)
    truth, noise = rng.random(2000), rng.normal(0.0, 1.0, 2000)
    values = resampled_metrics(truth, {"m": truth + noise}, (), n_resamples=400, key="w")["m"]["spearman"]
    interval = percentile_interval(values)
    assert interval is not None
    rho = ranking_metrics.spearman(truth, truth + noise)
    assert rho is not None
    # Fisher's z: standard error 1 / sqrt(n - 3), 1.06 of it for ranks.
    half = 1.96 * 1.03 * (1.0 - rho**2) / np.sqrt(1997)
    assert interval[0] < rho < interval[1]
    assert (interval[1] - interval[0]) / 2 == pytest.approx(half, rel=0.15)


def test_percentiles_by_hand_and_too_many_undefined_resamples() -> None:
    values = np.arange(41.0)
    assert percentile_interval(values) == (1.0, 39.0)
    values[:2] = np.nan
    assert percentile_interval(values) == pytest.approx((2.95, 39.05))
    values[:3] = np.nan
    assert percentile_interval(values) is None
    assert percentile_interval(np.array([])) is None
