"""Greedy k-center beside a slow loop and beside the best centers that brute force finds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs import k_center as module
from udfs.center_screen import CenterScreen, Features
from udfs.k_center import greedy_k_center

FAR_APART = np.float32([[0, 0], [1, 0], [10, 0], [10, 4], [3, 0]])


def loop_greedy(features: Features, k: int, seeds: Features) -> tuple[list[int], list[float], float]:
    """One pick after the other, every distance from its float64 differences."""
    points, order, distances = features.astype(np.float64), [], []
    gaps = np.full(len(points), np.inf)
    for seed in seeds.astype(np.float64):
        gaps = np.minimum(gaps, np.linalg.norm(points - seed, axis=1))
    for _ in range(k):
        left = np.where(np.isin(np.arange(len(points)), order), -1.0, gaps)
        order.append(int(np.argmax(left)))
        distances.append(float(gaps[order[-1]]))
        gaps = np.minimum(gaps, np.linalg.norm(points - points[order[-1]], axis=1))
    return order, distances, float(gaps.max())


def clusters(n: int, d: int, seed: int, *, apart: float, within: float) -> Features:
    draws = np.random.default_rng(seed)
    middles = draws.standard_normal((7, d)) * apart
    return (middles[draws.integers(0, 7, n)] + within * draws.standard_normal((n, d))).astype(np.float32)


def distances_to(points: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(points[:, None] - centers[None], axis=2)


def test_hand_worked_example() -> None:
    """From (0, 0): (10, 4) at sqrt(116), then (10, 0) at 4, then (3, 0) at 3; (1, 0) stays at 1."""
    found = greedy_k_center(FAR_APART, 4)
    assert found.order.tolist() == [0, 3, 2, 4]
    assert found.distances.tolist() == pytest.approx([np.inf, np.sqrt(116), 4.0, 3.0])
    assert (found.radius, found.lower_bound) == (1.0, 0.5)


def test_seeds_come_first() -> None:
    """A labeled point at (10, 3): (0, 0) is farthest, at sqrt(109), then (3, 0) and (10, 0), both at 3."""
    found = greedy_k_center(FAR_APART, 2, np.float32([[10, 3]]))
    assert found.order.tolist() == [0, 2]
    assert found.distances.tolist() == pytest.approx([np.sqrt(109), 3.0])
    assert found.radius == 3.0


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("n_seeds", [0, 1, 300])
@pytest.mark.parametrize(("apart", "within"), [(0, 1), (5, 1), (1000, 0.01), (1e-18, 1e-19), (1e6, 1e5)])
def test_same_picks_as_the_loop(apart: float, within: float, n_seeds: int, device: str) -> None:
    features = clusters(900, 24, seed=1, apart=apart, within=within) + np.float32(within)
    seeds = clusters(n_seeds, 24, seed=2, apart=apart, within=within)
    order, distances, radius = loop_greedy(features, 150, seeds)
    found = greedy_k_center(features, 150, seeds, device="cpu:0" if device == "torch" else device)
    assert found.order.tolist() == order
    assert found.distances == pytest.approx(distances, rel=1e-12)
    assert found.radius == pytest.approx(radius, rel=1e-12)


def test_best_radius_is_at_least_half() -> None:
    for seed in range(12):
        points = clusters(11, 2, seed, apart=3, within=1)
        exact, seeds = points.astype(np.float64), points[:1] + np.float32(0.5)
        to_seeds = distances_to(exact, seeds.astype(np.float64)).min(axis=1)
        for k in (1, 2, 3):
            nearest = (distances_to(exact, exact[list(centers)]) for centers in combinations(range(11), k))
            # Centers are points here, which only narrows the choice the bound speaks of.
            best = min(np.minimum(gaps.min(axis=1), to_seeds).max() for gaps in nearest)
            found = greedy_k_center(points, k, seeds)
            assert found.lower_bound <= best <= found.radius <= 2 * best


def test_order_of_rows_changes_no_pick() -> None:
    features, seeds = clusters(400, 8, 3, apart=4, within=1), clusters(5, 8, 4, apart=4, within=1)
    shuffled = np.random.default_rng(5).permutation(400)
    found, other = (greedy_k_center(rows, 40, seeds) for rows in (features, features[shuffled]))
    assert shuffled[other.order].tolist() == found.order.tolist()


def test_more_picks_begin_with_the_fewer() -> None:
    features = clusters(300, 8, 6, apart=4, within=1)
    few, many = greedy_k_center(features, 20), greedy_k_center(features, 120)
    assert many.order[:20].tolist() == few.order.tolist()
    assert (np.diff(many.distances) <= 0).all() and many.distances[20] == few.radius


def test_equal_distances_go_to_the_first_row() -> None:
    lattice = np.random.default_rng(7).integers(0, 3, (500, 3)).astype(np.float32)
    order, _, _ = loop_greedy(lattice, 27, lattice[:0])
    assert greedy_k_center(lattice, 27).order.tolist() == order
    # Six points as far from the middle as each other, everything else near it.
    star = np.zeros((200, 3), np.float32)
    star[100:, :] = 1e-3
    star[[40, 90, 60, 130, 70, 160]] = np.concatenate([10 * np.eye(3), -10 * np.eye(3)])
    order, _, _ = loop_greedy(star, 7, star[:0])
    assert greedy_k_center(star, 7).order.tolist() == order == [0, 40, 60, 70, 90, 130, 160]


def test_copies_come_last_and_once() -> None:
    features = np.repeat(FAR_APART, 30, axis=0)
    found = greedy_k_center(features, 150)
    assert sorted(found.order) == list(range(150))
    assert (found.distances[:5] > 0).all() and (found.distances[5:] == 0).all()
    assert found.order[5:].tolist() == sorted(found.order[5:])
    assert found.radius == found.lower_bound == 0.0


def test_no_picks_give_the_seeds_radius() -> None:
    assert greedy_k_center(FAR_APART, 0, FAR_APART[:1]).radius == pytest.approx(np.sqrt(116))
    assert greedy_k_center(FAR_APART, 0).radius == np.inf
    assert greedy_k_center(FAR_APART[:0], 0).radius == 0.0


def test_screen_rules_out_most_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances of a few pairs a point are evaluated, not of all: the screen is worth its product."""
    n_pairs = []
    improving = CenterScreen.improving

    def counted(self: CenterScreen, *given: NDArray[np.floating]) -> list[tuple[NDArray, NDArray]]:
        pairs = list(improving(self, *given))
        n_pairs.append(sum(len(rows) for rows, _ in pairs))
        return pairs

    monkeypatch.setattr(CenterScreen, "improving", counted)
    module.greedy_k_center(clusters(2000, 32, 8, apart=3, within=1), 200)
    assert 2000 <= sum(n_pairs) < 12 * 2000  # 200 a point without the screen
    assert len(n_pairs) < 60  # passes over the points, not one a pick


@pytest.mark.parametrize(
    ("features", "k", "seeds", "message"),
    [
        (FAR_APART, 6, None, "6 picks of 5 points"),
        (FAR_APART, -1, None, "-1 picks"),
        (FAR_APART.astype(np.float64), 1, None, "float64"),
        (FAR_APART[0], 1, None, r"\(2,\)"),
        (FAR_APART, 1, np.zeros((1, 3), np.float32), "seeds are float32 of shape .*one model"),
        (np.where(FAR_APART == 3, np.nan, FAR_APART), 1, None, "feature row 4"),
        (np.where(FAR_APART == 4, -np.inf, FAR_APART), 1, None, "feature row 3"),
        (FAR_APART, 1, np.float32([[0, 0], [0, 1e16]]), "seed row 1"),
    ],
)
def test_bad_input_is_named(features: Features, k: int, seeds: Features | None, message: str) -> None:
    with pytest.raises(QuarryError, match=message):
        greedy_k_center(features, k, seeds)
