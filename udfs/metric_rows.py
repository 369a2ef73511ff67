"""Rows of the table `metrics`, before the job adds cycle and model."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

METRIC_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("method", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
    ]
)
EXACT, MONTE_CARLO = "score_sampling", "score_sampling_mc"
GROUND_TRUTH = "ground_truth"
DETECTOR = "detector"
RANDOM = "random"
ALL_CLASSES = "all"


def metric_table(
    values: Mapping[str, float | None],
    query: str,
    method: str,
    n: int,
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
) -> pa.Table:
    """One row a metric.

    Args:
        values: Metric to value; None where it is undefined.
        query: Query, class name, or `all`.
        method: What is measured.
        n: Images (detections for calibration) behind the numbers.
        intervals: Metric to (low, high); None and missing ones become null.

    Returns:
        METRIC_SCHEMA.
    """
    rows = []
    for name, value in values.items():
        low, high = (intervals or {}).get(name) or (None, None)
        row = {"query": query, "method": method, "metric": name, "value": value, "n": n}
        rows.append(row | {"low": low, "high": high})
    return pa.Table.from_pylist(rows, schema=METRIC_SCHEMA)
