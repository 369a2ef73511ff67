from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import QuarryError
from udfs.boxes import FloatArray, IntArray
from udfs.temporal_selection import smoothed, survivors

NOTHING_BEFORE = np.zeros(0, np.int64)


def _slowly_smoothed(scores: FloatArray, frame_index: IntArray, half_width: int, sigma: float) -> list[float]:
    result = []
    for t in frame_index:
        pairs = [
            (exp(-((i - t) ** 2) / (2 * sigma**2)), z)
            for i, z in zip(frame_index, scores, strict=True)
            if abs(i - t) <= half_width
        ]
        result.append(sum(w * z for w, z in pairs) / sum(w for w, _ in pairs))
    return result


def _picked_one_by_one(
    lake: list[tuple[float, int, str, int]], earlier: list[tuple[str, int]], now: int, later: int
) -> list[int]:
    """Rows (score, tie, sequence, frame) of a whole lake, picked by the rules as the paper words them."""
    left = dict(enumerate(lake))
    picked = []
    for sequence, t in earlier:
        left = {r: f for r, f in left.items() if not (f[2] == sequence and abs(f[3] - t) <= later)}
    while left:
        best = min(left, key=lambda r: (-left[r][0], left[r][1], r))
        picked.append(best)
        _, _, sequence, t = lake[best]
        left = {r: f for r, f in left.items() if not (f[2] == sequence and abs(f[3] - t) <= now)}
    return picked


def test_hand_worked_smoothing_over_an_end_and_a_gap() -> None:
    # Frames 0, 1 and 3; sigma 1: weights 1, exp(-1/2), exp(-2).
    near, far = exp(-0.5), exp(-2.0)
    expected = [
        (1 * 4.0 + near * 8.0) / (1 + near),
        (near * 4.0 + 1 * 8.0 + far * 2.0) / (near + 1 + far),
        (far * 8.0 + 1 * 2.0) / (far + 1),
    ]
    found = smoothed(np.array([4.0, 8.0, 2.0]), np.array([0, 1, 3]), half_width=2, sigma=1.0)
    assert found == pytest.approx(expected)
    assert smoothed(np.array([4.0, 8.0]), np.array([0, 1]), half_width=0, sigma=1.0).tolist() == [4.0, 8.0]
    assert smoothed(np.zeros(0), NOTHING_BEFORE, 4, 2.0).shape == (0,)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(seed=st.integers(0, 100_000), n=st.integers(1, 40), half_width=st.integers(0, 6))
def test_smoothing_equals_the_sum_of_equation_6(seed: int, n: int, half_width: int) -> None:
    rng = np.random.default_rng(seed)
    scores, frames = rng.normal(size=n), rng.choice(60, n, replace=False)
    found = smoothed(scores, frames, half_width, sigma=1.7)
    assert found == pytest.approx(_slowly_smoothed(scores, frames, half_width, 1.7))
    assert found.min() >= scores.min() - 1e-12 and found.max() <= scores.max() + 1e-12
    order = rng.permutation(n)
    assert smoothed(scores[order], frames[order], half_width, sigma=1.7) == pytest.approx(found[order])
    assert smoothed(scores, frames + 9, half_width, sigma=1.7).tolist() == found.tolist()


def test_frames_of_equal_index_count_as_often_as_they_occur() -> None:
    scores, frames = np.array([1.0, 4.0, 7.0]), np.array([5, 5, 6])
    assert smoothed(scores, frames, 1, 1.0) == pytest.approx(_slowly_smoothed(scores, frames, 1, 1.0))


def test_hand_worked_rules() -> None:
    frames = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
    scores = np.array([5.0, 9.0, 8.0, 7.0, 1.0, 6.0, 2.0, 3.0, 4.0])
    found = survivors(scores, frames, frames, picked_before=np.array([8]), block_now=2, block_later=1)
    # 8 picked before: 7 and 8 are gone. 1 takes 0, 2, 3; then 5 (score 6) takes 4 and 6.
    assert found.order.tolist() == [1, 5]
    assert found.blocked_by.tolist() == [1, -1, 1, 1, 5, -1, 5, -1, -1]
    assert found.blocked_by_earlier.tolist() == [-1] * 7 + [8, 8]


