"""Labels of images of which only some boxes were sent: what was asked is known, the rest stays open."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.box_dataset import BACKGROUND, boxes_of_picks, same_object
from pipelines.labeling_tasks import BOXES, image_task_id
from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, GROUND_TRUTH, MANIFESTS, TRUTH_BOX_DDL

QUERY_SOURCE = "query"
_BOXES = f"array<{TRUTH_BOX_DDL}>"
_LONG_AGO, _JUST_NOW = datetime(1, 1, 2), datetime(9999, 12, 30)


def with_verdicts(answers: DataFrame, run: Run, cycle_id: str) -> DataFrame:
    """Answers to box tasks with the boxes that were shown and are gone, as background; others as they are.

    A picked box that meets no returned box (IoU >= 0.5) is background, unless something of the answer was
    rejected. Which task was answered is told by its id. Of an image without one (the tool lost it) of which
    the cycle sent boxes, the answer is taken for one to them; with boxes of several strategies it cannot be
    told which were shown, and none is background.

    Args:
        answers: Columns image_id, task_id, boxes and complete, one row an answer.
        run: The run.
        cycle_id: Whose picks were labeled.

    Returns:
        The same and `is_whole`: whether the image was to be labeled, not boxes of it.

    Source: fine-grained boxes, section 3 ("Updating the Training Dataset").
    """
    rows = answers.join(_queried_boxes(run, cycle_id), "image_id", "left")
    rows = rows.withColumn("cycle_id", F.lit(cycle_id))
    asked = F.col("task_id")
    to_boxes = F.concat(image_task_id(), F.lit(f"/{BOXES}/"))
    is_of_boxes = F.coalesce(F.startswith(asked, to_boxes), F.lit(False))
    is_of_image = F.coalesce(asked == image_task_id(), F.lit(False))
    is_question = F.startswith(asked, F.concat(image_task_id(), F.lit("/"))) & ~is_of_boxes
    is_question = F.coalesce(is_question, F.lit(False))
    is_unnamed = ~is_of_image & ~is_of_boxes & ~is_question
    is_only_strategy = F.size(F.array_distinct("queried.strategy")) == 1
    shown_by = F.substr(asked, F.length(to_boxes) + 1)
    is_gone = F.col("complete") & (is_of_boxes | is_unnamed)

    def is_refused(pick: Column) -> Column:
        is_shown = F.when(is_of_boxes, pick["strategy"] == shown_by).otherwise(is_only_strategy)
        return is_gone & is_shown & ~_meets_any(pick["box"], F.col("boxes"))

    refused = F.transform(F.filter("queried", is_refused), lambda pick: pick["box"])
    is_whole = is_of_image | (is_unnamed & F.col("queried").isNull())
    none = F.array().cast(_BOXES)
    said = F.concat("boxes", F.when(is_whole, none).otherwise(F.coalesce(refused, none)))
    return rows.withColumns({"boxes": said, "is_whole": is_whole}).drop("queried", "cycle_id")


def with_known_boxes(labels: DataFrame, run: Run) -> DataFrame:
    """Labels of images that are not completely labeled, with the boxes that were labeled earlier.

    Of answers that meet (IoU >= 0.5) the newest counts: corrections supersede. The image is complete only if
    it was before; labels held out to measure with are none of those it was trained on.

    Args:
        labels: Columns image_id, boxes, complete, annotated_ts, and `parts`: an array of structs annotated_ts
            and boxes, the answers that are no labels of the whole image.
        run: The run.

    Returns:
        The same without `parts`.
    """
    known = run.store.read(GROUND_TRUTH, pinned=True).where("split = 'train'")
    known = known.select(
        "image_id",
        F.col("boxes").alias("known"),
        F.col("complete").alias("was_complete"),
        F.col("annotated_ts").alias("known_ts"),
        F.coalesce(F.least("annotated_ts", "ts"), F.lit(_LONG_AGO)).alias("known_since"),
    )
    rows = labels.join(known, "image_id", "left")
    earlier = F.struct(F.col("known_since").alias("annotated_ts"), F.col("known").alias("boxes"))
    parts = F.transform(
        "parts",
        lambda part: F.struct(
            F.coalesce(part["annotated_ts"], F.lit(_JUST_NOW)).alias("annotated_ts"),
            part["boxes"].alias("boxes"),
        ),
    )
    every = F.when(F.col("known").isNull(), parts).otherwise(F.concat(F.array(earlier), parts))
    together = F.aggregate(
        F.array_sort(every),
        F.array().cast(_BOXES),
        lambda said, part: F.concat(
            F.filter(said, lambda box: ~_meets_any(box, part["boxes"])), part["boxes"]
        ),
    )
    is_whole = F.col("complete")
    return rows.withColumns(
        {
            "boxes": F.when(is_whole, F.col("boxes")).otherwise(F.array_sort(together)),
            "complete": is_whole | F.coalesce("was_complete", F.lit(False)),
            # What is added to newer labels is not older than they are.
            "annotated_ts": F.when(is_whole, F.col("annotated_ts")).otherwise(
                F.greatest("annotated_ts", "known_ts")
            ),
        }
    ).drop("parts", "known", "was_complete", "known_ts", "known_since")


def _queried_boxes(run: Run, cycle_id: str) -> DataFrame:
    """image_id and, as `queried`, the boxes that were picked and sent: structs strategy and box."""
    of_cycle = f"cycle_id = {sql_literal(cycle_id)}"
    picks = run.store.read(ACQUISITION).where(f"{of_cycle} AND unit = 'box'")
    sent = run.store.read(MANIFESTS).where(of_cycle).select("strategy").distinct()
    if not sent.isEmpty():  # else the picks went to labelers on another way
        picks = picks.join(sent, "strategy", "left_semi")
    verdict = F.struct(
        *("d.label", "d.label_name", "d.x1", "d.y1", "d.x2", "d.y2"),
        F.lit(False).alias("iscrowd"),
        F.lit(BACKGROUND).alias("status"),
        F.lit(QUERY_SOURCE).alias("source"),
        F.col("d.detection_id"),
    ).cast(TRUTH_BOX_DDL)
    picked = boxes_of_picks(run, picks).withColumn("detection_id", F.col("d.detection_id"))
    keys = ["image_id", "detection_id"]
    rows = picked.join(picks.select(*keys, "strategy").distinct(), keys)
    return rows.groupBy("image_id").agg(
        F.collect_list(F.struct("strategy", verdict.alias("box"))).alias("queried")
    )


def _meets_any(box: Column, others: Column) -> Column:
    return F.exists(others, lambda other: same_object(box, other))
