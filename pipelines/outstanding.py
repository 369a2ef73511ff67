"""What is out for labeling: per cycle and strategy, how much was sent, came back, and costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, GROUND_TRUTH_HISTORY, MANIFESTS
from udfs.formats.registry import FORMATS


def sent_and_back(run: Run, cycle_id: str | None = None) -> DataFrame:
    """One row per cycle and strategy that was exported.

    A picked image is back once an import of its cycle brought it; a picked box whose place or class was asked
    about, once an import answered for it.

    Args:
        run: The run.
        cycle_id: Only this cycle; none: all.

    Returns:
        Columns cycle_id, strategy, tasks (kind), vendors, sent_ts (first export), n_sent and n_back (picks),
        cost_s and cost_money (of all), cost_s_out and cost_money_out (of what is still out).
    """
    only = "true" if cycle_id is None else f"cycle_id = {sql_literal(cycle_id)}"
    sent = (
        run.store.read(MANIFESTS)
        .where(only)
        .groupBy("cycle_id", "strategy")
        .agg(
            F.max("tasks").alias("tasks"),
            F.array_sort(F.collect_set("vendor")).alias("vendors"),
            F.min("ts").alias("sent_ts"),
        )
    )
    history = run.store.read(GROUND_TRUTH_HISTORY).where(only)  # held-out labels answer no task
    answers = history.where("split = 'train'").groupBy("cycle_id", "image_id")
    answered = answers.agg(F.flatten(F.collect_list("boxes.detection_id")).alias("answered"))
    picks = run.store.read(ACQUISITION).where(only).join(sent, ["cycle_id", "strategy"])
    picks = picks.join(answered, ["cycle_id", "image_id"], "left")
    is_question = F.col("detection_id").isNotNull() & F.col("tasks").startswith("verify")
    is_back = F.when(is_question, F.array_contains("answered", F.col("detection_id"))).otherwise(
        F.col("answered").isNotNull()
    )
    picks = picks.withColumn("is_back", F.coalesce(is_back, F.lit(False)))
    return picks.groupBy("cycle_id", "strategy", "tasks", "vendors", "sent_ts").agg(
        F.count("*").alias("n_sent"),
        F.count_if("is_back").alias("n_back"),
        F.sum("cost_s").alias("cost_s"),
        F.sum("cost_money").alias("cost_money"),
        F.sum(F.when(~F.col("is_back"), F.col("cost_s"))).alias("cost_s_out"),
        F.sum(F.when(~F.col("is_back"), F.col("cost_money"))).alias("cost_money_out"),
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
