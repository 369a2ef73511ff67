"""The rows that a quality gate judges: those of a table, of tables put together, of a cycle and the last.

Nothing here is computed until a gate aggregates it. A gate of one cycle and model reads only their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.hardness_rows import BASELINE, query_hash_meant
from pipelines.labeling_tasks import labeling_tasks, tasks_only_in_one
from pipelines.models import model_named
from pipelines.quality_drift import drift_rows
from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.table import Table
from schemas.tables import (
    ACQUISITION,
    DETECTIONS,
    GROUND_TRUTH,
    GROUND_TRUTH_HISTORY,
    HARDNESS,
    IMAGES,
    LABEL_IMPORTS,
    LABEL_REJECTS,
    MANIFESTS,
    METRICS,
    MODELS,
    NEAR_MISSES,
    QUARANTINE,
    SENT_TASKS,
)
from udfs.image_files import TRANSIENT_FAULTS
from udfs.views import ORIGINAL_VIEW


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What is judged.

    Attributes:
        run: The run.
        cycle_id: The cycle.
        model_id: Its detector.
        settings: What the cycle asked for, and what is allowed.
        due_s: Epoch seconds; images that came later need not be detected. None: when the run started.
    """

    run: Run
    cycle_id: str
    model_id: str
    settings: Settings
    due_s: float | None = None

    def of_model(self, table: Table) -> DataFrame:
        """The table's rows of the cycle's detector."""
        return self.run.store.read(table).where(F.col("model_id") == self.model_id)

    def of_cycle(self, table: Table) -> DataFrame:
        """The table's rows of the cycle."""
        return self.run.store.read(table).where(F.col("cycle_id") == self.cycle_id)


def suite_rows(gate: Gate, name: str) -> DataFrame | None:
    """The rows that the suite of this name is about; none where there is nothing to compare with."""
    return _ROWS[name](gate)


def detection_rows(gate: Gate) -> DataFrame:
    """The model's detections, with `tolerance_px` and its `known_labels`."""
    model = gate.of_model(MODELS).select(F.map_keys("classes").alias("known_labels"))
    tolerance = F.lit(gate.settings.quality.box_tolerance_px)
    rows = gate.of_model(DETECTIONS).withColumn("tolerance_px", tolerance)
    return rows.join(F.broadcast(model), how="left")


def fault_rows(gate: Gate) -> DataFrame:
    """What is in quarantine for the cycle's detector, or for all."""
    return gate.run.store.read(QUARANTINE).where(
        F.coalesce("model_id", F.lit(gate.model_id)) == gate.model_id
    )


def outcome_rows(gate: Gate) -> DataFrame:
    """One row per image: image_id, is_ingested, is_due, n_views, n_views_wanted, is_quarantined, is_broken.

    Due is an image that was there when the run started, or at `gate.due_s`: what another run ingests since is
    its own business, and an imported model, which has no weights, only knows the images it came with. Broken
    is one that no further try will mend.
    """
    views = gate.settings.detect.views
    weights = gate.of_model(MODELS).select(F.get_json_object("settings", "$.weights").alias("weights"))
    images = gate.run.store.read(IMAGES).join(F.broadcast(weights), how="left")
    due_s = gate.run.started_s if gate.due_s is None else gate.due_s
    due = F.col("weights").isNotNull() & (F.col("ingest_ts") <= utc_timestamp(due_s))
    faults = fault_rows(gate).where("NOT resolved")
    broken = ~F.col("error_class").isin(*TRANSIENT_FAULTS)
    detected = gate.of_model(DETECTIONS).where(F.col("view").isin(*views))
    parts = (
        images.select("image_id", *_marks(is_ingested=F.lit(True), is_due=due)),
        detected.select("image_id", *_marks(n_views=F.lit(1))),
        faults.select("image_id", *_marks(is_quarantined=F.lit(True), is_broken=broken)),
    )
    rows = reduce(DataFrame.unionByName, parts).groupBy("image_id")
    either = [
        F.bool_or(name).alias(name) for name in ("is_ingested", "is_due", "is_quarantined", "is_broken")
    ]
    return rows.agg(*either, F.sum("n_views").alias("n_views")).withColumn(
        "n_views_wanted", F.lit(len(views))
    )


