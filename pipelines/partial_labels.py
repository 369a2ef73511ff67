"""Labels of images of which only some boxes were sent: what was asked is known, the rest stays open."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.box_dataset import BACKGROUND, boxes_of_picks, same_object
from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, GROUND_TRUTH, TRUTH_BOX_DDL

QUERY_SOURCE = "query"
_BOXES = f"array<{TRUTH_BOX_DDL}>"


def with_queried_boxes(labels: DataFrame, run: Run, cycle_id: str) -> DataFrame:
    """Labels of the cycle's box picks as verdicts on those boxes; labels of whole images as they are.

    Of an image that came back as a whole, a picked box that meets no returned box (IoU >= 0.5) is background;
    of single verifications, which are not complete, only what was answered counts. Boxes that were labeled
    earlier stay, but for those a new one meets: corrections supersede. The image is complete only if it was
    before.

    Args:
        labels: Columns image_id, boxes and complete, one row an image.
        run: The run.
        cycle_id: Whose picks were labeled.

    Returns:
        The same columns.

    Source: fine-grained boxes, section 3 ("Updating the Training Dataset").
    """
    known = run.store.read(GROUND_TRUTH, pinned=True).select(
        "image_id", F.col("boxes").alias("known"), F.col("complete").alias("was_complete")
    )
    rows = labels.join(_queried_boxes(run, cycle_id), "image_id", "left").join(known, "image_id", "left")
    none = F.array().cast(_BOXES)
    unmet = F.filter("queried", lambda box: ~_meets_any(box, F.col("boxes")))
    refused = F.when(F.col("complete"), unmet)
    said = F.concat("boxes", F.coalesce(refused, none))
    earlier = F.filter(F.coalesce("known", none), lambda box: ~_meets_any(box, said))
    is_whole = F.col("queried").isNull() & F.col("complete")
    was_complete = F.coalesce("was_complete", F.lit(False))
    together = F.array_sort(F.concat(earlier, said))
    return rows.withColumns(
        {
            "boxes": F.when(is_whole, F.col("boxes")).otherwise(together),
            "complete": F.when(is_whole, F.col("complete")).otherwise(was_complete),
        }
    ).drop("queried", "known", "was_complete")


def _queried_boxes(run: Run, cycle_id: str) -> DataFrame:
    """image_id and, as `queried`, the picked boxes of images that were not picked whole, as background."""
    picks = run.store.read(ACQUISITION).where(f"cycle_id = {sql_literal(cycle_id)}")
    whole = picks.where("unit = 'image'").select("image_id")
    boxes = picks.where("unit = 'box'").join(whole, "image_id", "left_anti")
    picked = boxes_of_picks(run, boxes).select("image_id", "d.*")
    verdict = F.struct(
        *("label", "label_name", "x1", "y1", "x2", "y2"),
        F.lit(False).alias("iscrowd"),
        F.lit(BACKGROUND).alias("status"),
        F.lit(QUERY_SOURCE).alias("source"),
        F.col("detection_id"),
    )
    return picked.groupBy("image_id").agg(F.collect_set(verdict).cast(_BOXES).alias("queried"))


def _meets_any(box: Column, others: Column) -> Column:
    return F.exists(others, lambda other: same_object(box, other))
