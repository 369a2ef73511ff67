"""From the pixel scores that detections carry to rows of `hardness`, beside the other query-free ones."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import functions as F

from conf.settings import ScoreSettings, settings_hash
from pipelines.hardness_rows import (
    BASELINE,
    complete_hardness_rows,
    partition_condition,
    query_digest,
    up_to_date,
)
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from schemas.tables import HARDNESS

PIXEL_SCORES = "pixel_scores"


def score_pixels(run: Run, model: Model, settings: ScoreSettings) -> dict[str, int]:
    """Adds a row per image and pixel score, method `baseline`; what is there and up to date stays.

    The detector computed the scores; its settings decide which, so there is nothing to ask for here.

    Args:
        run: The run.
        model: Whose detections carry the scores, or not.
        settings: Classes and thresholds that rows of a lake share.

    Returns:
        Counts: images scored, rows written.
    """
    detections = detections_of(run, model)
    detections = detections.where(F.col(PIXEL_SCORES).isNotNull())
    keys = detections.select(F.explode(F.map_keys(PIXEL_SCORES)).alias("name")).distinct()
    names = sorted(row.name for row in keys.collect())
    digest, query_hash = settings_hash(BASELINE, PIXEL_SCORES), query_digest(settings, is_baseline=True)
    known = detections.transform(up_to_date, run, model.model_id, BASELINE, digest, query_hash)
    scores = detections.select("image_id", F.explode(PIXEL_SCORES).alias("query", "hardness"))
    rows = scores.join(known, ["image_id", "query"], "left_anti").select(
        "*",
        F.lit(None).cast("double").alias("std_error"),
        F.lit(BASELINE).alias("estimator"),
        F.lit(None).cast("int").alias("n_samples"),
    )
    rows = rows.transform(
        complete_hardness_rows, model.model_id, BASELINE, digest, query_hash, settings.eta, run
    )
    rows = rows.persist(StorageLevel.DISK_ONLY)
    counts = rows.agg(F.count_distinct("image_id").alias("images"), F.count("*").alias("rows")).first()
    assert counts is not None
    if counts.rows:
        run.tell(f"{counts.images:,} images scored: {', '.join(names)}")
        run.store.merge(HARDNESS, rows, only=partition_condition(model.model_id, names, alias="t."))
    rows.unpersist()
    return {"images": counts.images, "rows": counts.rows}
