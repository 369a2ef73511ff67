"""From `hardness` and `detections` to `acquisition`: what each strategy picks under the budget, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_attempt

from conf.acquisition_spec import RANDOM, UNCERTAINTY, Unit
from conf.errors import QuarryError
from conf.settings import AcquireSettings, ScoreSettings, settings_hash
from conf.strategy import Strategy, strategies
from pipelines.budget import (
    Budget,
    budget_of,
    priced,
    require_budget_within,
    require_room_for_a_group,
)
from pipelines.candidate_search import PLURAL, Outcome, picks_and_near_misses
from pipelines.candidates import Ranking
from pipelines.coverage import tell_coverage, write_coverage
from pipelines.models import Model
from pipelines.picked_elsewhere import picked_elsewhere
from pipelines.place_check import require_places
from pipelines.pool import box_pool, image_pool
from pipelines.run import Run
from pipelines.tables import RowsChanged, sql_literal
from schemas.tables import ACQUISITION, MANIFESTS, NEAR_MISSES

# How often a cycle picks while other cycles' picks come in between; each try means that one of them is done.
MOST_TRIES = 20


def acquire(
    run: Run,
    cycle_id: str,
    model: Model,
    settings: AcquireSettings,
    scoring: ScoreSettings,
    seed: int,
    *,
    replace_exported: bool = False,
) -> dict[str, int]:
    """Picks what a cycle sends to labeling; the same settings on the same tables pick the same rows again.

    Args:
        run: The run.
        cycle_id: The cycle; its earlier picks are replaced.
        model: Whose hardness and boxes are ranked.
        settings: Strategies, budget, prices, exclusions.
        scoring: The method that ranks where `settings` names none, and when a detection is confirmed.
        seed: Seed of ties and draws.
        replace_exported: Whether to pick anew what is in manifests already.

    Returns:
        Rows per strategy.

    Raises:
        QuarryError: An unknown strategy or score, a score, feature or sequence that no job found yet (the
            message names the job), nothing left to label, a budget above the pool, other picks than those
            that went into manifests, or other cycles that never stop picking. Nothing is written then.
    """
    pick = partial(_pick, run, cycle_id, model, settings, scoring, seed, replace_exported=replace_exported)

    def tell(_: RetryCallState) -> None:
        run.tell("another cycle picked meanwhile; picking again, without what it took")

    tries = Retrying(
        retry=retry_if_exception_type(RowsChanged), stop=stop_after_attempt(MOST_TRIES), before_sleep=tell
    )
    try:
        return tries(pick)
    except RetryError:
        raise QuarryError(
            f"cycle {cycle_id!r}: other cycles picked {MOST_TRIES} times while it did; run it again later"
        ) from None


def _pick(
    run: Run,
    cycle_id: str,
    model: Model,
    settings: AcquireSettings,
    scoring: ScoreSettings,
    seed: int,
    *,
    replace_exported: bool,
) -> dict[str, int]:
    """One try of `acquire`.

    Raises:
        RowsChanged: The picks that it kept away from are no longer all.
    """
    chosen = strategies(settings)
    method = settings.method or scoring.estimator
    # Near misses change no pick.
    digest = settings_hash(settings.model_copy(update={"near_misses": 0}), seed, method, model.model_id)
    seen, ts = picked_elsewhere(run, cycle_id, digest)
    ranking = Ranking(
        run=run,
        model=model,
        method=method,
        scoring=scoring,
        seed=seed,
        others=seen.where,
        settings=settings,
    )
    require_places(run, model.classes.values(), chosen)
    pools = _pools(chosen, scoring.eta, ranking)
    _require_scores(chosen, pools, ranking)
    priced_pools = [pools[_pool_key(strategy)] for strategy in chosen]
    outcomes: list[Outcome] = []
    try:
        for strategy, pool in zip(chosen, priced_pools, strict=True):
            outcomes.append(picks_and_near_misses(strategy, pool.rows, pool.budget, ranking))
        counts = {s.name: o.rows.where("picked").count() for s, o in zip(chosen, outcomes, strict=True)}
        rows = reduce(DataFrame.unionByName, [outcome.rows for outcome in outcomes])
        rows = rows.withColumns({"cycle_id": F.lit(cycle_id), "settings_hash": F.lit(digest), "ts": ts})
        where = f"cycle_id = {sql_literal(cycle_id)}"
        if not replace_exported:
            _require_not_exported(run, cycle_id, rows.where("picked"), where)
        depends = seen if "sent" in settings.exclude else None
        run.store.replace(ACQUISITION, rows.where("picked"), where=where, seen=depends)
        run.store.create(NEAR_MISSES)  # so that SQL finds it, asked for or not
        if settings.near_misses or not run.store.read(NEAR_MISSES).where(where).isEmpty():
            run.store.replace(NEAR_MISSES, rows.where("NOT picked"), where=where)
    finally:
        for outcome in outcomes:
            outcome.rows.unpersist()
    reached = [one for outcome in outcomes for one in outcome.coverage]
    write_coverage(run, cycle_id, model.model_id, reached)
    for one in reached:
        tell_coverage(run, one)
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
    run, model, others, settings = ranking.run, ranking.model, ranking.others, ranking.settings
    pools = {}
    for strategy in chosen:
        require_room_for_a_group(strategy, budget_of(settings, strategy.spec.unit))
    for unit, by in dict.fromkeys(map(_pool_key, chosen)):
        budget = budget_of(settings, unit)
        if unit == "image":
            rows = image_pool(run, others, model, settings, eta, by)
        else:
            rows = box_pool(run, others, model, settings, by)
        rows = rows.transform(priced, settings, unit)
        pools[unit, by] = _Pool(rows, require_budget_within(rows, budget, PLURAL[unit]), budget)
    return pools


def _require_scores(
    chosen: Sequence[Strategy], pools: Mapping[tuple[Unit, str | None], _Pool], ranking: Ranking
) -> None:
    """Tells of images that a score says nothing of, as they cannot be picked by it."""
    ranked = {(p.score, share): _pool_key(s) for s in chosen for share, p in s.ranked_parts}
    for (score, share), key in ranked.items():
        if score in (RANDOM, UNCERTAINTY):
            continue
        pool = pools[key]
        scored = pool.rows.join(ranking.hardness(score), "image_id", "left_semi")
        budget = replace(pool.budget, amount=share * pool.budget.amount)
        n_scored = require_budget_within(scored, budget, f"images with {score!r}")
        if n_scored < pool.size:
            ranking.run.tell(
                f"{pool.size - n_scored:,} of {pool.size:,} images have no {score!r} since they were last "
                "detected and are not picked by it: run `quarry score`"
            )


def _require_not_exported(run: Run, cycle_id: str, picks: DataFrame, where: str) -> None:
    """Fails when a cycle's picks are with labelers and would change."""
    if run.store.read(MANIFESTS).where(where).isEmpty():
        return
    columns = ("strategy", "unit", "rank", "image_id", "detection_id")
    before, now = run.store.read(ACQUISITION).where(where).select(*columns), picks.select(*columns)
    if not (before.exceptAll(now).isEmpty() and now.exceptAll(before).isEmpty()):
        raise QuarryError(
            f"cycle {cycle_id!r} was exported, and would pick other images or boxes now: pick under another "
            "--cycle, or, if its manifests were not used, with --replace-exported"
        )
