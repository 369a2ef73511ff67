from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from tests.udfs.detection_scenes import QUERY_NAMES, box, random_detections, scene_batch
from udfs.metric_rows import METRIC_SCHEMA
from udfs.sample_sensitivity import sensitivity_rows
from udfs.score import score_batches, supervise_batches
from udfs.score_request import ScoreRequest

SIZES = (1, 4, 64)


def _scenes(n: int, seed: int) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    detections = [
        [box((8 * k, 0, 8 * k + 10, 9 + k), score=round(float(rng.random()), 3)) for k in range(12)]
        for _ in range(n)
    ]
    truth = [[box((8 * k, 0, 8 * k + 10, 9 + k)) for k in range(12) if rng.random() < 0.5] for _ in range(n)]
    return scene_batch(detections, truth)


def _rows(batch: pa.RecordBatch, request: ScoreRequest) -> dict[tuple[str, str], dict[str, Any]]:
    table = sensitivity_rows(pa.Table.from_batches([batch]), request, SIZES)
    assert table.schema == METRIC_SCHEMA
    return {(row["query"], row["metric"]): row for row in table.to_pylist()}


def _hardness(rows: pa.RecordBatch, query: str) -> np.ndarray:
    frame = rows.to_pandas()
    return frame[frame["query"] == query].sort_values("image_id")["hardness"].to_numpy()


def test_every_size_is_measured_as_a_run_of_that_size_would_be() -> None:
    batch = _scenes(40, seed=2)
    request = ScoreRequest(queries=QUERY_NAMES, baselines=("entropy",), seed=9)
    rows = _rows(batch, request)
    assert len(rows) == len(QUERY_NAMES) * (1 + 3 * len(SIZES))
    assert {row["n"] for row in rows.values()} == {40}
    (true_rows,) = supervise_batches(iter([batch]), request)
    (exact_rows,) = score_batches(iter([batch]), ScoreRequest(queries=QUERY_NAMES))
    for n_samples in SIZES:
        long = ScoreRequest(queries=QUERY_NAMES, estimator="monte_carlo", n_samples=n_samples, seed=9)
        (sampled,) = score_batches(iter([batch]), long)
        for query in QUERY_NAMES:
            truth, exact, estimate = (_hardness(part, query) for part in (true_rows, exact_rows, sampled))
            found = {
                name: rows[query, f"{name}:{n_samples}_samples"]
                for name in ("ndcg", "spearman_to_exact", "error_to_exact")
            }
            assert {row["method"] for row in found.values()} == {"score_sampling_mc"}
            assert found["ndcg"]["value"] == pytest.approx(ndcg_score([truth], [estimate]))
            assert found["spearman_to_exact"]["value"] == pytest.approx(spearmanr(exact, estimate).statistic)
            error = np.abs(estimate - exact).mean() / exact.mean()
            assert found["error_to_exact"]["value"] == pytest.approx(error)
            assert rows[query, "ndcg:exact"]["value"] == pytest.approx(ndcg_score([truth], [exact]))


def test_the_error_falls_with_the_root_of_the_number_of_samples() -> None:
    rows = _rows(_scenes(300, seed=4), ScoreRequest(queries=("total_fp",)))
    errors = [rows["total_fp", f"error_to_exact:{n}_samples"]["value"] for n in SIZES]
    np.testing.assert_allclose(np.array(errors) / errors[0] * np.sqrt(SIZES), 1.0, rtol=0.2)


def test_certain_scores_need_one_sample_and_no_hardness_has_no_relative_error() -> None:
    detections = [[box((0, 0, 9, 9 + k), score=float(k % 2)) for k in range(i)] for i in range(6)]
    rows = _rows(scene_batch(detections, [[]] * 6), ScoreRequest(queries=("total_fp", "total_fn"), eta=0.0))
    for n_samples in SIZES:
        assert rows["total_fp", f"error_to_exact:{n_samples}_samples"]["value"] == 0.0
        assert rows["total_fp", f"spearman_to_exact:{n_samples}_samples"]["value"] == 1.0
        assert rows["total_fn", f"error_to_exact:{n_samples}_samples"]["value"] is None


def test_images_without_an_exact_value_are_left_out() -> None:
    rng = np.random.default_rng(1)
    crowded = [[box((0, 0, 10, 10 + 0.01 * k), score=0.6) for k in range(9)]]
    plain = [random_detections(rng, 4) for _ in range(5)]
    batch = scene_batch(crowded + plain, [[]] * 6)
    request = ScoreRequest(queries=("total_fp",), max_component=8)
    assert _rows(batch, request)["total_fp", "ndcg:exact"]["n"] == 5
    alone = sensitivity_rows(pa.Table.from_batches([batch.slice(0, 1)]), request, SIZES)
    assert alone.num_rows == 0
