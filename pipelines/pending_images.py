"""Which images a detector has yet to see, and in which views."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.quarantine import quarantined
from pipelines.run import Run
from schemas.tables import DETECTIONS, IMAGES, MODELS

WORK_COLUMNS = ("image_id", "uri", "image_ts", "n_pixels", "sequence_id", "frame_index", "views")
# Clocks of machines differ, so a time stamp is compared for equality where there is one.
SEEN_AS_IT_IS = "coalesce(image_ts = ingest_ts, ts >= ingest_ts)"
# Images of one size share a batch, and frames of a video, which have one size, stay together in order.
WORK_ORDER = ("height", "width", "sequence_id", "frame_index", "image_id")


def pending_images(
    run: Run, model_id: str, views: Sequence[str], *, retry_quarantined: bool = False
) -> DataFrame:
    """Images this model has not seen in all views since they last changed, with the columns of the work.

    A model tries once more what was in quarantine before it came, and every run what could not be reached.

    Args:
        run: The run.
        model_id: The detector.
        views: Test-time views wanted.
        retry_quarantined: Try all images that are in quarantine once more.

    Returns:
        WORK_COLUMNS and WORK_ORDER; `views` are those missing.
    """
    images = run.store.read(IMAGES, pinned=True)
    done = up_to_date(run.store.read(DETECTIONS, pinned=True).where(F.col("model_id") == model_id), images)
    wanted = images.withColumn("views", F.array(*map(F.lit, views)))
    pending = without_views_seen(wanted, done)
    if not retry_quarantined:
        pending = pending.join(_at_fault(run, images, model_id), "image_id", "left_anti")
    size = F.col("width").cast("bigint") * F.col("height")
    pending = pending.withColumns({"n_pixels": size, "image_ts": F.col("ingest_ts")})
    return pending.select(*dict.fromkeys((*WORK_COLUMNS, *WORK_ORDER)))


def without_views_seen(wanted: DataFrame, done: DataFrame) -> DataFrame:
    """The images whose `views` are not all among the rows done, with the views that are missing.

    Args:
        wanted: Columns image_id and views.
        done: Columns image_id and view.
    """
    seen = done.groupBy("image_id").agg(F.collect_set("view").alias("seen"))
    missing = F.array_except("views", F.coalesce("seen", F.array().cast("array<string>")))
    left = wanted.join(seen, "image_id", "left").withColumn("views", missing)
    return left.where("size(views) > 0").select(*wanted.columns)


def up_to_date(detections: DataFrame, images: DataFrame) -> DataFrame:
    """The detections that were made from their image's present file."""
    return _with_image_time(detections, images).where(SEEN_AS_IT_IS).select(*detections.columns)


def out_of_date(run: Run, model_id: str) -> DataFrame:
    """image_id and model_id of detections whose image has changed since."""
    rows = run.store.read(DETECTIONS).where(F.col("model_id") == model_id)
    stale = _with_image_time(rows, run.store.read(IMAGES)).where(f"NOT {SEEN_AS_IT_IS}")
    return stale.select("image_id", "model_id")


def _with_image_time(rows: DataFrame, images: DataFrame) -> DataFrame:
    return rows.join(images.select("image_id", "ingest_ts"), "image_id")


def _at_fault(run: Run, images: DataFrame, model_id: str) -> DataFrame:
    """Images in quarantine that this model need not try again."""
    models = run.store.read(MODELS, pinned=True)
    registered = models.where(F.col("model_id") == model_id).select("created_ts")
    faults = quarantined(run, model_id).crossJoin(F.broadcast(registered)).where("last_ts >= created_ts")
    return _with_image_time(faults, images).where("last_ts >= ingest_ts").select("image_id")
