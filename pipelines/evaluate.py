"""Where ground truth exists: true hardness, and the quality of every ranking, of scores and of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.settings import EvaluateSettings, ScoreSettings
from pipelines.coverage import K_CENTER
from pipelines.detect_metrics import DETECT
from pipelines.models import Model
from pipelines.one_table import one_table
from pipelines.rankings import rankings
from pipelines.reliability import detection_matches, reliability_bins, reliability_rows
from pipelines.run import Run
from pipelines.score_inputs import score_request
from pipelines.tables import sql_literal
from pipelines.true_hardness import held_out_truth, write_true_hardness
from schemas.tables import METRICS
from udfs.evaluate import likeness_rows, precision_rows, ranking_rows
from udfs.metric_rows import METRIC_SCHEMA, RANDOM
from udfs.sample_sensitivity import sensitivity_rows
from udfs.score_request import ScoreRequest


def evaluate(
    run: Run, cycle_id: str, model: Model, scoring: ScoreSettings, settings: EvaluateSettings, seed: int
) -> dict[str, int]:
    """Writes true hardness to `hardness` and the quality of every ranking to `metrics`.

    Args:
        run: The run.
        cycle_id: Under which metrics are kept.
        model: Whose detections are judged.
        scoring: Queries and thresholds, as they were scored.
        settings: Hard fractions, bins, resamples, bounds.
        seed: Of the random ranking, the resamples and Monte Carlo samples.

    Returns:
        Counts: labeled images, metrics.

    Raises:
        QuarryError: No detected image has held-out ground truth, or there are more than one task can rank.
    """
    truth = held_out_truth(run, model).persist(StorageLevel.DISK_ONLY)
    n_labeled = truth.count()
    require_labeled(run, n_labeled, settings.max_images)
    run.tell(f"{n_labeled:,} images with held-out ground truth")
    n_resamples = settings.bootstrap_samples
    if n_labeled > settings.bootstrap_images and n_resamples:
        n_resamples = 0
        run.tell(f"no intervals: more images than evaluate.bootstrap_images ({settings.bootstrap_images:,})")
    request = score_request(model, scoring, seed)
    write_true_hardness(run, truth, model, request, scoring)
    ranked = rankings(run, truth, model, scoring, seed).persist(StorageLevel.DISK_ONLY)
    parts = _measurements(truth, ranked, model, request, settings, n_resamples)
    metrics = reduce(DataFrame.unionByName, parts)
    metrics = metrics.withColumns({"cycle_id": F.lit(cycle_id), "model_id": F.lit(model.model_id)})
    metrics = metrics.select(*METRICS.column_names).persist(StorageLevel.DISK_ONLY)
    n_metrics = metrics.count()
    _tell_unmeasured(run, metrics, ranked)
    condition = (
        f"cycle_id = {sql_literal(cycle_id)} AND model_id = {sql_literal(model.model_id)} "
        f"AND method NOT IN ('{DETECT}', '{K_CENTER}')"
    )
    run.store.replace(METRICS, metrics, where=condition)
    for frame in (metrics, ranked, truth):
        frame.unpersist()
    return {"labeled": n_labeled, "metrics": n_metrics}


def _measurements(
    truth: DataFrame,
    ranked: DataFrame,
    model: Model,
    request: ScoreRequest,
    settings: EvaluateSettings,
    n_resamples: int,
) -> list[DataFrame]:
    matches = truth.transform(detection_matches, request)
    bins = matches.transform(reliability_bins, settings.calibration_bins, model.classes)
    parts = [
        ranked.transform(rank_each, settings, n_resamples, request.seed),
        ranked.transform(query_likeness, request.queries),
        bins.transform(reliability_rows),
        truth.transform(detector_precision, model, settings.max_ap_images, request.seed),
    ]
    if settings.sample_sizes:
        parts.append(truth.transform(sample_sensitivity, request, settings))
    return parts


def _tell_unmeasured(run: Run, metrics: DataFrame, ranked: DataFrame) -> None:
    """Says which rankings have no figure, so that a table without them is not taken for the whole."""
    rows = metrics.where("metric = 'ndcg'").select("method").distinct().collect()
    missing = set(ranked.columns) - {"image_id", "query", "truth"} - {row.method for row in rows}
    if missing:
        names = ", ".join(sorted(missing))
        run.tell(
            f"not measured, scored for other queries, classes or thresholds: {names}; run `quarry score`"
        )
    if {row.method for row in rows} <= {RANDOM}:
        run.tell(f"only random is measured: run `quarry score --root {run.store.root}` first")


def require_labeled(run: Run, n_labeled: int, most_images: int) -> None:
    """Fails unless there is something to measure with, and no more than one task can rank.

    Raises:
        QuarryError: Says what to do.
    """
    if n_labeled == 0:
        raise QuarryError(
            "no image with detections has held-out ground truth: run "
            f"`quarry import_labels --root {run.store.root} --labels coco.json` first"
        )
    if n_labeled > most_images:
        raise QuarryError(
            f"{n_labeled:,} labeled images, evaluate.max_images is {most_images:,}: raise it, "
            "or label a sample"
        )


def rank_each(ranked: DataFrame, settings: EvaluateSettings, n_resamples: int, seed: int) -> DataFrame:
    """Quality of every query and ranking, one task per query."""
    ranker = partial(ranking_rows, hard_fractions=settings.hard_fractions, n_resamples=n_resamples, seed=seed)
    return ranked.groupBy("query").applyInArrow(one_table(ranker), from_arrow_schema(METRIC_SCHEMA))


def query_likeness(ranked: DataFrame, queries: Sequence[str]) -> DataFrame:
    """Rank correlation between the true hardness of each two queries, in one task."""
    wide = ranked.groupBy("image_id").pivot("query", list(queries)).agg(F.first("truth")).drop("image_id")
    return wide.groupBy().applyInArrow(one_table(likeness_rows), from_arrow_schema(METRIC_SCHEMA))


def sample_sensitivity(truth: DataFrame, request: ScoreRequest, settings: EvaluateSettings) -> DataFrame:
    """Monte Carlo at each number of samples, in one task, on images drawn by a hash of the id."""
    measure = partial(sensitivity_rows, request=request, sample_sizes=settings.sample_sizes)
    sample = truth.orderBy(F.xxhash64(F.lit(request.seed), "image_id")).limit(settings.sensitivity_images)
    one_group = sample.drop("ts", "detected_ts").groupBy()
    return one_group.applyInArrow(one_table(measure), from_arrow_schema(METRIC_SCHEMA))


def detector_precision(truth: DataFrame, model: Model, most_images: int, seed: int) -> DataFrame:
    """AP, AP50 and AP50 per class in one task, on at most `most_images` images drawn by a hash of the id."""
    classes = tuple(name for _, name in sorted(model.classes.items()))
    measure = partial(precision_rows, classes=classes)
    sample = truth.orderBy(F.xxhash64(F.lit(seed), "image_id")).limit(most_images)
    columns = ("image_id", "width", "height", "detections", "boxes")
    one_group = sample.select(*columns).groupBy()
    return one_group.applyInArrow(one_table(measure), from_arrow_schema(METRIC_SCHEMA))
