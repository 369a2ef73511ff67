"""Estimated beside true hardness: the rankings an evaluation compares."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import ScoreSettings
from pipelines.hardness_rows import BASELINE, GROUND_TRUTH, query_hash_meant
from pipelines.models import Model
from pipelines.run import Run
from schemas.tables import HARDNESS
from udfs.metric_rows import EXACT, MONTE_CARLO, RANDOM

# hardness.method to the name of its ranking; any other method is called what it is.
RANKING_NAMES = {"exact": EXACT, "monte_carlo": MONTE_CARLO}


def rankings(run: Run, held_out: DataFrame, model: Model, scoring: ScoreSettings, seed: int) -> DataFrame:
    """One row per query and held-out image: image_id, query, truth, and a column of estimates per ranking.

    Every query meets each method, each baseline, and a random ranking; an estimate that is missing, or of a
    query that meant something else, is null.

    Args:
        run: The run.
        held_out: Columns image_id and detected_ts: the held-out images, and when they were detected.
        model: Whose hardness is judged.
        scoring: Queries and what they mean.
        seed: Of the random ranking.
    """
    scored = scored_methods(run, model)
    methods = sorted({method for method, _ in scored} - {GROUND_TRUTH, BASELINE})
    baselines = sorted({query for method, query in scored if method == BASELINE})
    keys = [(method, query) for method in (GROUND_TRUTH, *methods) for query in scoring.queries]
    keys += [(BASELINE, name) for name in baselines]
    column = {key: f"value_{place}" for place, key in enumerate(keys)}
    rows = run.store.read(HARDNESS).where(F.col("model_id") == model.model_id)
    rows = rows.where(F.col("query_hash") == query_hash_meant(scoring))
    # What is older than the detections it was made from speaks of others.
    current = rows.join(held_out.select("image_id", "detected_ts"), "image_id").where("ts >= detected_ts")
    images = current.groupBy("image_id")
    # One shuffle: all that is known of an image meets in one row, which then becomes a row per query.
    wide = images.agg(*[_hardness_of(*key).alias(name) for key, name in column.items()])
    per_query = [
        F.struct(
            F.lit(query).alias("query"),
            F.col(column[GROUND_TRUTH, query]).alias("truth"),
            *[F.col(column[method, query]).alias(RANKING_NAMES.get(method, method)) for method in methods],
            *[F.col(column[BASELINE, name]).alias(name) for name in baselines],
        )
        for query in scoring.queries
    ]
    draw = F.xxhash64(F.lit(seed), F.lit(RANDOM), F.col("image_id")).cast("double")
    ranked = wide.select("image_id", F.inline(F.array(*per_query)))
    return ranked.where("truth IS NOT NULL").withColumn(RANDOM, draw)


def scored_methods(run: Run, model: Model) -> list[tuple[str, str]]:
    """Method and query of the rows of `hardness` of a model: at most queries times methods of them."""
    rows = run.store.read(HARDNESS).where(F.col("model_id") == model.model_id)
    return [(row.method, row["query"]) for row in rows.select("method", "query").distinct().collect()]


def _hardness_of(method: str, query: str) -> Column:
    return F.max(F.when((F.col("method") == method) & (F.col("query") == query), F.col("hardness")))
