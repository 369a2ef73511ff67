"""From all that was ever said of an image to the labels that count: `ground_truth` out of its history."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.box_dataset import meets_any
from schemas.tables import GROUND_TRUTH, TRUTH_BOX_DDL


def current_labels(history: DataFrame) -> DataFrame:
    """The labels of each image, whatever the order in which its answers were imported.

    Answers count in the order in which people gave them (not after the import that brought them: a clock may
    be wrong). One to the whole image replaces all before it, and each replaces an earlier one to its own
    task. One to some boxes leaves the rest as it was: its boxes replace those that they meet (IoU >= 0.5) or
    that answer for the same sent box. An image is held out or trained on as the latest import says, and
    labels of the other split count for nothing.

    Args:
        history: Rows of GROUND_TRUTH_HISTORY, of each image all.

    Returns:
        Columns of GROUND_TRUTH, a row an image. `complete` once an answer to the whole image was.
    """
    said_ts = F.least("annotated_ts", "ts").alias("said_ts")
    answer = F.struct(
        *(said_ts, "ts", "import_id", "task_id"),
        *("split", "cycle_id", "annotator", "annotated_ts", "complete", "boxes"),
    )
    images = history.groupBy("image_id").agg(
        F.array_sort(F.collect_list(answer)).alias("answers"),
        F.max_by("split", F.struct("ts", said_ts, "import_id")).alias("split"),
        F.count("*").cast("int").alias("n_answers"),
    )
    of_split = F.filter("answers", lambda answer: answer["split"] == F.col("split"))
    images = images.withColumn("answers", of_split)
    images = images.withColumn("answers", F.filter("answers", _is_last_of_its_task))
    images = images.withColumn("answers", _since_complete(F.col("answers")))
    newest = F.element_at("answers", -1)
    people = F.array_distinct(F.array_compact(F.transform("answers", lambda answer: answer["annotator"])))
    boxes = F.aggregate(
        "answers",
        F.array().cast(f"array<{TRUTH_BOX_DDL}>"),
        lambda said, answer: F.concat(
            F.filter(said, lambda box: ~_is_replaced(box, answer["boxes"])), answer["boxes"]
        ),
    )
    return images.select(
        "image_id",
        boxes.alias("boxes"),
        F.exists("answers", lambda answer: answer["complete"]).alias("complete"),
        "split",
        newest["cycle_id"].alias("cycle_id"),
        F.when(F.size(people) > 0, F.array_join(F.array_sort(people), ", ")).alias("annotator"),
        newest["annotated_ts"].alias("annotated_ts"),
        newest["import_id"].alias("import_id"),
        "n_answers",
        F.array_max(F.transform("answers", lambda answer: answer["ts"])).alias("ts"),
    ).select(*GROUND_TRUTH.column_names)


def _is_last_of_its_task(answer: Column, index: Column) -> Column:
    """Of several answers to one task, only the newest is what the labeler stands by."""
    later = F.slice("answers", index + 2, F.size("answers"))
    is_corrected = F.exists(later, lambda other: other["task_id"].eqNullSafe(answer["task_id"]))
    return answer["task_id"].isNull() | ~is_corrected


def _since_complete(answers: Column) -> Column:
    """The last complete answer and those after it; all, where none is complete."""
    from_end = F.array_position(F.reverse(F.transform(answers, lambda answer: answer["complete"])), True)
    start = F.when(from_end > 0, F.size(answers) - from_end + 1).otherwise(1)
    return F.slice(answers, start.cast("int"), F.size(answers))


def _is_replaced(box: Column, by: Column) -> Column:
    same_sent = F.exists(
        by, lambda other: F.coalesce(other["detection_id"] == box["detection_id"], F.lit(False))
    )
    return meets_any(box, by) | same_sent
