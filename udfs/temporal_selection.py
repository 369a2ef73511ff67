"""Picking frames of videos: smoothed scores, and greedy picks that keep a distance in time.

"Temporal distance" is the difference of frame indices inside one sequence; sequences never meet.

Source: "Active Learning for Deep Detection Neural Networks" (H. H. Aghdam, A. Gonzalez-Garcia, J. van de
Weijer, A. M. López, ICCV 2019), Eq. 6 and the two temporal selection rules below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf.errors import QuarryError
from udfs.boxes import FloatArray, IntArray

NO_PICK = -1


@dataclass(frozen=True, kw_only=True)
class TemporalPicks:
    """What the selection rules leave of n frames of one sequence.

    Attributes:
        order: (k,), indices of the frames that survive, the first pick first.
        blocked_by: (n,), index of the picked frame that blocked this one; -1 where none did.
        blocked_by_earlier: (n,), frame index of the nearest pick of an earlier cycle that blocks this frame;
            -1 where none does.
    """

    order: IntArray
    blocked_by: IntArray
    blocked_by_earlier: IntArray


def smoothed(scores: FloatArray, frame_index: IntArray, half_width: int, sigma: float) -> FloatArray:
    """Scores averaged over the frames around, with Gaussian weights (Eq. 6).

    The weight of a frame at distance d is exp(-d² / (2 sigma²)), 0 beyond `half_width`. At the ends of a
    sequence and where frames are missing, the weights are divided by the sum over the frames that are there.

    Args:
        scores: (n,), finite, of one sequence.
        frame_index: (n,), at least 0, in any order; frames of equal index count as often as they occur.
        half_width: Delta t of the paper, frames; 0 leaves the scores as they are.
        sigma: Standard deviation of the weights, frames, above 0.

    Returns:
        (n,), within the range of the scores around.

    Raises:
        QuarryError: A score is not finite, or a setting is out of range.
    """
    if half_width < 0 or not sigma > 0.0:
        raise QuarryError(f"smoothing needs half_width >= 0 and sigma > 0, got {half_width} and {sigma}")
    _require_finite(scores, frame_index)
    if half_width == 0:
        return scores.astype(np.float64)
    frames, place = np.unique(frame_index, return_inverse=True)
    score_sums = np.bincount(place, weights=scores, minlength=len(frames))
    counts = np.bincount(place, minlength=len(frames))
    weighted, weights = np.zeros(len(frames)), np.zeros(len(frames))
    for distance in range(-half_width, half_width + 1):
        weight = np.exp(-0.5 * (distance / sigma) ** 2)
        neighbour = np.searchsorted(frames, frames + distance)
        at = np.flatnonzero(frames[np.minimum(neighbour, len(frames) - 1)] == frames + distance)
        weighted[at] += weight * score_sums[neighbour[at]]
        weights[at] += weight * counts[neighbour[at]]
    averaged: FloatArray = (weighted / weights)[place]
    return averaged


def survivors(
    scores: FloatArray,
    frame_index: IntArray,
    tie_order: IntArray,
    picked_before: IntArray,
    block_now: int,
    block_later: int,
) -> TemporalPicks:
    """The frames of one sequence that greedy picking by falling score leaves, and what blocked the others.

    Rule 1: once frame t is picked, no frame i with |i - t| <= `block_now` is picked in the same cycle.
    Rule 2: once frame t was picked, no frame i with |i - t| <= `block_later` is picked in any later cycle.
    Frames between the two distances are free again in the next cycle, so `block_later` of past picks and
    `block_now` of this cycle's are all that counts. The picks go on until every frame is picked or blocked:
    a budget over many sequences takes the best of all survivors, which are the picks of the greedy rule over
    all sequences at once, as no pick blocks a frame of another sequence.

    Runs in O(n log n + picks * frames in a window).

    Args:
        scores: (n,), finite; the higher, the earlier.
        frame_index: (n,), at least 0, in any order; frames of equal index block each other.
        tie_order: (n,), integers; of equal scores the smallest goes first, then the earlier row.
        picked_before: (p,), frame indices picked in earlier cycles, in any order.
        block_now: Delta t 1 of the paper, frames.
        block_later: Delta t 2 of the paper, frames.

    Returns:
        The picks in order and the reason of every frame that is none.

    Raises:
        QuarryError: A score is not finite, or a distance is negative.
    """
    if min(block_now, block_later) < 0:
        raise QuarryError(f"distances in frames must be at least 0, got {block_now} and {block_later}")
    _require_finite(scores, frame_index)
    earlier = _nearest_within(frame_index, np.unique(picked_before), block_later)
    by_frame = np.argsort(frame_index, kind="stable")
    frames = frame_index[by_frame]
    window_start = np.searchsorted(frames, frame_index - block_now, side="left")
    window_stop = np.searchsorted(frames, frame_index + block_now, side="right")
    is_free = earlier == NO_PICK
    blocked_by = np.full(len(scores), NO_PICK, np.int64)
    order = []
    for pick in np.lexsort((tie_order, -scores)).tolist():
        if not is_free[pick]:
            continue
        order.append(pick)
        window = by_frame[window_start[pick] : window_stop[pick]]
        newly_blocked = window[is_free[window]]
        is_free[newly_blocked] = False
        blocked_by[newly_blocked] = pick
        blocked_by[pick] = NO_PICK
    return TemporalPicks(order=np.array(order, np.int64), blocked_by=blocked_by, blocked_by_earlier=earlier)


def _nearest_within(frame_index: IntArray, picked: IntArray, distance: int) -> IntArray:
    """(n,), the picked frame nearest to each frame, the earlier of two; -1 where none is within reach."""
    if not len(picked):
        return np.full(len(frame_index), NO_PICK, np.int64)
    after = np.searchsorted(picked, frame_index)
    before = picked[np.maximum(after - 1, 0)]
    behind = picked[np.minimum(after, len(picked) - 1)]
    nearest = np.where(np.abs(frame_index - before) <= np.abs(behind - frame_index), before, behind)
    is_near = np.abs(frame_index - nearest) <= distance
    return np.where(is_near, nearest, NO_PICK).astype(np.int64)


def _require_finite(scores: FloatArray, frame_index: IntArray) -> None:
    if not np.isfinite(scores).all():
        frame = int(frame_index[int(np.argmin(np.isfinite(scores)))])
        raise QuarryError(f"frame {frame} has a score that is no finite number; score the image again")
