"""One group of an evaluation in, its metrics out: what Spark's applyInArrow runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from udfs import ranking_metrics
from udfs.detection_batch import DetectionBatch, TruthBatch

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
CURVE_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("method", pa.string()),
        ("budget", pa.list_(pa.float64())),
        ("found", pa.list_(pa.float64())),
    ]
)
CURVE_POINTS = 101
IDEAL = "ideal"


def ranking_rows(pairs: pa.Table, hard_fractions: Sequence[float]) -> pa.Table:
    """How well one method ranks images for one query.

    Args:
        pairs: Columns query, method (each constant), estimate and truth (double), a row an image.
        hard_fractions: Shares of images called hard, for AUROC.

    Returns:
        METRIC_SCHEMA: ndcg, auroc_05 and so on, mauc, area_under_curve, spearman. `value` is null where a
        metric is undefined, e.g. when no image is hard.
    """
    truth, estimate = _numbers(pairs, "truth"), _numbers(pairs, "estimate")
    values = {"ndcg": ranking_metrics.ndcg(truth, estimate)}
    for fraction in hard_fractions:
        values[f"auroc_{round(fraction * 100):02d}"] = ranking_metrics.auroc_at_fraction(
            truth, estimate, fraction
        )
    values["mauc"] = ranking_metrics.mean_auroc(truth, estimate, hard_fractions)
    values["area_under_curve"] = ranking_metrics.cumulative_hardness_area(truth, estimate)
    values["spearman"] = ranking_metrics.spearman(truth, estimate)
    return _metric_table(
        values, pairs.column("query")[0].as_py(), pairs.column("method")[0].as_py(), len(truth)
    )


def curve_rows(pairs: pa.Table) -> pa.Table:
    """Share of all true hardness found against share of images looked at, for one query and method.

    Args:
        pairs: As for `ranking_rows`.

    Returns:
        CURVE_SCHEMA, CURVE_POINTS evenly spaced budgets; no row where no image has any hardness.
    """
    truth, estimate = _numbers(pairs, "truth"), _numbers(pairs, "estimate")
    curve = ranking_metrics.cumulative_hardness(truth, estimate)
    if curve is None:
        return CURVE_SCHEMA.empty_table()
    budget = np.linspace(0.0, 1.0, CURVE_POINTS)
    found = np.interp(budget, curve.budget_share, curve.hardness_share)
    row = {"budget": budget.tolist(), "found": found.tolist()}
    row |= {name: pairs.column(name)[0].as_py() for name in ("query", "method")}
    return pa.Table.from_pylist([row], schema=CURVE_SCHEMA)


def precision_rows(images: pa.Table, classes: Sequence[str]) -> pa.Table:
    """COCO average precision of a detector on the images of a table.

    Args:
        images: Columns image_id, width, height, detections and boxes, a row an image.
        classes: Class names; label i is `classes[i - 1]`.

    Returns:
        METRIC_SCHEMA: ap and ap50 of query `all`, ap50 of each class; null where a class has no object.
    """
    from detectors.average_precision import TruthBoxes, average_precision
    from detectors.detections import Detections

    found, truths = [], []
    for batch in images.combine_chunks().to_batches():
        detections, truth = DetectionBatch.from_arrow(batch), TruthBatch.from_arrow(batch)
        for i, j in _spans(detections.offsets):
            boxes = detections.boxes_xyxy[i:j].astype(np.float32)
            found.append(Detections(boxes, detections.scores[i:j].astype(np.float32), detections.labels[i:j]))
        for i, j in _spans(truth.offsets):
            known = truth.labels[i:j] > 0
            boxes = truth.boxes_xyxy[i:j][known].astype(np.float32)
            truths.append(TruthBoxes(boxes, truth.labels[i:j][known], truth.is_crowd[i:j][known]))
    result = average_precision(found, truths, classes)
    rows = [_metric_table({"ap": result.ap, "ap50": result.ap50}, "all", "detector", result.n_images)]
    for name, value in result.ap50_per_class.items():
        rows.append(_metric_table({"ap50": value}, name, "detector", result.n_images))
    return pa.concat_tables(rows)


def _spans(offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:
    return zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)


def _numbers(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return table.column(name).to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _metric_table(values: dict[str, float | None], query: str, method: str, n: int) -> pa.Table:
    rows = [
        {"query": query, "method": method, "metric": name, "value": value, "n": n}
        for name, value in values.items()
    ]
    return pa.Table.from_pylist(rows, schema=METRIC_SCHEMA)
