"""Which rows of `hardness` are there, under which settings, and what is the same for all rows of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import ScoreSettings, settings_hash
from pipelines.run import Run
from pipelines.tables import sql_literal, utc_timestamp
from schemas.tables import DETECTIONS, HARDNESS
from udfs.query_definitions import definition_text
from udfs.views import ORIGINAL_VIEW

BASELINE, CALIBRATED, GROUND_TRUTH = "baseline", "calibrated", "ground_truth"


def query_digest(settings: ScoreSettings, *, is_baseline: bool = False) -> Column:
    """What `hardness.query_hash` must be for a row's `query` to mean the same as in these settings.

    It covers thresholds, classes and the query's own definition, not how a value is found: rows of all
    methods with the same one can be compared. Baselines know no thresholds.
    """
    parts = ["baseline" if is_baseline else "query", *(settings.classes or ())]
    if is_baseline:
        return F.lit(settings_hash(*parts))
    parts += [settings.matcher, str(settings.iou_threshold), str(settings.eta)]
    plain = F.lit(settings_hash(*parts))
    if not settings.define:
        return plain
    own = [
        (name, settings_hash(*parts, definition_text(name, spec))) for name, spec in settings.define.items()
    ]
    return F.coalesce(F.try_element_at(F.create_map(*[F.lit(t) for p in own for t in p]), "query"), plain)


def query_hash_meant(settings: ScoreSettings) -> Column:
    """What a row's `query_hash` must be for it to mean what these settings ask for, by its `method`."""
    is_baseline = F.col("method") == BASELINE
    of_baseline = query_digest(settings, is_baseline=True)
    return F.when(is_baseline, of_baseline).otherwise(query_digest(settings))


def since_detection(rows: DataFrame, run: Run, model_id: str) -> DataFrame:
    """Rows of `hardness` of a model that are not older than the detections they speak of."""
    detected = run.store.read(DETECTIONS).where(
        (F.col("model_id") == model_id) & (F.col("view") == ORIGINAL_VIEW)
    )
    detected = detected.select("image_id", F.col("ts").alias("detected_ts"))
    return rows.join(detected, "image_id").where("ts >= detected_ts").drop("detected_ts")


def up_to_date(
    detections: DataFrame, run: Run, model_id: str, method: str, digest: str, query_hash: Column
) -> DataFrame:
    """image_id and query of the rows that need no work: same settings, not older than their detections.

    Args:
        detections: Columns image_id and ts.
        run: The run.
        model_id: The model.
        method: Of the rows.
        digest: Their `settings_hash`.
        query_hash: From `query_digest`.
    """
    rows = run.store.read(HARDNESS, pinned=True).where(F.col("model_id") == model_id)
    rows = rows.where((F.col("method") == method) & (F.col("settings_hash") == digest))
    rows = rows.where(F.col("query_hash") == query_hash)
    rows = rows.select("image_id", "query", F.col("ts").alias("scored_ts"))
    current = rows.join(detections.select("image_id", "ts"), "image_id").where("scored_ts >= ts")
    return current.select("image_id", "query")


class MissingNames(NamedTuple):
    """Queries that need work.

    Attributes:
        everywhere: No image has a row that is up to date.
        somewhere: Some images lack one.
        n_images: Images in all.
    """

    everywhere: tuple[str, ...]
    somewhere: tuple[str, ...]
    n_images: int


def missing_names(detections: DataFrame, scored: DataFrame, names: Sequence[str]) -> MissingNames:
    """Which names need work; as many rows come to the driver as there are names."""
    n_images = detections.count()
    counts = {row["query"]: row["count"] for row in scored.groupBy("query").count().collect()}
    return MissingNames(
        tuple(name for name in names if counts.get(name, 0) == 0),
        tuple(name for name in names if 0 < counts.get(name, 0) < n_images),
        n_images,
    )


def without_hardness(detections: DataFrame, scored: DataFrame, names: Sequence[str]) -> DataFrame:
    """Images that lack at least one of the names."""
    per_image = scored.where(F.col("query").isin(*names)).groupBy("image_id").agg(F.count("*").alias("n"))
    complete = per_image.where(F.col("n") == len(names)).select("image_id")
    return detections.join(complete, "image_id", "left_anti")


def complete_hardness_rows(
    rows: DataFrame, model_id: str, method: str, digest: str, query_hash: Column, eta: float, run: Run
) -> DataFrame:
    """Adds what is the same for all rows of a run, in schema order."""
    return rows.withColumns(
        {
            "model_id": F.lit(model_id),
            "method": F.lit(method),
            "eta": F.lit(float(eta)),
            "settings_hash": F.lit(digest),
            "query_hash": query_hash,
            "run_id": F.lit(run.run_id),
            "ts": utc_timestamp(run.started_s),
        }
    ).select(*HARDNESS.column_names)


def partition_condition(model_id: str, names: Sequence[str], alias: str = "") -> str:
    """SQL that names the partitions of `hardness` that hold a model's rows of some queries."""
    listed = ", ".join(map(sql_literal, names)) or "NULL"
    return f"{alias}model_id = {sql_literal(model_id)} AND {alias}query IN ({listed})"
