"""Everything that can happen to the components of an image, with its probability.

A component is a group of detections whose matching depends on each other (see `udfs.self_overlaps`);
components are independent. Components of one shape are stacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from udfs.boxes import BoolArray, FloatArray, IntArray
from udfs.error_masses import Outcome
from udfs.matching import Matcher
from udfs.outcome_matching import match_outcomes
from udfs.self_overlaps import SelfOverlaps

_MAX_STACK_ELEMENTS = 2**20


@dataclass(frozen=True, kw_only=True)
class OutcomeStack:
    """Components of one shape and all their outcomes.

    Attributes:
        members: (components, size), indices of detections.
        probability: (components, outcomes), sums to 1 in each row.
        is_fp: (components, size, outcomes), confirmed and unmatched.
        is_tp: (components, size, outcomes), confirmed and matched.
        is_fn: (components, size, outcomes), pseudo ground truth at this box exists and is not found.
    """

    members: IntArray
    probability: FloatArray
    is_fp: BoolArray
    is_tp: BoolArray
    is_fn: BoolArray


def enumerated_stacks(overlaps: SelfOverlaps, matcher: Matcher, max_uncertain: int) -> Iterator[OutcomeStack]:
    """Components of two or more detections, every outcome run through the matcher.

    Args:
        overlaps: Detections and their components.
        matcher: `coco` or `hungarian`.
        max_uncertain: Components with more uncertain detections are left out.

    Yields:
        Stacks of bounded size.
    """
    for members in overlaps.components_up_to(max_uncertain):
        n_outcomes = 1 << int(overlaps.n_uncertain[members[0, 0]])
        step = max(1, _MAX_STACK_ELEMENTS // (members.shape[1] * n_outcomes))
        for start in range(0, len(members), step):
            yield _enumerated(overlaps, members[start : start + step], matcher)


def single_stack(overlaps: SelfOverlaps) -> OutcomeStack:
    """Components of one detection: it is pseudo ground truth, or it is not.

    Returns:
        Outcome 0: no object. Outcome 1: an object, found when the detection is confirmed and has area.
    """
    members = np.flatnonzero(overlaps.component_size == 1)
    confirmed = overlaps.is_confirmed[members]
    matches = confirmed & (overlaps.area_px[members] > 0.0)
    presence = overlaps.presence[members]
    never = np.zeros_like(confirmed)
    return OutcomeStack(
        members=members[:, None],
        probability=np.stack((1.0 - presence, presence), axis=1),
        is_fp=np.stack((confirmed, confirmed & ~matches), axis=1)[:, None],
        is_tp=np.stack((never, matches), axis=1)[:, None],
        is_fn=np.stack((never, ~matches), axis=1)[:, None],
    )


def drawn_stack(members: IntArray, drawn: Outcome) -> OutcomeStack:
    """Detections, (k,), whose outcome was drawn: one outcome of probability 1 each."""
    fp, tp, fn = (mass[members][:, None, None] > 0.0 for mass in drawn)
    certain = np.ones((len(members), 1))
    return OutcomeStack(members=members[:, None], probability=certain, is_fp=fp, is_tp=tp, is_fn=fn)


def _enumerated(overlaps: SelfOverlaps, members: IntArray, matcher: Matcher) -> OutcomeStack:
    presence = overlaps.presence[members]
    n_uncertain = int(overlaps.n_uncertain[members[0, 0]])
    is_certain = (presence == 0.0) | (presence == 1.0)
    uncertain = np.argsort(is_certain, axis=1, kind="stable")[:, :n_uncertain, None]
    subsets = np.arange(1 << n_uncertain) >> np.arange(n_uncertain)[:, None] & 1  # (uncertain, outcomes)
    is_present = np.repeat((presence == 1.0)[:, :, None], subsets.shape[1], axis=2)
    np.put_along_axis(is_present, uncertain, subsets[None].astype(bool), axis=1)
    probability = np.where(is_present, presence[:, :, None], 1.0 - presence[:, :, None]).prod(axis=1)
    matches = match_outcomes(overlaps, members, is_present, matcher)
    return OutcomeStack(
        members=members,
        probability=probability,
        is_fp=overlaps.is_confirmed[members][:, :, None] & ~matches.is_tp,
        is_tp=matches.is_tp,
        is_fn=is_present & ~matches.is_found,
    )
