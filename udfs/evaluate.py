"""One group of an evaluation in, its metrics out: what Spark's applyInArrow runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa

from udfs import ranking_metrics
from udfs.boxes import FloatArray
from udfs.detection_batch import DetectionBatch, TruthBatch
from udfs.metric_rows import ALL_CLASSES, DETECTOR, GROUND_TRUTH, METRIC_SCHEMA, RANDOM, metric_table
from udfs.ranking_bootstrap import auroc_name, percentile_interval, resampled_metrics

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
OVER_RANDOM = {"ndcg": "ndcg_over_random", "mauc": "mauc_over_random"}


def ranking_rows(
    images: pa.Table, hard_fractions: Sequence[float], *, n_resamples: int = 0, seed: int = 0
) -> pa.Table:
    """How well each method ranks images for one query, and how alike the methods' rankings are.

    Args:
        images: Columns query (constant), image_id and truth, a row an image in any order; every further
            column is a method's estimate (double), null for images it did not score.
        hard_fractions: Shares of images called hard, for AUROC.
        n_resamples: Bootstrap resamples behind each interval; 0 gives none.
        seed: With the query, all that the resamples depend on: every method meets the same ones.

    Returns:
        METRIC_SCHEMA: ndcg, auroc_05 and so on, mauc, area_under_curve, spearman (with the truth),
        `spearman:<method>` (with another method), and the gain over the method `random` where there is one:
        ndcg_over_random and mauc_over_random. `low` and `high` bound 95 % of the resamples; those of a gain
        bound its differences in the same resamples. `value` is null where a metric is undefined, e.g. when no
        image is hard.
    """
    # Draws meet images by place, so the order of rows must not follow partitions.
    images = images.sort_by("image_id")
    query, truth = images.column("query")[0].as_py(), _numbers(images, "truth")
    estimates = _estimates(images)
    tables = [_likeness(estimates, {name: (query, name) for name in estimates})]
    for known, methods in _by_scored_images(estimates).items():
        scored = np.frombuffer(known, bool)
        part = {name: estimates[name][scored] for name in estimates if name in (*methods, RANDOM)}
        values = {name: _metrics(truth[scored], estimate, hard_fractions) for name, estimate in part.items()}
        draws: dict[str, dict[str, FloatArray]] = {name: {} for name in part}
        if n_resamples:
            draws = resampled_metrics(
                truth[scored], part, hard_fractions, n_resamples=n_resamples, key=f"{seed}/{query}"
            )
        for method in methods:
            if method != RANDOM and RANDOM in part:
                _add_gains(values[method], values[RANDOM], draws[method], draws[RANDOM])
            intervals = {name: percentile_interval(drawn) for name, drawn in draws[method].items()}
            tables.append(metric_table(values[method], query, method, int(scored.sum()), intervals))
    return pa.concat_tables(tables)


def likeness_rows(images: pa.Table) -> pa.Table:
    """Spearman's correlation between the true hardness of each two queries (score_sampling, Figure 10).

    Args:
        images: A column of true hardness (double) a query, a row an image; no further column.

    Returns:
        METRIC_SCHEMA: `spearman:<other query>` of each query, method `ground_truth`; the matrix has both
        halves and no diagonal.
    """
    columns = {name: _numbers(images, name) for name in images.column_names}
    return _likeness(columns, {name: (name, GROUND_TRUTH) for name in columns})


def curve_rows(images: pa.Table) -> pa.Table:
    """Share of all true hardness found against share of images looked at, for one query.

    Args:
        images: As for `ranking_rows`.

    Returns:
        CURVE_SCHEMA: a row a method, and one of the method `ideal` that knows the truth; CURVE_POINTS evenly
        spaced budgets. No row where no image has any hardness.
    """
    query, truth = images.column("query")[0].as_py(), _numbers(images, "truth")
    budget = np.linspace(0.0, 1.0, CURVE_POINTS)
    rows = []
    for method, estimate in (_estimates(images) | {IDEAL: truth}).items():
        known = np.isfinite(estimate)
        curve = ranking_metrics.cumulative_hardness(truth[known], estimate[known]) if known.any() else None
        if curve is not None:
            found = np.interp(budget, curve.budget_share, curve.hardness_share)
            rows.append(
                {"query": query, "method": method, "budget": budget.tolist(), "found": found.tolist()}
            )
    return pa.Table.from_pylist(rows, schema=CURVE_SCHEMA)


def precision_rows(images: pa.Table, classes: Sequence[str]) -> pa.Table:
    """COCO average precision of a detector on the images of a table.

    Args:
        images: Columns image_id, width, height, detections and boxes, a row an image.
        classes: Class names; label i is `classes[i - 1]`.

    Returns:
        METRIC_SCHEMA: ap and ap50 of query `all`, ap50 of each class; null where a class has no object.
    """
    from detectors.average_precision import FoundBoxes, TruthBoxes, average_precision

    found, truths = [], []
    for batch in images.combine_chunks().to_batches():
        detections, truth = DetectionBatch.from_arrow(batch), TruthBatch.from_arrow(batch)
        for i, j in _spans(detections.offsets):
            boxes, scores = detections.boxes_xyxy[i:j], detections.scores[i:j]
            found.append(FoundBoxes(boxes, scores, detections.labels[i:j]))
        for i, j in _spans(truth.offsets):
            known = truth.labels[i:j] > 0
            corners = truth.boxes_xyxy[i:j][known].astype(np.float32)
            truths.append(TruthBoxes(corners, truth.labels[i:j][known], truth.is_crowd[i:j][known]))
    result = average_precision(found, truths, classes)
    rows = [metric_table({"ap": result.ap, "ap50": result.ap50}, ALL_CLASSES, DETECTOR, result.n_images)]
    for name, value in result.ap50_per_class.items():
        rows.append(metric_table({"ap50": value}, name, DETECTOR, result.n_images))
    return pa.concat_tables(rows)


def _metrics(truth: FloatArray, estimate: FloatArray, fractions: Sequence[float]) -> dict[str, float | None]:
    values = {"ndcg": ranking_metrics.ndcg(truth, estimate)}
    for fraction in fractions:
        values[auroc_name(fraction)] = ranking_metrics.auroc_at_fraction(truth, estimate, fraction)
    values["mauc"] = ranking_metrics.mean_auroc(truth, estimate, fractions)
    values["area_under_curve"] = ranking_metrics.cumulative_hardness_area(truth, estimate)
    values["spearman"] = ranking_metrics.spearman(truth, estimate)
    return values


def _add_gains(
    values: dict[str, float | None],
    chance: Mapping[str, float | None],
    draws: dict[str, FloatArray],
    chance_draws: Mapping[str, FloatArray],
) -> None:
    for metric, gain in OVER_RANDOM.items():
        own, other = values[metric], chance[metric]
        values[gain] = None if own is None or other is None else own - other
        if metric in draws:
            draws[gain] = draws[metric] - chance_draws[metric]


def _likeness(columns: Mapping[str, FloatArray], keys: Mapping[str, tuple[str, str]]) -> pa.Table:
    """Spearman between each two columns on the images that have both; `keys`: its query and method."""
    tables = [METRIC_SCHEMA.empty_table()]
    for one, other in combinations(columns, 2):
        both = np.isfinite(columns[one]) & np.isfinite(columns[other])
        if both.any():
            value = ranking_metrics.spearman(columns[one][both], columns[other][both])
            for name, partner in ((one, other), (other, one)):
                tables.append(metric_table({f"spearman:{partner}": value}, *keys[name], int(both.sum())))
    return pa.concat_tables(tables)


def _by_scored_images(estimates: Mapping[str, FloatArray]) -> dict[bytes, list[str]]:
    """Methods that scored the same images stand together, under the bytes of the mask of those images."""
    groups: dict[bytes, list[str]] = {}
    for method, estimate in estimates.items():
        known = np.isfinite(estimate)
        if known.any():
            groups.setdefault(known.tobytes(), []).append(method)
    return groups


def _estimates(images: pa.Table) -> dict[str, FloatArray]:
    keys = ("query", "image_id", "truth")
    return {name: _numbers(images, name) for name in images.column_names if name not in keys}


def _spans(offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:
    return zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)


def _numbers(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table.column(name).cast(pa.float64()).to_numpy()
    return values
