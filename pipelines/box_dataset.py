"""The bounding box dataset D_B: every predicted box and its status (fine-grained boxes, section 3)."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from schemas.tables import GROUND_TRUTH

SAME_OBJECT_IOU = 0.5
# What a label says of a predicted box, the strongest first.
LABELED, BACKGROUND, NOISY, UNLABELED = "labeled", "background", "noisy", "unlabeled"


def box_dataset(run: Run, model: Model, threshold: float) -> DataFrame:
    """One row per predicted box: the detection, its image, and its `status`.

    A box is `labeled` or `background` when it overlaps such a box of `ground_truth` by IoU >= 0.5, or when
    its image is completely labeled for training (there a box that meets no object is background); `noisy`
    when its image has labels but not of this box: it trains the next model as it is and stays eligible; else
    `unlabeled`. Labels held out to measure with count for nothing.

    Args:
        run: The run.
        model: Whose detections they are, on the images as they are.
        threshold: t_d of the paper: boxes below are left out.

    Returns:
        Columns image_id, status, detection_id, label, label_name, score, x1, y1, x2, y2, logits, feature.

    Source: fine-grained boxes, Eq. 1 and "Updating the Training Dataset".
    """
    truth = run.store.read(GROUND_TRUTH).where("split = 'train'")
    truth = truth.select("image_id", F.col("boxes").alias("truth"), "complete")
    boxes = detections_of(run, model).select("image_id", F.explode("detections").alias("d"))
    boxes = boxes.where(F.col("d.score") >= threshold).join(truth, "image_id", "left")
    return boxes.select("image_id", _status().alias("status"), "d.*")


def _status() -> Column:
    meets_object = _overlaps(LABELED)
    return (
        F.when(F.col("truth").isNull(), UNLABELED)
        .when(meets_object, LABELED)
        .when(_overlaps(BACKGROUND) | F.col("complete"), BACKGROUND)
        .otherwise(NOISY)
    )


def _overlaps(status: str) -> Column:
    d = F.col("d")

    def same_object(box: Column) -> Column:
        width = F.least(box["x2"], d["x2"]) - F.greatest(box["x1"], d["x1"])
        height = F.least(box["y2"], d["y2"]) - F.greatest(box["y1"], d["y1"])
        shared = F.greatest(width, F.lit(0.0)) * F.greatest(height, F.lit(0.0))
        united = _area(box) + _area(d) - shared
        # IoU >= t without a division, which boxes without area would not survive.
        return (box["status"] == status) & (shared > 0) & (shared >= SAME_OBJECT_IOU * united)

    return F.exists("truth", same_object)


def _area(box: Column) -> Column:
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])
