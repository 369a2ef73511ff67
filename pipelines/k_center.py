"""Greedy k-center over a cluster, in two rounds: in groups, then among what the groups chose.

A group is a hash of id and seed, so partitions and their order change no pick. Both rounds hold about
sqrt(n k) rows a task where that fits; nothing but a few numbers comes to the driver.

The radius is at most 4 times the least possible: a group's picks leave none of its points farther than r1 <=
2 OPT, the second round leaves none of those picks farther than r2 <= 2 OPT, and distances add up. Source:
Malkomes, Kusner, Chen, Weinberger, Moseley, "Fast distributed k-center clustering with outliers on massive
data", NeurIPS 2015, section 3. With one group there is no second round and the factor is 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from pipelines.feature_check import feature_width, presence
from pipelines.gpu import task_gpu
from udfs.devices import worker_device
from udfs.k_center_groups import PICKS_SCHEMA, RADIUS_SCHEMA, group_picks, group_radius

TableCalculation = Callable[..., pa.Table]


@dataclass(frozen=True, kw_only=True)
class KCenterPicks:
    """Chosen points and how well they cover all.

    Attributes:
        rows: Columns id STRING, rank INT (1 to k, and on with spare ones), distance DOUBLE (to the nearest
            center before the pick; null for the first where there was none). Persisted: `rows.unpersist()`
            when done.
        k: How many were asked for.
        radius: Largest distance of any point to its nearest center, seeds included.
        lower_bound: No k centers beside the seeds, anywhere in space, have a smaller radius.
        groups: Groups of the first round.
    """

    rows: DataFrame
    k: int
    radius: float
    lower_bound: float
    groups: int

    @property
    def factor(self) -> float:
        """The radius is at most this many times the least possible: 1 to 4."""
        return self.radius / self.lower_bound if self.lower_bound else 1.0


def k_center(
    points: DataFrame,
    *,
    k: int,
    spare: int = 0,
    seeds: DataFrame | None = None,
    seed: int,
    max_rows_per_task: int,
    device: str = "cpu",
) -> KCenterPicks:
    """Picks k points, each far from all others and from the seeds.

    Args:
        points: Columns id STRING, feature ARRAY<FLOAT>; ids unique.
        k: Picks, 1 to the number of points.
        spare: So many more of the greedy order, as far as there are; they change neither picks nor radius.
        seeds: Columns id, feature: centers there already, such as labeled points. Every task holds them all.
        seed: Seed of ties, groups and, where there are no seeds, of the first pick.
        max_rows_per_task: Points and seeds a task may hold, give or take the spread of a hash: at d values
            a task needs about 8 d bytes a row (Arrow and numpy each hold the features once).
        device: `cpu`, or `cuda` for the GPU of each task; picks are the same.

    Returns:
        Picks, radius and bound.

    Raises:
        QuarryError: Features missing or of several widths, k above the number of points, or tasks too small.
    """
    # They are read three times.
    keep = StorageLevel.DISK_ONLY
    points = points.select("id", "feature").persist(keep)
    seeds = points.limit(0) if seeds is None else seeds.select("id", "feature").persist(keep)
    n_points, n_seeds = _usable_counts(points, seeds)
    if not 1 <= k <= n_points:
        raise QuarryError(f"k-center: {k:,} picks of {n_points:,} points: ask for 1 to {n_points:,}")
    n_groups = group_count(n_points, k, n_seeds, max_rows_per_task)
    grouped = points.select("id", "feature", *_tie_and_group(seed, n_groups))
    by_group = partial(_by_group, device=device)
    last = partial(group_picks, k=k + spare)
    each = last if n_groups == 1 else partial(group_picks, k=k)
    picked = first = by_group(grouped, seeds, n_groups, each, PICKS_SCHEMA).persist(keep)
    radius = spread = _number(first, F.max("group_radius"))
    if n_groups > 1:
        union = first.select("id", "feature", "tie", F.lit(0).alias("group"))
        picked = by_group(union, seeds, 1, last, PICKS_SCHEMA).persist(keep)
        centers = picked.where(F.col("rank") <= k).select("id", "feature").unionByName(seeds)
        radius = _number(by_group(grouped, centers, n_groups, group_radius, RADIUS_SCHEMA), F.max("radius"))
    elif spare and k < n_points:  # the next pick is the point farthest from the first k
        radius = _number(picked.where(F.col("rank") == k + 1), F.max("distance"))
    least_gap = _number(picked.where(F.col("rank") <= k), F.min("distance"))
    for kept in (points, seeds, *([first] if n_groups > 1 else [])):
        kept.unpersist()
    assert radius is not None and spread is not None
    # The picks and the farthest point are k + 1 points this far apart; so are a group's.
    apart = radius if least_gap is None else min(radius, least_gap)
    return KCenterPicks(
        rows=picked.select("id", "rank", "distance"),
        k=k,
        radius=radius,
        lower_bound=max(apart, spread) / 2.0,
        groups=n_groups,
    )


def covering_radius(
    points: DataFrame, centers: DataFrame, *, seed: int, max_rows_per_task: int, device: str = "cpu"
) -> float:
    """Largest distance of any point to its nearest center.

    Args:
        points: Columns id, feature; at least one row.
        centers: The same; every task holds them all.
        seed: Seed of the groups; it changes nothing.
        max_rows_per_task: As for `k_center`.
        device: As for `k_center`.
    """
    room = max(1, max_rows_per_task - centers.count())
    n_groups = ceil(points.count() / room)
    grouped = points.select("id", "feature", *_tie_and_group(seed, n_groups))
    found = _by_group(grouped, centers, n_groups, group_radius, RADIUS_SCHEMA, device=device)
    radius = _number(found, F.max("radius"))
    assert radius is not None
    return radius


def group_count(n_points: int, k: int, n_seeds: int, max_rows_per_task: int) -> int:
    """Groups of the first round: one where all fit in a task, else so that both rounds hold about the same.

    Raises:
        QuarryError: No number of groups keeps both rounds below the bound.
    """
    room = max_rows_per_task - n_seeds
    if n_points <= room:
        return 1
    fewest, most = ceil(n_points / max(1, room)), room // k
    if fewest > most:
        raise QuarryError(
            f"k-center: {k:,} picks of {n_points:,} points beside {n_seeds:,} seeds do not fit tasks of "
            f"{max_rows_per_task:,} rows: allow {ceil(sqrt(n_points * k) + k) + n_seeds:,} rows a task "
            "(acquire.k_center_rows) or pick fewer"
        )
    return min(max(round(sqrt(n_points / k)), fewest), most)


def _usable_counts(points: DataFrame, seeds: DataFrame) -> tuple[int, int]:
    (n_points, d), (n_seeds, seed_d) = _usable(points, "points"), _usable(seeds, "seeds")
    if n_seeds and d != seed_d:
        raise QuarryError(f"k-center: points have {d} values, seeds {seed_d}: both must come from one model")
    return n_points, n_seeds


def _usable(rows: DataFrame, what: str) -> tuple[int, int | None]:
    """How many rows, and their number of values: one row comes to the driver."""
    found = presence(rows, "id", missing=feature_width() < 1, width=feature_width())
    if found.n_missing:
        raise QuarryError(
            f"k-center: {found.n_missing:,} of {found.n:,} {what} have no feature (such as {found.example}): "
            "run `quarry detect --set detector.keep_features=true` for boxes, "
            "`quarry detect --set detector.keep_image_feature=true` for images, and `quarry score`"
        )
    if found.least != found.most:
        raise QuarryError(
            f"k-center: features of the {what} have {found.least} to {found.most} values: all must come "
            "from one model"
        )
    return int(found.n), found.most


def _tie_and_group(seed: int, n_groups: int) -> tuple[Column, Column]:
    tie = F.xxhash64(F.lit(seed), F.col("id"))
    # Another hash than the tie: a group's first pick is drawn from all of its points.
    group = F.pmod(F.xxhash64(F.lit(seed), F.lit("group"), F.col("id")), F.lit(n_groups))
    return tie.alias("tie"), group.cast("int").alias("group")


def _by_group(
    points: DataFrame,
    centers: DataFrame,
    n_groups: int,
    calculation: TableCalculation,
    schema: pa.Schema,
    *,
    device: str,
) -> DataFrame:
    """The calculation on each group of points (column group) with all centers beside it."""
    groups = F.explode(F.sequence(F.lit(0), F.lit(n_groups - 1))).alias("group")
    copies = centers.select("id", "feature", groups)

    # Spark counts the arguments of the function it is given: a partial has others.
    def group(left: pa.Table, right: pa.Table) -> pa.Table:
        return calculation(left, right, device=worker_device(device, task_gpu()))

    pairs = points.groupBy("group").cogroup(copies.groupBy("group"))
    return pairs.applyInArrow(group, from_arrow_schema(schema))


def _number(rows: DataFrame, aggregate: Column) -> float | None:
    found = rows.agg(aggregate).first()
    return None if found is None or found[0] is None else float(found[0])
