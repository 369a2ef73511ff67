"""How unlike a cycle's detections are to those of the cycle before: by class, and in number."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.cycle_stages import STATES
from pipelines.run import Run
from schemas.tables import CYCLES, DETECTIONS, MODELS
from udfs.views import ORIGINAL_VIEW

_UNDETECTED = STATES[: STATES.index("detected")]


def drift_rows(run: Run, cycle_id: str, model_id: str, settings: Settings) -> DataFrame | None:
    """The cycle's confirmed detections against those of the cycle before, or none where there is no other.

    Without a parent it is the last cycle of a detector with the same classes: one that looks for other things
    says nothing. Another detector is compared over all its images. The same detector is compared over time:
    what it found since the cycle began against what it had found before.

    Args:
        run: The run.
        cycle_id: The cycle.
        model_id: Its detector.
        settings: Which detections are confirmed, and what is allowed.

    Returns:
        One row: cycle_before, model_before; n_images, n_images_before, per_image, per_image_before;
        class_drift (total variation distance of the class shares, 0..1), count_ratio (at least 1), and the
        limits least_images, max_class_drift and max_count_ratio.
    """
    cycles = run.store.read(CYCLES)
    this = cycles.where(F.col("cycle_id") == cycle_id).first()
    before = _cycle_before(cycles, run.store.read(MODELS), cycle_id, model_id, this)
    if before is None or (before.model_id == model_id and this is None):
        return None
    is_now = F.col("model_id") == model_id
    if before.model_id == model_id and this is not None:
        is_now &= F.col("ts") >= F.lit(this.started)
    rows = run.store.read(DETECTIONS).where(F.col("model_id").isin(model_id, before.model_id))
    rows = rows.where(F.col("view") == ORIGINAL_VIEW)
    limits = settings.quality
    return (
        rows.transform(_class_counts, is_now, settings.score.eta)
        .transform(_distances)
        .withColumns(
            {
                "cycle_before": F.lit(before.cycle_id),
                "model_before": F.lit(before.model_id),
                "least_images": F.lit(limits.drift_images),
                "max_class_drift": F.lit(limits.max_class_drift),
                "max_count_ratio": F.lit(limits.max_count_ratio),
            }
        )
    )


def _cycle_before(
    cycles: DataFrame, models: DataFrame, cycle_id: str, model_id: str, this: Row | None
) -> Row | None:
    others = cycles.where(F.col("cycle_id") != cycle_id).where("model_id IS NOT NULL")
    others = others.where(~F.col("state").isin(*_UNDETECTED))
    if this is not None and this.parent is not None:
        others = others.where(F.col("cycle_id") == this.parent)
        return others.first()
    if this is not None:
        others = others.where(F.col("started") < F.lit(this.started))
    classes = models.select("model_id", F.array_sort(F.map_values("classes")).alias("names"))
    mine = F.broadcast(classes.where(F.col("model_id") == model_id).select("names"))
    others = others.join(classes.join(mine, "names", "left_semi"), "model_id", "left_semi")
    return others.orderBy(F.desc("started"), "cycle_id").first()


def _class_counts(rows: DataFrame, is_now: Column, eta: float) -> DataFrame:
    """A row per class (null: images without any): boxes and images, now and before; one pass."""
    confirmed = F.filter("detections", lambda d: d.score >= eta)
    names = F.transform(confirmed, lambda d: d.label_name)
    found = rows.select(is_now.alias("is_now"), F.posexplode_outer(names).alias("place", "name"))
    # An image is counted at its first box, or where it has none.
    is_image = F.coalesce(F.col("place") == 0, F.lit(True))
    return found.groupBy("name").agg(
        F.count_if(F.col("is_now") & F.col("name").isNotNull()).alias("boxes"),
        F.count_if(~F.col("is_now") & F.col("name").isNotNull()).alias("boxes_before"),
        F.count_if(F.col("is_now") & is_image).alias("images"),
        F.count_if(~F.col("is_now") & is_image).alias("images_before"),
    )


def _distances(classes: DataFrame) -> DataFrame:
    # There are as many rows as classes.
    everywhere = Window.partitionBy()
    gap = F.abs(
        F.try_divide("boxes", F.sum("boxes").over(everywhere))
        - F.try_divide("boxes_before", F.sum("boxes_before").over(everywhere))
    )
    totals = classes.withColumn("gap", gap).agg(
        (F.sum("gap") / 2).alias("distance"),
        F.coalesce(F.sum("images"), F.lit(0)).alias("n_images"),
        F.coalesce(F.sum("images_before"), F.lit(0)).alias("n_images_before"),
        F.coalesce(F.sum("boxes"), F.lit(0)).alias("n"),
        F.coalesce(F.sum("boxes_before"), F.lit(0)).alias("n_before"),
    )
    rates = totals.withColumns(
        {
            "per_image": F.try_divide("n", "n_images"),
            "per_image_before": F.try_divide("n_before", "n_images_before"),
        }
    )
    infinite = F.lit(float("inf"))
    ratio = F.greatest(
        F.coalesce(F.try_divide("per_image", "per_image_before"), infinite),
        F.coalesce(F.try_divide("per_image_before", "per_image"), infinite),
    )
    neither = (F.col("n") == 0) & (F.col("n_before") == 0)
    return rates.withColumns(
        {
            # One that finds nothing shares no class with one that does.
            "class_drift": F.when(neither, 0.0).otherwise(F.coalesce("distance", F.lit(1.0))),
            "count_ratio": F.when(neither, 1.0).otherwise(ratio),
        }
    )
