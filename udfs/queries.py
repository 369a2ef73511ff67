"""Hardness queries as data: which errors count, what each weighs, how an image's errors become one number.

Source: score_sampling, "Query-Based Hardness", Eq. 3 and 4, and the comparison 1[|fn| > |fp|] named there.
Larger is harder, always >= 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import numpy as np

from conf.errors import QuarryError, nearest
from udfs.boxes import BoolArray, FloatArray, IntArray, area_px, sums_at

ErrorSet = Literal["fp", "fn", "false"]
Side = Literal["fp", "fn"]
Reduction = Literal["sum", "max", "any"]
Operator = Literal[">", ">=", "<", "<="]

COMPARE: dict[str, Callable[[FloatArray, FloatArray | float], BoolArray]] = {
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}


@dataclass(frozen=True, kw_only=True)
class ErrorBoxes:
    """Boxes that may be errors, as a query's weight sees them.

    Attributes:
        boxes_xyxy: (m, 4), px of the original image.
        labels: (m,), class ids.
        image_sizes_px: (n, 2), width and height of all n images.
        image_index: (m,), image of every box, 0..n-1.
        scores: (m,), 0..1, or None for real ground truth, which has none.
    """

    boxes_xyxy: FloatArray
    labels: IntArray
    image_sizes_px: FloatArray
    image_index: IntArray
    scores: FloatArray | None = None

    @cached_property
    def image_wh_px(self) -> FloatArray:
        """(m, 2), width and height of the image of every box, px."""
        return self.image_sizes_px[self.image_index]

    @cached_property
    def area_px(self) -> FloatArray:
        """(m,), px²."""
        return area_px(self.boxes_xyxy)

    @cached_property
    def area_share(self) -> FloatArray:
        """(m,), area(b) / area(x), Eq. 3; 0 for a box without area."""
        image_area = self.image_sizes_px[:, 0] * self.image_sizes_px[:, 1]
        return self.area_px / image_area[self.image_index]

    @cached_property
    def inverse_area(self) -> FloatArray:
        """(m,), 1 / area(b) in px^-2; 0 for a box without area, whose overlap therefore adds nothing."""
        area = self.area_px
        return np.divide(1.0, area, out=np.zeros_like(area), where=area > 0.0)


@dataclass(frozen=True, kw_only=True)
class ErrorMass:
    """How much every box belongs to one error set: certain with ground truth, a mean without.

    Attributes:
        probability: (m,), P(box is in the set); 0 or 1 where outcomes are known.
        tp_overlap_px: (m,), E[1(box is in the set) * area shared with true positives], px².
    """

    probability: FloatArray
    tp_overlap_px: FloatArray


@dataclass(frozen=True, kw_only=True)
class ErrorSets:
    """Both error sets of n images.

    Attributes:
        fp_boxes: Detections.
        fp: Their mass as false positives.
        fn_boxes: Ground truth, or detections that stand for it.
        fn: Their mass as false negatives.
        n_images: Images that the boxes' `image_index` runs over.
    """

    fp_boxes: ErrorBoxes
    fp: ErrorMass
    fn_boxes: ErrorBoxes
    fn: ErrorMass
    n_images: int
    _sums: dict[tuple[BoxWeight, float, str], FloatArray] = field(default_factory=dict, repr=False)

    def weighted_sum(self, weight: BoxWeight, overlap_power: float, side: Side) -> FloatArray:
        """(n_images,): sum of `weighted` over the boxes of every image; worked out once for all queries."""
        key = (weight, overlap_power, side)
        if key not in self._sums:
            boxes = self.fp_boxes if side == "fp" else self.fn_boxes
            values = self.weighted(weight, overlap_power, side)
            self._sums[key] = sums_at(boxes.image_index, values, self.n_images)
        return self._sums[key]

    def weighted(self, weight: BoxWeight, overlap_power: float, side: Side) -> FloatArray:
        """(m,): weight of every box times its mass in an error set, see `Term`."""
        boxes, mass = (self.fp_boxes, self.fp) if side == "fp" else (self.fn_boxes, self.fn)
        if overlap_power == 0.0:
            return weight(boxes) * mass.probability
        overlap = mass.tp_overlap_px * boxes.inverse_area
        return weight(boxes) * (overlap if overlap_power == 1.0 else overlap**overlap_power)


BoxWeight = Callable[[ErrorBoxes], FloatArray]


@dataclass(frozen=True, kw_only=True)
class Term:
    """Errors of one set, weighed and reduced to one number an image.

    Attributes:
        errors: fp, fn, or false = fp and fn.
        weight: Boxes -> (m,) weight of each, >= 0 and finite; 0 for boxes that do not count. Hashable: equal
            ones are worked out once.
        overlap_power: Every weight is multiplied by (area shared with true positives / own area) to this
            power; 0 leaves overlap out.
        reduce: `sum`, `max`, or `any`: 1 where any box with a weight above 0 is an error.
    """

    errors: ErrorSet
    weight: BoxWeight
    overlap_power: float = 0.0
    reduce: Reduction = "sum"

    def value(self, sets: ErrorSets) -> FloatArray:
        """(images,): the term's value; its expectation for sums with overlap_power 0 or 1, else outcomes must
        be known."""
        sides = [side for side in get_args(Side) if self.errors in (side, "false")]
        if self.reduce == "sum":
            sums = [sets.weighted_sum(self.weight, self.overlap_power, side) for side in sides]
            return sums[0] if len(sums) == 1 else sums[0] + sums[1]
        largest = np.zeros(sets.n_images)
        for side in sides:
            boxes = sets.fp_boxes if side == "fp" else sets.fn_boxes
            np.maximum.at(largest, boxes.image_index, sets.weighted(self.weight, self.overlap_power, side))
        return (largest > 0.0).astype(np.float64) if self.reduce == "any" else largest


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """1 where a term compares with another or with a number, else 0."""

    left: Term
    op: Operator
    right: Term | float

    def value(self, sets: ErrorSets) -> FloatArray:
        """(images,), 0 or 1; outcomes must be known."""
        left = self.left.value(sets)
        right = self.right.value(sets) if isinstance(self.right, Term) else np.float64(self.right)
        # Sums of decimals such as 3 x 0.1 and 0.3 are equal, whatever binary arithmetic makes of them.
        size = np.maximum(np.abs(left), np.abs(right))
        difference = np.where(np.abs(left - right) <= 1e-9 * size, 0.0, left - right)
        return COMPARE[self.op](difference, 0.0).astype(np.float64)


def read_only(sets: ErrorSets) -> ErrorSets:
    """The same error sets, whose arrays cannot be written to."""

    def frozen(values: Any) -> Any:
        arrays = {f.name: getattr(values, f.name) for f in fields(values)}
        views = {name: array.view() for name, array in arrays.items() if isinstance(array, np.ndarray)}
        for view in views.values():
            view.setflags(write=False)
        return replace(values, **views)

    return ErrorSets(
        fp_boxes=frozen(sets.fp_boxes),
        fp=frozen(sets.fp),
        fn_boxes=frozen(sets.fn_boxes),
        fn=frozen(sets.fn),
        n_images=sets.n_images,
    )


class KnownErrors(Protocol):
    """A function of known outcomes, such as a plugin."""

    def value(self, sets: ErrorSets) -> FloatArray:
        """(images,), finite and >= 0."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A hardness query: its name in the hardness table, and what it computes."""

    name: str
    rule: Term | Comparison | KnownErrors

    @property
    def is_linear(self) -> bool:
        """Whether its expectation follows from every box's own error mass: additive and pairwise queries."""
        rule = self.rule
        return isinstance(rule, Term) and rule.reduce == "sum" and rule.overlap_power in (0.0, 1.0)


