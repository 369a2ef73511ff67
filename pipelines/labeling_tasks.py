"""Picks as tasks for labelers: an image once with the boxes to start from, or a question about each box."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.export_settings import ExportSettings
from pipelines.run import Run
from schemas.tables import DETECTIONS, IMAGES
from udfs.views import ORIGINAL_VIEW

BOX_FIELDS = ("detection_id", "label_name", "score", "x1", "y1", "x2", "y2")
SECONDS_PER_HOUR = 3_600.0


def labeling_tasks(
    acquired: DataFrame, run: Run, model_id: str, settings: ExportSettings, prices: PriceList
) -> DataFrame:
    """One row per strategy and task.

    An image is one task however many of its boxes were picked. Shown are the model's boxes at or above
    `pre_annotate_above`; where boxes were picked, the picked ones and no others. A verification is a task for
    each of these boxes.

    Args:
        acquired: Rows of `acquisition` of one cycle.
        run: The run.
        model_id: Whose detections are shown.
        settings: Kind of tasks, threshold.
        prices: What a verification costs; whole tasks cost what their picks did.

    Returns:
        Columns strategy, task_id (the same in every export), image_id, uri, path, width, height (px), rank
        (of the best pick, from 1), score, cost_s, cost_money, boxes (structs of BOX_FIELDS).
    """
    tasks = acquired.transform(_whole_images).transform(_with_boxes, run, model_id, settings)
    if settings.tasks != "image":
        tasks = tasks.transform(_as_questions, settings.tasks, prices)
    return tasks.select(
        "strategy",
        "task_id",
        "image_id",
        *("uri", "path", "width", "height"),
        "rank",
        *("score", "cost_s", "cost_money", "boxes"),
    )


def _whole_images(acquired: DataFrame) -> DataFrame:
    pick = F.struct("rank", "score", "cost_s", "cost_money")
    picked = F.collect_list(F.when(F.col("detection_id").isNotNull(), F.struct("detection_id", pick)))
    return acquired.groupBy("cycle_id", "strategy", "image_id").agg(
        F.min("rank").alias("rank"),
        F.min_by("score", "rank").alias("score"),
        F.sum("cost_s").alias("cost_s"),
        F.sum("cost_money").alias("cost_money"),
        F.map_from_entries(picked).alias("picked"),
    )


def _with_boxes(tasks: DataFrame, run: Run, model_id: str, settings: ExportSettings) -> DataFrame:
    """Where each image is, its size (of imports only detections know it) and the boxes to show."""
    images = run.store.read(IMAGES).select("image_id", "uri", "path", "width", "height")
    detections = run.store.read(DETECTIONS).where(
        (F.col("model_id") == model_id) & (F.col("view") == ORIGINAL_VIEW)
    )
    detections = detections.select(
        "image_id", "detections", F.col("width").alias("seen_width"), F.col("height").alias("seen_height")
    )
    rows = tasks.join(images, "image_id", "left").join(detections, "image_id", "left")

    def is_shown(box: Column) -> Column:
        above = F.lit(settings.pre_annotate_above is not None) & (
            box.score >= F.lit(settings.pre_annotate_above)
        )
        return F.when(F.size("picked") == 0, above).otherwise(F.map_contains_key("picked", box.detection_id))

    def fields(box: Column) -> Column:
        return F.struct(*(box[name].alias(name) for name in BOX_FIELDS))

    return rows.withColumns(
        {
            "task_id": F.concat_ws("/", "cycle_id", "image_id"),
            "width": F.coalesce("width", "seen_width"),
            "height": F.coalesce("height", "seen_height"),
            "boxes": F.transform(F.filter("detections", is_shown), fields),
        }
    )


def _as_questions(tasks: DataFrame, kind: str, prices: PriceList) -> DataFrame:
    """A task for each box that is shown, with its own rank and score where it was picked itself."""
    seconds = prices.verify_box_s if kind == "verify_box" else prices.verify_class_s
    money = None if prices.money_per_hour is None else seconds * prices.money_per_hour / SECONDS_PER_HOUR
    boxes = tasks.withColumn("box", F.explode("boxes"))
    pick = F.element_at("picked", F.col("box.detection_id"))
    return boxes.withColumns(
        {
            "task_id": F.concat_ws("/", "task_id", "box.detection_id", F.lit(kind)),
            "rank": F.coalesce(pick["rank"], "rank"),
            "score": F.coalesce(pick["score"], "score"),
            "cost_s": F.lit(seconds),
            "cost_money": F.lit(money).cast("double"),
            "boxes": F.array("box"),
        }
    )
