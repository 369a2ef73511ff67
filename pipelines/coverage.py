"""How well the picks of a k-center strategy cover what they were chosen from: told, and kept in `metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.k_center import KCenterPicks, covering_radius
from pipelines.local_frame import local_frame
from pipelines.run import Run
from pipelines.tables import spark_schema, sql_literal
from schemas.tables import METRICS

# In `metrics.method`; the strategy, or mixture/part, is in `query`.
K_CENTER = "k_center"
RADIUS, LOWER_BOUND = "k_center_radius", "k_center_lower_bound"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What k-center chose from, and what it chose.

    Attributes:
        points: Columns id, feature.
        n: Points.
        known: Columns id, feature: the centers it started from.
        picks: Its picks, as many as the strategy picks or more.
    """

    points: DataFrame
    n: int
    known: DataFrame
    picks: KCenterPicks


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What the picks of one strategy, or one part of a mixture, reach.

    Attributes:
        name: The strategy, or mixture/part.
        n: Images or boxes that it spread over.
        radius: Largest distance (L2 of features) of any to the nearest picked or known one.
        lower_bound: So many picks beside the known ones, whichever, leave no smaller radius.
    """

    name: str
    n: int
    radius: float
    lower_bound: float


def coverage(
    name: str, spread: Spread, chosen: DataFrame, *, seed: int, max_rows_per_task: int, device: str
) -> Coverage | None:
    """What the chosen ones reach; none where there are none.

    Args:
        name: For people and `metrics`.
        spread: Where they come from.
        chosen: Column id; rules may have turned some of the spread's picks down.
        seed: As for `k_center`.
        max_rows_per_task: As for `k_center`.
        device: As for `k_center`.
    """
    n_chosen = chosen.count()
    if not n_chosen:
        return None
    picks = spread.picks
    ranks = picks.rows.join(chosen, "id").agg(F.count("*").alias("n"), F.max("rank").alias("last")).first()
    after = picks.rows.where(F.col("rank") == n_chosen + 1).first()
    assert ranks is not None
    if picks.k == ranks.n == ranks.last == n_chosen:
        radius = picks.radius
    else:
        mine = spread.points.join(chosen, "id", "left_semi").unionByName(spread.known)
        # Columns of their own names: Spark cannot tell rows from others that they were chosen from.
        centers = mine.select(*(F.col(name).alias(name) for name in ("id", "feature")))
        radius = covering_radius(
            spread.points, centers, seed=seed, max_rows_per_task=max_rows_per_task, device=device
        )
    # The first picks and the next one are n + 1 points at least its distance apart.
    bound = picks.lower_bound if after is None else max(picks.lower_bound, after.distance / 2.0)
    return Coverage(name=name, n=spread.n, radius=radius, lower_bound=bound)


def tell_coverage(run: Run, found: Coverage) -> None:
    """The radius beside its bound, for people."""
    run.tell(
        f"{found.name}: all {found.n:,} lie within {found.radius:.4g} of a picked or known one (k-center "
        f"radius); no choice of so many has less than {found.lower_bound:.4g}"
    )


def write_coverage(run: Run, cycle_id: str, model_id: str, found: Sequence[Coverage]) -> None:
    """Puts radius and bound of a cycle's strategies into `metrics`, in place of its earlier ones."""
    where = f"cycle_id = {sql_literal(cycle_id)} AND method = '{K_CENTER}'"
    if not found and run.store.read(METRICS).where(where).isEmpty():
        return
    rows = [
        (cycle_id, model_id, metric, one.name, K_CENTER, value, None, None, one.n)
        for one in found
        for metric, value in ((RADIUS, one.radius), (LOWER_BOUND, one.lower_bound))
    ]
    run.store.replace(METRICS, local_frame(run.store.session, rows, spark_schema(METRICS)), where=where)
