"""What more Monte Carlo samples buy: rankings by the first N samples against the exact value.

Source: score_sampling, "Sensitivity to the number of samples". The paper has no exact value to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from udfs import ranking_metrics
from udfs.boxes import FloatArray
from udfs.metric_rows import EXACT, METRIC_SCHEMA, MONTE_CARLO, metric_table
from udfs.score import score_batches, supervise_batches
from udfs.score_request import ScoreRequest


def sensitivity_rows(images: pa.Table, request: ScoreRequest, sample_sizes: Sequence[int]) -> pa.Table:
    """Quality of Monte Carlo hardness at each number of samples, for every query.

    An image's samples are the same whatever N is, so N samples are the first N of one long run.

    Args:
        images: Columns image_id, width, height, detections and boxes, a row an image, n >= 1.
        request: Queries and thresholds; its estimator and n_samples stand for the exact value only.
        sample_sizes: Numbers of samples N, each >= 1.

    Returns:
        METRIC_SCHEMA. Method score_sampling_mc: `ndcg:<N>_samples`, `spearman_to_exact:<N>_samples` (-1..1)
        and `error_to_exact:<N>_samples` (mean absolute difference to the exact value, in units of its mean,
        >= 0). Method score_sampling: `ndcg:exact`. All on the images whose exact value is exact (`n` counts
        them); a query without such an image has no row.
    """
    batch = images.sort_by("image_id").combine_chunks().to_batches()[0]
    plain = replace(request, baselines=())
    truth = _by_query(next(supervise_batches(iter([batch]), plain)), "hardness")
    reference = next(score_batches(iter([batch]), replace(plain, estimator="exact")))
    exact = _by_query(reference, "hardness")
    is_exact = {query: done == "exact" for query, done in _by_query(reference, "estimator").items()}
    queries = [query for query in request.queries if is_exact[query].any()]
    tables = [METRIC_SCHEMA.empty_table()]
    for query in queries:
        kept = is_exact[query]
        figure = {"ndcg:exact": ranking_metrics.ndcg(truth[query][kept], exact[query][kept])}
        tables.append(metric_table(figure, query, EXACT, int(kept.sum())))
    for n_samples in sample_sizes:
        sampled = replace(plain, estimator="monte_carlo", n_samples=n_samples)
        estimates = _by_query(next(score_batches(iter([batch]), sampled)), "hardness")
        for query in queries:
            kept = is_exact[query]
            figures = _figures(truth[query][kept], exact[query][kept], estimates[query][kept], n_samples)
            tables.append(metric_table(figures, query, MONTE_CARLO, int(kept.sum())))
    return pa.concat_tables(tables)


def _figures(
    truth: FloatArray, exact: FloatArray, estimate: FloatArray, n_samples: int
) -> dict[str, float | None]:
    scale = float(exact.mean())
    error = float(np.abs(estimate - exact).mean())
    return {
        f"ndcg:{n_samples}_samples": ranking_metrics.ndcg(truth, estimate),
        f"spearman_to_exact:{n_samples}_samples": ranking_metrics.spearman(exact, estimate),
        f"error_to_exact:{n_samples}_samples": error / scale if scale > 0.0 else None,
    }


def _by_query(rows: pa.RecordBatch, column: str) -> dict[str, np.ndarray[Any, Any]]:
    """Query to a column's values, images by rising id."""
    table = pa.Table.from_batches([rows]).sort_by([("query", "ascending"), ("image_id", "ascending")])
    names, starts = np.unique(table.column("query").to_numpy(), return_index=True)
    parts = np.split(table.column(column).to_numpy(), starts[1:])
    return dict(zip(names.tolist(), parts, strict=True))
