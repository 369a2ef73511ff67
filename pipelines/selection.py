"""One pass over the best candidates of all parts of a strategy, in one task: rules, budget and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.strategy import Strategy
from pipelines.budget import Budget
from pipelines.known_duplicates import duplicate_rule
from pipelines.one_table import one_table
from udfs.selection_rows import SELECTION_SCHEMA, selection_rows
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
    "barred",
    "extra",
)


def selected(parts: Sequence[DataFrame], strategy: Strategy, budget: float, near_misses: int) -> DataFrame:
    """Columns of SELECTION_SCHEMA: what the pass picks from the candidates, near misses, and a summary.

    Args:
        parts: CANDIDATE_COLUMNS of each part's best candidates; they are held in one task.
        strategy: Shares, quotas and near-duplicates.
        budget: What may be spent.
        near_misses: Rejected candidates to keep.
    """
    frames = [
        frame.select(F.lit(number).alias("part"), *CANDIDATE_COLUMNS) for number, frame in enumerate(parts)
    ]
    rows = reduce(DataFrame.unionByName, frames)
    calculation = partial(selection_rows, rules=selection_rules(strategy, budget), near_misses=near_misses)
    # One group, one task: the reach bounds its rows. (A number would be read as the place of a column.)
    return rows.groupBy(F.lit("all")).applyInArrow(
        one_table(calculation), from_arrow_schema(SELECTION_SCHEMA)
    )


def require_possible_minimums(strategy: Strategy, budget: Budget) -> None:
    """Fails where the budget cannot fill every group's minimum, however cheap the group's units are.

    Raises:
        QuarryError: Names the strategy, the numbers and the budget.
    """
    quotas = strategy.spec.quotas
    if quotas is None or not quotas.at_least:
        return
    group, largest = max(quotas.at_least.items(), key=lambda item: item[1])
    share = 1.0 if quotas.at_most is None else quotas.at_most
    if largest * budget.cheapest > share * budget.amount * (1 + 1e-9):
        raise QuarryError(
            f"strategy {strategy.name}: quotas.at_least {largest:,} of {group!r} costs at least "
            f"{largest * budget.cheapest:,.15g}, but a group may get {share:g} of {budget.name} "
            "(quotas.at_most); ask for less or raise the share or the budget"
        )
    total = sum(quotas.at_least.values())
    if total * budget.cheapest > budget.amount * (1 + 1e-9):
        raise QuarryError(
            f"strategy {strategy.name}: quotas.at_least adds up to {total:,} {strategy.spec.unit} units, "
            f"which cost at least {total * budget.cheapest:,.15g}; the budget is {budget.name}"
        )


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
        near_duplicates=duplicate_rule(duplicates),
    )
