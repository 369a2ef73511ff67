"""Picks as tasks for labelers: an image to label, picked boxes of it to correct, or a question about each."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.export_settings import ExportSettings
from pipelines.box_dataset import is_inside
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from schemas.tables import IMAGES
from udfs.formats.task import is_question

BOX_FIELDS = ("detection_id", "label_name", "score", "x1", "y1", "x2", "y2")
BOXES = "boxes"
CYCLE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # ids of tasks begin with it


def labeling_tasks(
    acquired: DataFrame, run: Run, model: Model, settings: ExportSettings, prices: PriceList
) -> DataFrame:
    """One row per strategy and task.

    An image that was picked is one task, the same for every strategy, with the model's boxes at or above
    `pre_annotate_above` to start from. Where boxes were picked, those of an image are one task of the
    strategy, which shows them and no others. A verification is a task for each of all these boxes. Boxes of
    which nothing lies inside their image are left out, as nobody could answer for them, and so is a task that
    would have nothing else to show.

    Args:
        acquired: Rows of `acquisition` of one cycle.
        run: The run.
        model: Whose detections are shown.
        settings: Kind of tasks, threshold.
        prices: What a verification costs; whole tasks cost what their picks did.

    Returns:
        As `tasks_to_send`.
    """
    return acquired.transform(boxes_to_show, run, model, settings).transform(tasks_to_send, settings, prices)


def boxes_to_show(acquired: DataFrame, run: Run, model: Model, settings: ExportSettings) -> DataFrame:
    """One row per strategy, kind (image or boxes) and image, with its boxes; what `tasks_to_send` takes.

    Column n_left_out counts boxes that should be shown but have nothing inside their image.
    """
    return acquired.transform(_whole_images).transform(_with_boxes, run, model, settings)


def tasks_to_send(shown: DataFrame, settings: ExportSettings, prices: PriceList) -> DataFrame:
    """The tasks of `boxes_to_show`.

    Returns:
        Columns strategy, kind (a `TaskKind`), task_id (the same in every export), image_id, uri, path, width,
        height (px), rank (of the best pick, from 1), score, cost_s, cost_money, boxes (structs of
        BOX_FIELDS).
    """
    tasks = shown.where(has_something_to_show())
    if is_question(settings.tasks):
        tasks = tasks.transform(_as_questions, settings.tasks, prices)
    return tasks.select(
        *("strategy", "kind", "task_id", "image_id"),
        *("uri", "path", "width", "height"),
        *("rank", "score", "cost_s", "cost_money", "boxes"),
    )


def tasks_only_in_one(wanted: DataFrame, sent: DataFrame) -> DataFrame:
    """Strategy and task_id of tasks that are in one of two frames and not in the other."""
    key = ["strategy", "task_id"]
    left, right = (
        rows.select(*key, F.lit(True).alias(name)) for rows, name in ((wanted, "wanted"), (sent, "sent"))
    )
    return left.join(right, key, "full").where("wanted IS NULL OR sent IS NULL").select(*key)


def has_something_to_show() -> Column:
    """Whether a row of `boxes_to_show` makes a task."""
    return (F.col("kind") != BOXES) | (F.size("boxes") > 0)


def _whole_images(acquired: DataFrame) -> DataFrame:
    pick = F.struct("rank", "score", "cost_s", "cost_money")
    picked = F.collect_list(F.when(F.col("detection_id").isNotNull(), F.struct("detection_id", pick)))
    kind = F.when(F.col("unit") == "box", BOXES).otherwise("image").alias("kind")
    return acquired.groupBy("cycle_id", "strategy", kind, "image_id").agg(
        F.min("rank").alias("rank"),
        F.min_by("score", "rank").alias("score"),
        F.sum("cost_s").alias("cost_s"),
        F.sum("cost_money").alias("cost_money"),
        F.map_from_entries(picked).alias("picked"),
    )


def _with_boxes(tasks: DataFrame, run: Run, model: Model, settings: ExportSettings) -> DataFrame:
    """Where each image is, its size (of imports only detections know it) and the boxes to show."""
    wanted = tasks.select("image_id").distinct()  # the lake has more; its rows need not travel
    images = run.store.read(IMAGES).join(wanted, "image_id", "left_semi")
    images = images.select("image_id", "uri", "path", "width", "height")
    seen = (
        detections_of(run, model)
        .join(wanted, "image_id", "left_semi")
        .select(
            "image_id", "detections", F.col("width").alias("seen_width"), F.col("height").alias("seen_height")
        )
    )
    rows = tasks.join(images, "image_id", "left").join(seen, "image_id", "left")

    def is_shown(box: Column) -> Column:
        above = F.lit(settings.pre_annotate_above is not None) & (
            box.score >= F.lit(settings.pre_annotate_above)
        )
        is_picked = F.map_contains_key("picked", box.detection_id)
        return F.when(F.col("kind") == BOXES, is_picked).otherwise(above)

    def fields(box: Column) -> Column:
        return F.struct(*(box[name].alias(name) for name in BOX_FIELDS))

    rows = rows.withColumns(
        {
            "task_id": F.when(F.col("kind") == BOXES, boxes_task_id()).otherwise(image_task_id()),
            "width": F.coalesce("width", "seen_width"),
            "height": F.coalesce("height", "seen_height"),
            "wanted": F.transform(F.filter("detections", is_shown), fields),
        }
    )
    rows = rows.withColumn("boxes", F.filter("wanted", is_inside))
    n_left_out = F.coalesce(F.size("wanted") - F.size("boxes"), F.lit(0))
    return rows.withColumn("n_left_out", n_left_out).drop("wanted", "detections")


def image_task_id() -> Column:
    """Id of the task to label an image, from cycle_id and image_id; ids of questions begin with it too."""
    return F.concat_ws("/", "cycle_id", "image_id")


def boxes_task_id() -> Column:
    """Id of the task to correct the boxes that a strategy picked, from cycle_id, image_id and strategy."""
    return F.concat_ws("/", "cycle_id", "image_id", F.lit(BOXES), "strategy")


def task_cycle(task_id: Column) -> Column:
    """The cycle that a task of the image in column image_id belongs to; null for an id that is not ours."""
    after = F.substr(task_id, F.locate("/", task_id) + 1)
    is_ours = (after == F.col("image_id")) | F.startswith(after, F.concat("image_id", F.lit("/")))
    return F.when(is_ours, F.substring_index(task_id, "/", 1))


def task_kind(task_id: Column) -> Column:
    """What a task of columns cycle_id and image_id asked for, a `TaskKind`; null for no such task."""
    to_image = F.concat(image_task_id(), F.lit("/"))
    to_boxes = F.concat(to_image, F.lit(f"{BOXES}/"))
    return (
        F.when(task_id == image_task_id(), "image")
        .when(F.startswith(task_id, to_boxes), BOXES)
        .when(F.startswith(task_id, to_image), F.substring_index(task_id, "/", -1))
    )


def question_task_id(detection_id: Column, kind: Column) -> Column:
    """Id of a question about a box, from cycle_id and image_id; whichever strategy asks, it is the same."""
    return F.concat_ws("/", "cycle_id", "image_id", detection_id, kind)


def _as_questions(tasks: DataFrame, kind: str, prices: PriceList) -> DataFrame:
    """A task for each box that is shown, with its own rank and score where it was picked itself."""
    seconds = prices.verify_box_s if kind == "verify_box" else prices.verify_class_s
    boxes = tasks.withColumn("box", F.explode("boxes"))
    pick = F.element_at("picked", F.col("box.detection_id"))
    return boxes.withColumns(
        {
            "kind": F.lit(kind),
            "task_id": question_task_id(F.col("box.detection_id"), F.lit(kind)),
            "rank": F.coalesce(pick["rank"], "rank"),
            "score": F.coalesce(pick["score"], "score"),
            "cost_s": F.lit(seconds),
            "cost_money": F.lit(prices.money(seconds)).cast("double"),
            "boxes": F.array("box"),
        }
    )
