"""The best candidates of one strategy, in the order it would pick them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from math import ceil

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import RANDOM, UNCERTAINTY, TemporalSpec
from conf.settings import AcquireSettings, ScoreSettings
from conf.strategy import Strategy
from pipelines.coverage import Spread
from pipelines.k_center import k_center
from pipelines.models import Model
from pipelines.pool import earlier_frames
from pipelines.ranked_images import ranked_images
from pipelines.run import Run
from pipelines.temporal import TemporalRules, temporal_survivors

# What `scored_pool` gives: what the selection reads, and no features.
SCORED_COLUMNS = (
    "image_id",
    "detection_id",
    "image_hash",
    "group",
    "cost",
    "cost_s",
    "cost_money",
    "score",
    "tie",
    "blocked_by_rule",
)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What ranks the pool, beside the strategy.

    Attributes:
        run: The run.
        model: Whose hardness ranks.
        method: hardness.method of score sampling.
        scoring: What the scores must mean.
        seed: Of ties, draws and groups of k-center.
        others: Condition on `acquisition`: these picks of other cycles block frames and start k-center.
        settings: What is excluded, and which boxes there are.
    """

    run: Run
    model: Model
    method: str
    scoring: ScoreSettings
    seed: int
    others: str
    settings: AcquireSettings
    _hardness: dict[str, DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    def hardness(self, score: str) -> DataFrame:
        """Rows of `hardness` that rank by a score: see `ranked_images`, whose checks run once a score."""
        if score not in self._hardness:
            self._hardness[score] = ranked_images(self.run, self.model, score, self.method, self.scoring)
        return self._hardness[score]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a strategy, or the only one, and what it may pick.

    Attributes:
        strategy: The part.
        scored: From `scored_pool`.
        features: Columns `strategy.key` and feature of the pool, for k-center.
        known: Columns id and feature that k-center starts from.
    """

    strategy: Strategy
    scored: DataFrame
    features: DataFrame
    known: DataFrame | None


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How many candidates of one part the selection looks at.

    Attributes:
        units: Units the budget buys at most: what k-center spreads even where tasks hold no more.
        best: The best of all.
        of_group: And of each group with a minimum, its best.
        spare: And so many that k-center would pick next.
    """

    units: int
    best: int
    of_group: Mapping[str, int]
    spare: int = 0

    def widened(self, factor: int, most: int) -> Reach:
        """So many times as far; at most so many of all, and as many of all groups together."""
        of_group_most = most // max(1, len(self.of_group))
        wider = {group: min(factor * count, of_group_most) for group, count in self.of_group.items()}
        return replace(self, best=min(factor * self.best, most), of_group=wider)


def scored_pool(pool: DataFrame, strategy: Strategy, ranking: Ranking) -> DataFrame:
    """Scores, ties and temporal rules on the pool, without rows that have no score.

    Args:
        pool: POOL_COLUMNS.
        strategy: A plain one.
        ranking: What ranks.

    Returns:
        SCORED_COLUMNS: score (larger is better), tie (smallest first among equal scores) and blocked_by_rule:
        null, or the temporal rule that blocks the row.

    Raises:
        QuarryError: The score was not computed; the message has what there is.
    """
    tie = tie_hash(strategy, ranking.seed)
    rows = pool.drop("feature").withColumn("tie", tie)
    if strategy.score == RANDOM:
        rows = rows.withColumn("score", uniform_draw(F.col("tie")))
    elif strategy.score == UNCERTAINTY:
        rows = rows.withColumn("score", F.col("uncertainty"))
    else:
        rows = rows.join(
            ranking.hardness(strategy.score).select("image_id", F.col("hardness").alias("score")), "image_id"
        )
    if strategy.spec.temporal is None:
        rows = rows.withColumn("blocked_by_rule", F.lit(None).cast("string"))
    else:
        rows = rows.transform(_by_temporal_rules, strategy.spec.temporal, ranking, tie)
    return rows.select(*SCORED_COLUMNS)


def best_candidates(
    part: Part, ranking: Ranking, reach: Reach, kept: ExitStack
) -> tuple[DataFrame, Spread | None]:
    """The first candidates in the order a part picks, and the first of groups that have a minimum.

    Args:
        part: What it ranks, and how.
        ranking: What ranked it.
        reach: How many.
        kept: Releases what was persisted.

    Returns:
        SCORED_COLUMNS, merit (larger is picked first) and of_group: null for the best of all, else the group
        they are the best of. A row may be in both. And what k-center did to find the best of all.
    """
    free = part.scored.where("blocked_by_rule IS NULL")

    def best(rows: DataFrame, units: int, most: int, spare: int = 0) -> tuple[DataFrame, Spread | None]:
        if part.strategy.spec.k_center is not None:
            return _spread(rows, part, ranking, units, most, spare, kept)
        return rows.withColumn("merit", F.col("score")).orderBy(F.desc("merit"), "tie").limit(most), None

    of_all, spread = best(free, reach.units, reach.best, reach.spare)
    lists = [of_all.withColumn("of_group", F.lit(None).cast("string"))]
    for group, most in reach.of_group.items():
        rows, _ = best(free.where(F.col("group") == group), min(most, reach.units), most)
        lists.append(rows.withColumn("of_group", F.lit(group)))
    return reduce(DataFrame.unionByName, lists), spread


def best_blocked(part: Part, most: int) -> DataFrame:
    """The best rows that temporal rules block: SCORED_COLUMNS, merit and barred, the rule in words.

    Their place is by score; k-center ranks by another one, so they stand behind its candidates.
    """
    merit = F.lit(float("-inf")) if part.strategy.spec.k_center else F.col("score")
    value = F.format_string("%s %.6g: ", F.lit(part.strategy.score), F.col("score"))
    blocked = part.scored.where("blocked_by_rule IS NOT NULL").orderBy(F.desc("score"), "tie")
    return blocked.limit(most).withColumns({"merit": merit, "barred": F.concat(value, "blocked_by_rule")})


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
    picked_before = earlier_frames(ranking.run, ranking.others, ranking.model, ranking.settings)
    verdicts = temporal_survivors(frames, picked_before, rules, tie)
    verdicts = verdicts.select("image_id", "score", F.col("rule").alias("blocked_by_rule"))
    return rows.drop("score").join(verdicts, "image_id")


def _spread(
    rows: DataFrame, part: Part, ranking: Ranking, units: int, most: int, spare: int, kept: ExitStack
) -> tuple[DataFrame, Spread | None]:
    """The first `most` picks of k-center, or so many as tasks can hold but at least `units`; `spare` more."""
    key, spec, pool = part.strategy.key, part.strategy.spec.k_center, rows
    if spec is not None and spec.of_best is not None:
        pool = pool.orderBy(F.desc("score"), "tie").limit(int(spec.of_best * units))
    n, seeds = pool.count(), part.known
    if not n or seeds is None:
        return pool.withColumn("merit", F.lit(0.0)), None
    if most > units:
        room = max(1, ranking.settings.k_center_rows - seeds.count())
        most = max(units, min(most, room // ceil(n / room)))
    points = pool.select(key).join(part.features, key).select(F.col(key).alias("id"), "feature")
    picks = k_center(
        points,
        k=min(n, most),
        spare=spare,
        seeds=seeds,
        seed=ranking.seed,
        max_rows_per_task=ranking.settings.k_center_rows,
        device=ranking.settings.device,
    )
    kept.callback(picks.rows.unpersist)
    # The first pick of all has no center before it: its distance is that of the second, from it.
    second = picks.rows.where(F.col("rank") == 2).first()
    distance = F.coalesce("distance", F.lit(0.0 if second is None else second.distance))
    ranked = picks.rows.select(
        F.col("id").alias(key),
        (-F.col("rank")).cast("double").alias("merit"),
        distance.alias("score"),
    )
    rows = pool.drop("score").join(ranked, key).select(*SCORED_COLUMNS, "merit")
    return rows, Spread(points=points, n=n, known=seeds, picks=picks)
