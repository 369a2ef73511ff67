"""What each strategy captures of the lake's hardness as it spends its budget."""

from __future__ import annotations

from pyspark.sql import Window
from pyspark.sql import functions as F

from conf.acquisition_spec import S_PER_HOUR
from pipelines.report_source import ReportSource
from schemas.tables import ACQUISITION
from udfs.report_content import SpendingCurve

POINTS = 80


def spending_curves(source: ReportSource) -> tuple[SpendingCurve, ...]:
    """One curve a strategy, at most POINTS + 1 points each; true hardness where every image has labels.

    The hardness is that of `acquire.query`; an image counts once, at its first box where boxes were picked.
    With some images labeled, strategies that pick others would seem to capture nothing: estimates are taken.
    """
    query = source.settings.acquire.query
    estimates = source.estimates.where(F.col("query") == query)
    totals = estimates.agg(
        F.sum("truth").alias("truth"),
        F.sum("hardness").alias("hardness"),
        F.count_if(F.col("truth").isNull()).alias("n_open"),
    ).first()
    assert totals is not None
    is_truth = not totals.n_open and bool(totals.truth)
    total = totals.truth if is_truth else totals.hardness
    if not total:
        return ()
    picked = source.run.store.read(ACQUISITION).where(F.col("cycle_id") == source.cycle_id)
    value = F.col("truth" if is_truth else "hardness")
    values = estimates.select("image_id", F.coalesce(value, F.lit(0.0)).alias("value"))
    # A strategy's rows meet in one task: the budget bounds them.
    first = F.row_number().over(Window.partitionBy("strategy", "image_id").orderBy("rank")) == 1
    so_far = Window.partitionBy("strategy").orderBy("rank").rowsBetween(Window.unboundedPreceding, 0)
    rows = picked.join(values, "image_id", "left").withColumn("first", first)
    rows = rows.select(
        "strategy",
        "rank",
        F.sum("cost_s").over(so_far).alias("cost_s"),
        F.sum(F.when(F.col("first"), F.coalesce("value", F.lit(0.0))).otherwise(0.0))
        .over(so_far)
        .alias("captured"),
        F.max("rank").over(Window.partitionBy("strategy")).alias("last"),
    )
    step = F.greatest(F.lit(1), F.ceil(F.col("last") / POINTS))
    shown = rows.where((F.col("rank") % step == 0) | (F.col("rank") == F.col("last")))
    points = shown.where("cost_s IS NOT NULL").orderBy("strategy", "rank").collect()
    names = sorted({point.strategy for point in points})
    return tuple(
        SpendingCurve(
            strategy=name,
            query=query,
            cost_h=(0.0, *(p.cost_s / S_PER_HOUR for p in points if p.strategy == name)),
            captured=(0.0, *(p.captured / total for p in points if p.strategy == name)),
            is_truth=is_truth,
        )
        for name in names
    )
