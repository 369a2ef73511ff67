"""What a cycle picked, the files it wrote, and the images nobody could use."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import RANDOM
from conf.settings import AcquireSettings
from conf.strategy import presets
from pipelines.coverage import K_CENTER, LOWER_BOUND, RADIUS
from pipelines.export import MOST_STRATEGIES
from pipelines.report_queries import case_image
from pipelines.report_source import ReportSource
from schemas.tables import ACQUISITION, IMAGES, MANIFESTS, METRICS, QUARANTINE
from udfs.formats.registry import FORMATS
from udfs.report_content import ManifestFolder, QuarantineRow, SelectionArm

MOST_QUARANTINE_ROWS = 200
MOST_FOLDERS = MOST_STRATEGIES * len(FORMATS)
PICKS_SHOWN = 6


def selection_arms(source: ReportSource) -> tuple[SelectionArm, ...]:
    """What each strategy picked, with its mean estimated and true hardness."""
    query = source.settings.acquire.query
    picked = source.run.store.read(ACQUISITION).where(F.col("cycle_id") == source.cycle_id)
    detail = picked.join(source.estimates.where(F.col("query") == query).drop("query"), "image_id", "left")
    n_boxes = _manifests(source).groupBy("strategy").agg(F.max("n_boxes").alias("n"))
    boxes = {row.strategy: row.n for row in n_boxes.limit(MOST_STRATEGIES).collect()}
    metrics = source.run.store.read(METRICS).where(F.col("cycle_id") == source.cycle_id)
    reached = metrics.where(F.col("method") == K_CENTER).limit(2 * MOST_STRATEGIES).collect()
    reach: dict[str, dict[str, float]] = {}
    for row in reached:
        reach.setdefault(row["query"], {})[row.metric] = row.value
    arms = (
        detail.groupBy("strategy")
        .agg(
            F.count_distinct("image_id").alias("n"),
            F.avg("hardness").alias("mean"),
            F.avg("truth").alias("truth"),
            F.count("detection_id").alias("n_boxes"),
            F.sum("cost_s").alias("cost_s"),
            F.sum("cost_money").alias("cost_money"),
        )
        .orderBy("strategy")
        .collect()
    )
    first = (
        detail.where(F.col("rank") <= PICKS_SHOWN)
        .where("hardness IS NOT NULL")
        .orderBy("strategy", "rank")
        .collect()
    )
    return tuple(
        SelectionArm(
            name=arm.strategy,
            n_images=arm.n,
            n_boxes=arm.n_boxes or boxes.get(arm.strategy),
            mean_hardness=arm["mean"],
            truth_hardness=arm.truth,
            cost_s=arm.cost_s,
            cost_money=arm.cost_money,
            radius=_of_strategy(reach, arm.strategy).get(RADIUS),
            least_radius=_of_strategy(reach, arm.strategy).get(LOWER_BOUND),
            is_control=_is_control(arm.strategy, source.settings.acquire),
            cases=tuple(case_image(row, row["rank"]) for row in first if row.strategy == arm.strategy),
        )
        for arm in arms
    )


def _of_strategy(reach: Mapping[str, Mapping[str, float]], strategy: str) -> Mapping[str, float]:
    """What k-center reached for a strategy: itself, or the part of the mixture that left the least radius."""
    found = [values for name, values in reach.items() if name == strategy or name.startswith(f"{strategy}/")]
    return min(found, key=lambda values: values[RADIUS], default={})


def _is_control(strategy: str, settings: AcquireSettings) -> bool:
    """Whether a strategy draws at random, within its rules."""
    spec = {**presets(), **settings.define}.get(strategy)
    return spec is not None and spec.score == RANDOM and spec.k_center is None and not spec.mixture


def manifest_folders(source: ReportSource) -> tuple[ManifestFolder, ...]:
    """What was written for labeling tools, a row for each format and strategy: at most MOST_FOLDERS."""
    rows = _manifests(source).orderBy("vendor", "strategy").limit(MOST_FOLDERS).collect()
    return tuple(ManifestFolder(**row.asDict()) for row in rows)


def _manifests(source: ReportSource) -> DataFrame:
    # An export replaces the files of its format and strategy, so they lie in one folder.
    return (
        source.run.store.read(MANIFESTS)
        .where(F.col("cycle_id") == source.cycle_id)
        .groupBy("vendor", "strategy")
        .agg(
            F.min(F.regexp_replace("path", "/[^/]*$", "")).alias("path"),
            F.count("*").alias("n_files"),
            F.sum("n_tasks").alias("n_tasks"),
            F.sum("n_boxes").alias("n_boxes"),
        )
    )


def quarantine_rows(source: ReportSource) -> tuple[QuarantineRow, ...]:
    """Images nobody could use, the latest first, at most MOST_QUARANTINE_ROWS."""
    store = source.run.store
    rows = (
        store.read(QUARANTINE)
        .where("NOT resolved")
        .join(store.read(IMAGES).select("image_id", "path"), "image_id")
    )
    rows = rows.orderBy(F.desc("last_ts"), "path").limit(MOST_QUARANTINE_ROWS)
    return tuple(
        QuarantineRow(path=r.path, stage=r.stage, reason=f"{r.error_class}: {r.message}", attempts=r.attempts)
        for r in rows.collect()
    )
