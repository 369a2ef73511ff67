"""Where ground truth exists: true hardness, ranking quality, calibration and average precision."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.settings import EvaluateSettings, ScoreSettings, settings_hash
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score import (
    BASELINE,
    complete_hardness_rows,
    detections_of,
    method_hash,
    partition_condition,
    score_request,
    up_to_date,
    without_hardness,
)
from schemas.tables import GROUND_TRUTH, HARDNESS, METRICS
from udfs.evaluate import METRIC_SCHEMA, precision_rows, ranking_rows
from udfs.score import HARDNESS_SCHEMA, MATCH_SCHEMA, ScoreRequest, match_batches, supervise_batches

GROUND_TRUTH_METHOD = "ground_truth"
METHOD_NAMES = {"exact": "score_sampling", "monte_carlo": "score_sampling_mc"}
RANDOM = "random"
DETECTOR = "detector"


def evaluate(
    run: Run, cycle_id: str, model: Model, scoring: ScoreSettings, settings: EvaluateSettings, seed: int
) -> dict[str, int]:
    """Writes true hardness to `hardness` and the quality of every ranking to `metrics`.

    Args:
        run: The run.
        cycle_id: Under which metrics are kept.
        model: Whose detections are judged.
        scoring: Queries and thresholds, as they were scored.
        settings: Hard fractions, bins, bounds.
        seed: Of the random ranking.

    Returns:
        Counts: labeled images, metrics.

    Raises:
        QuarryError: No detected image has held-out ground truth, or there are more than one task can rank.
    """
    request = score_request(model, scoring, seed)
    truth = held_out_truth(run, model).persist(StorageLevel.DISK_ONLY)
    n_labeled = truth.count()
    if n_labeled == 0:
        raise QuarryError(
            "no image with detections has held-out ground truth: run "
            f"`quarry import_labels --root {run.store.root} --labels coco.json` first"
        )
    if n_labeled > settings.max_images:
        raise QuarryError(
            f"{n_labeled:,} labeled images, evaluate.max_images is {settings.max_images:,}: raise it, "
            "or label a sample"
        )
    run.tell(f"{n_labeled:,} images with held-out ground truth")
    write_true_hardness(run, truth, model, request, scoring)
    rankings = ranking_pairs(run, truth, model, scoring, seed)
    parts = [
        rankings.transform(rank_each, settings),
        truth.transform(detection_matches, request)
        .transform(reliability_bins, settings.calibration_bins)
        .transform(calibration_error),
        truth.transform(detector_precision, model, settings.max_ap_images, seed),
    ]
    metrics = parts[0]
    for part in parts[1:]:
        metrics = metrics.unionByName(part)
    metrics = metrics.withColumns({"cycle_id": F.lit(cycle_id), "model_id": F.lit(model.model_id)})
    metrics = metrics.select(*METRICS.column_names).persist(StorageLevel.DISK_ONLY)
    n_metrics = metrics.count()
    quoted = cycle_id.replace("\\", "\\\\").replace("'", "\\'")
    run.store.replace(METRICS, metrics, where=f"cycle_id = '{quoted}' AND model_id = '{model.model_id}'")
    for frame in (metrics, truth):
        frame.unpersist()
    return {"labeled": n_labeled, "metrics": n_metrics}


def held_out_truth(run: Run, model: Model) -> DataFrame:
    """Detections and ground truth of completely labeled, held-out images; labels in the model's ids.

    A class the model does not know (labels imported before it) gets label -1: its objects count as missed.
    """
    truth = run.store.read(GROUND_TRUTH).where("complete AND split <> 'train'")
    names = F.create_map(*[F.lit(v) for label, name in model.classes.items() for v in (name, label)])
    resolved = F.transform(
        "boxes", lambda b: b.withField("label", F.coalesce(F.try_element_at(names, b.label_name), F.lit(-1)))
    )
    truth = truth.select("image_id", resolved.alias("boxes"), F.col("ts").alias("truth_ts"))
    joined = detections_of(run, model).join(truth, "image_id")
    latest = F.greatest("ts", "truth_ts").alias("ts")
    return joined.select("image_id", "model_id", "width", "height", "detections", "boxes", latest)


def write_true_hardness(
    run: Run, truth: DataFrame, model: Model, request: ScoreRequest, scoring: ScoreSettings
) -> None:
    """Adds query values from ground truth to `hardness`, method `ground_truth`."""
    digest = true_hardness_hash(scoring)
    scored = truth.transform(up_to_date, run, model.model_id, {GROUND_TRUTH_METHOD: digest})
    todo = truth.transform(without_hardness, scored, request.queries)
    supervised = todo.drop("ts").mapInArrow(
        partial(supervise_batches, request=request), from_arrow_schema(HARDNESS_SCHEMA)
    )
    rows = supervised.transform(
        complete_hardness_rows, F.lit(GROUND_TRUTH_METHOD), F.lit(digest), scoring.eta, run
    )
    run.store.merge(HARDNESS, rows, only=partition_condition(model.model_id, request.queries, alias="t."))


def true_hardness_hash(scoring: ScoreSettings) -> str:
    """Identity of the settings that true hardness depends on."""
    classes = ",".join(scoring.classes or ())
    return settings_hash(
        GROUND_TRUTH_METHOD, scoring.matcher, str(scoring.iou_threshold), str(scoring.eta), classes
    )


def ranking_pairs(run: Run, truth: DataFrame, model: Model, scoring: ScoreSettings, seed: int) -> DataFrame:
    """Estimated beside true hardness: columns query, method, image_id, estimate, truth.

    Every query meets score sampling (exact and Monte Carlo, where scored under the same settings), each
    baseline, and a random ranking.

    Args:
        run: The run.
        truth: Column image_id: the held-out images.
        model: Whose hardness is judged.
        scoring: Queries, and the settings rows must have been made with.
        seed: Of the random ranking, and of samples.
    """
    digests = [method_hash(method, scoring, seed) for method in (*METHOD_NAMES, BASELINE)]
    digests.append(true_hardness_hash(scoring))
    rows = run.store.read(HARDNESS).where(F.col("model_id") == model.model_id)
    rows = rows.where(F.col("settings_hash").isin(digests)).join(truth.select("image_id"), "image_id", "semi")
    truth = rows.where((F.col("method") == GROUND_TRUTH_METHOD) & F.col("query").isin(*scoring.queries))
    truth = truth.select("image_id", "query", F.col("hardness").alias("truth"))
    sampled = rows.where(F.col("method").isin(*METHOD_NAMES)).select(
        "image_id", "query", F.col("method"), F.col("hardness").alias("estimate")
    )
    names = F.create_map(*[F.lit(text) for pair in METHOD_NAMES.items() for text in pair])
    sampled = sampled.withColumn("method", names[F.col("method")]).join(truth, ["image_id", "query"])
    baselines = rows.where("method = 'baseline'").select(
        "image_id", F.col("query").alias("method"), F.col("hardness").alias("estimate")
    )
    draw = F.xxhash64(F.lit(seed), F.lit(RANDOM), F.col("image_id")).cast("double").alias("estimate")
    chance = truth.select("image_id").distinct().select("image_id", F.lit(RANDOM).alias("method"), draw)
    free = baselines.unionByName(chance).join(truth, "image_id")
    columns = ("query", "method", "image_id", "estimate", "truth")
    return sampled.select(*columns).unionByName(free.select(*columns))


def rank_each(rankings: DataFrame, settings: EvaluateSettings) -> DataFrame:
    """nDCG, AUROC, mAUC, captured hardness and Spearman of every query and method, one task per pair."""
    ranker = partial(ranking_rows, hard_fractions=settings.hard_fractions)

    def rank_group(table: pa.Table) -> pa.Table:
        return ranker(table)

    return rankings.groupBy("query", "method").applyInArrow(rank_group, from_arrow_schema(METRIC_SCHEMA))


def detection_matches(truth: DataFrame, request: ScoreRequest) -> DataFrame:
    """One row per detection: its score and whether it finds an object."""
    matcher = partial(match_batches, request=request)
    return truth.drop("ts").mapInArrow(matcher, from_arrow_schema(MATCH_SCHEMA))


def reliability_bins(matches: DataFrame, bins: int) -> DataFrame:
    """Reliability diagram: per score bin the detections, their mean score and the share that is correct."""
    index = F.least(F.floor(F.col("score") * bins), F.lit(bins - 1)).cast("int")
    return (
        matches.groupBy(index.alias("bin"))
        .agg(
            F.count("*").alias("n"),
            F.avg("score").alias("mean_score"),
            F.avg(F.col("is_true_positive").cast("double")).alias("precision"),
        )
        .orderBy("bin")
    )


def calibration_error(bins: DataFrame) -> DataFrame:
    """Expected calibration error: the bins' |precision - mean score|, weighted by their detections."""
    gap = F.abs(F.col("precision") - F.col("mean_score"))
    value = F.sum(gap * F.col("n")) / F.sum("n")
    return bins.agg(value.alias("value"), F.coalesce(F.sum("n"), F.lit(0)).alias("n")).select(
        F.lit("all").alias("query"),
        F.lit(DETECTOR).alias("method"),
        F.lit("ece").alias("metric"),
        "value",
        F.lit(None).cast("double").alias("low"),
        F.lit(None).cast("double").alias("high"),
        "n",
    )


def detector_precision(truth: DataFrame, model: Model, most_images: int, seed: int) -> DataFrame:
    """AP, AP50 and AP50 per class in one task, on at most `most_images` images drawn by a hash of the id."""
    classes = tuple(name for _, name in sorted(model.classes.items()))
    measure = partial(precision_rows, classes=classes)

    def measure_group(table: pa.Table) -> pa.Table:
        return measure(table)

    sample = truth.orderBy(F.xxhash64(F.lit(seed), "image_id")).limit(most_images)
    one_group = sample.select(
        "image_id", "width", "height", "detections", "boxes", F.lit(DETECTOR).alias("method")
    )
    return one_group.groupBy("method").applyInArrow(measure_group, from_arrow_schema(METRIC_SCHEMA))
