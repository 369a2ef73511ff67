"""Budgets in images, boxes, seconds or money, and what a candidate costs."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import Unit
from conf.errors import QuarryError
from conf.settings import AcquireSettings
from conf.strategy import Strategy

MOST_UNITS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one strategy may spend on one kind of unit.

    Attributes:
        amount: In units of the setting `acquire.budget_in`.
        name: The amount with its unit, for people.
        cheapest: What the cheapest unit costs, in the same units.
    """

    amount: float
    name: str
    cheapest: float

    @property
    def most_units(self) -> int:
        """Images or boxes it buys at most."""
        return int(self.amount / self.cheapest + 1e-9)


def budget_of(settings: AcquireSettings, unit: Unit) -> Budget:
    """The budget as it applies to images or to boxes.

    Raises:
        QuarryError: It buys nothing, or more than MOST_UNITS, which are ranked in one task.
    """
    seconds = settings.prices.of(unit)
    cheapest = {"images": 1.0, "boxes": 1.0, "seconds": seconds, "money": settings.prices.money(seconds)}
    budget = Budget(
        amount=settings.budget,
        name=f"{settings.budget:,.15g} {settings.budget_in}",
        cheapest=cheapest[settings.budget_in] or 1.0,
    )
    if not 1 <= budget.most_units <= MOST_UNITS:
        what = (
            f"one {unit} costs {budget.cheapest:g}"
            if budget.most_units < 1
            else f"at most {MOST_UNITS:,} units"
        )
        raise QuarryError(f"acquire.budget: {budget.name} buys {budget.most_units:,} {unit} units; {what}")
    return budget


def priced(pool: DataFrame, settings: AcquireSettings, unit: Unit) -> DataFrame:
    """The pool with `cost` (in units of the budget), `cost_s` and `cost_money` (null without an hourly rate).

    An image costs as many boxes as a labeler will find in it (confirmed detections), at least one: somebody
    has to look.
    """
    seconds = settings.prices.of(unit)
    money = F.lit(settings.prices.money(seconds)).cast("double")
    boxes: Column = F.greatest(F.col("n_boxes"), F.lit(1)).cast("double")
    cost = {"images": F.lit(1.0), "boxes": boxes, "seconds": F.lit(seconds), "money": money}
    return pool.withColumns({"cost": cost[settings.budget_in], "cost_s": F.lit(seconds), "cost_money": money})


def require_budget_within(pool: DataFrame, budget: Budget, what: str) -> int:
    """Size of the priced pool, whose rows people call `what`, such as images.

    Raises:
        QuarryError: It is empty, or the budget buys more than all of it.
    """
    found = pool.agg(F.count("*").alias("n"), F.coalesce(F.sum("cost"), F.lit(0.0)).alias("cost")).first()
    assert found is not None
    if not found.n:
        raise QuarryError(
            f"nothing to acquire: no {what} are left that are detected and not excluded (acquire.exclude: "
            "labeled, held_out to measure with, sent by another cycle, quarantined); ingest and detect new "
            "images, or exclude less"
        )
    if found.cost < budget.amount * (1 - 1e-9):  # sums of prices round
        raise QuarryError(
            f"acquire.budget: {budget.name} is above the pool: the {found.n:,} {what} that are left "
            f"cost {found.cost:,.15g}; lower the budget"
        )
    return int(found.n)


def require_room_for_a_group(strategy: Strategy, budget: Budget) -> None:
    """Fails when a group's largest share of the budget would not buy a single unit.

    Raises:
        QuarryError: Names the strategy, the share and the budget.
    """
    quotas = strategy.spec.quotas
    if quotas is None or quotas.at_most is None:
        return
    if quotas.at_most * budget.amount < budget.cheapest * (1 - 1e-9):
        raise QuarryError(
            f"strategy {strategy.name}: quotas.at_most {quotas.at_most:g} of {budget.name} buys nothing for "
            "any group; raise it or the budget"
        )
