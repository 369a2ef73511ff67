"""The best candidates of one strategy, in the order it would pick them."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.acquisition_spec import RANDOM, UNCERTAINTY, KCenterSpec, TemporalSpec
from conf.settings import AcquireSettings
from conf.strategy import Strategy
from pipelines.k_center import k_center
from pipelines.models import Model
from pipelines.pool import earlier_frames, known_features
from pipelines.ranked_images import ranked_images
from pipelines.run import Run
from pipelines.temporal import TemporalRules, temporal_survivors

# 256 values a feature: about 600 MB.
MOST_ROWS_PER_TASK = 200_000


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What ranks the pool, beside the strategy.

    Attributes:
        run: The run.
        model: Whose hardness ranks.
        method: hardness.method of score sampling.
        seed: Of ties, draws and groups of k-center.
        cycle_id: What other cycles picked blocks frames and starts k-center.
        settings: What is excluded, and which boxes there are.
    """

    run: Run
    model: Model
    method: str
    seed: int
    cycle_id: str
    settings: AcquireSettings


def scored_pool(pool: DataFrame, strategy: Strategy, ranking: Ranking) -> DataFrame:
    """The pool with `score`, `tie` and `blocked_by_rule`, without rows that have no score.

    Args:
        pool: POOL_COLUMNS.
        strategy: A plain one.
        ranking: What ranks.

    Returns:
        POOL_COLUMNS, score (larger is better), tie (smallest first among equal scores) and blocked_by_rule:
        null, or the temporal rule that blocks the row.

    Raises:
        QuarryError: The score was not computed; the message has what there is.
    """
    tie = tie_hash(strategy, ranking.seed)
    rows = pool.withColumn("tie", tie)
    if strategy.score == RANDOM:
        rows = rows.withColumn("score", uniform_draw(F.col("tie")))
    elif strategy.score == UNCERTAINTY:
        rows = rows.withColumn("score", F.col("uncertainty"))
    else:
        hardness = ranked_images(ranking.run, ranking.model, strategy.score, ranking.method)
        rows = rows.join(hardness.select("image_id", F.col("hardness").alias("score")), "image_id")
    if strategy.spec.temporal is None:
        return rows.withColumn("blocked_by_rule", F.lit(None).cast("string"))
    return rows.transform(_by_temporal_rules, strategy.spec.temporal, ranking, tie)


def best_candidates(
    scored: DataFrame, strategy: Strategy, ranking: Ranking, budget_units: int, most: int
) -> DataFrame:
    """The first `most` candidates in the order the strategy picks: columns of `scored` and `merit`.

    Args:
        scored: From `scored_pool`, without blocked rows.
        strategy: The same strategy.
        ranking: The same ranking.
        budget_units: Units the budget buys at most: what k-center spreads.
        most: Rows kept.
    """
    spread = strategy.spec.k_center
    if spread is not None:
        return scored.transform(_spread, spread, strategy, ranking, budget_units)
    return scored.withColumn("merit", F.col("score")).orderBy(F.desc("merit"), "tie").limit(most)


def tie_hash(strategy: Strategy, seed: int) -> Column:
    """Orders equal scores: a hash of the unit, the strategy and the seed, never of where a row lies."""
    return F.xxhash64(F.lit(seed), F.lit(strategy.name), F.col(strategy.key))


def uniform_draw(tie: Column) -> Column:
    """A number in [0, 1) from a 64-bit hash."""
    return F.shiftrightunsigned(tie, 11).cast("double") / F.lit(float(1 << 53))


def _by_temporal_rules(rows: DataFrame, spec: TemporalSpec, ranking: Ranking, tie: Column) -> DataFrame:
    rules = TemporalRules(
        smooth_half_width=spec.smooth_frames,
        smooth_sigma=max(spec.smooth_frames / 2, 0.5),
        block_now=spec.block_now,
        block_later=spec.block_later,
    )
    frames = rows.select("image_id", "sequence_id", "frame_index", "score")
    picked_before = earlier_frames(ranking.run, ranking.cycle_id, ranking.model, ranking.settings)
    verdicts = temporal_survivors(frames, picked_before, rules, tie)
    verdicts = verdicts.select("image_id", "score", F.col("rule").alias("blocked_by_rule"))
    return rows.drop("score").join(verdicts, "image_id")


def _spread(
    scored: DataFrame, spec: KCenterSpec, strategy: Strategy, ranking: Ranking, budget_units: int
) -> DataFrame:
    pool = scored
    if spec.of_best is not None:
        pool = pool.orderBy(F.desc("score"), "tie").limit(int(spec.of_best * budget_units))
    points = pool.select(F.col(strategy.key).alias("id"), "feature")
    picks = k_center(
        points,
        k=min(budget_units, points.count()),
        seeds=known_features(
            ranking.run, ranking.cycle_id, ranking.model, ranking.settings, strategy.spec.unit
        ),
        seed=ranking.seed,
        max_rows_per_task=MOST_ROWS_PER_TASK,
        device=ranking.settings.device,
    )
    # The first pick of all has no center before it: its distance is that of the second, from it.
    distance = F.coalesce("distance", F.lead("distance").over(Window.orderBy("rank")), F.lit(0.0))
    ranked = picks.rows.select(
        F.col("id").alias(strategy.key),
        (-F.col("rank")).cast("double").alias("merit"),
        distance.alias("score"),
    )
    return pool.drop("score").join(ranked, strategy.key)
