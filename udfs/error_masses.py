"""Error sets over pseudo ground truth: from what happens to every detection to what every query sums."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from udfs.boxes import BoolArray, FloatArray, sums_at
from udfs.queries import ErrorMass, ErrorSets
from udfs.self_overlaps import SelfOverlaps


class Outcome(NamedTuple):
    """What happens to every detection: probabilities, or 0 and 1 for one sample.

    Attributes:
        fp: (m,), confirmed and unmatched.
        tp: (m,), confirmed and matched.
        fn: (m,), pseudo ground truth at this box exists and is not found.
    """

    fp: FloatArray
    tp: FloatArray
    fn: FloatArray


class InnerOverlap(NamedTuple):
    """Overlap with true positives of the own component, where joint probabilities are needed.

    Attributes:
        is_inner: (m,), detections whose component is enumerated.
        fp_px: (m,), E[1(fp) * area shared with true positives of the component], px².
        fn_px: (m,), the same for fn.
    """

    is_inner: BoolArray
    fp_px: FloatArray
    fn_px: FloatArray


def error_sets(overlaps: SelfOverlaps, outcome: Outcome, inner: InnerOverlap | None = None) -> ErrorSets:
    """Combine outcomes with overlaps: products across components, joint values inside enumerated ones.

    A box never overlaps itself as a false positive. As pseudo ground truth it may be missed while the
    detection at the same box matches another one: that detection then counts, as it would against real ground
    truth.

    Args:
        overlaps: Detections and their overlaps.
        outcome: Probabilities, or one sample.
        inner: Joint overlap inside enumerated components; None where all outcomes are known or all components
            are single.

    Returns:
        False positives and false negatives over the detections.
    """
    source, target, inter = overlaps.onto_confirmed
    own_px = overlaps.area_px
    if inner is not None:
        crossing = (overlaps.component[source] != overlaps.component[target]) | ~inner.is_inner[source]
        source, target, inter = source[crossing], target[crossing], inter[crossing]
        own_px = np.where(inner.is_inner, 0.0, own_px)
    tp_px = sums_at(source, inter * outcome.tp[target], len(outcome.tp))
    fp_px = outcome.fp * tp_px
    fn_px = outcome.fn * (tp_px + own_px * outcome.tp)
    if inner is not None:
        fp_px, fn_px = fp_px + inner.fp_px, fn_px + inner.fn_px
    return ErrorSets(
        fp_boxes=overlaps.boxes,
        fp=ErrorMass(probability=outcome.fp, tp_overlap_px=fp_px),
        fn_boxes=overlaps.boxes,
        fn=ErrorMass(probability=outcome.fn, tp_overlap_px=fn_px),
        n_images=overlaps.n_images,
    )
