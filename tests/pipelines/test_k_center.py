"""Two rounds of greedy k-center on Spark: same picks for any partitions, and near the best radius."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from conf.errors import QuarryError
from pipelines.k_center import covering_radius, group_count, k_center

SCHEMA = "id STRING, feature ARRAY<FLOAT>"
SEED = 3


def points_near_clusters(n: int, seed: int) -> NDArray[np.float32]:
    draws = np.random.default_rng(seed)
    middles = 10 * draws.standard_normal((5, 3))
    return (middles[draws.integers(0, 5, n)] + draws.standard_normal((n, 3))).astype(np.float32)


def frame(session: SparkSession, features: NDArray[np.float32], prefix: str = "image") -> DataFrame:
    rows = [(f"{prefix}-{i}", [float(value) for value in row]) for i, row in enumerate(features)]
    return session.createDataFrame(rows, SCHEMA)


def test_partitions_change_no_pick_and_the_radius_is_true(session: SparkSession) -> None:
    features, labeled = points_near_clusters(60, 1), points_near_clusters(4, 2)
    seeds, found = frame(session, labeled, "labeled"), []
    for partitions in (1, 7):
        points = frame(session, features).repartition(partitions)
        picks = k_center(points, k=6, seeds=seeds, seed=SEED, max_rows_per_task=34)
        rows = [tuple(row) for row in picks.rows.orderBy("rank").collect()]
        picks.rows.unpersist()
        found.append((rows, picks.radius, picks.lower_bound))
    assert found[0] == found[1]
    assert picks.groups == 3
    ids, ranks, distances = zip(*rows, strict=True)
    assert ranks == (1, 2, 3, 4, 5, 6) and list(distances) == sorted(distances, reverse=True)
    chosen = features[[int(name.partition("-")[2]) for name in ids]]
    centers = np.concatenate([chosen, labeled]).astype(np.float64)
    gaps = np.linalg.norm(features[:, None].astype(np.float64) - centers[None], axis=2).min(axis=1)
    assert picks.radius == pytest.approx(gaps.max(), rel=1e-12)
    points, middles = frame(session, features), frame(session, centers.astype(np.float32))
    assert covering_radius(points, middles, seed=1, max_rows_per_task=30) == pytest.approx(picks.radius)
    assert 1 <= picks.factor <= 4


def test_radius_is_within_the_proven_factor_of_the_best(session: SparkSession) -> None:
    features = points_near_clusters(24, 4)
    between = np.linalg.norm(features[:, None].astype(np.float64) - features[None], axis=2)
    best = min(between[:, centers].min(axis=1).max() for centers in combinations(range(24), 3))
    for max_rows, groups, factor in ((12, 3, 4), (24, 1, 2)):
        picks = k_center(frame(session, features), k=3, seed=SEED, max_rows_per_task=max_rows)
        first = picks.rows.where("rank = 1").first()
        picks.rows.unpersist()
        assert picks.groups == groups
        assert first is not None and first.distance is None
        assert picks.lower_bound <= best <= picks.radius <= picks.factor * best * (1 + 1e-12)
        assert picks.factor <= factor + 1e-12


@pytest.mark.parametrize("max_rows", [12, 24])
def test_spare_picks_go_on_and_change_nothing_before(session: SparkSession, max_rows: int) -> None:
    points, found = frame(session, points_near_clusters(24, 4)), []
    for spare in (0, 2):
        picks = k_center(points, k=3, spare=spare, seed=SEED, max_rows_per_task=max_rows)
        found.append((picks, [row.id for row in picks.rows.orderBy("rank").collect()]))
        picks.rows.unpersist()
    (plain, ids), (more, longer) = found
    assert len(longer) == 5 and longer[:3] == ids
    assert (more.radius, more.k) == (plain.radius, 3) and more.lower_bound <= plain.lower_bound


def test_bad_features_are_named(session: SparkSession) -> None:
    rows = [("a", [1.0, 2.0]), ("b", None), ("c", []), ("d", [1.0, 2.0])]
    cases = [
        (rows, None, "2 of 4 points have no feature .such as b.*detect --set detector.keep_features=true"),
        ([*rows[:1], ("e", [1.0])], None, "points have 1 to 2 values"),
        ([rows[0], rows[3]], [("s", [1.0])], "points have 2 values, seeds 1"),
        (rows[:1], None, "2 picks of 1 points"),
        ([*rows[:1], ("f", [1.0, float("nan")])], None, "feature of f has a value that is null, NaN"),
    ]
    for points, seeds, message in cases:
        given = None if seeds is None else session.createDataFrame(seeds, SCHEMA)
        with pytest.raises(Exception, match=message):
            k_center(
                session.createDataFrame(points, SCHEMA), k=2, seeds=given, seed=SEED, max_rows_per_task=9
            )


@pytest.mark.parametrize(
    ("n_points", "k", "n_seeds", "max_rows", "groups"),
    [(100, 5, 0, 100, 1), (100, 5, 1, 100, 4), (400, 1, 0, 30, 20), (10**6, 10**4, 10**5, 200_000, 10)],
)
def test_both_rounds_hold_about_the_same(
    n_points: int, k: int, n_seeds: int, max_rows: int, groups: int
) -> None:
    assert group_count(n_points, k, n_seeds, max_rows) == groups


def test_tasks_too_small_are_refused_with_a_size_that_does() -> None:
    for n_points, k, n_seeds, max_rows in ((1000, 10, 0, 50), (1000, 10, 60, 50), (977, 33, 5, 170)):
        with pytest.raises(QuarryError, match="do not fit tasks of") as refused:
            group_count(n_points, k, n_seeds, max_rows)
        allowed = int(str(refused.value).partition("allow ")[2].partition(" rows")[0].replace(",", ""))
        group_count(n_points, k, n_seeds, allowed)
