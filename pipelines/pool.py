"""What a cycle may pick: images or boxes of a model's detections, less what is labeled, out or unusable."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import PARTITION
from conf.settings import AcquireSettings
from pipelines.box_dataset import box_dataset, boxes_of_picks
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from pipelines.tables import in_schema
from schemas.tables import ACQUISITION, GROUND_TRUTH, IMAGES, QUARANTINE

CLASS = "class"
NO_GROUP = "(none)"
_TAKEN: tuple[Literal["labeled", "sent"], ...] = ("labeled", "sent")
# What the rest of acquisition may count on. A still image has no sequence; a box has its image's.
POOL_COLUMNS = (
    "image_id",
    "detection_id",
    "sequence_id",
    "frame_index",
    "image_hash",
    "feature",
    "n_boxes",
    "uncertainty",
    "group",
)


def image_pool(
    run: Run, others: str, model: Model, settings: AcquireSettings, eta: float, by: str | None
) -> DataFrame:
    """Images that may be picked: POOL_COLUMNS, one row an image, detection_id and uncertainty null.

    Args:
        run: The run.
        others: Condition on `acquisition`: the picks that are out (see `pipelines.picked_elsewhere`).
        model: Whose detections count.
        settings: What is excluded.
        eta: Detections at or above it are boxes a labeler will find (n_boxes).
        by: What `group` holds: see `conf.acquisition_spec.QuotaSpec`; none: null.
    """
    rows = detections_of(run, model).select(
        "image_id",
        F.lit(None).cast("string").alias("detection_id"),
        "image_hash",
        F.col("image_feature").alias("feature"),
        # Lists of single fields: Spark reads no logits and features of boxes.
        F.size(F.filter("detections.score", lambda score: score >= eta)).alias("n_boxes"),
        F.lit(None).cast("double").alias("uncertainty"),
        F.get("detections.label_name", F.lit(0)).alias("class_name"),
    )
    rows = rows.transform(_with_places, run, by).select(*POOL_COLUMNS)
    return rows.transform(_without_images, excluded_images(run, others, model, settings))


def box_pool(run: Run, others: str, model: Model, settings: AcquireSettings, by: str | None) -> DataFrame:
    """Predicted boxes that may be picked: POOL_COLUMNS, one row a box (D_B of the fine-grained boxes paper).

    Boxes of completely labeled images, and boxes that overlap a labeled, a background or another cycle's
    picked box by IoU >= 0.5 are out; the others of a partly labeled image stay eligible.

    Args:
        run: The run.
        others: As for `image_pool`.
        model: Whose boxes they are.
        settings: Threshold, and what is excluded.
        by: What `group` holds.
    """
    boxes = box_dataset(run, model, settings.box_threshold, sent=_boxes_elsewhere(run, others))
    if "labeled" in settings.exclude:
        boxes = boxes.where("status IN ('unlabeled', 'noisy')")
    if "sent" in settings.exclude:
        boxes = boxes.where("NOT sent")
    rows = boxes.select(
        "image_id",
        "detection_id",
        F.lit(None).cast("bigint").alias("image_hash"),
        "feature",
        F.lit(1).alias("n_boxes"),
        (1 - F.col("score")).alias("uncertainty"),
        F.col("label_name").alias("class_name"),
    )
    rows = rows.transform(_with_places, run, by).select(*POOL_COLUMNS)
    return rows.transform(_without_images, excluded_images(run, others, model, settings, unit="box"))


def excluded_images(
    run: Run, others: str, model: Model, settings: AcquireSettings, unit: str = "image"
) -> DataFrame | None:
    """Ids of the images nothing may be picked from; none when the settings exclude nothing."""
    out = []
    truth = run.store.read(GROUND_TRUTH)
    if "labeled" in settings.exclude:
        out.append(truth.where("complete AND split = 'train'").select("image_id"))
    if "held_out" in settings.exclude:
        out.append(truth.where("split = 'eval'").select("image_id"))
    if "sent" in settings.exclude:
        sent = _picked_elsewhere(run, others)
        # An image of which boxes are out may lend other boxes, but not be sent as a whole too.
        out.append((sent.where("unit = 'image'") if unit == "box" else sent).select("image_id"))
    if "quarantined" in settings.exclude:
        faults = run.store.read(QUARANTINE).where("NOT resolved")
        mine = F.col("model_id").isNull() | (F.col("model_id") == model.model_id)
        out.append(faults.where(mine).select("image_id"))
    if not out:
        return None
    ids = out[0]
    for more in out[1:]:
        ids = ids.unionByName(more)
    return ids


def known_pictures(run: Run, others: str, model: Model, settings: AcquireSettings) -> DataFrame:
    """image_id, image_hash and feature of images labeled or sent: what a new pick must not look like."""
    known = _taken_images(run, others, model, settings)
    seen = detections_of(run, model).join(known, "image_id", "left_semi")
    return seen.select("image_id", "image_hash", F.col("image_feature").alias("feature"))


def known_features(run: Run, others: str, model: Model, settings: AcquireSettings, unit: str) -> DataFrame:
    """id and feature (perhaps null) of labeled and sent images or boxes: the centers of k-center.

    Boxes count that people were asked about, those they called background too: L_B of the fine-grained boxes
    paper. Detections without an object in completely labeled images do not: nobody looked at them.
    """
    if unit == "image":
        pictures = known_pictures(run, others, model, settings)
        return pictures.select(F.col("image_id").alias("id"), "feature")
    boxes = box_dataset(run, model, settings.box_threshold, sent=_boxes_elsewhere(run, others))
    conditions = {"labeled": "answered", "sent": "sent"}
    known = " OR ".join(["FALSE", *(conditions[name] for name in _taken(settings))])
    return boxes.where(known).select(F.col("detection_id").alias("id"), "feature")


def earlier_frames(run: Run, others: str, model: Model, settings: AcquireSettings) -> DataFrame:
    """sequence_id and frame_index of images labeled or sent."""
    known = _taken_images(run, others, model, settings)
    return run.store.read(IMAGES).join(known, "image_id", "left_semi").select("sequence_id", "frame_index")


def _taken(settings: AcquireSettings) -> tuple[Literal["labeled", "sent"], ...]:
    """What picks keep away from: nothing that the settings allow to be picked again."""
    return tuple(name for name in _TAKEN if name in settings.exclude)


def _taken_images(run: Run, others: str, model: Model, settings: AcquireSettings) -> DataFrame:
    taken = settings.model_copy(update={"exclude": _taken(settings)})
    ids = excluded_images(run, others, model, taken)
    return run.store.read(IMAGES).select("image_id").limit(0) if ids is None else ids.distinct()


def _picked_elsewhere(run: Run, others: str) -> DataFrame:
    return in_schema(run.store.read(ACQUISITION), ACQUISITION).where(others)


def _boxes_elsewhere(run: Run, others: str) -> DataFrame:
    """image_id and, as `boxes`, what other cycles picked there, whichever model found it."""
    found = boxes_of_picks(run, _picked_elsewhere(run, others).where("unit = 'box'"))
    corners = F.struct("d.x1", "d.y1", "d.x2", "d.y2")
    return found.groupBy("image_id").agg(F.collect_list(corners).alias("boxes"))


def _without_images(rows: DataFrame, ids: DataFrame | None) -> DataFrame:
    return rows if ids is None else rows.join(ids, "image_id", "left_anti")


def _with_places(rows: DataFrame, run: Run, by: str | None) -> DataFrame:
    images = run.store.read(IMAGES).select("image_id", "dataset", "partitions", "sequence_id", "frame_index")
    return rows.join(images, "image_id").withColumn("group", _group(by))


def _group(by: str | None) -> Column:
    if by is None:
        return F.lit(None).cast("string")
    if by == "sequence":
        return F.col("sequence_id")  # null: still images have nothing in common
    if by.startswith(PARTITION):
        value: Column = F.try_element_at("partitions", F.lit(by.removeprefix(PARTITION)))
    else:
        value = F.col({CLASS: "class_name", "dataset": "dataset"}[by])
    return F.coalesce(value, F.lit(NO_GROUP))
