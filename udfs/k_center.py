"""Greedy k-center (core-set): points that leave no other point far from the nearest chosen one.

Each step takes the point that is farthest from all centers so far. Its radius is at most twice the least
possible (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985); with labeled points as
first centers it is the greedy selection of Sener and Savarese, "Active learning for convolutional neural
networks: a core-set approach", ICLR 2018, algorithm 1.

Distances are those of float64 differences, so picks do not depend on the device, the number of threads or
the blocks. Two things make them cheap: matrix products rule out the pairs that change nothing
(`udfs.center_screen`), and several picks share one pass over the points, since only the farthest few can be
next: while the farthest of those, kept up to date, is beyond all others, the others need no look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf.errors import QuarryError
from udfs.boxes import FloatArray, IntArray
from udfs.center_screen import CenterScreen, Features

# Squares and products of features stay inside float32.
LARGEST_FEATURE = 1e15
_SEED_BLOCK = 256
_PAIR_CELLS = 2**18
_ROWS_CHECKED = 4096
_MOST_PICKS = 64
_CANDIDATES_PER_PICK = 4
# A picked row is nearer to the centers than any other and is never picked again.
_PICKED = -1.0


@dataclass(frozen=True)
class KCenter:
    """Chosen points and how well they cover all.

    Attributes:
        order: (k,) int64, rows in the order picked.
        distances: (k,) float64, distance of each pick to the nearest center before it, never rising;
            infinite for the first where there was none.
        radius: Largest distance of any point to its nearest center, seeds included, after all picks; infinite
            without any center.
    """

    order: IntArray
    distances: FloatArray
    radius: float

    @property
    def lower_bound(self) -> float:
        """No k centers beside the seeds, anywhere in space, have a radius below this.

        Proof: the k picks and the farthest point left are k + 1 points at least `radius` apart and from all
        seeds; a seed serves one of them at that distance or two of them share a center, half of it from one.
        """
        return self.radius / 2.0


def greedy_k_center(
    features: Features, k: int, seeds: Features | None = None, *, device: str = "cpu"
) -> KCenter:
    """Picks k points by greedy k-center, farthest first.

    Memory beside the input: about 60 bytes a row and blocks of a few MiB.

    Args:
        features: (n, d) float32, magnitudes below `LARGEST_FEATURE`. Equal distances go to the first row, and
            so does the first pick where there are no seeds: the rule leaves it open, and callers that sort
            rows by a hash of id and seed thereby draw it at random. (The mean's farthest point would favor
            outliers, which the next picks find anyway.)
        k: Points to pick, 0 <= k <= n; 0 gives the seeds' radius.
        seeds: (m, d) float32, centers there already (labeled points); none or m = 0 for none.
        device: `cpu` for numpy; else the torch device that screens pairs, such as `cuda`. Picks are equal.

    Returns:
        Picks and radius. Rows are picked once even if points coincide; copies come last, at distance 0.

    Raises:
        QuarryError: k above n or below 0, shapes that do not fit, or a value that is NaN or too large.
    """
    _require_points(features, k)
    seeds = features[:0] if seeds is None else seeds
    _require_seeds(seeds, features.shape[1])
    if len(features) == 0:
        return KCenter(np.zeros(0, np.int64), np.zeros(0), 0.0)
    gaps = np.full(len(features), np.inf)
    screen = CenterScreen(features, device)
    for start in range(0, len(seeds), _SEED_BLOCK):
        _bring_nearer(gaps, features, seeds[start : start + _SEED_BLOCK], screen)
    order: list[int] = []
    squares: list[float] = []
    most = 1
    while len(order) < k:
        rows, gaps_before = _next_picks(features, gaps, min(most, k - len(order)))
        order += rows
        squares += gaps_before
        most = min(2 * len(rows) + 2, _MOST_PICKS)
        _bring_nearer(gaps, features, features[rows], screen)
        gaps[rows] = _PICKED
    return KCenter(
        np.array(order, np.int64), np.sqrt(np.array(squares)), float(np.sqrt(max(0.0, gaps.max())))
    )


def unusable_row(features: Features) -> int | None:
    """The first row with a value that is NaN or not below `LARGEST_FEATURE` in magnitude; none if all are."""
    for start in range(0, len(features), _ROWS_CHECKED):
        is_usable = (np.abs(features[start : start + _ROWS_CHECKED]) < LARGEST_FEATURE).all(axis=1)
        if not is_usable.all():
            return start + int(np.argmin(is_usable))
    return None


def _next_picks(features: Features, gaps: FloatArray, most: int) -> tuple[list[int], list[float]]:
    """The rows that greedy picks next, as many as the farthest few decide, and their squared gaps.

    Args:
        features: (n, d).
        gaps: (n,) squared distance to the nearest center, `_PICKED` for picked rows.
        most: Rows wanted at most, >= 1.
    """
    first = int(np.argmax(gaps))
    if gaps[first] == 0.0:  # all that is left are copies of centers
        copies = np.flatnonzero(gaps == 0.0)[:most].tolist()
        return copies, [0.0] * len(copies)
    rows, squares = [first], [float(gaps[first])]
    if most == 1:
        return rows, squares
    candidates, beyond = _farthest(gaps, _CANDIDATES_PER_PICK * most)
    points, left = features[candidates].astype(np.float64), gaps[candidates]
    while len(rows) < most:
        left = np.minimum(left, _squared_distances(points, features[rows[-1:]]))
        left[candidates == rows[-1]] = _PICKED
        farthest = int(np.argmax(left))
        if left[farthest] <= beyond or left[farthest] <= 0.0:
            break
        rows.append(int(candidates[farthest]))
        squares.append(float(left[farthest]))
    return rows, squares


def _farthest(gaps: FloatArray, n_rows: int) -> tuple[IntArray, float]:
    """Rows of the largest gaps in rising order, and the largest gap of all others."""
    if n_rows >= len(gaps):
        return np.arange(len(gaps)), -np.inf
    place = len(gaps) - n_rows - 1
    by_gap = np.argpartition(gaps, place)
    return np.sort(by_gap[place + 1 :]), float(gaps[by_gap[place]])


def _bring_nearer(gaps: FloatArray, features: Features, centers: Features, screen: CenterScreen) -> None:
    """Lowers squared gaps (n,), in place, to what the new centers (m, d) leave."""
    n_pairs = max(1, _PAIR_CELLS // features.shape[1])
    for rows, nearest in screen.improving(centers, gaps):
        for start in range(0, len(rows), n_pairs):
            part, near = rows[start : start + n_pairs], nearest[start : start + n_pairs]
            np.minimum.at(gaps, part, _squared_distances(features[part].astype(np.float64), centers[near]))


def _squared_distances(points: FloatArray, centers: Features) -> FloatArray:
    differences = points - centers
    squares: FloatArray = np.einsum("ij,ij->i", differences, differences)
    return squares


def _require_points(features: Features, k: int) -> None:
    if features.ndim != 2 or features.shape[1] == 0 or features.dtype != np.float32:
        raise QuarryError(
            f"k-center: features are {features.dtype} of shape {features.shape}, not float32 of (n, d)"
        )
    if not 0 <= k <= len(features):
        raise QuarryError(
            f"k-center: {k:,} picks of {len(features):,} points: ask for 0 to {len(features):,}"
        )
    _require_usable(features, "feature")


def _require_seeds(seeds: Features, d: int) -> None:
    if seeds.ndim != 2 or seeds.shape[1] != d or seeds.dtype != np.float32:
        raise QuarryError(
            f"k-center: seeds are {seeds.dtype} of shape {seeds.shape}, not float32 of (m, {d}) as "
            "the points: both must come from one model"
        )
    _require_usable(seeds, "seed")


def _require_usable(rows: Features, what: str) -> None:
    row = unusable_row(rows)
    if row is not None:
        raise QuarryError(
            f"k-center: {what} row {row} has a value that is NaN or not below {LARGEST_FEATURE:g} in "
            "magnitude: leave it out or compute its feature again"
        )
