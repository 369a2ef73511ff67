"""What is out for labeling: per cycle and strategy, how much was sent, came back, and costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipelines.labeling_tasks import BOXES, boxes_task_id, image_task_id, question_task_id
from pipelines.run import Run
from pipelines.tables import in_schema, sql_literal
from schemas.tables import ACQUISITION, GROUND_TRUTH_HISTORY, MANIFESTS
from udfs.formats.registry import FORMATS
from udfs.formats.task import QUESTION_KINDS

COSTS = ("cost_s", "cost_money")


def sent_and_back(run: Run, cycle_id: str | None = None) -> DataFrame:
    """One row per cycle and strategy that was exported.

    A picked image or box is back once an import of its cycle answered its task, or, from a tool that loses
    ids, brought its image. Where questions were asked, they are what was sent and comes back.

    Args:
        run: The run.
        cycle_id: Only this cycle; none: all.

    Returns:
        Columns cycle_id, strategy, tasks (kind), vendors, sent_ts (first export), n_sent and n_back (picks,
        or questions), cost_s and cost_money (of all), cost_s_out and cost_money_out (of what is still out).
    """
    only = "true" if cycle_id is None else f"cycle_id = {sql_literal(cycle_id)}"
    of_vendor = run.store.read(MANIFESTS).where(only).groupBy("cycle_id", "strategy", "vendor")
    by_vendor = of_vendor.agg(
        F.struct(
            F.coalesce(F.max_by("tasks", "ts"), F.lit("image")).alias("tasks"),
            F.sum("n_tasks").alias("n_tasks"),
            *(F.sum(name).alias(f"tasks_{name}") for name in COSTS),
        ).alias("sent"),
        F.min("ts").alias("first_ts"),
        F.max("ts").alias("last_ts"),
    )
    # Vendors get the same tasks; if the kind was changed between exports, the latest says what is awaited.
    by_strategy = by_vendor.groupBy("cycle_id", "strategy").agg(
        F.max_by("sent", "last_ts").alias("sent"),
        F.array_sort(F.collect_set("vendor")).alias("vendors"),
        F.min("first_ts").alias("sent_ts"),
    )
    sent = by_strategy.select("cycle_id", "strategy", "vendors", "sent_ts", "sent.*")
    picks = run.store.read(ACQUISITION).where(only).join(sent, ["cycle_id", "strategy"])
    picks = picks.join(_answers(run, only), ["cycle_id", "image_id"], "left")
    picks = picks.withColumn("n_back", F.coalesce(_n_answered(), F.lit(0)))
    rows = picks.groupBy("cycle_id", "strategy", "tasks", "vendors", "sent_ts").agg(
        F.max("unit").alias("unit"),
        F.max("n_tasks").alias("n_tasks"),
        F.count("*").alias("n_sent"),
        F.sum("n_back").alias("n_back"),
        *(F.max(f"tasks_{name}").alias(f"tasks_{name}") for name in COSTS),
        *(F.sum(name).alias(name) for name in COSTS),
        *(F.sum(F.when(F.col("n_back") == 0, F.col(name))).alias(f"{name}_out") for name in COSTS),
    )
    # Of an image any number of boxes may be asked about; all questions of a manifest cost the same.
    is_question = F.col("tasks").isin(*QUESTION_KINDS)
    rows = rows.withColumn(
        "n_sent",
        F.when(is_question & (F.col("unit") == "image"), F.col("n_tasks")).otherwise(F.col("n_sent")),
    )
    rows = rows.withColumn("n_back", F.least("n_back", "n_sent"))
    share_out = 1 - F.col("n_back") / F.col("n_sent")
    for name in COSTS:
        of_tasks = F.col(f"tasks_{name}")
        rows = rows.withColumns(
            {
                name: F.when(is_question, of_tasks).otherwise(F.col(name)),
                f"{name}_out": F.when(is_question, of_tasks * share_out).otherwise(F.col(f"{name}_out")),
            }
        )
    return rows.drop("unit", "n_tasks", *(f"tasks_{name}" for name in COSTS))


def _answers(run: Run, only: str) -> DataFrame:
    """cycle_id, image_id, and of the answers task_ids, detection_ids and whether one came without task id."""
    # Tables from before task ids were kept lack the column until the next import.
    history = in_schema(run.store.read(GROUND_TRUTH_HISTORY), GROUND_TRUTH_HISTORY).where(only)
    history = history.where("split = 'train' OR task_id IS NOT NULL")  # a held-out data set answers no task
    detection_ids = F.flatten(F.collect_list(F.col("boxes.detection_id")))
    return history.groupBy("cycle_id", "image_id").agg(
        F.collect_set("task_id").alias("task_ids"),
        F.array_distinct(F.array_compact(detection_ids)).alias("detection_ids"),
        F.bool_or(F.col("task_id").isNull()).alias("is_unnamed"),
    )


def _n_answered() -> Column:
    """How many tasks of a pick were answered; null where its image did not come back."""
    kind = F.col("tasks")

    def is_answered(task_id: Column) -> Column:
        return F.array_contains("task_ids", task_id)

    is_image_back = is_answered(image_task_id()) | F.col("is_unnamed")
    is_box_back = is_answered(question_task_id(F.col("detection_id"), kind))
    is_box_back = is_box_back | F.array_contains("detection_ids", F.col("detection_id"))
    to_image = F.concat(image_task_id(), F.lit("/"))
    asked = F.filter("task_ids", lambda task: F.startswith(task, to_image) & F.endswith(task, kind))
    n_asked = F.greatest(F.size(asked), F.when(F.col("is_unnamed"), F.size("detection_ids")))
    return (
        F.when(kind == "image", is_image_back.cast("int"))
        .when(kind == BOXES, (is_image_back | is_answered(boxes_task_id())).cast("int"))
        .when(F.col("unit") == "box", is_box_back.cast("int"))
        .otherwise(n_asked)
    )


def import_command(root: str, cycle_id: str, sent: Iterable[Row]) -> str:
    """The command that imports labels which are still out; FILE is what a labeling tool exported.

    Args:
        root: Of the tables.
        cycle_id: The cycle.
        sent: Rows of `sent_and_back` of the cycle.
    """
    tools = {FORMATS[vendor].tool for row in sent if row.n_back < row.n_sent for vendor in row.vendors}
    form = next(name for name, form in FORMATS.items() if form.read and form.tool in tools)
    flags = ["--root", root, "--cycle", cycle_id, "--split", "train", "--labels", "FILE", "--format", form]
    return shlex.join(["quarry", "import_labels", *flags])
