"""One pass over the best candidates of all parts of a strategy, in one task: rules, budget and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.strategy import Strategy
from pipelines.one_table import one_table
from udfs.near_duplicates import NearDuplicateRule
from udfs.selection_rows import KNOWN, SELECTION_SCHEMA, selection_rows
from udfs.selection_rules import Component, GroupQuota, SelectionRules

CANDIDATE_COLUMNS = (
    "merit",
    "tie",
    "image_id",
    "detection_id",
    "score",
    "group",
    "image_hash",
    "feature",
    "cost",
    "cost_s",
    "cost_money",
)


def selected(
    parts: list[DataFrame], known: DataFrame | None, strategy: Strategy, budget: float, near_misses: int
) -> DataFrame:
    """Columns of SELECTION_SCHEMA: what the pass picks from the candidates, and what it does not.

    Args:
        parts: CANDIDATE_COLUMNS of each part's best candidates; they are held in one task.
        known: Columns image_hash and feature of pictures that picks must not duplicate; none without such
            a rule.
        strategy: Shares, quotas and near-duplicates.
        budget: What may be spent.
        near_misses: Rejected candidates to keep.
    """
    by_distance = strategy.spec.near_duplicates is not None and (
        strategy.spec.near_duplicates.max_distance is not None
    )
    feature = F.col("feature") if by_distance else F.lit(None).cast("array<float>")
    frames = [
        frame.withColumn("feature", feature).select(F.lit(number).alias("part"), *CANDIDATE_COLUMNS)
        for number, frame in enumerate(parts)
    ]
    if known is not None:
        frames.append(_as_candidates(known.withColumn("feature", feature), frames[0]))
    rows = reduce(DataFrame.unionByName, frames)
    calculation = partial(selection_rows, rules=selection_rules(strategy, budget), near_misses=near_misses)
    # One group, one task: the budget bounds its rows. (A number would be read as the place of a column.)
    return rows.groupBy(F.lit("all")).applyInArrow(
        one_table(calculation), from_arrow_schema(SELECTION_SCHEMA)
    )


def with_blocked(
    outcome: DataFrame, blocked: Sequence[tuple[Strategy, DataFrame]], near_misses: int
) -> DataFrame:
    """The outcome with the best rows that temporal rules blocked among its near misses.

    Args:
        outcome: Columns of SELECTION_SCHEMA.
        blocked: Each part with such a rule, and its rows with score, tie and blocked_by_rule.
        near_misses: Of each part, and in all.
    """
    missed = [outcome.where("NOT picked").drop("rank")]
    for part, rows in blocked:
        best = rows.orderBy(F.desc("score"), "tie").limit(near_misses)
        value = F.format_string("%s %.6g: ", F.lit(part.score_text), F.col("score"))
        texts = {"reason": F.concat(value, "blocked_by_rule"), "part": F.lit(part.name)}
        flags = {"picked": F.lit(False), "ran_dry": F.lit(False)}
        missed.append(best.withColumns(texts | flags).select(*missed[0].columns))
    every = reduce(DataFrame.unionByName, missed)
    order = Window.partitionBy(F.lit(0)).orderBy(F.desc("score"), "image_id", "detection_id", "part")
    ranked = every.withColumn("rank", F.row_number().over(order)).where(F.col("rank") <= near_misses)
    return outcome.where("picked").unionByName(ranked)


def selection_rules(strategy: Strategy, budget: float) -> SelectionRules:
    """The strategy's rules as the pass takes them."""
    quotas, duplicates = strategy.spec.quotas, strategy.spec.near_duplicates
    at_most = None if quotas is None else quotas.at_most
    at_least = {} if quotas is None else quotas.at_least
    return SelectionRules(
        budget=budget,
        components=tuple(
            Component(name=part.name, share=share, ranked_by=part.score_text)
            for share, part in strategy.ranked_parts
        ),
        quotas={g: GroupQuota(min_count=n, max_share=at_most) for g, n in at_least.items()},
        other_quota=GroupQuota(max_share=at_most),
        near_duplicates=NearDuplicateRule()
        if duplicates is None
        else NearDuplicateRule(
            max_hamming_bits=duplicates.max_hamming, below_feature_l2=duplicates.max_distance
        ),
    )


def _as_candidates(known: DataFrame, like: DataFrame) -> DataFrame:
    nulls = {f.name: F.lit(None).cast(f.dataType) for f in like.schema if f.name not in known.columns}
    filled = known.withColumns(nulls | {"part": F.lit(KNOWN), "cost": F.lit(0.0)})
    return filled.select(*like.columns)