def test_a_frame_between_both_distances_is_free_again_in_the_next_cycle() -> None:
    frames = np.arange(40)
    scores = -np.abs(frames - 20.0)
    first = survivors(scores, frames, frames, NOTHING_BEFORE, block_now=15, block_later=2)
    assert first.order[0] == 20 and set(np.abs(first.order[1:] - 20)) == {16}
    second = survivors(scores, frames, frames, first.order[:1], block_now=15, block_later=2)
    assert second.order[0] == 17  # 18..22 stay blocked; 17 and 23 score the same, the tie order decides
    assert np.flatnonzero(second.blocked_by_earlier == 20).tolist() == [18, 19, 20, 21, 22]


def test_ties_break_by_their_order_and_not_by_the_row() -> None:
    frames, scores = np.array([3, 9, 6]), np.ones(3)
    for ties, expected in (([2, 0, 1], [1, 2, 0]), ([0, 2, 1], [0, 2, 1]), ([7, 7, 7], [0, 1, 2])):
        found = survivors(scores, frames, np.array(ties), NOTHING_BEFORE, block_now=2, block_later=2)
        assert found.order.tolist() == expected


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    n=st.integers(1, 60),
    now=st.integers(0, 9),
    later=st.integers(0, 5),
    b=st.integers(1, 60),
)
def test_the_best_survivors_are_the_picks_of_the_rule_over_the_whole_lake(
    seed: int, n: int, now: int, later: int, b: int
) -> None:
    rng = np.random.default_rng(seed)
    scores, ties = rng.integers(0, 6, n).astype(float), rng.permutation(n)
    sequences, frames = rng.choice(["a", "b", "c"], n), rng.integers(0, 30, n)
    earlier = [
        (str(s), int(t)) for s, t in zip(rng.choice(["a", "b"], 3), rng.integers(0, 30, 3), strict=True)
    ]
    lake = list(zip(scores.tolist(), ties.tolist(), sequences.tolist(), frames.tolist(), strict=True))
    found: list[int] = []
    for sequence in set(sequences.tolist()):
        rows = np.flatnonzero(sequences == sequence)
        before = np.array([t for s, t in earlier if s == sequence], np.int64)
        picks = survivors(scores[rows], frames[rows], ties[rows], before, now, later)
        found += rows[picks.order].tolist()
        _explains_all(frames[rows], picks.order, picks.blocked_by, picks.blocked_by_earlier, now, later)
    found.sort(key=lambda row: (-scores[row], ties[row]))
    assert found[:b] == _picked_one_by_one(lake, earlier, now, later)[:b]


def _explains_all(
    frames: IntArray, order: IntArray, blocked_by: IntArray, earlier: IntArray, now: int, later: int
) -> None:
    """Every frame is picked, or blocked for one reason that holds."""
    for row, frame in enumerate(frames):
        by, before = int(blocked_by[row]), int(earlier[row])
        assert (row in order) + (by >= 0) + (before >= 0) == 1
        if by >= 0:
            assert by in order and abs(frames[by] - frame) <= now
        if before >= 0:
            assert abs(before - frame) <= later


def test_bad_input_is_named() -> None:
    frames, scores = np.array([4, 5]), np.array([1.0, np.nan])
    with pytest.raises(QuarryError, match="frame 5 has a score that is no finite number"):
        survivors(scores, frames, frames, NOTHING_BEFORE, block_now=15, block_later=2)
    with pytest.raises(QuarryError, match="frame 5"):
        smoothed(scores, frames, half_width=4, sigma=2.0)
    with pytest.raises(QuarryError, match="got -1 and 2"):
        survivors(frames.astype(float), frames, frames, NOTHING_BEFORE, block_now=-1, block_later=2)
    with pytest.raises(QuarryError, match=r"got 3 and 0\.0"):
        smoothed(frames.astype(float), frames, half_width=3, sigma=0.0)