def _marks(**given: Column) -> list[Column]:
    nothing = dict.fromkeys(("is_ingested", "is_due", "is_quarantined", "is_broken"), F.lit(False))
    marks = {**nothing, "n_views": F.lit(0), **given}
    return [mark.alias(name) for name, mark in marks.items()]


def truth_rows(gate: Gate) -> DataFrame:
    """All ground truth, with the image's width and height, and is_ingested."""
    images = gate.run.store.read(IMAGES).select("image_id", "width", "height", F.lit(True).alias("found"))
    rows = gate.run.store.read(GROUND_TRUTH).join(images, "image_id", "left")
    return rows.withColumn("is_ingested", F.coalesce("found", F.lit(False)))


def reject_rows(gate: Gate) -> DataFrame:
    """What the cycle's imports left out."""
    mine = gate.of_cycle(LABEL_IMPORTS).select("import_id")
    return gate.run.store.read(LABEL_REJECTS).join(mine, "import_id", "left_semi")


def hardness_rows(gate: Gate) -> DataFrame:
    """The model's hardness for what the settings ask for."""
    scoring = gate.settings.score
    return gate.of_model(HARDNESS).where(F.col("query").isin(*scoring.queries, *scoring.baselines))


def scored_rows(gate: Gate) -> DataFrame:
    """One row per image: image_id, is_detected, n_scores of n_asked, and the names `missing`."""
    scoring = gate.settings.score
    asked = (*scoring.queries, *scoring.baselines)
    of_query = (F.col("method") == scoring.estimator) & F.col("query").isin(*scoring.queries)
    of_baseline = (F.col("method") == BASELINE) & F.col("query").isin(*scoring.baselines)
    scores = hardness_rows(gate).where(of_query | of_baseline)
    scores = scores.where(F.col("query_hash") == query_hash_meant(scoring))
    detected = gate.of_model(DETECTIONS).where(F.col("view") == ORIGINAL_VIEW)
    none = F.lit(None).cast("string")
    rows = detected.select("image_id", F.lit(True).alias("is_detected"), none.alias("query"))
    rows = rows.unionByName(scores.select("image_id", F.lit(False).alias("is_detected"), "query"))
    every = F.array(*map(F.lit, asked)).cast("array<string>")
    return rows.groupBy("image_id").agg(
        F.bool_or("is_detected").alias("is_detected"),
        F.count("query").alias("n_scores"),
        F.lit(len(asked)).alias("n_asked"),
        # Computed only where failing rows are looked up: a count asks for no names.
        F.array_except(every, F.collect_set("query")).alias("missing"),
    )


def pick_rows(gate: Gate) -> DataFrame:
    """One row per strategy and what it picked: n_picks, is_detected, and n_boxes a labeler will find."""
    keys = ("strategy", "unit", "image_id", "detection_id")
    picks = (
        gate.of_cycle(ACQUISITION)
        .groupBy(*keys)
        .agg(
            F.count("*").alias("n_picks"),
            F.sum("cost_s").alias("cost_s"),
            F.sum("cost_money").alias("cost_money"),
        )
    )
    eta = gate.settings.score.eta
    seen = (
        gate.of_model(DETECTIONS)
        .where(F.col("view") == ORIGINAL_VIEW)
        .select(
            "image_id",
            F.col("detections.detection_id").alias("ids"),
            F.size(F.filter("detections.score", lambda score: score >= eta)).alias("n_confirmed"),
        )
    )
    # The budget bounds the picks; the lake's detections are not moved for them.
    mine = seen.join(F.broadcast(picks.select("image_id").distinct()), "image_id", "left_semi")
    rows = picks.join(mine, "image_id", "left")
    is_box = F.col("unit") == "box"
    found = F.when(is_box, F.array_contains("ids", F.col("detection_id"))).otherwise(F.col("ids").isNotNull())
    boxes = F.when(is_box, 1).otherwise(F.greatest("n_confirmed", F.lit(1)))
    return rows.select(
        *keys, "n_picks", "cost_s", "cost_money", boxes.alias("n_boxes"), found.alias("is_detected")
    )


