"""Answers to tasks that showed some boxes of an image: what was asked is known, the rest stays open."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.box_dataset import BACKGROUND, boxes_of_picks, cut_to_image, is_inside, meets_any
from pipelines.labeling_tasks import BOXES, image_task_id, task_kind
from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, MANIFESTS, TRUTH_BOX_DDL

QUERY_SOURCE = "query"
_BOXES = f"array<{TRUTH_BOX_DDL}>"


def with_verdicts(answers: DataFrame, run: Run, cycle_id: str) -> DataFrame:
    """Answers with the boxes that were shown and are gone, and with whether they are about the whole image.

    A picked box that meets no returned box (IoU >= 0.5) is background, unless something of the answer was
    rejected. Which task was answered is told by its id. Of an image without one (the tool lost it) of which
    the cycle sent boxes, the answer is taken for one to them; with boxes of several strategies it cannot be
    told which were shown, and none is background.

    Args:
        answers: Columns image_id, cycle_id, task_id, boxes and complete, one row an answer.
        run: The run.
        cycle_id: Whose picks were labeled.

    Returns:
        The same, `refused` (an array of boxes like `boxes`) and `is_whole`: whether the image was to be
        labeled, not boxes of it.

    Source: fine-grained boxes, section 3 ("Updating the Training Dataset").
    """
    rows = answers.join(_sent_picks(run, cycle_id, answers), "image_id", "left")
    was_lent = F.coalesce("is_box_picked", F.lit(False))
    kind = task_kind(F.col("task_id"))
    shown_by = F.substr(F.col("task_id"), F.length(F.concat(image_task_id(), F.lit(f"/{BOXES}/"))) + 1)
    is_only_strategy = F.size(F.array_distinct("queried.strategy")) == 1
    is_asked_about = F.col("complete") & F.coalesce(kind == BOXES, F.lit(True))

    def is_refused(pick: Column) -> Column:
        is_shown = F.when(kind == BOXES, pick["strategy"] == shown_by).otherwise(is_only_strategy)
        return is_asked_about & is_shown & ~meets_any(pick["sent"], F.col("boxes"))

    is_whole = F.coalesce(kind == "image", ~was_lent)
    refused = F.transform(F.filter("queried", is_refused), lambda pick: pick["box"])
    none = F.array().cast(_BOXES)
    return rows.withColumns(
        {"is_whole": is_whole, "refused": F.when(is_whole, none).otherwise(F.coalesce(refused, none))}
    ).drop("queried", "is_box_picked")


def _sent_picks(run: Run, cycle_id: str, answers: DataFrame) -> DataFrame:
    """What of the answered images was picked and sent, a row an image.

    Returns:
        Columns image_id, is_box_picked, and `queried`: the picked boxes as structs of strategy, box, and
        `sent`, the corners that labelers saw.
    """
    of_cycle = f"cycle_id = {sql_literal(cycle_id)}"
    picks = run.store.read(ACQUISITION).where(of_cycle)
    picks = picks.join(answers.select("image_id").distinct(), "image_id", "left_semi")
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
    found = boxes_of_picks(run, picks.where("unit = 'box'")).where(is_inside(F.col("d")))
    boxes = found.select(
        "image_id", F.col("d.detection_id"), verdict.alias("box"), cut_to_image(F.col("d")).alias("sent")
    )
    keys = ["image_id", "detection_id"]
    rows = picks.select(*keys, "strategy", "unit").distinct().join(boxes, keys, "left")
    query = F.when(F.col("box").isNotNull(), F.struct("strategy", "box", "sent"))
    return rows.groupBy("image_id").agg(
        F.bool_or(F.col("unit") == "box").alias("is_box_picked"),
        F.collect_list(query).alias("queried"),
    )
