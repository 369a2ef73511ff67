"""The bounding box dataset D_B: every predicted box and its status (fine-grained boxes, section 3)."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from schemas.tables import DETECTIONS, GROUND_TRUTH
from udfs.views import ORIGINAL_VIEW

SAME_OBJECT_IOU = 0.5
# Of a box cut to its image; no manifest rounds such a side to nothing.
SMALLEST_SIDE_PX = 0.02
# What a label says of a predicted box, the strongest first.
LABELED, BACKGROUND, NOISY, UNLABELED = "labeled", "background", "noisy", "unlabeled"


def box_dataset(
    run: Run,
    model: Model,
    threshold: float,
    *,
    sent: DataFrame | None = None,
    only_partly_labeled: bool = False,
) -> DataFrame:
    """One row per predicted box: the detection, its image, and its `status`.

    Detectors give a detection for each class of a proposal. Of those that are the same object (IoU >= 0.5)
    only the best scored is a box here, equal scores by detection_id: its score is P (section 3.3). Those of
    which nothing can be seen, as they have no area inside their image, are none.
    A box is `labeled` or `background` when it overlaps such a box of `ground_truth` by IoU >= 0.5, or when
    its image is completely labeled for training (there a box that meets no object is background); `noisy`
    when its image has labels but not of this box: it stays eligible; else `unlabeled`.
    Labels held out to measure with count for nothing.

    Args:
        run: The run.
        model: Whose detections they are, on the images as they are.
        threshold: t_d of the paper: boxes below are left out.
        sent: Columns image_id and boxes (ARRAY<STRUCT<x1, y1, x2, y2>>): what is out for labeling; or none.
        only_partly_labeled: Leaves out boxes of images without labels and of completely labeled ones.

    Returns:
        Columns image_id, status, answered (whether a labeled or background box of `ground_truth` is the same
        object), sent (whether a sent box is), detection_id, label, label_name, score, x1, y1, x2, y2, logits,
        feature.

    Source: fine-grained boxes, Eq. 1 and "Updating the Training Dataset".
    """
    truth = run.store.read(GROUND_TRUTH).where("split = 'train'")
    truth = truth.select("image_id", F.col("boxes").alias("truth"), "complete")
    if only_partly_labeled:
        truth = truth.where("NOT complete")
    # Images meet their labels before they become boxes: there are fewer of them.
    seen = detections_of(run, model).select("image_id", "width", "height", "detections")
    seen = seen.join(truth, "image_id", "inner" if only_partly_labeled else "left")
    found = F.filter("detections", lambda d: (d["score"] >= threshold) & is_inside(d))
    boxes = seen.withColumn("d", F.explode(_one_box_per_object(found))).drop("detections")
    is_sent = F.lit(False)
    if sent is not None:
        boxes = boxes.join(sent.withColumnRenamed("boxes", "sent_boxes"), "image_id", "left")
        is_sent = F.coalesce(meets_any(F.col("d"), F.col("sent_boxes")), F.lit(False))
    answered = F.coalesce(_overlaps(LABELED) | _overlaps(BACKGROUND), F.lit(False)).alias("answered")
    return boxes.select("image_id", _status().alias("status"), answered, is_sent.alias("sent"), "d.*")


def _one_box_per_object(detections: Column) -> Column:
    """The detections, best first, that are not the same object as a better one that stays."""
    keyed = F.transform(detections, lambda d: F.struct(-d["score"], d["detection_id"], d.alias("d")))
    return F.aggregate(
        F.transform(F.array_sort(keyed), lambda row: row["d"]),
        F.slice(detections, 1, 0),
        lambda stay, d: F.when(meets_any(d, stay), stay).otherwise(F.array_append(stay, d)),
    )


def _status() -> Column:
    meets_object = _overlaps(LABELED)
    return (
        F.when(F.col("truth").isNull(), UNLABELED)
        .when(meets_object, LABELED)
        .when(_overlaps(BACKGROUND) | F.col("complete"), BACKGROUND)
        .otherwise(NOISY)
    )


def _overlaps(status: str) -> Column:
    return F.exists("truth", lambda box: (box["status"] == status) & same_object(box, F.col("d")))


def boxes_of_picks(run: Run, picks: DataFrame) -> DataFrame:
    """The detections that were picked, as `d`, whichever model found them; image_id, width, height (px).

    Args:
        run: The run.
        picks: Rows of `acquisition` of unit box.
    """
    wanted = picks.select("image_id", "detection_id").distinct()
    seen = run.store.read(DETECTIONS).where(F.col("view") == ORIGINAL_VIEW)
    seen = seen.join(wanted.select("image_id").distinct(), "image_id", "left_semi")
    boxes = seen.select("image_id", "width", "height", F.explode("detections").alias("d"))
    return (
        boxes.withColumn("detection_id", F.col("d.detection_id"))
        .join(wanted, ["image_id", "detection_id"], "left_semi")
        .select("image_id", "width", "height", "d")
    )


def cut_to_image(box: Column) -> Column:
    """The corners of the box as labelers see it, cut to the image of the columns width and height."""
    return F.struct(
        F.greatest(box["x1"], F.lit(0.0)).alias("x1"),
        F.greatest(box["y1"], F.lit(0.0)).alias("y1"),
        F.least(box["x2"], F.col("width").cast("double")).alias("x2"),
        F.least(box["y2"], F.col("height").cast("double")).alias("y2"),
    )


def is_inside(box: Column) -> Column:
    """Whether a part of the box that can be seen lies inside its image, of the columns width and height.

    All of it where the size is unknown. Detectors may find boxes without area; NaN is larger than any number
    and left for the writers to refuse.
    """
    seen = cut_to_image(box)
    width, height = seen["x2"] - seen["x1"], seen["y2"] - seen["y1"]
    return F.coalesce((width >= SMALLEST_SIDE_PX) & (height >= SMALLEST_SIDE_PX), F.lit(True))


def same_object(a: Column, b: Column) -> Column:
    """Whether two boxes (structs with x1, y1, x2, y2) overlap by IoU >= 0.5."""
    width = F.least(a["x2"], b["x2"]) - F.greatest(a["x1"], b["x1"])
    height = F.least(a["y2"], b["y2"]) - F.greatest(a["y1"], b["y1"])
    shared = width * height
    united = _area(a) + _area(b) - shared
    # IoU >= t without a division, which boxes without area would not survive; most pairs end at the width.
    return (width > 0) & (height > 0) & (shared >= SAME_OBJECT_IOU * united)


def meets_any(box: Column, others: Column) -> Column:
    """Whether one of `others`, an array of such structs, is the same object."""
    return F.exists(others, lambda other: same_object(box, other))


def _area(box: Column) -> Column:
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])
