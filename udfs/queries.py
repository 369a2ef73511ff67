"""Hardness queries as data: which errors count, what each weighs, whether overlap with true positives counts.

Source: score_sampling, "Query-Based Hardness", Eq. 3 and 4. Larger is harder, always >= 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from conf.errors import QuarryError, nearest
from udfs.boxes import FloatArray, IntArray, area_px, sums_at

ErrorSet = Literal["fp", "fn", "false"]
QueryKind = Literal["additive", "pairwise"]


@dataclass(frozen=True, kw_only=True)
class ErrorBoxes:
    """Boxes that may be errors, as a query's weight sees them.

    Attributes:
        boxes_xyxy: (m, 4), px of the original image.
        labels: (m,), class ids.
        image_wh_px: (m, 2), width and height of the image of every box, px.
        image_index: (m,), image of every box.
        scores: (m,), 0..1, or None for real ground truth, which has none.
    """

    boxes_xyxy: FloatArray
    labels: IntArray
    image_wh_px: FloatArray
    image_index: IntArray
    scores: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorMass:
    """How much every box belongs to one error set: certain with ground truth, a mean without.

    Attributes:
        probability: (m,), P(box is in the set); 0 or 1 where outcomes are known.
        tp_overlap_px: (m,), E[1(box is in the set) * area shared with true positives], px².
    """

    probability: FloatArray
    tp_overlap_px: FloatArray


BoxWeight = Callable[[ErrorBoxes], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A hardness query.

    Attributes:
        name: As it stands in the hardness table.
        errors: Error set summed over: fp, fn, or false = fp and fn.
        weight: Boxes -> (m,) weight of each; finite.
        kind: `additive`: sum of weights. `pairwise`: every weight multiplies the box's area shared with true
            positives (px²), summed over them.
    """

    name: str
    errors: ErrorSet
    weight: BoxWeight
    kind: QueryKind


def unit_weight(boxes: ErrorBoxes) -> FloatArray:
    """1 for every box: the query counts errors."""
    return np.ones(len(boxes.labels))


def image_fraction(boxes: ErrorBoxes) -> FloatArray:
    """area(b) / area(x), Eq. 3; 0 for a box without area."""
    return area_px(boxes.boxes_xyxy) / (boxes.image_wh_px[:, 0] * boxes.image_wh_px[:, 1])


def inverse_area(boxes: ErrorBoxes) -> FloatArray:
    """1 / area(b) in px^-2, Eq. 4; 0 for a box without area, which therefore adds nothing."""
    area = area_px(boxes.boxes_xyxy)
    return np.divide(1.0, area, out=np.zeros_like(area), where=area > 0.0)


_WEIGHTS: dict[str, tuple[BoxWeight, QueryKind]] = {
    "total": (unit_weight, "additive"),
    "pixel_adj": (image_fraction, "additive"),
    "occ_aware": (inverse_area, "pairwise"),
}

BUILT_IN_QUERIES: dict[str, Query] = {
    f"{prefix}_{errors}": Query(name=f"{prefix}_{errors}", errors=errors, weight=weight, kind=kind)
    for prefix, (weight, kind) in _WEIGHTS.items()
    for errors in get_args(ErrorSet)
}


def queries_named(names: Sequence[str]) -> tuple[Query, ...]:
    """The built-in queries of these names.

    Args:
        names: Such as `total_fp` or `occ_aware_false`.

    Returns:
        Queries in the order asked for.

    Raises:
        QuarryError: An unknown name; the message has the nearest known ones.
    """
    for name in names:
        if name not in BUILT_IN_QUERIES:
            raise QuarryError(f"no query {name!r}; {nearest(name, BUILT_IN_QUERIES)}")
    return tuple(BUILT_IN_QUERIES[name] for name in names)


def query_values(
    queries: Sequence[Query],
    fp_boxes: ErrorBoxes,
    fp: ErrorMass,
    fn_boxes: ErrorBoxes,
    fn: ErrorMass,
    n_images: int,
) -> FloatArray:
    """Value of every query on every image.

    Args:
        queries: Queries to evaluate.
        fp_boxes: Detections.
        fp: Their mass as false positives.
        fn_boxes: Ground truth, or detections that stand for it.
        fn: Their mass as false negatives.
        n_images: Number of images the boxes' `image_index` runs over.

    Returns:
        (len(queries), n_images), float64, >= 0 for weights >= 0; 0 for an image without errors.
    """
    values = np.zeros((len(queries), n_images))
    for row, query in zip(values, queries, strict=True):
        if query.errors != "fn":
            row += _image_sums(query, fp_boxes, fp, n_images)
        if query.errors != "fp":
            row += _image_sums(query, fn_boxes, fn, n_images)
    return values


def _image_sums(query: Query, boxes: ErrorBoxes, mass: ErrorMass, n_images: int) -> FloatArray:
    share = mass.probability if query.kind == "additive" else mass.tp_overlap_px
    return sums_at(boxes.image_index, query.weight(boxes) * share, n_images)