def strategy_rows(gate: Gate) -> DataFrame:
    """One row per strategy and unit: first_rank, last_rank, n_ranks, and spent of budget, in its unit."""
    budget = gate.settings.acquire
    prices = {
        "images": F.sum("n_picks"),
        "boxes": F.sum(F.col("n_boxes") * F.col("n_picks")),
        "seconds": F.sum("cost_s"),
        "money": F.sum("cost_money"),
    }
    spent = pick_rows(gate).groupBy("strategy", "unit").agg(prices[budget.budget_in].alias("spent"))
    ranks = (
        gate.of_cycle(ACQUISITION)
        .groupBy("strategy", "unit")
        .agg(
            F.min("rank").alias("first_rank"),
            F.max("rank").alias("last_rank"),
            F.count_distinct("rank").alias("n_ranks"),
        )
    )
    return ranks.join(spent, ["strategy", "unit"]).withColumn("budget", F.lit(float(budget.budget)))


def task_rows(gate: Gate) -> DataFrame:
    """One row per strategy and vendor: n_tasks in its files, n_wanted by its picks, and n_other: tasks that
    its picks make and sent_tasks lacks, or the other way round.

    A vendor the settings name must have got every strategy's tasks; one that has files must have got all.
    """
    export = gate.settings.export
    files, recorded, picks = map(gate.of_cycle, (MANIFESTS, SENT_TASKS, ACQUISITION))
    if export.strategies:
        files, recorded, picks = (
            rows.where(F.col("strategy").isin(*export.strategies)) for rows in (files, recorded, picks)
        )
    written = files.groupBy("strategy", "vendor").agg(F.sum("n_tasks").alias("n_tasks"))
    model, prices = model_named(gate.run, gate.model_id), gate.settings.acquire.prices
    tasks = labeling_tasks(picks, gate.run, model, export, prices)
    wanted = tasks.groupBy("strategy").agg(F.count("*").alias("n_wanted"))
    other = tasks_only_in_one(tasks, recorded).groupBy("strategy").agg(F.count("*").alias("n_other"))
    vendors = F.explode(F.array(*map(F.lit, export.formats)).cast("array<string>"))
    keys = written.select("strategy", "vendor").union(wanted.select("strategy", vendors)).distinct()
    rows = keys.join(written, ["strategy", "vendor"], "left")
    rows = rows.join(wanted, "strategy", "left").join(other, "strategy", "left")
    return rows.fillna(0, ["n_tasks", "n_wanted", "n_other"])


_ROWS: Mapping[str, Callable[[Gate], DataFrame | None]] = {
    "images": lambda gate: gate.run.store.read(IMAGES),
    "models": lambda gate: gate.of_model(MODELS),
    "detections": detection_rows,
    "quarantine": fault_rows,
    "image_outcomes": outcome_rows,
    "drift": lambda gate: drift_rows(gate.run, gate.cycle_id, gate.model_id, gate.settings),
    "ground_truth": truth_rows,
    "ground_truth_history": lambda gate: gate.of_cycle(GROUND_TRUTH_HISTORY),
    "label_imports": lambda gate: gate.of_cycle(LABEL_IMPORTS),
    "label_rejects": reject_rows,
    "hardness": hardness_rows,
    "scored_images": scored_rows,
    "metrics": lambda gate: gate.of_cycle(METRICS),
    "acquisition": lambda gate: gate.of_cycle(ACQUISITION),
    "near_misses": lambda gate: gate.of_cycle(NEAR_MISSES),
    "picks": pick_rows,
    "strategies": strategy_rows,
    "manifests": lambda gate: gate.of_cycle(MANIFESTS),
    "sent_tasks": lambda gate: gate.of_cycle(SENT_TASKS),
    "tasks": task_rows,
}
