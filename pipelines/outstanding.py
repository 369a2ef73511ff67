"""What is out for labeling: per cycle and strategy, how much was sent, came back, and costs."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from pipelines.run import Run
from pipelines.tables import in_schema, sql_literal
from schemas.tables import CYCLES, GROUND_TRUTH_HISTORY, MANIFESTS, SENT_TASKS
from schemas.views import TASKS_VIEW
from udfs.formats.registry import FORMATS
from udfs.formats.task import QUESTION_KINDS

COSTS = ("cost_s", "cost_money")
SHARE_TOLERANCE = 1e-9  # 0.55 of 100 tasks is 55.00000000000001 in floating point


def sent_and_back(run: Run, cycle_id: str | None = None) -> DataFrame:
    """One row per cycle and strategy that was exported.

    A task is back once an import of its cycle answered it; see the view `tasks`.

    Args:
        run: The run.
        cycle_id: Only this cycle; none: all.

    Returns:
        Columns cycle_id, strategy, kind, vendors, sent_ts (of the oldest file), n_sent and n_back (tasks),
        cost_s and cost_money (of all), cost_s_out and cost_money_out (of what is still out). n_sent is 0
        where a Quarry exported that did not record tasks.
    """
    only = "true" if cycle_id is None else f"cycle_id = {sql_literal(cycle_id)}"
    # Views are made of names, and this session may have none, or others'.
    tasks = run.store.session.sql(
        "WITH sent_tasks AS (SELECT * FROM {tasks}), ground_truth_history AS (SELECT * FROM {answers}) "
        + TASKS_VIEW.sql,
        tasks=run.store.read(SENT_TASKS).where(only),
        answers=in_schema(run.store.read(GROUND_TRUTH_HISTORY), GROUND_TRUTH_HISTORY).where(only),
    )
    cost_out = [
        F.sum(F.when(F.col("returned"), 0.0).otherwise(F.col(name))).alias(f"{name}_out") for name in COSTS
    ]
    by_strategy = tasks.groupBy("cycle_id", "strategy").agg(
        F.count("*").alias("n_sent"),
        F.count_if("returned").alias("n_back"),
        *(F.sum(name).alias(name) for name in COSTS),
        *cost_out,
    )
    files = run.store.read(MANIFESTS).where(only).groupBy("cycle_id", "strategy")
    sent = files.agg(
        F.array_sort(F.collect_set("vendor")).alias("vendors"),
        F.min("ts").alias("sent_ts"),
        F.max("tasks").alias("kind"),
    )
    return sent.join(by_strategy, ["cycle_id", "strategy"], "left").fillna(0, ["n_sent", "n_back"])


class Awaited(NamedTuple):
    """What a cycle waits for.

    Attributes:
        cycle_id: The cycle that sent it.
        sent: Rows of `sent_and_back` of that cycle.
    """

    cycle_id: str
    sent: list[Row]

    @property
    def unrecorded(self) -> list[Row]:
        """Of strategies that were exported when tasks were not recorded: nobody knows what is back."""
        return [row for row in self.sent if row.n_sent == 0]

    def is_enough(self, share: float) -> bool:
        """Whether this share of the tasks is back, from 0 to 1."""
        if share == 0.0:
            return True
        n_sent, n_back = (sum(row[name] for row in self.sent) for name in ("n_sent", "n_back"))
        return not self.unrecorded and n_back >= (share - SHARE_TOLERANCE) * n_sent


def awaited(run: Run, cycle_id: str) -> Awaited:
    """What the cycle sent, or, where it goes on from one that has sent its picks, what that one did."""
    while True:
        rows = sent_and_back(run, cycle_id).orderBy("strategy").collect()
        cycle = run.store.read(CYCLES).where(F.col("cycle_id") == cycle_id).select("parent").first()
        if rows or cycle is None or cycle.parent is None:
            return Awaited(cycle_id, rows)
        cycle_id = cycle.parent


def export_command(root: str, awaits: Awaited) -> str:
    """The command that records the tasks of a cycle that was exported before tasks were recorded."""
    formats = sorted({vendor for row in awaits.unrecorded for vendor in row.vendors})
    flags = ["--root", root, "--cycle", awaits.cycle_id, "--formats", ",".join(formats)]
    kinds = {row.kind for row in awaits.unrecorded}.intersection(QUESTION_KINDS)
    flags += [part for kind in sorted(kinds) for part in ("--tasks", kind)]
    return shlex.join(["quarry", "export_manifest", *flags])


def import_command(root: str, awaits: Awaited) -> str:
    """The command that imports labels which are still out; FILE is what a labeling tool exported.

    Args:
        root: Of the tables.
        awaits: What is out, and of which cycle.
    """
    tools = {FORMATS[vendor].tool for row in awaits.sent if row.n_back < row.n_sent for vendor in row.vendors}
    form = next(name for name, form in FORMATS.items() if form.read and form.tool in tools)
    flags = ["--root", root, "--cycle", awaits.cycle_id, "--split", "train"]
    return shlex.join(["quarry", "import_labels", *flags, "--labels", "FILE", "--format", form])
