"""From `hardness` and `detections` to `acquisition`: what each strategy picks under the budget, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import Unit
from conf.settings import AcquireSettings, ScoreSettings, settings_hash
from conf.strategy import Strategy, strategies
from pipelines.budget import (
    Budget,
    budget_of,
    priced,
    require_budget_within,
    require_room_for_a_group,
)
from pipelines.candidate_search import picks_and_near_misses
from pipelines.candidates import Ranking
from pipelines.models import Model
from pipelines.pool import box_pool, image_pool
from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, NEAR_MISSES


def acquire(
    run: Run,
    cycle_id: str,
    model: Model,
    settings: AcquireSettings,
    scoring: ScoreSettings,
    seed: int,
) -> dict[str, int]:
    """Picks what a cycle sends to labeling; the same settings on the same tables pick the same rows again.

    Args:
        run: The run.
        cycle_id: The cycle; its earlier picks are replaced.
        model: Whose hardness and boxes are ranked.
        settings: Strategies, budget, prices, exclusions.
        scoring: The method that ranks where `settings` names none, and when a detection is confirmed.
        seed: Seed of ties and draws.

    Returns:
        Rows per strategy.

    Raises:
        QuarryError: An unknown strategy or score, a score or feature that no job computed yet (the message
            names the job), nothing left to label, or a budget above the pool. Nothing is written then.
    """
    chosen = strategies(settings)
    ranking = Ranking(
        run=run,
        model=model,
        method=settings.method or scoring.estimator,
        seed=seed,
        cycle_id=cycle_id,
        settings=settings,
    )
    pools = _pools(chosen, scoring.eta, ranking)
    outcomes = [_outcome(s, pools[_pool_key(s)], ranking).persist() for s in chosen]
    counts = {s.name: o.where("picked").count() for s, o in zip(chosen, outcomes, strict=True)}
    digest = settings_hash(settings, seed, ranking.method, model.model_id)
    rows = reduce(DataFrame.unionByName, outcomes)
    rows = rows.withColumns({"cycle_id": F.lit(cycle_id), "settings_hash": F.lit(digest)})
    where = f"cycle_id = {sql_literal(cycle_id)}"
    run.store.create(NEAR_MISSES)  # so that SQL finds it, asked for or not
    if settings.near_misses or not run.store.read(NEAR_MISSES).where(where).isEmpty():
        run.store.replace(NEAR_MISSES, rows.where("NOT picked"), where=where)
    run.store.replace(ACQUISITION, rows.where("picked"), where=where)
    for outcome in outcomes:
        outcome.unpersist()
    return counts


class _Pool(NamedTuple):
    rows: DataFrame
    size: int
    budget: Budget


def _pool_key(strategy: Strategy) -> tuple[Unit, str | None]:
    quotas = strategy.spec.quotas
    return strategy.spec.unit, None if quotas is None else quotas.by


def _pools(chosen: Sequence[Strategy], eta: float, ranking: Ranking) -> dict[tuple[Unit, str | None], _Pool]:
    """What each strategy picks from; every check of budgets and pools comes before the first pick."""
    run, model, cycle_id, settings = ranking.run, ranking.model, ranking.cycle_id, ranking.settings
    pools = {}
    for strategy in chosen:
        require_room_for_a_group(strategy, budget_of(settings, strategy.spec.unit))
    for unit, by in dict.fromkeys(map(_pool_key, chosen)):
        budget = budget_of(settings, unit)
        if unit == "image":
            rows = image_pool(run, cycle_id, model, settings, eta, by)
        else:
            rows = box_pool(run, cycle_id, model, settings, by)
        rows = rows.transform(priced, settings, unit)
        pools[unit, by] = _Pool(rows, require_budget_within(rows, budget, unit), budget)
    return pools


def _outcome(strategy: Strategy, pool: _Pool, ranking: Ranking) -> DataFrame:
    """Picks and near misses of one strategy: columns of `acquisition` but cycle_id and settings_hash, and
    `picked`; persisted."""
    return picks_and_near_misses(strategy, pool.rows, pool.budget, ranking)
