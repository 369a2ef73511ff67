"""How far the detector's scores can be trusted: reliability diagrams and expected calibration error."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from udfs.metric_rows import ALL_CLASSES, DETECTOR, METRIC_SCHEMA
from udfs.score import MATCH_SCHEMA, match_batches
from udfs.score_request import ScoreRequest

# Sums of decimals do not depend on the order of rows, which differs from one layout of files to the next.
EXACT_SUM = "decimal(38, 18)"


def detection_matches(truth: DataFrame, request: ScoreRequest) -> DataFrame:
    """One row per detection: its label, score and whether it finds an object."""
    matcher = partial(match_batches, request=request)
    return truth.drop("ts", "detected_ts").mapInArrow(matcher, from_arrow_schema(MATCH_SCHEMA))


def reliability_bins(matches: DataFrame, bins: int, classes: Mapping[int, str]) -> DataFrame:
    """Per class, and for all classes together, the detections of each score bin.

    Args:
        matches: Columns label, score and is_true_positive.
        bins: Bins of equal width from 0 to 1; the last one holds score 1.
        classes: Label id to class name.

    Returns:
        Columns query (class name or `all`), bin (from 0), n, mean_score and precision; no row of an empty
        bin.
    """
    names = F.create_map(*[F.lit(part) for pair in classes.items() for part in pair])
    groups = F.array(F.lit(ALL_CLASSES), F.coalesce(F.try_element_at(names, "label"), F.lit("unknown")))
    index = F.least(F.floor(F.col("score") * bins), F.lit(bins - 1)).cast("int")
    return (
        matches.select(F.explode(groups).alias("query"), index.alias("bin"), "score", "is_true_positive")
        .groupBy("query", "bin")
        .agg(
            F.count("*").alias("n"),
            (F.sum(F.col("score").cast(EXACT_SUM)).cast("double") / F.count("*")).alias("mean_score"),
            F.avg(F.col("is_true_positive").cast("double")).alias("precision"),
        )
    )


def reliability_rows(bins: DataFrame) -> DataFrame:
    """Rows of `metrics`: precision_bin_<i> and mean_score_bin_<i> of each bin, and ece of each class.

    The expected calibration error is the bins' |precision - mean score|, weighted by their detections.
    """
    figures = F.array(
        *[
            F.struct(F.format_string(f"{name}_bin_%02d", "bin").alias("metric"), F.col(name).alias("value"))
            for name in ("precision", "mean_score")
        ]
    )
    of_bins = bins.select("query", "n", F.inline(figures))
    gap = F.abs(F.col("precision") - F.col("mean_score"))
    total_gap = F.sum((gap * F.col("n")).cast(EXACT_SUM)).cast("double")
    of_classes = bins.groupBy("query").agg((total_gap / F.sum("n")).alias("value"), F.sum("n").alias("n"))
    rows = of_bins.unionByName(of_classes.withColumn("metric", F.lit("ece")))
    absent = F.lit(None).cast("double")
    rows = rows.withColumns({"method": F.lit(DETECTOR), "low": absent, "high": absent})
    return rows.select(*METRIC_SCHEMA.names)