def with_fixed_weights(queries: Sequence[Query], boxes: ErrorBoxes) -> list[Query]:
    """The queries with their weights on `boxes` worked out once, for use sample after sample."""

    known: dict[BoxWeight, BoxWeight] = {}

    def fixed(term: Term) -> Term:
        if term.weight not in known:
            weights = term.weight(boxes)
            known[term.weight] = lambda _: weights
        return replace(term, weight=known[term.weight])

    found = []
    for query in queries:
        rule = query.rule
        if isinstance(rule, Term):
            rule = fixed(rule)
        elif isinstance(rule, Comparison):
            right = fixed(rule.right) if isinstance(rule.right, Term) else rule.right
            rule = replace(rule, left=fixed(rule.left), right=right)
        found.append(replace(query, rule=rule))
    return found


def query_values(queries: Sequence[Query], sets: ErrorSets) -> FloatArray:
    """Value of every query on every image.

    Args:
        queries: Queries to evaluate.
        sets: Known outcomes, or, for linear queries only, means.

    Returns:
        (len(queries), n_images), float64, >= 0; 0 for an image without errors but in comparisons.
    """
    values = np.zeros((len(queries), sets.n_images))
    for row, query in zip(values, queries, strict=True):
        row += query.rule.value(sets)
    return values


def unit_weight(boxes: ErrorBoxes) -> FloatArray:
    """1 for every box: the query counts errors."""
    return np.ones(len(boxes.labels))


def image_fraction(boxes: ErrorBoxes) -> FloatArray:
    """area(b) / area(x), Eq. 3."""
    return boxes.area_share


_BUILT_IN_WEIGHTS: dict[str, tuple[BoxWeight, float]] = {
    "total": (unit_weight, 0.0),
    "pixel_adj": (image_fraction, 0.0),
    "occ_aware": (unit_weight, 1.0),
}

BUILT_IN_QUERIES: dict[str, Query] = {
    f"{prefix}_{errors}": Query(
        name=f"{prefix}_{errors}", rule=Term(errors=errors, weight=weight, overlap_power=power)
    )
    for prefix, (weight, power) in _BUILT_IN_WEIGHTS.items()
    for errors in get_args(ErrorSet)
}


def queries_named(names: Sequence[str], defined: Sequence[Query] = ()) -> tuple[Query, ...]:
    """The queries of these names.

    Args:
        names: Such as `total_fp` or `occ_aware_false`, or of a defined query.
        defined: Queries beside the built-in ones.

    Returns:
        Queries in the order asked for.

    Raises:
        QuarryError: An unknown name; the message has the nearest known ones.
    """
    known = BUILT_IN_QUERIES | {query.name: query for query in defined}
    for name in names:
        if name not in known:
            raise QuarryError(f"no query {name!r}; {nearest(name, known)}")
    return tuple(known[name] for name in names)
